/**
 * A chat: what is typed, pasted, dropped or chosen is published in one channel, the room,
 * each under its own media type; what is published there is shown.
 *
 * @module
 */

import "./msgbus/.js/look.js";
import { BusError, publish, randomKey, subscribe, timeOf } from "./msgbus/.js/msgbus.js";
import { clock, element, Log, part, senderOf, show, showState, size } from "./msgbus/.js/view.js";

/** @import { Message } from "./msgbus/.js/msgbus.js" */

/**
 * What is to be sent.
 *
 * @typedef {object} Letter
 * @property {string} key - By which the bus knows it, if it comes twice.
 * @property {string} type
 * @property {string | Blob} body
 * @property {HTMLLIElement} item
 */

/** Who joins gets so many of the last messages. */
const LAST = 50;

const TEXT = "text/plain; charset=utf-8";

/** A picture that is too large is sent smaller: so many pixels at its longer side. */
const PIXELS = 1600;
const QUALITY = 0.85;

const ROOM = new URLSearchParams(location.search).get("room") || "lobby";
const CHANNEL = new URL(
  ROOM.split("/").map(encodeURIComponent).join("/"),
  new URL("./msgbus/", import.meta.url),
);

const box = part("box", HTMLTextAreaElement);
const file = part("file", HTMLInputElement);
const form = part("form", HTMLFormElement);
const name = part("name", HTMLInputElement);
const outbox = part("outbox", HTMLOListElement);
const log = new Log(part("log", HTMLOListElement), item);

/** The ids of what was sent from here: a name is a claim, and anybody's. */
const mine = new Set(recalled("mine"));
/** @type {Letter[]} */
const letters = [];
let sending = false;
let unread = 0;
let signedIn = false;

/** @param {Message} message */
function item(message) {
  const time = timeOf(message);
  const head = element("header", {}, senderOf(message), ...(time ? [clock(time)] : []));
  const made = element("li", {}, head, show(message));
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
 * @param {string} [key]
 */
function send(body, type, key = randomKey()) {
  const what = typeof body === "string" ? body : `A file of ${size(body.size)}`;
  const text = element("pre", { dir: "auto", textContent: what });
  const item = element("li", {}, text, element("output", { textContent: "Sending…" }));
  outbox.append(item);
  letters.push({ key, type, body, item });
  keep();
  work();
}

/** Send what is in the box, one after the other. */
async function work() {
  if (sending) return;
  sending = true;
  for (let letter; (letter = letters[0]); ) {
    try {
      sent(await deliver(letter));
      letter.item.remove();
    } catch (error) {
      failed(letter, error instanceof BusError ? error.message : String(error));
    }
    letters.shift();
    keep();
  }
  sending = false;
}

/**
 * @param {Letter} letter
 * @returns {Promise<string>} The id of what it became.
 */
async function deliver(letter) {
  for (;;) {
    const { type, body, key } = letter;
    const user = signedIn ? undefined : name.value;
    try {
      return (await publish(CHANNEL, body, type, { user, key, patience: Infinity })).id;
    } catch (error) {
      if (!(error instanceof BusError)) throw error;
      if (error.status === 401 && !signedIn) {
        // The bus asks for a password, so the browser has one, with a name.
        signedIn = name.disabled = true;
        name.value = "";
        name.placeholder = "as you signed in";
        continue;
      }
      const smaller = error.status === 413 && typeof body !== "string" && (await shrunk(body));
      if (!smaller) throw error;
      Object.assign(letter, { body: smaller, type: smaller.type, key: randomKey() });
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
 * Nothing that was typed is lost: it can be sent again.
 *
 * @param {Letter} letter
 * @param {string} reason
 */
function failed({ item, body, type }, reason) {
  const again = element("button", { type: "button", textContent: "Send again" });
  again.onclick = () => {
    item.remove();
    send(body, type);
  };
  const forget = element("button", { type: "button", textContent: "Forget it" });
  forget.onclick = () => item.remove();
  const told = element("output", { textContent: reason });
  told.dataset.state = "lost";
  item.replaceChildren(item.children[0], told, again, forget);
}

/**
 * The same picture, smaller; null if it is none, or would not be.
 *
 * @param {Blob} picture
 * @returns {Promise<Blob | null>}
 */
async function shrunk(picture) {
  if (!picture.type.startsWith("image/") || picture.type.startsWith("image/svg")) return null;
  const bitmap = await createImageBitmap(picture);
  const scale = Math.min(1, PIXELS / Math.max(bitmap.width, bitmap.height));
  const canvas = element("canvas", {
    width: Math.round(bitmap.width * scale),
    height: Math.round(bitmap.height * scale),
  });
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  /** @type {Blob | null} */
  const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return made && made.size < picture.size ? made : null;
}

/** @param {Iterable<File>} files */
function sendFiles(files) {
  if (!named()) return;
  for (const one of files) send(one, one.type || "application/octet-stream");
}

function sendText() {
  if (!box.value.trim() || !named()) return;
  send(box.value, TEXT);
  box.value = "";
  keep();
}

/** Has the one who sends a name? */
function named() {
  // It goes before the password, behind a colon.
  name.value = name.value.replaceAll(":", "").trim();
  if (name.value || signedIn) return true;
  name.focus();
  name.placeholder = "first, your name";
  return false;
}

/** Keep what was typed over a reload: a file is too large for that. */
function keep() {
  const texts = letters.filter(({ body }) => typeof body === "string");
  remember("letters", texts.map(({ body, type, key }) => [body, type, key]));
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
  try {
    name.value = localStorage.getItem("name") ?? "";
    name.onchange = () => localStorage.setItem("name", name.value);
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
    sendFiles(file.files ?? []);
    file.value = "";
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
for (const [body, type, key] of recalled("letters")) send(body, type, key);
subscribe(CHANNEL, {
  last: LAST,
  onmessage: (message) => {
    log.add(message);
    came();
  },
  onstate: (state) => showState(part("state", HTMLOutputElement), state),
  ongap: (count) => log.gap(count),
}).catch((error) => {
  if (!(error instanceof BusError)) throw error;
});
