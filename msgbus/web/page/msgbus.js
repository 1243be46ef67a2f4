/**
 * Publish to a msgbus, and subscribe to it, from a web page or from Node.
 *
 * Uses `fetch()` and nothing else, and shows nothing: that is left to its callers.
 *
 * @module
 */

/** What a stream is asked for: WebKit's `fetch()` fails on the other multipart type. */
const ACCEPT = "multipart/mixed";

/** The seconds between two signs of life of the bus, unless the options name others. */
const HEARTBEAT_SECONDS = 25;

/** How long to wait for the answer to a publication, in addition to the time that sending takes. */
const ANSWER_SECONDS = 30;
const SLOWEST_BYTES_PER_SECOND = 10_000;

const FIRST_DELAY_SECONDS = 0.5;
const LAST_DELAY_SECONDS = 30;

/** After a stream that lasted for so long, the delays before further tries are short again. */
const GOOD_SECONDS = 5;

/** Below the root of the bus; its answer is 401 until somebody has signed in. */
const SIGN_IN = ".sign-in";

/** Answers that another try may change (RFC 9110, section 15; RFC 6585, section 4). */
const PASSING = [408, 429];

/** The names of headers that travel with a message, as far as a page needs to know. */
const TRAVELLING =
  /^(?:(?:ce|x)-[!-9;-~]+|content-(?:digest|disposition|encoding|language)|link|reply-to|signature(?:-input)?|trace(?:parent|state))$/;

const CODING = "content-encoding";

// What `DecompressionStream` calls the codings of HTTP.
/** @type {Map<string, CompressionFormat>} */
const FORMATS = new Map([
  ["gzip", "gzip"],
  ["x-gzip", "gzip"],
  ["deflate", "deflate"],
]);

/** The largest body that is made by undoing a coding: a few bytes can stand for billions. */
const MAX_DECODED = 64 * 1024 * 1024;
/** The parameters that say where a stream begins; an address has one of them at most. */
const BEGINNINGS = ["since", "last", "last-of-each"];

/** How many characters of a server's sentence are shown. */
const SENTENCE_CHARACTERS = 300;

/**
 * A message, as it was published.
 *
 * @typedef {object} Message
 * @property {string} id - Opaque; grows with every message of a bus; empty where the
 *   server gives none.
 * @property {string} channel
 * @property {string} type - Its media type, verbatim, with parameters.
 * @property {string} sender - The name that the publisher gave, or the empty string.  It
 *   is a claim, and any text: show it as text.
 * @property {string} origin - `LIFE/ID` of the bus at which it was published first, if a
 *   program has copied it from there to this bus; otherwise the empty string.
 * @property {Record<string, string>} headers - Those that travel with it, by names in lower
 *   case.
 * @property {number | null} maxAge - For how many seconds it is kept and delivered; null for no
 *   such limit.
 * @property {Uint8Array<ArrayBuffer>} body - Without its `Content-Encoding`, which is then not
 *   among the headers, if that is gzip or deflate, and the body is not larger than 64 MiB.
 */

/**
 * What has become of a subscription.
 *
 * @typedef {object} State
 * @property {"connecting" | "open" | "lost" | "closed"} name - `lost` will be tried again;
 *   `closed` is the last one.
 * @property {string} reason - One sentence for `lost`, and for `closed` unless it was
 *   asked for; else the empty string.
 * @property {number} seconds - Until the next try, for `lost`.
 */

/**
 * A channel, as it was when it was listed.
 *
 * @typedef {object} Channel
 * @property {string} name - Any text: show it as text.
 * @property {number} subscribers - How many are subscribed to exactly this channel.
 * @property {{id: string, time: string, type: string} | null} last - The newest message that
 *   is kept; null if there is none, or one may not read it.
 */

/**
 * The bus refused a request, or could not be reached.  The message is one sentence that can be
 * shown as text.
 */
export class BusError extends Error {
  /**
   * @param {string} sentence
   * @param {number} status - Of the answer; 0 for none.
   * @param {boolean} passing - May another try change it?
   * @param {number} seconds - How long the bus has asked to wait before that; 0 if it has not.
   */
  constructor(sentence, status, passing, seconds = 0) {
    super(sentence);
    this.name = "BusError";
    this.status = status;
    this.passing = passing;
    this.seconds = seconds;
  }
}

/**
 * Subscribe to a channel, or to a folder, whose name ends in a slash.
 *
 * A stream that is lost is asked for again, behind the last message that came.
 *
 * @param {string | URL} url - Of the channel; what its query says, goes before what the
 *   options say.
 * @param {object} [options]
 * @param {string} [options.type] - A list of globs that the media type must match.
 * @param {string} [options.sender] - The same for the sender.
 * @param {string} [options.channel] - The same for the channel, on a folder.
 * @param {Record<string, string>} [options.header] - Lists of globs that the values of headers
 *   must match, by their names.
 * @param {string} [options.since] - Where to begin: the id of a message, a time such as
 *   `10m`, or `all`; with what comes from now on, unless given.
 * @param {number} [options.last] - Begin with so many of the last messages, instead.
 * @param {boolean} [options.lastOfEach] - Begin with the newest message of each channel below
 *   a folder, instead.
 * @param {"drop-newest" | "drop-oldest" | "latest" | "close"} [options.overflow] - What
 *   becomes of messages for which the page is too slow; the first, unless given.
 * @param {number} [options.heartbeat] - Every how many seconds the bus is to show that it
 *   lives, from 5 to 300, and 25 unless given.  Twice as long a silence is its end.
 * @param {"now"} [options.until] - The subscription ends where history does, so it takes
 *   `since` or `last`.
 * @param {string} [options.interval] - With `overflow: "latest"`: the time between two moments
 *   in which messages come, such as `2s`, and of each channel only the newest.
 * @param {string} [options.user] - Under which name, and with which password; unless
 *   given, with those of the address, or what the browser was told.
 * @param {string} [options.password]
 * @param {AbortSignal} [options.signal] - Ends the subscription.
 * @param {(message: Message) => unknown} [options.onmessage] - Called with one after the
 *   other, in order.  If it returns a promise, the next comes once that is fulfilled;
 *   what waits meanwhile is the browser's, and some take in all that there is.
 * @param {(state: State) => unknown} [options.onstate]
 * @param {(count: number | null) => unknown} [options.ongap] - So many messages are
 *   missing here; null if nobody knows how many.
 * @param {() => unknown} [options.onlive] - History ends here, and what comes from now on is
 *   new; called again when a stream that was lost has been asked for again.
 * @returns {Promise<void>} Fulfilled once `signal` ended it, or where `until` has it end;
 *   rejected with a `BusError` if it was refused, or what came was no stream of messages, and
 *   with what a callback throws.
 */
export async function subscribe(url, options = {}) {
  const { signal, onstate } = options;
  const asked = addressOf(url, options);
  withQuery(asked.address, {
    type: options.type,
    sender: options.sender,
    channel: options.channel,
    since: options.since,
    last: options.last,
    "last-of-each": options.lastOfEach ? 1 : undefined,
    overflow: options.overflow,
    heartbeat: options.heartbeat ?? HEARTBEAT_SECONDS,
    until: options.until,
    interval: options.interval,
  });
  withHeaders(asked.address, options.header ?? {});
  const heartbeat = Number(asked.address.searchParams.get("heartbeat"));
  /** @type {(name: State["name"], reason?: string, seconds?: number) => void} */
  const tell = (name, reason = "", seconds = 0) => {
    onstate?.({ name, reason, seconds });
  };
  const position = { id: "", over: false };
  let failures = 0;
  try {
    while (!signal?.aborted) {
      tell("connecting");
      if (signal?.aborted) break;
      let opened = Infinity;
      let reason = "The server ended the stream.";
      let told = 0;
      try {
        told = await listen(asked, heartbeat, options, position, () => {
          opened = Date.now();
          tell("open");
        });
      } catch (error) {
        if (error instanceof Thrown) throw error.cause;
        if (!(error instanceof BusError && error.passing)) throw error;
        reason = error.message;
        told = error.seconds;
      }
      if (signal?.aborted || position.over) break;
      if (Date.now() - opened >= GOOD_SECONDS * 1000) failures = 0;
      const seconds = delay(failures++, told);
      tell("lost", reason, seconds);
      await pause(seconds, signal);
    }
  } catch (error) {
    tell("closed", error instanceof Error ? error.message : String(error));
    throw error;
  }
  tell("closed");
}

/**
 * Publish one message.
 *
 * @param {string | URL} url - Of the channel.
 * @param {string | Blob | BufferSource} body
 * @param {string} [type] - Its media type: that of a Blob, `text/plain` in UTF-8 for a
 *   string, and `application/octet-stream` for the rest, unless given.
 * @param {object} [options]
 * @param {string} [options.user] - The sender, and the password if there is one; unless
 *   given, those of the address, or what the browser was told.  A name has no colon.
 * @param {string} [options.password]
 * @param {boolean} [options.keep] - Unless false, history keeps it.
 * @param {Record<string, string>} [options.headers] - Those that travel with it, such as
 *   `{"ce-type": "com.example.made"}`; in ASCII.
 * @param {number} [options.maxAge] - For how many seconds it is kept and delivered; as long as
 *   the bus keeps messages, unless given.
 * @param {string} [options.key] - A publication with the key of an earlier one is
 *   delivered once, if the bus still knows it (the `Idempotency-Key` of the protocol); a
 *   random one, unless given.
 * @param {number} [options.patience] - For so many seconds it is tried again, if there is
 *   no answer or one that may change; 0, unless given, tries once.
 * @param {AbortSignal} [options.signal] - Gives up.  It may have been published all the
 *   same.
 * @returns {Promise<{id: string, subscribers: number}>} Its id, and for how many
 *   subscribers it was put in order; the empty string and -1 where the server does not
 *   tell.  Rejected with a `BusError`, or with the reason of `signal`.
 */
export async function publish(url, body, type, options = {}) {
  const { keep = true, key = randomKey(), patience = 0, signal } = options;
  const { address, user, password } = addressOf(url, options);
  const cached = [];
  if (!keep) cached.push("no-store");
  if (options.maxAge !== undefined) cached.push(`max-age=${options.maxAge}`);
  const headers = {
    ...checked(options.headers ?? {}),
    ...authorization(user, password),
    "Content-Type": type || typeOf(body),
    "Idempotency-Key": key,
    ...(cached.length ? { "Cache-Control": cached.join(", ") } : {}),
  };
  const deadline = Date.now() + patience * 1000;
  // A file that cannot be read will not be readable later.
  const content = body instanceof Blob ? await body.arrayBuffer() : body;
  for (let failures = 0; ; failures++) {
    try {
      return await publishOnce(address, content, headers, signal);
    } catch (error) {
      signal?.throwIfAborted();
      const seconds = delay(failures, error instanceof BusError ? error.seconds : 0);
      const late = Date.now() + seconds * 1000 > deadline;
      if (late || !(error instanceof BusError && error.passing)) throw error;
      await pause(seconds, signal);
      signal?.throwIfAborted();
    }
  }
}

/**
 * Have the bus forget all messages that it keeps of a channel.
 *
 * @param {string | URL} url - Of the channel.
 * @param {object} [options]
 * @param {string} [options.user] - As for `publish`.
 * @param {string} [options.password]
 * @param {AbortSignal} [options.signal] - Gives up.
 * @returns {Promise<void>} Fulfilled once none of them can come back.  Rejected with a
 *   `BusError`, or with the reason of `signal`.
 */
export async function forget(url, options = {}) {
  const { address, user, password } = addressOf(url, options);
  const request = { method: "DELETE", headers: authorization(user, password), ...access(user) };
  await ask(address, request, ANSWER_SECONDS, options.signal, async (response) => {
    if (response.status !== 204) throw await refusal(response);
  });
}

/**
 * List the channels below a folder that one may read, in the order of their names.
 *
 * @param {string | URL} url - Of the folder; it ends in a slash.
 * @param {object} [options]
 * @param {string} [options.channel] - A list of globs that the names must match.
 * @param {string} [options.after] - Only names behind this one.
 * @param {number} [options.limit] - How many at most, from 1 to 1000; 100, unless given.
 * @param {string} [options.user] - As for `subscribe`.
 * @param {string} [options.password]
 * @param {AbortSignal} [options.signal] - Gives up.
 * @returns {Promise<{channels: Channel[], next: string | null}>} The channels; and, if there
 *   are more, the name to be given as `after`.  Rejected with a `BusError`, or with the reason
 *   of `signal`.
 */
export async function channels(url, options = {}) {
  const { channel, after, limit, signal } = options;
  const { address, user, password } = addressOf(url, options);
  withQuery(address, { list: 1, channel, after, limit });
  const headers = { ...authorization(user, password), Accept: "application/json" };
  /** @type {RequestInit} */
  const request = { headers, ...access(user), cache: "no-store" };
  return ask(address, request, ANSWER_SECONDS, signal, async (response) => {
    const contentType = response.headers.get("Content-Type") ?? "";
    if (response.status !== 200 || !contentType.startsWith("application/json")) {
      throw await refusal(response);
    }
    return JSON.parse(await reached(response.text()));
  });
}

/**
 * Sign in at a bus that has users or a password: the browser asks for a name and a password,
 * unless it knows them already, and from then on sends them with each request to the bus.
 *
 * @param {string | URL} bus - The address of the bus, such as `/msgbus/`.
 * @returns {Promise<void>} Rejected with a `BusError` if the user of the browser did not sign
 *   in.
 */
export async function signIn(bus) {
  const { address, user, password } = addressOf(bus, {});
  const request = new Request(new URL(SIGN_IN, address), {
    headers: authorization(user, password),
    ...access(user),
    cache: "no-store",
  });
  const response = await reached(fetch(request));
  if (response.status !== 204) throw await refusal(response);
}

/**
 * A key for `publish`, that nobody guesses.
 */
export function randomKey() {
  // `randomUUID` is only there where TLS is.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * When a message was published, as far as its id tells.
 *
 * @param {Message} message
 * @returns {Date | null}
 */
export function timeOf(message) {
  const milliseconds = /^([0-9]{1,15})-/.exec(message.id);
  return milliseconds && new Date(Number(milliseconds[1]));
}

/**
 * A stream is no multipart stream, or exceeds the decoder's limits.
 */
export class Malformed extends Error {}

const MAX_PREAMBLE = 64 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;
const MAX_BOUNDARY = 70;
const MAX_PADDING = 128;
const MIN_BUFFER = 64 * 1024;

const TAB = 9;
const LF = 10;
const CR = 13;
const SPACE = 32;
const HYPHEN = 45;

/** The original msgbus's constant one: it sends no line end before it. */
const ORIGINAL_BOUNDARY = "00MsgBus00";

/** Part headers are UTF-8, and may be anything. */
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * One part as it came: its headers, with names in lower case and lines of one name joined
 * by ", ", and its body.
 *
 * @typedef {{headers: Map<string, string>, body: Uint8Array<ArrayBuffer>}} Part
 */

/**
 * Reads any multipart stream, split anywhere (RFC 2046, section 5.1): with or without
 * `Content-Length`, with CRLF or bare LF, with preamble and epilogue.
 *
 * A part with a `Content-Length` is complete with the last byte of its body, which may
 * hold anything; one without, with the delimiter behind it.
 */
export class Decoder {
  #buffer = new Uint8Array(MIN_BUFFER);
  #start = 0;
  #end = 0;
  #searched = 0;
  /** @type {Map<string, string>} */
  #headers = new Map();
  #headBytes = 0;
  #lastName = "";
  #length = -1;
  /** @type {() => Part | boolean} */
  #state = this.#preamble;
  /** @type {Uint8Array} */
  #delimiter;
  #bare;
  #overlap;
  #maxBody;

  /**
   * @param {string} boundary - As `boundaryOf` gives it.
   * @param {number} [maxBody] - Bytes of one body; a stream that exceeds it is malformed.
   */
  constructor(boundary, maxBody = 64 * 1024 * 1024) {
    this.#delimiter = new TextEncoder().encode(`--${boundary}`);
    this.#bare = boundary === ORIGINAL_BOUNDARY;
    // The last bytes may be the beginning of a delimiter.
    this.#overlap = boundary.length + MAX_PADDING + 8;
    this.#maxBody = maxBody;
  }

  /**
   * Take the next bytes of the stream.
   *
   * @param {Uint8Array} data
   * @returns {Generator<Part, void>} The parts that they complete, made as they are asked
   *   for.  Asking throws `Malformed` where the stream cannot be read further.
   */
  feed(data) {
    this.#append(data);
    return this.#read();
  }

  /**
   * The headers of the part to come, as far as they are there; what is taken out of them,
   * the part will not have.
   *
   * @returns {Map<string, string>}
   */
  get ahead() {
    return this.#state === this.#head ? this.#headers : new Map();
  }

  /**
   * Take the end of the stream, which may come behind any delimiter.
   *
   * @throws {Malformed} It ended inside a part, or before the first.
   */
  end() {
    if (this.#state === this.#preamble) {
      throw new Malformed("The stream ended before the first delimiter.");
    }
    // What the server itself says, it may say ahead of a part.
    const begun = [...this.#headers.keys()].some((name) => !name.startsWith("msgbus-"));
    const inHead = this.#state === this.#head && (begun || this.#end > this.#start);
    if (this.#state === this.#body || inHead) {
      throw new Malformed("The stream ended inside a part.");
    }
  }

  *#read() {
    for (let result; (result = this.#state()); ) {
      if (result !== true) yield result;
    }
  }

  /** @param {Uint8Array} data */
  #append(data) {
    const kept = this.#end - this.#start;
    if (this.#end + data.length > this.#buffer.length) {
      // Twice what is there, so that a large body is not copied for each piece of it.
      const room = new Uint8Array(Math.max(2 * (kept + data.length), MIN_BUFFER));
      room.set(this.#buffer.subarray(this.#start, this.#end));
      this.#buffer = room;
      this.#searched -= this.#start;
      this.#start = 0;
      this.#end = kept;
    }
    this.#buffer.set(data, this.#end);
    this.#end += data.length;
  }

  // The states.  Each looks at the beginning of the buffer, and answers a part, or
  // whether it got on; else it waits for more.

  /** @returns {boolean} */
  #preamble() {
    const found = this.#search(MAX_PREAMBLE, "There is no delimiter in sight.");
    return found !== null && this.#pass(found.end, found.last);
  }

  /** @returns {boolean} */
  #head() {
    // A delimiter straight behind another closes no part.
    const again = this.#lineAt(this.#start);
    if (again) return this.#pass(again.end, again.last);
    const end = this.#indexOf(LF);
    this.#headBytes += end < 0 ? 0 : end + 1 - this.#start;
    const waiting = end < 0 ? this.#end - this.#start : 0;
    if (this.#headBytes + waiting > MAX_HEADER_BYTES) {
      throw new Malformed("The headers of a part are longer than 16 KiB.");
    }
    if (end < 0) return false;
    const cut = this.#buffer[end - 1] === CR && end > this.#start ? end - 1 : end;
    const line = UTF8.decode(this.#buffer.subarray(this.#start, cut));
    this.#start = end + 1;
    if (line) {
      this.#header(line);
      return true;
    }
    this.#length = lengthOf(this.#headers);
    if (this.#length > this.#maxBody) {
      throw new Malformed(`A part of ${this.#length} bytes is too large.`);
    }
    this.#state = this.#body;
    this.#searched = this.#start;
    return true;
  }

  /** @param {string} line */
  #header(line) {
    const known = this.#headers.get(this.#lastName);
    if (/^[ \t]/.test(line) && known !== undefined) {
      // RFC 5322: it continues the one before.
      this.#headers.set(this.#lastName, `${known} ${trimmed(line)}`);
      return;
    }
    const colon = line.indexOf(":");
    const name = trimmed(line.slice(0, Math.max(colon, 0))).toLowerCase();
    if (!name) throw new Malformed(`${quoted(line)} is no header line.`);
    if (name === "msgbus-heartbeat") {
      // It belongs to no part, and there may be any number of them.
      this.#headBytes = 0;
      return;
    }
    const value = trimmed(line.slice(colon + 1));
    const before = this.#headers.get(name);
    this.#headers.set(name, before === undefined ? value : `${before}, ${value}`);
    this.#lastName = name;
  }

  /** @returns {Part | boolean} */
  #body() {
    const headers = this.#headers;
    if (this.#length < 0) {
      const found = this.#search(this.#maxBody, "A part without a length is too large.");
      if (!found) return false;
      const body = this.#buffer.slice(this.#start, found.start);
      this.#pass(found.end, found.last);
      return { headers, body };
    }
    const end = this.#start + this.#length;
    if (this.#end < end) return false;
    const body = this.#buffer.slice(this.#start, end);
    this.#start = end;
    this.#state = this.#tail;
    return { headers, body };
  }

  /** @returns {boolean} */
  #tail() {
    // Some servers send no line end before it when they have sent a length.
    const found = this.#lineAt(this.#start) ?? this.#lineAt(this.#pastLineEnd(this.#start));
    if (found) return this.#pass(found.end, found.last);
    if (this.#end - this.#start > this.#overlap) {
      throw new Malformed("No delimiter follows a part of the length that it gave.");
    }
    return false;
  }

  /** @returns {boolean} */
  #epilogue() {
    this.#start = this.#end;
    return false;
  }

  /**
   * The next delimiter, with the line end before it, which belongs to it.
   *
   * @param {number} limit
   * @param {string} complaint
   */
  #search(limit, complaint) {
    let found = null;
    let at = Math.max(this.#searched, this.#start);
    while (!found && (at = this.#indexOf(HYPHEN, at)) >= 0) {
      const line = this.#lineAt(at);
      const start = this.#lineStart(at);
      if (line && start !== null) found = { start, ...line };
      at++;
    }
    const seen = found ? found.start : this.#end - this.#overlap;
    if (seen - this.#start > limit) throw new Malformed(complaint);
    this.#searched = this.#end - this.#overlap;
    return found;
  }

  /**
   * Where the line end before a delimiter at `at` begins, or null if there is none and
   * must be one.
   *
   * @param {number} at
   */
  #lineStart(at) {
    if (this.#bare || at === this.#start) return at;
    if (this.#buffer[at - 1] !== LF) return null;
    return at - 2 >= this.#start && this.#buffer[at - 2] === CR ? at - 2 : at - 1;
  }

  /** @param {number} at */
  #pastLineEnd(at) {
    const next = this.#buffer[at] === CR ? at + 1 : at;
    return next < this.#end && this.#buffer[next] === LF ? next + 1 : at;
  }

  /**
   * The delimiter line at `at`: where it ends, and whether it ends the stream; null if
   * there is none, or not all of it.  Spaces behind a delimiter are padding, and two
   * hyphens end the stream.
   *
   * @param {number} at
   */
  #lineAt(at) {
    const buffer = this.#buffer;
    const delimiter = this.#delimiter;
    let here = at + delimiter.length;
    if (here >= this.#end) return null;
    if (delimiter.some((byte, index) => buffer[at + index] !== byte)) return null;
    if (buffer[here] === HYPHEN) {
      const last = here + 1 < this.#end && buffer[here + 1] === HYPHEN;
      return last ? { end: here + 2, last } : null;
    }
    const padded = Math.min(here + MAX_PADDING, this.#end);
    while (here < padded && (buffer[here] === SPACE || buffer[here] === TAB)) here++;
    const end = this.#pastLineEnd(here);
    return end > here ? { end, last: false } : null;
  }

  /**
   * @param {number} byte
   * @param {number} [from]
   */
  #indexOf(byte, from = this.#start) {
    return this.#buffer.subarray(0, this.#end).indexOf(byte, from);
  }

  /**
   * Go on behind a delimiter.
   *
   * @param {number} end
   * @param {boolean} last
   */
  #pass(end, last) {
    this.#state = last ? this.#epilogue : this.#head;
    this.#start = end;
    this.#searched = end;
    this.#headers = new Map();
    this.#headBytes = 0;
    return true;
  }
}

/**
 * The boundary that a `Content-Type` names, quoted or not.
 *
 * @param {string} contentType
 * @throws {Malformed} It is no multipart type, or names none, or a longer one than the 70
 *   characters of RFC 2046, section 5.1.1.
 */
export function boundaryOf(contentType) {
  const value = /;\s*boundary\s*=\s*(?:"([^"\\\r\n]*)"|([^\s";]*))\s*(?:;|$)/i.exec(contentType);
  const boundary = value?.[1] ?? value?.[2];
  if (!/^[ \t]*multipart\/[^\s;]+[ \t]*;/i.test(contentType) || !boundary) {
    throw new Malformed(`${quoted(contentType)} is not multipart with a boundary.`);
  }
  if (boundary.length > MAX_BOUNDARY || !/^[\x20-\x7e]*$/.test(boundary)) {
    throw new Malformed(`The boundary ${quoted(boundary)} is not up to 70 of ASCII.`);
  }
  return boundary;
}

/** Wraps what a callback of the caller threw, which is handed on to the caller. */
class Thrown extends Error {}

/**
 * What a callback does.
 *
 * @param {() => unknown} call
 */
async function calling(call) {
  try {
    await call();
  } catch (cause) {
    throw new Thrown("A callback failed.", { cause });
  }
}

/**
 * Ask for one stream, and take what comes on it until it ends.
 *
 * @param {Address} asked
 * @param {number} heartbeat - In seconds.
 * @param {Parameters<typeof subscribe>[1] & {}} options
 * @param {{id: string, over: boolean}} position - Of the last message; moved with each.  Over
 *   once history has ended, if the subscription ends there.
 * @param {() => void} opened
 * @returns {Promise<number>} After how many seconds the bus has asked to come back; 0 if it has not.
 */
async function listen({ address, user, password }, heartbeat, options, position, opened) {
  const { signal, onmessage, ongap, onlive } = options;
  const ends = address.searchParams.has("until");
  /**
   * Tell what stands in headers beside a message.
   *
   * @param {Map<string, string>} told
   * @returns {Promise<boolean>} Whether that was the end.
   */
  const notice = async (told) => {
    for (const count of gaps(told)) {
      await calling(() => ongap?.(count));
      // A callback may have ended it.
      if (signal?.aborted) return true;
    }
    if (!told.delete("msgbus-live")) return false;
    await calling(() => onlive?.());
    position.over = ends;
    return ends || Boolean(signal?.aborted);
  };
  // An interval that is out of range is refused by the bus, with a sentence.
  const patience = 2 * (heartbeat > 0 ? heartbeat : HEARTBEAT_SECONDS);
  /** @type {Record<string, string>} */
  const headers = { ...authorization(user, password), Accept: ACCEPT };
  if (position.id) headers["Last-Event-ID"] = position.id;

  const attempt = attemptUnder(signal);
  let silent = false;
  const silence = timer(patience, () => {
    silent = true;
    attempt.end();
  });
  silence.start();
  try {
    const request = new Request(address, {
      headers,
      ...access(user),
      cache: "no-store",
      signal: attempt.signal,
    });
    const response = await reached(fetch(request));
    const contentType = response.headers.get("Content-Type") ?? "";
    if (response.status !== 200 || !/^\s*multipart\//i.test(contentType) || !response.body) {
      throw await refusal(response);
    }
    const prefix = response.headers.get("Msgbus-Prefix");
    silence.stop();
    position.id = response.headers.get("Msgbus-Id") || position.id;
    const decoder = new Decoder(boundaryOf(contentType));
    await calling(opened);
    const reader = response.body.getReader();
    for (;;) {
      // A server without `Msgbus-Prefix` knows no heartbeats, so it may be silent.
      if (prefix !== null) silence.start();
      const { done, value } = await reached(reader.read());
      silence.stop();
      if (signal?.aborted) return 0;
      if (done) break;
      for (const part of decoder.feed(value)) {
        if (await notice(part.headers)) return 0;
        const message = await decoded(messageOf(part, prefix ?? "/msgbus/"));
        if (signal?.aborted) return 0;
        position.id = message.id || position.id;
        await calling(() => onmessage?.(message));
        if (signal?.aborted) return 0;
      }
      // They are told in the head of the next part, whose rest may be long in coming.
      if (await notice(decoder.ahead)) return 0;
    }
    if (cutShort(decoder)) throw new BusError("The stream ended inside a message.", 0, true);
    return secondsOf(decoder.ahead.get("msgbus-retry"));
  } catch (error) {
    if (signal?.aborted && error instanceof BusError) return 0;
    if (silent) {
      throw new BusError(`The server was silent for ${patience} seconds.`, 0, true);
    }
    if (!(error instanceof Malformed)) throw error;
    throw new BusError(`This is no stream of messages: ${error.message}`, 0, false);
  } finally {
    silence.stop();
    attempt.end();
  }
}

/**
 * A signal for one request, which `signal` ends too.  Ending it closes the connection, since an
 * answer may have no end.
 *
 * @param {AbortSignal} [signal]
 */
function attemptUnder(signal) {
  const attempt = new AbortController();
  const end = () => {
    signal?.removeEventListener("abort", end);
    attempt.abort();
  };
  signal?.addEventListener("abort", end);
  return { signal: attempt.signal, end };
}

/** @param {Decoder} decoder */
function cutShort(decoder) {
  try {
    decoder.end();
    return false;
  } catch {
    return true;
  }
}

/**
 * @param {URL} address
 * @param {string | BufferSource} body
 * @param {HeadersInit & {Authorization?: string}} headers
 * @param {AbortSignal} [signal]
 */
async function publishOnce(address, body, headers, signal) {
  const size = typeof body === "string" ? body.length : body.byteLength;
  const seconds = ANSWER_SECONDS + size / SLOWEST_BYTES_PER_SECOND;
  const request = { method: "POST", body, headers, ...access(headers.Authorization) };
  return ask(address, request, seconds, signal, async (response) => {
    if (response.status !== 204) throw await refusal(response);
    const count = response.headers.get("Msgbus-Subscribers") ?? "";
    return {
      id: response.headers.get("Msgbus-Id") ?? "",
      subscribers: /^[0-9]{1,15}$/.test(count) ? Number(count) : -1,
    };
  });
}

/**
 * Send a request, and read its answer, in so many seconds, unless `signal` ends it before.
 *
 * @template T
 * @param {URL} address
 * @param {RequestInit} request
 * @param {number} seconds
 * @param {AbortSignal | undefined} signal
 * @param {(response: Response) => Promise<T>} read
 * @returns {Promise<T>} Rejected with the reason of `signal`, or as `read` is.
 */
async function ask(address, request, seconds, signal, read) {
  signal?.throwIfAborted();
  const attempt = attemptUnder(signal);
  const patience = timer(seconds, attempt.end);
  patience.start();
  try {
    return await read(
      await reached(fetch(new Request(address, { ...request, signal: attempt.signal }))),
    );
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    patience.stop();
    attempt.end();
  }
}

/**
 * Which credentials a request has.  If a name is given, it replaces what the browser knows, and
 * the browser must not ask its user for another one.
 *
 * @param {string | undefined} user
 * @returns {RequestInit}
 */
function access(user) {
  return { credentials: user === undefined ? "same-origin" : "omit" };
}

/**
 * Basic authentication (RFC 7617).
 *
 * @param {string} [user]
 * @param {string} [password]
 * @returns {{Authorization?: string}}
 */
function authorization(user, password = "") {
  if (user === undefined) return {};
  if (user.includes(":")) throw new BusError("A name has no colon.", 0, false);
  const bytes = new TextEncoder().encode(`${user}:${password}`);
  return { Authorization: `Basic ${btoa(String.fromCharCode(...bytes))}` };
}

/** @param {string | Blob | BufferSource} body */
function typeOf(body) {
  if (typeof body === "string") return "text/plain; charset=utf-8";
  return (body instanceof Blob && body.type) || "application/octet-stream";
}

/**
 * Where to ask, and under which name and password: an address may have them, but
 * `fetch()` takes none that does.
 *
 * @typedef {{address: URL, user?: string, password?: string}} Address
 * @param {string | URL} url
 * @param {{user?: string, password?: string}} options
 * @returns {Address}
 */
function addressOf(url, { user, password }) {
  const address = new URL(url, globalThis.location?.href);
  // A password belongs to the name that it was given with.
  if (user === undefined && (address.username || address.password)) {
    user = percentDecoded(address.username);
    password ??= percentDecoded(address.password);
  }
  if (password !== undefined) user ??= "";
  address.username = address.password = address.hash = "";
  return { address, user, password };
}

/**
 * @param {string} text - Where a percent sign may stand for itself.
 */
function percentDecoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Add these parameters to an address, but for those that it has.  Of those that say where a
 * stream begins, it keeps any.  A plus that is there stays one.
 *
 * @param {URL} address
 * @param {Record<string, string | number | undefined>} parameters
 */
function withQuery(address, parameters) {
  const items = address.search.slice(1).split("&").filter(Boolean);
  const has = new Set(new URLSearchParams(address.search).keys());
  if (BEGINNINGS.some((name) => has.has(name))) BEGINNINGS.forEach((name) => has.add(name));
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined || value === "" || has.has(name)) continue;
    items.push(`${name}=${encodeURIComponent(String(value))}`);
  }
  address.search = items.join("&");
}

/**
 * Add patterns for headers to an address.
 *
 * @param {URL} address
 * @param {Record<string, string>} header
 */
function withHeaders(address, header) {
  const items = address.search.slice(1).split("&").filter(Boolean);
  for (const [name, globs] of Object.entries(header)) {
    items.push(`header=${encodeURIComponent(`${name}:${globs}`)}`);
  }
  address.search = items.join("&");
}

/**
 * Headers that can travel with a message, and that every browser sends in the same way.
 *
 * @param {Record<string, string>} headers
 */
function checked(headers) {
  for (const [name, value] of Object.entries(headers)) {
    if (!TRAVELLING.test(name.toLowerCase())) {
      throw new BusError(`A header ${quoted(name)} does not travel with a message.`, 0, false);
    }
    if (!/^[ -~]*$/.test(value)) {
      const sentence = `Browsers send no header such as ${quoted(value)}: encode it in ASCII.`;
      throw new BusError(sentence, 0, false);
    }
  }
  return headers;
}

/**
 * The outcome of `fetch()`, or of a read: where it fails, there was no way to the bus.
 *
 * @template T
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
async function reached(promise) {
  try {
    return await promise;
  } catch {
    throw new BusError("The bus cannot be reached.", 0, true);
  }
}

/**
 * What an answer means that is not the one that was hoped for.
 *
 * @param {Response} response
 */
async function refusal(response) {
  const { status } = response;
  const contentType = response.headers.get("Content-Type") ?? "nothing";
  if (status >= 200 && status < 300) {
    return new BusError(`This is no bus: it answered ${status} with ${contentType}.`, status, false);
  }
  let answered = `The answer is ${status}.`;
  if (contentType.toLowerCase().startsWith("text/plain") && response.body) {
    const line = (await beginning(response.body)).split(/\r?\n/, 1)[0];
    answered = line.slice(0, SENTENCE_CHARACTERS).replace(/\p{Cc}/gu, "\ufffd") || answered;
  }
  const passing = PASSING.includes(status) || status >= 500;
  return new BusError(answered, status, passing, secondsOf(response.headers.get("Retry-After")));
}

/**
 * The first of a text, which may have no end, and may break off.
 *
 * @param {ReadableStream<Uint8Array>} stream
 */
async function beginning(stream) {
  const reader = stream.getReader();
  let text = "";
  try {
    while (text.length < SENTENCE_CHARACTERS && !text.includes("\n")) {
      const { done, value } = await reader.read();
      if (done) break;
      text += UTF8.decode(value);
    }
  } catch {
    // What has come is better than nothing.
  }
  return text;
}

/**
 * @param {Part} part
 * @param {string} prefix
 * @returns {Message}
 */
function messageOf({ headers, body }, prefix) {
  const location = headers.get("content-location");
  if (location !== undefined && !location.startsWith(prefix)) {
    throw new Malformed(`The part's location ${quoted(location)} is not below ${prefix}.`);
  }
  const age = /(?:^|,)[ \t]*max-age=([0-9]{1,10})[ \t]*(?:,|$)/i.exec(
    headers.get("cache-control") ?? "",
  );
  let channel;
  try {
    channel = decodeURIComponent(location?.slice(prefix.length) ?? "");
  } catch {
    throw new Malformed(`The part's location ${quoted(location ?? "")} is no address.`);
  }
  return {
    id: headers.get("msgbus-id") ?? "",
    channel,
    type: headers.get("content-type") ?? "application/octet-stream",
    sender: headers.get("from") ?? "",
    origin: headers.get("msgbus-origin") ?? "",
    headers: Object.fromEntries([...headers].filter(([name]) => TRAVELLING.test(name))),
    maxAge: age ? Number(age[1]) : null,
    body,
  };
}

/**
 * The same message without its content codings (RFC 9110, section 8.4.1), if they are known, and
 * the body is what it says it is, and not too large.
 *
 * @param {Message} message
 * @returns {Promise<Message>}
 */
async function decoded(message) {
  const { [CODING]: coding, ...headers } = message.headers;
  if (coding === undefined) return message;
  let body = message.body;
  for (const name of coding.toLowerCase().split(",").map(trimmed).reverse()) {
    if (!name || name === "identity") continue;
    const format = FORMATS.get(name);
    const plain = format && (await undone(body, format));
    if (!plain) return message;
    body = plain;
  }
  return { ...message, headers, body };
}

/**
 * What bytes are that were compressed; null if they were not, or if that would be too much.
 *
 * @param {Uint8Array<ArrayBuffer>} body
 * @param {CompressionFormat} format
 */
async function undone(body, format) {
  const reader = new Blob([body]).stream().pipeThrough(new DecompressionStream(format)).getReader();
  const pieces = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      size += value.length;
      if (size > MAX_DECODED) {
        await reader.cancel();
        return null;
      }
    }
  } catch {
    return null;
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/**
 * Take the gaps out of headers: how many messages are missing, or null for an unknown
 * number.
 *
 * @param {Map<string, string>} headers
 */
function gaps(headers) {
  const told = headers.get("msgbus-gap")?.split(",") ?? [];
  headers.delete("msgbus-gap");
  return told
    .map(trimmed)
    .filter(Boolean)
    .map((count) => (/^[0-9]{1,15}$/.test(count) ? Number(count) : null));
}

/**
 * Without what HTTP and MIME have as white space.
 *
 * @param {string} text
 */
function trimmed(text) {
  return text.replace(/^[ \t]+|[ \t]+$/g, "");
}

/** @param {Map<string, string>} headers */
function lengthOf(headers) {
  const length = headers.get("content-length");
  if (length === undefined) return -1;
  if (!/^[0-9]{1,19}$/.test(length)) {
    throw new Malformed(`${quoted(length)} is no length of a part.`);
  }
  return Number(length);
}

/** @param {string} text */
function quoted(text) {
  return JSON.stringify(text.slice(0, 100));
}

/**
 * How many seconds to wait after so many failures; random, so that those who failed
 * together do not come together.
 *
 * @param {number} failures
 * @param {number} asked - How many seconds the server has asked to wait, perhaps all the same.
 */
function delay(failures, asked) {
  const longest = Math.min(FIRST_DELAY_SECONDS * 2 ** failures, LAST_DELAY_SECONDS);
  const chance = Math.random();
  const own = longest * (0.5 + chance / 2);
  return Math.max(own, Math.min(asked, LAST_DELAY_SECONDS) * (1 + chance / 4));
}

/**
 * The time in a header, or 0 if there is none.
 *
 * @param {string | null | undefined} text
 */
function secondsOf(text) {
  return /^[0-9]{1,9}(\.[0-9]{1,3})?$/.test(text ?? "") ? Number(text) : 0;
}

/**
 * Wait, but no longer than until the signal is given or the machine is on a network again.
 *
 * @param {number} seconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
function pause(seconds, signal) {
  return new Promise((resolve) => {
    const over = () => {
      waiting.stop();
      signal?.removeEventListener("abort", over);
      globalThis.removeEventListener?.("online", over);
      resolve();
    };
    const waiting = timer(seconds, over);
    waiting.start();
    signal?.addEventListener("abort", over);
    globalThis.addEventListener?.("online", over);
    if (signal?.aborted) over();
  });
}

/**
 * Calls back so many seconds after each start, unless it is started again, or stopped.
 *
 * @param {number} seconds
 * @param {() => void} callback
 */
function timer(seconds, callback) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let running;
  const stop = () => clearTimeout(running);
  const start = () => {
    stop();
    running = setTimeout(callback, seconds * 1000);
  };
  return { start, stop };
}
