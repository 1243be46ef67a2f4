/**
 * A table of the channels below a folder, which follows what happens on the bus.
 *
 * @module
 */

import { channels, BusError } from "./msgbus.js";
import { addressOf, clock, element, listOf, mediaType, sentenceOf } from "./view.js";

/** @import { Channel } from "./msgbus.js" */

/** How many channels are shown at once. */
const SHOWN = 100;

/** How often the table looks for news, and how long it waits for more to be typed. */
const REFRESH_MILLISECONDS = 3000;
const TYPING_MILLISECONDS = 200;

/** A list of more globs costs the bus too much, if the text is long. */
const LONGEST_VARIED = 30;

export class ChannelTable {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** The names behind which the pages before this one began. @type {string[]} */
  #before = [];
  #after = "";
  /** @type {string | null} */
  #next = null;
  #search = "";
  #bus;
  #folder;
  #state;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {AbortController | undefined} */
  #asking;

  #field = element("input", { id: "search", type: "search", placeholder: "Search" });
  #body = element("tbody", { id: "channels" });
  #none = element("p", { id: "none", className: "note", hidden: true });
  #previous = element("button", { id: "previous", type: "button", textContent: "Previous page" });
  #following = element("button", { id: "following", type: "button", textContent: "Next page" });
  #pager = element("div", { className: "pager", hidden: true }, this.#previous, this.#following);

  /**
   * @param {URL} bus
   * @param {string} folder - Its name, which ends in a slash or is empty.
   * @param {HTMLElement} place - Gets the table, and what belongs to it.
   * @param {HTMLOutputElement} state - Tells how many channels there are, or what went wrong.
   */
  constructor(bus, folder, place, state) {
    this.#bus = bus;
    this.#folder = folder;
    this.#state = state;
    const head = element(
      "tr",
      {},
      element("th", { scope: "col", textContent: "Channel" }),
      element("th", { scope: "col", className: "number", textContent: "Subscribers" }),
      element("th", { scope: "col", textContent: "Last message" }),
    );
    const table = element("table", {}, element("thead", {}, head), this.#body);
    place.append(this.#field, table, this.#none, this.#pager);
    this.#field.ariaLabel = "Search for a channel";
    this.#field.oninput = () => this.#refreshAfter(TYPING_MILLISECONDS);
    this.#following.onclick = () => {
      this.#before.push(this.#after);
      this.#turn(this.#next ?? "");
    };
    this.#previous.onclick = () => this.#turn(this.#before.pop() ?? "");
    // What nobody sees is not asked for.
    document.addEventListener("visibilitychange", () => this.#refreshAfter(0));
    this.#refreshAfter(0);
  }

  /** @param {string} after */
  #turn(after) {
    this.#after = after;
    this.#refreshAfter(0);
  }

  /** @param {number} milliseconds */
  #refreshAfter(milliseconds) {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    this.#timer = setTimeout(() => this.#refresh(), milliseconds);
  }

  async #refresh() {
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    if (this.#field.value !== this.#search) {
      this.#search = this.#field.value;
      this.#before = [];
      this.#after = "";
    }
    try {
      const listed = await channels(addressOf(this.#bus, this.#folder), {
        channel: globsFor(this.#search.trim()),
        after: this.#after,
        limit: SHOWN,
        signal: asking.signal,
      });
      if (asking.signal.aborted) return;
      this.#show(listed.channels);
      this.#next = listed.next;
      this.#tell(listed.channels.length);
    } catch (error) {
      if (asking.signal.aborted) return;
      this.#state.dataset.state = error instanceof BusError && !error.passing ? "closed" : "lost";
      this.#state.textContent = sentenceOf(error);
    }
    this.#refreshAfter(REFRESH_MILLISECONDS);
  }

  /** @param {Channel[]} listed */
  #show(listed) {
    const rows = new Map();
    // Only what has changed is touched, so that the focus stays where it is.
    let place = this.#body.firstElementChild;
    for (const channel of listed) {
      const row = this.#rows.get(channel.name) ?? new Row(this.#bus, this.#folder, channel);
      row.update(channel);
      rows.set(channel.name, row);
      if (row.element === place) place = place.nextElementSibling;
      else this.#body.insertBefore(row.element, place);
    }
    while (place) {
      const next = place.nextElementSibling;
      place.remove();
      place = next;
    }
    this.#rows = rows;
  }

  /** @param {number} count */
  #tell(count) {
    const paged = this.#before.length > 0 || this.#next !== null;
    const pages = paged ? `, page ${this.#before.length + 1}` : "";
    const told = `${count} channel${count === 1 ? "" : "s"}${pages}`;
    // A screen reader need not say the same again.
    if (this.#state.textContent !== told) this.#state.textContent = told;
    this.#state.dataset.state = "open";
    this.#none.hidden = count > 0;
    this.#none.textContent = this.#search ? "No channel has such a name." : "There are no channels yet.";
    this.#pager.hidden = !paged;
    this.#previous.disabled = this.#before.length === 0;
    this.#following.disabled = this.#next === null;
  }
}

class Row {
  #subscribers = element("td", { className: "number" });
  #last = element("td");
  #id = "";

  /**
   * @param {URL} bus
   * @param {string} folder
   * @param {Channel} channel
   */
  constructor(bus, folder, { name }) {
    this.element = element("tr", {}, nameOf(bus, folder, name), this.#subscribers, this.#last);
  }

  /** @param {Channel} channel */
  update({ subscribers, last }) {
    const count = subscribers.toLocaleString("en");
    if (this.#subscribers.textContent !== count) this.#subscribers.textContent = count;
    const id = last?.id ?? "none";
    if (id === this.#id) return;
    this.#id = id;
    if (!last) {
      this.#last.replaceChildren("–");
      return;
    }
    const type = element("bdi", { className: "type", textContent: mediaType(last) });
    this.#last.replaceChildren(clock(new Date(last.time)), type);
  }
}

/**
 * The name of a channel: the channel leads to its page, and each folder to its list.
 *
 * @param {URL} bus
 * @param {string} folder - What the table lists.
 * @param {string} name
 */
function nameOf(bus, folder, name) {
  const cell = element("td");
  // A name that ends in a slash is that of a folder, to which something was published.
  const own = /[^/]*\/?$/.exec(name)?.[0] ?? "";
  let above = folder;
  for (const segment of name.slice(folder.length, -own.length || undefined).split("/").slice(0, -1)) {
    above += `${segment}/`;
    const { href } = listOf(bus, above);
    const words = element("bdi", { textContent: segment });
    cell.append(
      element("a", { href, className: "folder", ariaLabel: `Folder ${above}` }, words),
      element("span", { className: "slash", textContent: "/" }),
    );
  }
  const { href } = addressOf(bus, name);
  const words = element("bdi", { textContent: own || "/" });
  cell.append(element("a", { href, ariaLabel: name || "/" }, words));
  return cell;
}

/**
 * Globs for the names in which this text is, written as it is, small or large.  What has a
 * meaning in globs keeps it, except for the comma.
 *
 * @param {string} text
 */
function globsFor(text) {
  if (!text) return "";
  const lower = text.toLowerCase();
  const capital = lower.slice(0, 1).toUpperCase() + lower.slice(1);
  const written = text.length > LONGEST_VARIED ? [text] : [text, lower, capital, text.toUpperCase()];
  return [...new Set(written)].map((one) => `*${one.replaceAll(",", "?")}*`).join(",");
}
