/**
 * The front page: what a bus is, a way to try it, and the channels that one may read.
 *
 * @module
 */

import "./look.js";
import { ChannelTable } from "./channels.js";
import { publish } from "./msgbus.js";
import {
  addressOf,
  article,
  fix,
  listOf,
  Log,
  part,
  publishAs,
  publishing,
  signingIn,
  watch,
} from "./view.js";

/** Where the bus is: a proxy may have put it elsewhere. */
const BUS = new URL("..", import.meta.url);

/** How many of the last messages of a channel are shown at first. */
const LAST = 5;

function commands() {
  const { href } = addressOf(BUS, "hello");
  part("here", HTMLPreElement).textContent = [
    `curl -N '${href}'`,
    `curl '${href}' -H 'Content-Type: text/plain' -d 'Hello, world!'`,
    `curl '${listOf(BUS, "").href}'`,
  ].join("\n");
}

/**
 * Show what is published to the channel that is written in the form.
 *
 * @returns {() => void} To be called when the form is used: nobody subscribes who only looks at
 *   the page.
 */
function reading() {
  const channel = part("channel", HTMLInputElement);
  const live = part("live", HTMLOutputElement);
  let ended = Promise.resolve();
  /** @type {AbortController | undefined} */
  let watching;
  const begin = () => {
    watching?.abort();
    const { signal } = (watching = new AbortController());
    const old = part("log", HTMLElement);
    const list = /** @type {HTMLElement} */ (old.cloneNode(false));
    list.hidden = false;
    old.replaceWith(list);
    const log = new Log(list, article);
    const address = () => addressOf(BUS, channel.value);
    // The one before still says that it has ended.
    ended = ended.then(() => {
      if (!signal.aborted) return watch(log, live, address, { last: LAST, signal });
    });
  };
  channel.onchange = begin;
  return () => {
    if (!watching) begin();
  };
}

/** @param {() => void} used - Called when the form is used. */
function writing(used) {
  const form = part("publish", HTMLFormElement);
  const channel = part("channel", HTMLInputElement);
  const body = part("body", HTMLInputElement);
  const name = part("sender", HTMLInputElement);
  form.addEventListener("focusin", used);
  publishing(form, part("outcome", HTMLOutputElement), async () => {
    used();
    const where = addressOf(BUS, channel.value);
    return publishAs(name, BUS, (user) => publish(where, body.value, undefined, { user }));
  });
}

/**
 * Browsers send a name and a password to what is below the bus only, so this page would be the
 * same if it were loaded again.
 */
function signIn() {
  const button = part("sign-in", HTMLButtonElement);
  signingIn(button, BUS, part("outcome-of-sign-in", HTMLOutputElement), () => {
    button.hidden = true;
    fix(part("sender", HTMLInputElement));
  });
}

commands();
writing(reading());
part("all", HTMLAnchorElement).href = listOf(BUS, "").href;
signIn();
new ChannelTable(BUS, "", part("list", HTMLElement), part("state", HTMLOutputElement));
