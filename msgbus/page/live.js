/**
 * The page at the address of a channel or folder: what is published there, as it comes.
 *
 * @module
 */

import "./look.js";
import { BusError, publish, subscribe, timeOf } from "./msgbus.js";
import { clock, element, Log, mediaType, part, senderOf, show, showState } from "./view.js";

/** @import { Message } from "./msgbus.js" */

/** Unless the address says otherwise, the page begins with so many messages. */
const LAST = 20;

/** Where the bus is: a proxy may have put it elsewhere. */
const BUS = new URL("..", import.meta.url);

/** The channel, or the folder, which ends in a slash, or is empty. */
const NAME = decodeURIComponent(location.pathname.slice(BUS.pathname.length));
const FOLDER = NAME === "" || NAME.endsWith("/");

const log = new Log(part("log", HTMLOListElement), item);

/** @param {string} name */
function addressOf(name) {
  return new URL(name.split("/").map(encodeURIComponent).join("/"), BUS);
}

/** @param {Message} message */
function item(message) {
  const time = timeOf(message);
  const head = element("header", {}, senderOf(message));
  if (FOLDER) {
    const { href } = addressOf(message.channel);
    head.append(element("a", { href, dir: "auto", textContent: message.channel || "/" }));
  }
  if (time) head.append(clock(time));
  head.append(element("span", { className: "type", textContent: mediaType(message) }));
  return element("li", {}, head, show(message));
}

function heading() {
  const way = part("name", HTMLHeadingElement);
  way.append(element("a", { href: BUS.href, textContent: "msgbus" }));
  const segments = NAME.split("/");
  segments.forEach((segment, index) => {
    way.append(element("span", { className: "slash", textContent: "/" }));
    if (!segment) return;
    const { href } = addressOf([...segments.slice(0, index + 1), ""].join("/"));
    const words = element("bdi", { textContent: segment });
    const last = index === segments.length - 1;
    way.append(last ? words : element("a", { href }, words));
  });
  document.title = `${NAME || "everything"} · msgbus`;
}

function pausing() {
  const button = part("pause", HTMLButtonElement);
  const label = () => {
    const more = log.waiting ? ` (${log.waiting.toLocaleString("en")})` : "";
    button.textContent = log.paused ? `Resume${more}` : "Pause";
    button.ariaPressed = String(log.paused);
  };
  button.onclick = () => {
    log.paused = !log.paused;
    label();
  };
  setInterval(() => log.paused && label(), 500);
}

function filtering() {
  const form = part("filter", HTMLFormElement);
  // A plus is a plus in a type, and a space elsewhere.
  const query = new URLSearchParams(location.search);
  const types = new URLSearchParams(location.search.replaceAll("+", "%2B"));
  const fields = ["type", "sender", "channel"].map((name) => part(`filter-${name}`, HTMLInputElement));
  for (const field of fields) {
    field.value = (field.name === "type" ? types : query).getAll(field.name).join(",");
    field.form?.closest("details")?.toggleAttribute("open", fields.some((one) => one.value));
  }
  part("filter-channel", HTMLInputElement).parentElement?.toggleAttribute("hidden", !FOLDER);
  form.onsubmit = (event) => {
    event.preventDefault();
    for (const { name, value } of fields) {
      query.delete(name);
      if (value.trim()) query.set(name, value.trim());
    }
    location.search = String(query);
  };
}

function publishing() {
  const form = part("publish", HTMLFormElement);
  const body = part("body", HTMLTextAreaElement);
  const file = part("file", HTMLInputElement);
  const type = part("type", HTMLInputElement);
  const name = part("sender", HTMLInputElement);
  const channel = part("channel", HTMLInputElement);
  const outcome = part("outcome", HTMLOutputElement);
  const usual = type.value;
  part("more", HTMLDetailsElement).open = innerWidth > 700;
  channel.parentElement?.toggleAttribute("hidden", !FOLDER);
  channel.value = NAME;
  const choose = () => {
    const [chosen] = file.files ?? [];
    type.value = chosen ? chosen.type || "application/octet-stream" : usual;
    body.disabled = Boolean(chosen);
  };
  file.onchange = choose;
  body.onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  };
  form.onsubmit = async (event) => {
    event.preventDefault();
    const [chosen] = file.files ?? [];
    const sent = body.value;
    outcome.dataset.state = "";
    outcome.textContent = "Publishing…";
    try {
      // Not by its own type, which may be another here.
      const what = chosen ? await chosen.arrayBuffer() : sent;
      const user = name.value || undefined;
      const where = addressOf(FOLDER ? channel.value : NAME);
      const { subscribers } = await publish(where, what, type.value, { user });
      outcome.textContent = `Published, for ${subscribers} subscriber${subscribers === 1 ? "" : "s"}.`;
      if (chosen) file.value = "";
      else if (body.value === sent) body.value = "";
      choose();
    } catch (error) {
      // What was typed stays where it is.
      outcome.dataset.state = "closed";
      outcome.textContent = error instanceof BusError ? error.message : String(error);
    }
  };
}

heading();
pausing();
filtering();
publishing();
subscribe(location.href, {
  last: LAST,
  onmessage: (message) => log.add(message),
  onstate: (state) => showState(part("state", HTMLOutputElement), state),
  ongap: (count) => log.gap(count),
}).catch((error) => {
  if (!(error instanceof BusError)) throw error;
});
