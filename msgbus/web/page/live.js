/**
 * The page at the address of a channel or folder: what is published there, as it comes.
 *
 * @module
 */

import "./look.js";
import { publish } from "./msgbus.js";
import {
  addressOf,
  article,
  element,
  heading,
  listOf,
  Log,
  part,
  publishAs,
  publishing,
  signingIn,
  size,
  watch,
} from "./view.js";

/** @import { Message } from "./msgbus.js" */

/** Unless the address says otherwise, the page begins with so many messages. */
const LAST = 20;

/** Where the bus is: a proxy may have put it elsewhere. */
const BUS = new URL("..", import.meta.url);

/** The channel, or the folder, which ends in a slash, or is empty. */
const NAME = decodeURIComponent(location.pathname.slice(BUS.pathname.length));
const FOLDER = NAME === "" || NAME.endsWith("/");

const log = new Log(part("log", HTMLElement), item);

/** @param {Message} message */
function item(message) {
  if (!FOLDER) return article(message);
  const { href } = addressOf(BUS, message.channel);
  const link = element("a", { href, dir: "auto", textContent: message.channel || "/" });
  return article(message, link);
}

/** A link to the list of the folder, or of the folder above the channel. */
function listing() {
  const link = part("list", HTMLAnchorElement);
  link.href = listOf(BUS, NAME.slice(0, NAME.lastIndexOf("/") + 1)).href;
  link.hidden = false;
}

function pausing() {
  const button = part("pause", HTMLButtonElement);
  const label = () => {
    const more = log.waiting ? ` (${log.waiting.toLocaleString("en")})` : "";
    button.textContent = log.paused ? `Resume${more}` : "Pause";
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
  }
  const each = part("filter-each", HTMLInputElement);
  const eachBefore = (each.checked = query.has("last-of-each"));
  const isNarrow = fields.some(({ value }) => value !== "");
  part("filtering", HTMLDetailsElement).open = isNarrow || eachBefore;
  for (const { parentElement } of [part("filter-channel", HTMLInputElement), each]) {
    parentElement?.toggleAttribute("hidden", !FOLDER);
  }
  form.onsubmit = (event) => {
    event.preventDefault();
    for (const { name, value } of fields) {
      query.delete(name);
      if (value.trim()) query.set(name, value.trim());
    }
    if (each.checked !== eachBefore) {
      for (const name of ["since", "last", "last-of-each"]) query.delete(name);
      if (each.checked) query.set("last-of-each", "1");
    }
    location.search = String(query);
  };
}

function writing() {
  const form = part("publish", HTMLFormElement);
  const body = part("body", HTMLTextAreaElement);
  const file = part("file", HTMLInputElement);
  const type = part("type", HTMLInputElement);
  const name = part("sender", HTMLInputElement);
  const channel = part("channel", HTMLInputElement);
  const { value: usual } = type;
  const { placeholder } = body;
  part("more", HTMLDetailsElement).open = innerWidth > 700;
  channel.parentElement?.toggleAttribute("hidden", !FOLDER);
  channel.value = NAME;
  const choose = () => {
    const [chosen] = file.files ?? [];
    type.value = chosen ? chosen.type || "application/octet-stream" : usual;
    body.disabled = Boolean(chosen);
    body.placeholder = chosen ? `${chosen.name}, ${size(chosen.size)}` : placeholder;
  };
  file.onchange = choose;
  body.onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  };
  publishing(form, part("outcome", HTMLOutputElement), async () => {
    const [chosen] = file.files ?? [];
    const sent = body.value;
    // As bytes, because the user may have entered another type than that of the file.
    const what = chosen ? await chosen.arrayBuffer() : sent;
    const where = addressOf(BUS, FOLDER ? channel.value : NAME);
    const receipt = await publishAs(name, BUS, (user) =>
      publish(where, what, type.value, { user }),
    );
    if (chosen) {
      file.value = "";
      choose();
    } else if (body.value === sent) body.value = "";
    return receipt;
  });
}

heading(part("name", HTMLHeadingElement), BUS, NAME, addressOf);
document.title = `${NAME || "everything"} · msgbus`;
listing();
pausing();
filtering();
writing();
signingIn(part("sign-in", HTMLButtonElement), BUS, part("outcome", HTMLOutputElement));
watch(log, part("state", HTMLOutputElement), () => location.href, {
  last: LAST,
  onlive: () => log.live(),
});
