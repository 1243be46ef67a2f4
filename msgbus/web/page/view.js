/**
 * Show messages of strangers in a page, without obeying them.
 *
 * The page must forbid by its `Content-Security-Policy` whatever it does not need itself:
 * frames inherit that.
 *
 * @module
 */

import { BusError, signIn, subscribe, timeOf } from "./msgbus.js";

/** @import { Message, State } from "./msgbus.js" */

/** Of longer texts, so many bytes are shown. */
const TEXT_BYTES = 16 * 1024;

/** Of longer values of headers, so many characters. */
const HEADER_CHARACTERS = 1000;

/** A larger page would hold up ours: it is offered as a file. */
const PAGE_BYTES = 256 * 1024;

/** For how long something is being drawn, if it does not freeze the page. */
const DRAWING_MILLISECONDS = 2000;

/** Types that are text, beside `text/*`. */
const TEXT = /^(text\/.*|application\/((.+\+)?(json|xml|yaml)|javascript|x-ndjson|toml|sql))$/;

/**
 * The elements of a page whose addresses some browsers connect to before they notice that the
 * policy forbids to load anything from there.
 */
const LEADING = /<(\/?)(?=(?:a|area|link|i?frame|object|embed|math)[\s\/>])/gi;

/**
 * What is put ahead of a message that is a page.  Its frame gives it no scripts, no origin, no
 * forms and no way out; this policy forbids it to load anything.
 */
const FRAME_HEAD =
  "<!doctype html>" +
  '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';' +
  " style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">" +
  "<style>no-a { text-decoration: underline; }</style>";

/**
 * An element that shows the body of a message: HTML in a frame that can do nothing,
 * pictures, text, and the rest as a file to save.
 *
 * @param {Message} message
 */
export function show(message) {
  const type = mediaType(message);
  if (type.startsWith("image/")) return cautiously(message, () => picture(message, type));
  if (type === "text/html" && message.body.length <= PAGE_BYTES) {
    return cautiously(message, () => frame(message));
  }
  if (TEXT.test(type)) return text(message);
  return file(message);
}

/** The ids of the messages that are being drawn.  The window keeps them if the page freezes. */
const drawing = new Set();

/** The ids that the page before this one was drawing, if it froze and was closed or killed. */
const suspects = recalled();

/**
 * Draw a message that may be made to keep a browser busy for ever.  If the page froze while it
 * drew this message before, the message is offered as a file instead.
 *
 * @param {Message} message
 * @param {() => HTMLElement} draw
 */
function cautiously(message, draw) {
  if (suspects.includes(message.id)) return file(message);
  drawing.add(message.id);
  remember();
  setTimeout(() => {
    drawing.delete(message.id);
    remember();
  }, DRAWING_MILLISECONDS);
  return draw();
}

// A page that is not frozen notices that it is left, so nothing that it draws is suspect.
addEventListener("pagehide", () => {
  drawing.clear();
  remember();
});

function remember() {
  try {
    sessionStorage.setItem("drawing", JSON.stringify([...drawing]));
  } catch {
    // A browser may have no storage.
  }
}

/** @returns {string[]} */
function recalled() {
  try {
    return JSON.parse(sessionStorage.getItem("drawing") ?? "[]");
  } catch {
    return [];
  }
}

/**
 * The media type of a message, in lower case and without parameters.
 *
 * @param {{type: string}} message
 */
export function mediaType({ type }) {
  return type.split(";", 1)[0].trim().toLowerCase();
}

/**
 * A number of bytes, for people.
 *
 * @param {number} bytes
 */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  const unit = bytes < 999_950 ? "kB" : "MB";
  return `${(bytes / (unit === "kB" ? 1e3 : 1e6)).toFixed(1)} ${unit}`;
}

/**
 * A new element, with these properties and children.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Partial<HTMLElementTagNameMap[Tag]>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/**
 * The part of the page with this id.
 *
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function part(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`There is no ${id}.`);
  return found;
}

/**
 * Who sent a message, apart from the text around it, whatever its direction.
 *
 * @param {Message} message
 */
export function senderOf({ sender }) {
  const className = sender ? "sender" : "nobody";
  return element("bdi", { className, textContent: sender || "nobody" });
}

/**
 * A time of today, or another day's with its date.
 *
 * @param {Date} time
 */
export function clock(time) {
  const today = time.toDateString() === new Date().toDateString();
  const told = today ? time.toLocaleTimeString() : time.toLocaleString();
  const dateTime = time.toISOString();
  return element("time", { dateTime, title: dateTime, textContent: told });
}

/**
 * An item of a log: a message below who sent it, when, and of which type.
 *
 * @param {Message} message
 * @param {...Node} more - What else is to be told of it.
 */
export function article(message, ...more) {
  const time = timeOf(message);
  const type = element("span", { className: "type", textContent: mediaType(message) });
  const head = element("header", {}, senderOf(message), ...more, ...(time ? [clock(time)] : []), type);
  const headers = Object.entries(message.headers);
  return element("article", {}, head, ...(headers.length ? [told(headers)] : []), show(message));
}

/**
 * The headers that travel with a message, to be opened.
 *
 * @param {[string, string][]} headers
 */
function told(headers) {
  const many = headers.length === 1 ? "1 header" : `${headers.length} headers`;
  const list = element("dl", {});
  for (const [name, value] of headers) {
    const { length } = value;
    const shown = length > HEADER_CHARACTERS ? `${value.slice(0, HEADER_CHARACTERS)}…` : value;
    list.append(element("dt", { textContent: name }));
    list.append(element("dd", { dir: "auto", textContent: shown }));
  }
  return element("details", { className: "headers" }, element("summary", { textContent: many }), list);
}

/** The signed link in the address of this page, which gives it the right to what it shows. */
const LINK = new URLSearchParams(location.search).get("link");

/**
 * The address of a channel or a folder, with the link of this page, if it has one.  The bus judges
 * the name, except for segments that a browser would resolve before it asks the bus.
 *
 * @param {URL} bus
 * @param {string} name
 */
export function addressOf(bus, name) {
  const segments = name.split("/");
  if (segments.some((segment) => segment === "." || segment === "..")) {
    throw new BusError("No segment of a name begins with a dot.", 0, false);
  }
  const address = new URL(`./${segments.map(encodeURIComponent).join("/")}`, bus);
  if (LINK) address.search = `link=${encodeURIComponent(LINK)}`;
  return address;
}

/**
 * The address of the list of a folder, with the link of this page, if it has one.
 *
 * @param {URL} bus
 * @param {string} folder
 */
export function listOf(bus, folder) {
  const address = addressOf(bus, folder);
  address.search = address.search ? `list&${address.search.slice(1)}` : "list";
  return address;
}

/**
 * Write the name of a channel or folder into a heading, in which each folder above it is a link.
 *
 * @param {HTMLHeadingElement} way
 * @param {URL} bus
 * @param {string} name
 * @param {(bus: URL, folder: string) => URL} leading - Where the link of a folder leads.
 */
export function heading(way, bus, name, leading) {
  way.append(element("a", { href: leading(bus, "").href, textContent: "msgbus" }));
  const segments = name.split("/");
  segments.forEach((segment, index) => {
    way.append(element("span", { className: "slash", textContent: "/" }));
    if (!segment) return;
    const { href } = leading(bus, [...segments.slice(0, index + 1), ""].join("/"));
    const words = element("bdi", { textContent: segment });
    const last = index === segments.length - 1;
    way.append(last ? words : element("a", { href }, words));
  });
}

/**
 * A sentence for what went wrong.
 *
 * @param {unknown} error
 */
export function sentenceOf(error) {
  return error instanceof BusError ? error.message : String(error);
}

/**
 * Publish under the name in a field.  If the bus accepts names only with a password, have the
 * browser ask for both, and publish under the name with which its user has signed in.  From
 * then on, the field cannot be used.
 *
 * @template T
 * @param {HTMLInputElement} field
 * @param {URL} bus
 * @param {(user: string | undefined) => Promise<T>} send - Publishes under this name, or, if
 *   there is none, as whoever has signed in.
 * @param {string} [user] - The name that was in the field, if it may have changed.
 */
export async function publishAs(field, bus, send, user = field.value) {
  if (field.disabled || !user) return send(undefined);
  try {
    return await send(user);
  } catch (error) {
    if (!(error instanceof BusError) || error.status !== 401) throw error;
  }
  await signIn(bus);
  fix(field);
  return send(undefined);
}

/**
 * Show in a field for a name that its user has signed in, under a name that a page cannot know.
 *
 * @param {HTMLInputElement} field
 */
export function fix(field) {
  field.disabled = true;
  field.value = "";
  field.placeholder = "as you signed in";
}

/**
 * Publish whenever a form is submitted, and say what has come of it.
 *
 * @param {HTMLFormElement} form
 * @param {HTMLOutputElement} outcome
 * @param {() => Promise<{subscribers: number}>} send
 */
export function publishing(form, outcome, send) {
  let busy = false;
  form.onsubmit = async (event) => {
    event.preventDefault();
    // A second click does not publish a second time.
    if (busy) return;
    busy = true;
    outcome.dataset.state = "";
    outcome.textContent = "Publishing…";
    try {
      const { subscribers } = await send();
      outcome.textContent = `Published, for ${subscribers} subscriber${subscribers === 1 ? "" : "s"}.`;
    } catch (error) {
      // What was typed stays where it is.
      outcome.dataset.state = "closed";
      outcome.textContent = sentenceOf(error);
    }
    busy = false;
  };
}

/**
 * A button by which the user of the browser signs in.
 *
 * @param {HTMLButtonElement} button
 * @param {URL} bus
 * @param {HTMLElement} output - Where to say what went wrong.
 * @param {() => void} [signedIn] - Called then; unless given, the page is loaded again.
 */
export function signingIn(button, bus, output, signedIn = () => location.reload()) {
  button.onclick = async () => {
    try {
      await signIn(bus);
      signedIn();
    } catch (error) {
      output.textContent = sentenceOf(error);
    }
  };
}

/**
 * Show in a log what comes on a channel, and in an output what has become of the
 * subscription.
 *
 * @param {Log} log
 * @param {HTMLElement} output
 * @param {() => string | URL} address
 * @param {Parameters<typeof subscribe>[1]} options
 */
export async function watch(log, output, address, options) {
  /** @param {State} state */
  const onstate = (state) => showState(output, state);
  try {
    await subscribe(address(), {
      onmessage: (message) => log.add(message),
      ...options,
      onstate,
      ongap: (count) => log.gap(count),
    });
  } catch (error) {
    onstate({ name: "closed", reason: sentenceOf(error), seconds: 0 });
    if (!(error instanceof BusError)) throw error;
  }
}

/**
 * @param {HTMLElement} output
 * @param {State} state
 */
function showState(output, { name, reason, seconds }) {
  // A screen reader need not announce every try to connect again.
  if (name === "connecting" && output.dataset.state === "lost") return;
  const told = {
    connecting: "Connecting…",
    open: "Live",
    lost: `${reason} Trying again in ${Math.ceil(seconds)} s.`,
    closed: reason || "Closed.",
  };
  output.dataset.state = name;
  output.textContent = told[name];
  if (name === "closed") {
    output.append(" ", element("a", { href: location.href, textContent: "Reload" }));
  }
}

/**
 * A list that shows the last messages.  If they come faster than a page can draw them, it leaves
 * some out, and says how many.  It keeps the newest in view, unless its reader has scrolled up.
 */
export class Log {
  /** How many messages are shown at most, and how many bytes; as many may wait to be drawn. */
  static KEPT = 200;
  static KEPT_BYTES = 32e6;

  /** How many messages are drawn at once, and how often. */
  static DRAWN = 25;
  static MILLISECONDS = 100;

  /** @type {Bounded<() => HTMLElement>} */
  #waiting = new Bounded(Log.KEPT, Log.KEPT_BYTES);
  /** @type {Bounded<HTMLElement>} */
  #kept = new Bounded(Log.KEPT, Log.KEPT_BYTES);
  #skipped = 0;
  #following = true;
  #paused = false;
  #live = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {HTMLElement} list - Scrolls.
   * @param {(message: Message) => HTMLElement} draw - An item for one message.
   */
  constructor(list, draw) {
    this.list = list;
    this.draw = draw;
    list.addEventListener("scroll", () => {
      const below = list.scrollHeight - list.scrollTop - list.clientHeight;
      this.#following = below < 60;
    });
    // A picture takes its height only once it has loaded.
    this.grown = new ResizeObserver(() => this.#follow());
    this.grown.observe(list);
  }

  /** How many messages wait while it is paused. */
  get waiting() {
    return this.#waiting.items.length + this.#skipped;
  }

  /** @param {Message} message */
  add(message) {
    const { waiting, list } = this;
    const first = this.#live && (waiting > 0 || list.childElementCount > 0);
    this.#live = false;
    const drawn = () => {
      const item = this.draw(message);
      item.classList.toggle("live", first);
      return item;
    };
    // What a message costs beyond its body.
    this.#put(drawn, message.body.length + 1000);
  }

  /** The next message is the first that is new: it says so, if older ones are above it. */
  live() {
    this.#live = true;
  }

  /** @param {number | null} count - So many messages are missing here. */
  gap(count) {
    this.#put(() => note(count, "missing here"), 0);
  }

  /** @param {boolean} paused */
  set paused(paused) {
    this.#paused = paused;
    this.#later(0);
  }

  get paused() {
    return this.#paused;
  }

  #follow() {
    if (this.#following) this.list.scrollTop = this.list.scrollHeight;
  }

  /**
   * @param {() => HTMLElement} drawn
   * @param {number} bytes
   */
  #put(drawn, bytes) {
    this.#skipped += this.#waiting.put(drawn, bytes).length;
    this.#later(Log.MILLISECONDS);
  }

  /** @param {number} milliseconds */
  #later(milliseconds) {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (!this.#paused) this.#draw();
    }, milliseconds);
  }

  #draw() {
    const more = this.#waiting.items.length > Log.DRAWN;
    // A screen reader cannot read as fast.
    this.list.ariaBusy = String(more || this.#skipped > 0);
    if (this.#skipped) this.#keep(note(this.#skipped, "not shown here"), 0);
    this.#skipped = 0;
    for (const { item, bytes } of this.#waiting.take(Log.DRAWN)) this.#keep(item(), bytes);
    this.#follow();
    if (more) this.#later(Log.MILLISECONDS);
  }

  /**
   * @param {HTMLElement} item
   * @param {number} bytes
   */
  #keep(item, bytes) {
    this.list.append(item);
    this.grown.observe(item);
    for (const oldest of this.#kept.put(item, bytes)) {
      // What is being read stays where it is.
      const before = this.list.scrollHeight;
      // Else some browsers keep it.
      this.grown.unobserve(oldest);
      oldest.remove();
      if (!this.#following) this.list.scrollTop -= before - this.list.scrollHeight;
    }
  }
}

/**
 * A queue of so many items, and so many bytes, but always one.
 *
 * @template T
 */
class Bounded {
  /** @type {{item: T, bytes: number}[]} */
  items = [];
  #bytes = 0;
  #count;
  #limit;

  /**
   * @param {number} count
   * @param {number} limit - Of bytes.
   */
  constructor(count, limit) {
    this.#count = count;
    this.#limit = limit;
  }

  /**
   * Put one at the end.
   *
   * @param {T} item
   * @param {number} bytes
   * @returns {T[]} Those that there is no room for any more: the oldest.
   */
  put(item, bytes) {
    this.items.push({ item, bytes });
    this.#bytes += bytes;
    const dropped = [];
    while (
      this.items.length > this.#count ||
      (this.items.length > 1 && this.#bytes > this.#limit)
    ) {
      dropped.push(...this.take(1).map((one) => one.item));
    }
    return dropped;
  }

  /** @param {number} count - Of the oldest. */
  take(count) {
    const taken = this.items.splice(0, count);
    for (const { bytes } of taken) this.#bytes -= bytes;
    return taken;
  }
}

/**
 * @param {number | null} count
 * @param {string} what
 */
function note(count, what) {
  const messages = count === 1 ? "1 message is" : `${count?.toLocaleString("en") ?? "Some"} messages are`;
  return element("p", { className: "note", textContent: `${messages} ${what}` });
}

/** @param {Message} message */
function text(message) {
  const shown = decode(message, TEXT_BYTES) || "(empty)";
  const made = element("pre", { dir: "auto", textContent: shown });
  // Else it could not be scrolled by keyboard.
  if (message.body.length > 1000) made.tabIndex = 0;
  if (message.body.length <= TEXT_BYTES) return made;
  return element("div", {}, made, "… ", file(message));
}

/**
 * @param {Message} message
 * @param {number} [bytes]
 */
function decode({ type, body }, bytes = Infinity) {
  const charset = /;\s*charset\s*=\s*"?([^\s;"]+)/i.exec(type)?.[1] ?? "utf-8";
  let decoder;
  try {
    decoder = new TextDecoder(charset);
  } catch {
    decoder = new TextDecoder();
  }
  return decoder.decode(body.subarray(0, bytes), { stream: body.length > bytes });
}

/** @param {Message} message */
function frame(message) {
  const html = decode(message).replace(LEADING, "<$1no-");
  const title = `HTML from ${message.sender || "nobody"} in ${message.channel}`;
  const made = element("iframe", { title, srcdoc: FRAME_HEAD + html, tabIndex: 0 });
  made.setAttribute("sandbox", "");
  made.referrerPolicy = "no-referrer";
  return made;
}

/**
 * A picture, by a `data:` URL: unlike a `blob:` one, that has not our origin, if it is
 * opened as a page of its own.  An SVG in an `<img>` runs no scripts, and loads nothing.
 *
 * @param {Message} message
 * @param {string} type
 */
function picture(message, type) {
  const made = element("img", { alt: `A picture of ${size(message.body.length)}` });
  made.onerror = () => made.replaceWith(file(message));
  const reader = new FileReader();
  reader.onload = () => (made.src = String(reader.result));
  reader.readAsDataURL(new Blob([message.body], { type }));
  return made;
}

/** @param {Message} message */
function file(message) {
  const label = `Save ${size(message.body.length)} of ${mediaType(message)}`;
  const button = element("button", { type: "button", className: "save", textContent: label });
  button.onclick = () => {
    // As bytes, so that no browser opens it as a page of ours.
    const blob = new Blob([message.body], { type: "application/octet-stream" });
    const href = URL.createObjectURL(blob);
    const download = message.channel.split("/").filter(Boolean).at(-1) ?? "message";
    element("a", { href, download }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  };
  return button;
}
