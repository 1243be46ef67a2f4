/**
 * Show messages of strangers in a page, without obeying them.
 *
 * The page must forbid by its `Content-Security-Policy` whatever it does not need itself:
 * frames inherit that.
 *
 * @module
 */

/** @import { Message, State } from "./msgbus.js" */

/** Of longer texts, so many bytes are shown. */
const TEXT_BYTES = 16 * 1024;

/** A larger page would hold up ours: it is offered as a file. */
const PAGE_BYTES = 256 * 1024;

/** Types that are text, beside `text/*`. */
const TEXT = /^(text\/.*|application\/((.+\+)?(json|xml|yaml)|javascript|x-ndjson|toml|sql))$/;

/**
 * To what these elements of a page lead, some browsers connect before they see that it is
 * forbidden to go there.
 */
const LEADING = /<(\/?)(?=(?:a|area|link|i?frame|object|embed)[\s\/>])/gi;

/**
 * What a message's page may do is nothing: no scripts, no origin, no forms, no way out, and
 * by this policy, nothing to load.
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
  if (type.startsWith("image/")) return picture(message, type);
  if (type === "text/html" && message.body.length <= PAGE_BYTES) return frame(message);
  if (TEXT.test(type)) return text(message);
  return file(message);
}

/**
 * The media type of a message, in lower case and without parameters.
 *
 * @param {Message} message
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
 * Say what has become of a subscription.
 *
 * @param {HTMLElement} output
 * @param {State} state
 */
export function showState(output, { name, reason, seconds }) {
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
 * A list of messages, of which the last are kept.  It draws as many as a page can, and says
 * how many it did not; and it stays at its end, unless its reader has gone up.
 */
export class Log {
  /** How many are kept, and of how many bytes together. */
  static KEPT = 200;
  static KEPT_BYTES = 32e6;

  /** Drawn at once, and how often. */
  static DRAWN = 25;
  static MILLISECONDS = 100;

  /** @type {{node: () => HTMLElement, bytes: number}[]} */
  #waiting = [];
  /** @type {{element: HTMLElement, bytes: number}[]} */
  #kept = [];
  #bytes = 0;
  #skipped = 0;
  #following = true;
  #paused = false;
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
    // Pictures grow once they are there.
    this.grown = new ResizeObserver(() => this.follow());
    this.grown.observe(list);
  }

  /** How many messages wait while it is paused. */
  get waiting() {
    return this.#waiting.length + this.#skipped;
  }

  /** @param {Message} message */
  add(message) {
    // What a message costs beyond its body.
    this.#put(() => this.draw(message), message.body.length + 1000);
  }

  /**
   * Say something between the messages.
   *
   * @param {string} sentence
   */
  note(sentence) {
    this.#put(() => element("li", { className: "note", textContent: sentence }), 100);
  }

  /** @param {number | null} count */
  gap(count) {
    this.note(`${count?.toLocaleString("en") ?? "Some"} messages are missing here`);
  }

  /** @param {boolean} paused */
  set paused(paused) {
    this.#paused = paused;
    this.#later(0);
  }

  get paused() {
    return this.#paused;
  }

  /** Go to the end, unless the reader is elsewhere. */
  follow() {
    if (this.#following) this.list.scrollTop = this.list.scrollHeight;
  }

  /**
   * @param {() => HTMLElement} node
   * @param {number} bytes
   */
  #put(node, bytes) {
    this.#waiting.push({ node, bytes });
    this.#bytes += bytes;
    // Of what nobody would see, only the last are drawn.
    while (this.#waiting.length > Log.KEPT || this.#tooLarge(this.#waiting)) {
      this.#bytes -= this.#waiting.shift()?.bytes ?? 0;
      this.#skipped++;
    }
    this.#later(Log.MILLISECONDS);
  }

  /** @param {number} milliseconds */
  #later(milliseconds) {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (!this.#paused) this.#drawAll();
    }, milliseconds);
  }

  #drawAll() {
    const busy = this.#skipped > 0 || this.#waiting.length > Log.DRAWN;
    // A screen reader cannot read as fast.
    this.list.ariaBusy = String(busy);
    if (this.#skipped) {
      const count = this.#skipped.toLocaleString("en");
      const sentence = `${count} messages not shown: they came too fast`;
      this.#keep(element("li", { className: "note", textContent: sentence }), 0);
      this.#skipped = 0;
    }
    for (const { node, bytes } of this.#waiting.splice(0, Log.DRAWN)) this.#keep(node(), bytes);
    while (this.#kept.length > Log.KEPT || this.#tooLarge(this.#kept)) {
      const oldest = this.#kept.shift();
      this.#bytes -= oldest?.bytes ?? 0;
      oldest?.element.remove();
    }
    this.follow();
    if (this.#waiting.length) this.#later(Log.MILLISECONDS);
  }

  /**
   * @param {HTMLElement} item
   * @param {number} bytes
   */
  #keep(item, bytes) {
    this.list.append(item);
    this.grown.observe(item);
    this.#kept.push({ element: item, bytes });
  }

  /** @param {unknown[]} items */
  #tooLarge(items) {
    return items.length > 1 && this.#bytes > Log.KEPT_BYTES;
  }
}

/** @param {Message} message */
function text(message) {
  const shown = decode(message, TEXT_BYTES);
  const made = element("pre", { dir: "auto", textContent: shown });
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
  const made = element("iframe", { title: "A page that was published", srcdoc: FRAME_HEAD + html });
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
