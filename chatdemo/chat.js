/**
 * A chat: what is typed, pasted, dropped or chosen is published in one channel, the room,
 * each under its own media type; what is published there is shown.
 *
 * @module
 */

import "./msgbus/.js/look.js";
import { BusError, publish, randomKey, timeOf } from "./msgbus/.js/msgbus.js";
import {
  addressOf,
  clock,
  element,
  Log,
  part,
  publishAs,
  senderOf,
  sentenceOf,
  show,
  size,
  watch,
} from "./msgbus/.js/view.js";

/** @import { Message } from "./msgbus/.js/msgbus.js" */

/**
 * What is to be sent.
 *
 * @typedef {object} Letter
 * @property {string} key - By which the bus knows it, if it comes twice.
 * @property {string} user - Who sends it.
 * @property {string} type
 * @property {string | Blob} body
 * @property {HTMLLIElement} item
 * @property {string} reason - Why it was refused, or the empty string.
 */

/** How many of the last messages somebody gets who joins. */
const LAST = 50;

const TEXT = "text/plain; charset=utf-8";

/** A picture that is too large is sent smaller: so many pixels at its longer side. */
const PIXELS = 1600;

/**
 * A larger picture is sent smaller at once: a bus may close the connection before it has said that
 * the picture is too large.
 */
const LARGE_BYTES = 4_000_000;

/** For how long a file is sent again; what was typed after it has to wait. */
const FILE_SECONDS = 60;
const QUALITY = 0.85;
const AGAIN = 0.7;

/** A message that is sent within this time is never shown as "Not sent yet". */
const SOON_MILLISECONDS = 500;

const BUS = new URL("./msgbus/", import.meta.url);
const ROOM = new URLSearchParams(location.search).get("room") || "lobby";

const box = part("box", HTMLTextAreaElement);
const file = part("file", HTMLInputElement);
const form = part("form", HTMLFormElement);
const name = part("name", HTMLInputElement);
const outbox = part("outbox", HTMLOListElement);
const log = new Log(part("log", HTMLElement), item);

/** The ids of what was sent from this window: a name does not tell, since others may have it. */
const mine = new Set(recalled("mine"));
/** @type {Letter[]} */
const letters = [];
let sending = false;
let unread = 0;

/** @param {Message} message */
function item(message) {
  const time = timeOf(message);
  const head = element("header", {}, senderOf(message), ...(time ? [clock(time)] : []));
  const made = element("article", {}, head, show(message));
  made.dataset.id = message.id;
  made.classList.toggle("mine", mine.has(message.id));
  return made;
}

/**
 * Put something into the box of what is to be sent, from where it goes once it has
 * arrived.
 *
 * @param {string | Blob} body
 * @param {string} type
 * @param {string} [user]
 * @param {string} [key]
 */
function send(body, type, user = name.value, key = randomKey()) {
  const what = typeof body === "string" ? body : `A file of ${size(body.size)}`;
  const text = element("pre", { dir: "auto", textContent: what });
  const item = element("li", {}, text, element("output", { textContent: "Not sent yet" }));
  const letter = { key, user, type, body, item, reason: "" };
  letters.push(letter);
  setTimeout(() => letters.includes(letter) && outbox.append(item), SOON_MILLISECONDS);
  keep();
  work();
}

/** Send what is in the box, one after the other. */
async function work() {
  if (sending) return;
  sending = true;
  for (let letter; (letter = letters.find(({ reason }) => !reason)); ) {
    try {
      sent(await deliver(letter));
      forget(letter);
    } catch (error) {
      letter.reason = sentenceOf(error);
      refused(letter);
    }
  }
  sending = false;
}

/** @param {Letter} letter */
function forget(letter) {
  letters.splice(letters.indexOf(letter), 1);
  letter.item.remove();
  keep();
}

/**
 * @param {Letter} letter
 * @returns {Promise<string>} The id of what it became.
 */
async function deliver(letter) {
  const smaller = async () => {
    const { body } = letter;
    const made = typeof body === "string" ? null : await shrunk(body);
    if (made) Object.assign(letter, { body: made, type: made.type, key: randomKey() });
    return made !== null;
  };
  if (typeof letter.body !== "string" && letter.body.size > LARGE_BYTES) await smaller();
  for (;;) {
    const { type, body, key, user } = letter;
    const patience = typeof body === "string" ? Infinity : FILE_SECONDS;
    try {
      const where = addressOf(BUS, ROOM);
      const send = (/** @type {string | undefined} */ user) =>
        publish(where, body, type, { user, key, patience });
      return (await publishAs(name, BUS, send, user)).id;
    } catch (error) {
      if (!(error instanceof BusError)) throw error;
      if (error.status !== 413 || !(await smaller())) throw error;
    }
  }
}

/** @param {string} id */
function sent(id) {
  mine.add(id);
  remember("mine", [...mine].slice(-2 * LAST));
  // It may have come back before we knew its id.
  for (const shown of log.list.children) {
    if (shown instanceof HTMLElement && shown.dataset.id === id) shown.classList.add("mine");
  }
}

/**
 * Show why the bus refused a message, with buttons to send it again and to forget it.
 *
 * @param {Letter} letter
 */
function refused(letter) {
  const { item, body, type, reason } = letter;
  const again = element("button", { type: "button", textContent: "Send again" });
  again.onclick = () => {
    forget(letter);
    send(body, type);
    box.focus();
  };
  const no = element("button", { type: "button", textContent: "Forget it" });
  no.onclick = () => {
    forget(letter);
    box.focus();
  };
  const told = element("output", { textContent: reason });
  told.dataset.state = "lost";
  item.replaceChildren(item.children[0], told, again, " ", no);
  outbox.append(item);
}

/**
 * The same picture, smaller; null if this is no picture, or cannot be made smaller.
 *
 * @param {Blob} picture
 * @returns {Promise<Blob | null>}
 */
async function shrunk(picture) {
  if (!picture.type.startsWith("image/") || picture.type.startsWith("image/svg")) return null;
  const bitmap = await createImageBitmap(picture).catch(() => null);
  if (!bitmap) return null;
  const longer = Math.max(bitmap.width, bitmap.height);
  // A JPEG that has few pixels already would not become smaller without losing some.
  const less = picture.type === "image/jpeg" ? AGAIN : 1;
  const scale = longer > PIXELS ? PIXELS / longer : less;
  const canvas = element("canvas", {
    width: Math.round(bitmap.width * scale),
    height: Math.round(bitmap.height * scale),
  });
  const context = canvas.getContext("2d");
  if (!context) return null;
  // A JPEG has no transparency; without this, transparent parts would become black.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  /** @type {Blob | null} */
  const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return made && made.size < picture.size ? made : null;
}

/** @param {Iterable<File>} files */
async function sendFiles(files) {
  if (!named()) return;
  for (const one of [...files]) {
    const type = one.type || "application/octet-stream";
    // Read the file now, since it may be gone when its turn comes.
    const bytes = await one.arrayBuffer().catch(() => null);
    if (bytes) send(new Blob([bytes], { type }), type);
    else alert(`${one.name} cannot be read.`);
  }
}

function sendText() {
  if (!box.value.trim() || !named()) return;
  send(box.value, TEXT);
  box.value = "";
  keep();
}

/** Has the user entered a name?  If not, the browser asks for one. */
function named() {
  // In Basic authentication, a colon ends the name.
  name.value = name.value.replaceAll(":", "").trim();
  return name.reportValidity();
}

/** Keep what was typed, so that it survives a reload.  Files are too large for that. */
function keep() {
  const texts = letters.filter(({ body }) => typeof body === "string");
  remember("letters", texts.map(({ body, type, user, key }) => [body, type, user, key]));
  remember("draft", [box.value]);
}

/**
 * What was kept for this room, in this window.
 *
 * @param {string} what
 * @returns {any[]}
 */
function recalled(what) {
  try {
    return JSON.parse(sessionStorage.getItem(`${what} ${ROOM}`) ?? "[]");
  } catch {
    // A browser may have none.
    return [];
  }
}

/**
 * @param {string} what
 * @param {unknown[]} values
 */
function remember(what, values) {
  try {
    sessionStorage.setItem(`${what} ${ROOM}`, JSON.stringify(values));
  } catch {
    // It may be full, or there may be none.
  }
}

function naming() {
  name.onkeydown = (event) => {
    if (event.key === "Enter") box.focus();
  };
  try {
    // Another window may have another one.
    name.value = sessionStorage.getItem("name") ?? localStorage.getItem("name") ?? "";
    name.onchange = () => {
      sessionStorage.setItem("name", name.value);
      localStorage.setItem("name", name.value);
    };
  } catch {
    // Then it is asked for again.
  }
}

function typing() {
  box.value = recalled("draft")[0] ?? "";
  box.oninput = keep;
  box.onkeydown = (event) => {
    // While a word is composed, Enter chooses it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    sendText();
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    sendText();
  };
  addEventListener("beforeunload", (event) => {
    if (letters.some(({ body }) => typeof body !== "string")) event.preventDefault();
  });
}

function giving() {
  part("choose", HTMLButtonElement).onclick = () => file.click();
  file.onchange = () => {
    const chosen = [...(file.files ?? [])];
    file.value = "";
    sendFiles(chosen);
  };
  addEventListener("paste", (event) => {
    const files = event.clipboardData?.files;
    if (!files?.length) return;
    event.preventDefault();
    sendFiles(files);
  });
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  for (const over of ["dragleave", "drop"]) {
    addEventListener(over, () => document.body.classList.remove("dropping"));
  }
  addEventListener("drop", (event) => {
    const files = event.dataTransfer?.files;
    if (!files?.length) return;
    event.preventDefault();
    sendFiles(files);
  });
}

/** Say in the window's title how many have come that nobody has seen. */
function counting() {
  const title = () => (document.title = `${unread ? `(${unread}) ` : ""}${ROOM} · chat`);
  document.onvisibilitychange = () => {
    unread = 0;
    title();
  };
  title();
  return () => {
    if (!document.hidden) return;
    unread++;
    title();
  };
}

part("room", HTMLHeadingElement).append(element("bdi", { textContent: ROOM }));
naming();
typing();
giving();
const came = counting();
for (const [body, type, user, key] of recalled("letters")) send(body, type, user, key);
watch(log, part("state", HTMLOutputElement), () => addressOf(BUS, ROOM), {
  last: LAST,
  onmessage: (message) => {
    log.add(message);
    came();
  },
});
