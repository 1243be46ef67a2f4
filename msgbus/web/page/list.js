/**
 * The page of a list: the channels below a folder that one may read.
 *
 * @module
 */

import "./look.js";
import { ChannelTable } from "./channels.js";
import { addressOf, heading, listOf, part, signingIn } from "./view.js";

/** Where the bus is: a proxy may have put it elsewhere. */
const BUS = new URL("..", import.meta.url);

/** The folder, whose name ends in a slash, or is empty. */
const NAME = decodeURIComponent(location.pathname.slice(BUS.pathname.length));

const state = part("state", HTMLOutputElement);

heading(part("name", HTMLHeadingElement), BUS, NAME, listOf);
document.title = `${NAME || "channels"} · msgbus`;
part("live", HTMLAnchorElement).href = addressOf(BUS, NAME).href;
signingIn(part("sign-in", HTMLButtonElement), BUS, state);
new ChannelTable(BUS, NAME, part("list", HTMLElement), state);
