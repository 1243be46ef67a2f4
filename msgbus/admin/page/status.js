/**
 * The status page: what a bus does at the moment, and who is slow.
 *
 * The numbers come as messages, by the stream that any other reader gets, and those of the last
 * minutes come first, so that the graphs are there at once.
 *
 * @module
 */

import "./events/.js/look.js";
import { clock, element, part, size, watch } from "./events/.js/view.js";

/**
 * @typedef {import("./events/.js/msgbus.js").Message} Message
 *
 * @typedef {object} Numbers - What the bus tells every two seconds.
 * @property {Record<string, number>} rates - Each a second.
 * @property {Record<string, number | null>} seconds - The time that 99 of 100 took.
 * @property {number} subscribers
 * @property {number} streams
 * @property {number} connections
 * @property {number} waiting
 * @property {number} replays
 * @property {Record<string, [number, number | null]>} limits
 *
 * @typedef {object} Subscriber
 * @property {number} subscriber
 * @property {string} name
 * @property {string | null} user
 * @property {string} address
 * @property {string} form
 * @property {{messages: number, bytes: number}} waiting
 * @property {number} missed
 * @property {string} since
 *
 * @typedef {object} Channel
 * @property {string} name
 * @property {number} rate
 * @property {number} subscribers
 * @property {number} messages
 * @property {string | null} time
 * @property {string | null} type
 */

/** How many numbers a graph shows: five minutes. */
const POINTS = 150;

/** How many warnings are shown. */
const WARNINGS = 30;

/** How often the tables are asked for. */
const TABLE_SECONDS = 4;

/** How many rows they have. */
const ROWS = 10;

const SVG = "http://www.w3.org/2000/svg";

/**
 * A number, for people.
 *
 * @param {number} value
 */
function short(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  if (value >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : 2);
}

/** @param {number | null} seconds */
function milliseconds(seconds) {
  if (seconds === null) return "–";
  return seconds >= 1 ? `${short(seconds)} s` : `${short(seconds * 1000)} ms`;
}

/** A number that is shown large, with its course of the last minutes. */
class Tile {
  /**
   * @param {string} title
   * @param {(numbers: Numbers) => number | null} value
   * @param {(value: number | null, numbers: Numbers) => string} text
   * @param {(numbers: Numbers) => string} [more]
   * @param {boolean} [bad] - Is anything but zero bad?
   */
  constructor(title, value, text, more = () => "", bad = false) {
    this.value = value;
    this.text = text;
    this.more = more;
    this.bad = bad;
    /** @type {number[]} */
    this.points = [];
    this.shown = element("div", { className: "value" });
    this.small = element("div", { className: "more" });
    this.area = document.createElementNS(SVG, "path");
    this.area.setAttribute("class", "area");
    this.line = document.createElementNS(SVG, "path");
    this.line.setAttribute("class", "line");
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 100`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.append(this.area, this.line);
    const heading = element("h2", { textContent: title });
    this.tile = element("div", { className: "tile" }, heading, this.shown, this.small, svg);
  }

  /** @param {Numbers} numbers */
  add(numbers) {
    this.points.push(this.value(numbers) ?? 0);
    if (this.points.length > POINTS) this.points.shift();
  }

  /** @param {Numbers} numbers */
  draw(numbers) {
    const value = this.value(numbers);
    this.shown.textContent = this.text(value, numbers);
    this.small.textContent = this.more(numbers);
    this.tile.classList.toggle("bad", this.bad && Boolean(value));
    const most = Math.max(...this.points) * 1.1 || 1;
    const left = POINTS - this.points.length;
    const places = this.points.map((point, n) => `${left + n},${98 - (point / most) * 96}`);
    this.line.setAttribute("d", `M${places.join("L")}`);
    this.area.setAttribute("d", `M${left},100L${places.join("L")}L${POINTS - 1},100Z`);
  }
}

/** @param {string} rate */
const rated = (rate) => (/** @type {Numbers} */ { rates }) => rates[rate];

/** @param {number | null} value */
const aSecond = (value) => `${short(value ?? 0)}/s`;

const TILES = [
  new Tile("Published", rated("published"), aSecond, ({ rates }) => `${size(Math.round(rates.published_bytes))}/s`),
  new Tile("Delivered", rated("delivered"), aSecond, ({ rates }) => `${size(Math.round(rates.delivered_bytes))}/s`),
  new Tile(
    "Subscribers",
    ({ subscribers }) => subscribers,
    (value) => short(value ?? 0),
    ({ connections, replays }) => `${short(connections)} connections, ${short(replays)} replays`,
  ),
  new Tile("Delivered within", ({ seconds }) => seconds.delivery, milliseconds, () => "99 of 100 messages"),
  new Tile("Server late by", ({ seconds }) => seconds.reactor, milliseconds, () => "99 of 100 times"),
  new Tile("Waiting", ({ waiting }) => waiting, (value) => size(value ?? 0), () => "for slow subscribers"),
  new Tile("Lost", rated("lost"), aSecond, () => "by slow subscribers", true),
  new Tile("Refused", rated("refused"), aSecond, () => "requests", true),
];

/** @param {Numbers} numbers */
function drawLimits({ limits }) {
  const drawn = Object.entries(limits).map(([name, [value, limit]]) => {
    const told = name.endsWith("bytes") ? size : short;
    const text = limit === null ? told(value) : `${told(value)} of ${told(limit)}`;
    const label = element("label", {}, element("b", { textContent: text }), name.replace(" bytes", ""));
    if (limit !== null) {
      const high = limit * 0.8;
      label.append(element("meter", { max: limit, low: high, high: limit * 0.95, optimum: 0, value }));
    }
    return label;
  });
  part("limits", HTMLElement).replaceChildren(...drawn);
}

/** @type {Numbers | undefined} */
let newest;
let drawing = false;

/** @param {Numbers} numbers */
function addNumbers(numbers) {
  newest = numbers;
  for (const tile of TILES) tile.add(numbers);
  if (drawing) return;
  // Those of the last minutes come all at once.
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (!newest) return;
    for (const tile of TILES) tile.draw(newest);
    drawLimits(newest);
  });
}

/**
 * @param {Message} message
 * @param {{event: string, text?: string, count?: number}} warning
 */
function addWarning(message, { event, text, count }) {
  const list = part("warnings", HTMLElement);
  const time = new Date(Number(message.id.split("-")[0]));
  const told = event === "omitted" ? `and ${count} more` : (text ?? "");
  list.prepend(element("li", {}, clock(time), element("bdi", { textContent: told })));
  while (list.children.length > WARNINGS) list.lastElementChild?.remove();
  part("no-warnings", HTMLElement).hidden = true;
}

/** @param {Message} message */
function take(message) {
  const told = JSON.parse(new TextDecoder().decode(message.body));
  if (message.channel === "numbers") addNumbers(told);
  else addWarning(message, told);
}

/**
 * A table, or a sentence if it has no rows.
 *
 * @param {string} id
 * @param {string} none
 * @param {[string, string][]} columns - The title and the class of each.
 * @param {(string | Node)[][]} rows
 */
function drawTable(id, none, columns, rows) {
  const place = part(id, HTMLElement);
  if (!rows.length) {
    place.replaceChildren(element("p", { className: "none", textContent: none }));
    return;
  }
  const titles = columns.map(([textContent, className]) =>
    element("th", { scope: "col", textContent, className }),
  );
  const lines = rows.map((cells) =>
    element("tr", {}, ...cells.map((cell, n) => {
      const className = columns[n][1];
      return n ? element("td", { className }, cell) : element("th", { scope: "row", className }, cell);
    })),
  );
  const head = element("thead", {}, element("tr", {}, ...titles));
  place.replaceChildren(element("table", {}, head, element("tbody", {}, ...lines)));
}

/** @param {string} text - Of a stranger. */
const apart = (text) => element("bdi", { textContent: text });

/** @param {Subscriber} subscriber */
async function endStream({ subscriber, name, address }) {
  if (!confirm(`End the stream of ${address} from ${name || "all channels"}? A client may come back.`)) return;
  const outcome = part("outcome", HTMLElement);
  try {
    const answer = await fetch(`subscribers/${subscriber}`, { method: "DELETE" });
    outcome.textContent = answer.ok ? `The stream of ${address} was ended.` : await answer.text();
  } catch {
    outcome.textContent = "The bus cannot be reached.";
  }
  await drawTables();
}

/** @param {Subscriber[]} subscribers */
function drawSlow(subscribers) {
  // A button must not go away while somebody is about to press it.
  if (document.activeElement?.closest("#slow td")) return;
  const slow = subscribers.filter(({ waiting, missed }) => waiting.bytes || missed);
  drawTable(
    "slow",
    "Everybody keeps up.",
    [["Reads", "name"], ["Who", "name"], ["Form", ""], ["Waiting", "number"], ["Missed", "number"], ["Since", "number"], ["Stream", "action"]],
    slow.map((one) => {
      const button = element("button", { type: "button", textContent: "End" });
      button.setAttribute("aria-label", `End the stream of ${one.address}`);
      button.onclick = () => {
        button.blur();
        void endStream(one);
      };
      return [
        apart(one.name || "(all channels)"),
        apart([one.user, one.address].filter(Boolean).join(" at ")),
        one.form,
        size(one.waiting.bytes),
        short(one.missed),
        clock(new Date(one.since)),
        button,
      ];
    }),
  );
}

/** @param {Channel[]} channels */
function drawChannels(channels) {
  drawTable(
    "channels",
    "There are no channels yet.",
    [["Channel", "name"], ["Messages", "number"], ["Subscribers", "number"], ["Last", "number"], ["Type", "name"]],
    channels.map((one) => [
      apart(one.name),
      aSecond(one.rate),
      short(one.subscribers),
      one.time ? clock(new Date(one.time)) : "–",
      apart(one.type ?? "–"),
    ]),
  );
}

/** @param {string} address */
async function listOf(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

async function drawTables() {
  const ready = part("ready", HTMLElement);
  try {
    const answer = await fetch("readyz");
    ready.textContent = answer.ok ? "" : await answer.text();
    ready.dataset.state = answer.ok ? "open" : "lost";
    drawSlow((await listOf(`subscribers?limit=${ROWS}`)).subscribers);
    drawChannels((await listOf(`channels?limit=${ROWS}`)).channels);
  } catch {
    // The stream tells that the bus is away.
    ready.textContent = "";
  }
}

async function keepTables() {
  if (document.visibilityState === "visible") await drawTables();
  setTimeout(keepTables, TABLE_SECONDS * 1000);
}

part("host", HTMLElement).textContent = `at ${location.host}`;
part("tiles", HTMLElement).append(...TILES.map(({ tile }) => tile));
void keepTables();
const nothing = /** @type {any} */ ({ gap() {} });
await watch(nothing, part("state", HTMLElement), () => new URL("events/", location.href), {
  channel: "numbers,warnings",
  last: POINTS + WARNINGS,
  onmessage: take,
});
