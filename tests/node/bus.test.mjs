/**
 * `msgbus.js` and a real bus, and servers that are none.
 */

import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, test } from "node:test";

import { folder, kill, start, stop } from "./buses.mjs";
import { BusError, channels, forget, publish, signIn, subscribe, timeOf } from "../../msgbus/web/page/msgbus.js";

after(stop);

/** A server that says these bytes to each connection, and ends it; it has a `url`. */
async function say(...answers) {
  const asked = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (head) => {
      asked.push(String(head));
      socket.end(answers[Math.min(asked.length, answers.length) - 1]);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  server.unref();
  return { asked, url: `http://127.0.0.1:${server.address().port}/msgbus/foo` };
}

/** What comes until `enough` says so: messages with their bodies as text, and gaps. */
async function take(url, enough, options = {}) {
  const over = new AbortController();
  const got = [];
  const put = (item) => {
    got.push(item);
    if (enough(got)) over.abort();
  };
  await subscribe(url, {
    ...options,
    signal: over.signal,
    onmessage: (message) => put({ ...message, body: new TextDecoder().decode(message.body) }),
    ongap: (count) => put({ gap: count }),
  });
  return got;
}

/** These bytes in a format of `CompressionStream`. */
async function compressed(bytes, format) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream(format));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const bodies = (items) => items.map((item) => item.body);

test("A message arrives as it was published", async () => {
  const bus = await start();
  const receipt = await publish(`${bus.url}a b/ä?x`, "grüße", undefined, { user: "älice" });
  assert.equal(receipt.subscribers, 0);
  const [message] = await take(`${bus.url}?since=all`, () => true);
  assert.deepEqual(message, {
    id: receipt.id,
    channel: "a b/ä",
    headers: {},
    maxAge: null,
    type: "text/plain; charset=utf-8",
    sender: "älice",
    origin: "",
    body: "grüße",
  });
  assert(Math.abs(timeOf(message) - Date.now()) < 60_000);
  assert.equal(timeOf({ id: "x" }), null);
  await kill(bus);
});

test("Bodies are text, bytes, and files of their own type; options narrow", async () => {
  const bus = await start();
  const url = `${bus.url}foo`;
  await publish(url, new Blob(["<p>"], { type: "text/html" }));
  await publish(url, new Uint8Array([0, 49, 50]).subarray(1));
  await publish(url, new Uint8Array([51]).buffer, "image/svg+xml", { user: "bob" });
  await publish(url, "", "a/b", { keep: false });
  await publish(url, "5");
  const all = await take(url, (got) => got.length === 4, { since: "all" });
  assert.deepEqual(
    all.map(({ type, body }) => [type, body]),
    [
      ["text/html", "<p>"],
      ["application/octet-stream", "12"],
      ["image/svg+xml", "3"],
      ["text/plain; charset=utf-8", "5"],
    ],
  );
  // What was not kept is told as a gap.
  const one = async (query, options) =>
    (await take(url + query, (got) => got.at(-1).body, options)).filter(({ body }) => body);
  assert.deepEqual(bodies(await one("?type=image/svg+xml", { last: 9 })), ["3"]);
  assert.deepEqual(bodies(await one("", { type: "image/svg+xml", since: "1h" })), ["3"]);
  assert.deepEqual(bodies(await one("#x", { sender: "bob", last: 1 })), ["3"]);
  // What the address says goes first.
  assert.deepEqual(bodies(await one("?last=4", { since: "now" })), ["<p>"]);
  await kill(bus);
});

test("A stream begins with the newest of each channel, without what was forgotten", async () => {
  const bus = await start();
  for (const [index, name] of ["a", "b", "a", "c"].entries()) {
    await publish(`${bus.url}s/${name}`, String(index));
  }
  assert.equal(await forget(`${bus.url}s/b`), undefined);
  await forget(`${bus.url}s/b`);
  const two = (got) => got.length === 2;
  assert.deepEqual(bodies(await take(`${bus.url}s/`, two, { lastOfEach: true })), ["2", "3"]);
  // What the address says goes first.
  const address = `${bus.url}s/?last-of-each=1`;
  assert.deepEqual(bodies(await take(address, two, { last: 20 })), ["2", "3"]);
  await assert.rejects(forget(`${bus.url}s/`), ({ status }) => status === 400);
  await assert.rejects(take(`${bus.url}s/a`, two, { lastOfEach: true }), /give last=1/);
  const given = AbortSignal.abort();
  await assert.rejects(forget(`${bus.url}s/a`, { signal: given }), { name: "AbortError" });
  await kill(bus);
  await assert.rejects(forget(`${bus.url}s/a`), ({ passing }) => passing);
});

test("A subscription goes on behind the last message, over a bus that is killed", async () => {
  const options = ["--history-file", join(folder, "history.db")];
  let bus = await start(0, ...options);
  const { port, url } = bus;
  const states = [];
  const all = take(`${url}foo`, (got) => got.length === 30, {
    since: "all",
    onstate: (state) => states.push(state),
  });
  for (let number = 0; number < 30; number++) {
    if (number % 10 === 9) {
      await kill(bus);
      setTimeout(async () => (bus = await start(port, ...options)), 100);
    }
    // It is sent until it is answered.
    await publish(`${url}foo`, String(number), "text/plain", { patience: 30 });
  }
  assert.deepEqual(bodies(await all), Array.from({ length: 30 }, (_, number) => String(number)));
  const names = states.map(({ name }) => name);
  assert.deepEqual(names.slice(0, 4), ["connecting", "open", "lost", "connecting"]);
  assert.equal(names.at(-1), "closed");
  assert(states[2].seconds > 0 && states[2].reason);
  assert.equal(states.at(-1).reason, "");
  await kill(bus);
});

test("A gap is told where it is", async () => {
  const bus = await start(0, "--history", "2");
  const first = await publish(`${bus.url}foo`, "0");
  for (const text of "1234") await publish(`${bus.url}foo`, text);
  const got = await take(bus.url, (got) => got.length === 3, { since: first.id });
  assert.deepEqual(got.map((item) => item.gap ?? item.body), [2, "3", "4"]);
  const unknown = await take(`${bus.url}foo`, () => true, { since: first.id });
  assert.deepEqual(unknown, [{ gap: null }]);
  await kill(bus);
});

test("Where history ends is told, and a subscription can end there", async () => {
  const bus = await start();
  const url = `${bus.url}foo`;
  for (const text of "123") await publish(url, text);
  const over = new AbortController();
  const got = [];
  const onmessage = ({ body }) => {
    got.push(new TextDecoder().decode(body));
    if (got.at(-1) === "4") over.abort();
  };
  const onlive = async () => {
    got.push("live");
    await publish(url, "4");
  };
  await subscribe(url, { since: "all", onmessage, onlive, signal: over.signal });
  assert.deepEqual(got, ["1", "2", "3", "live", "4"]);
  for (const [address, options, expected] of [
    [url, { last: 2, until: "now" }, ["3", "4", "live"]],
    [`${url}?last=1&until=now`, {}, ["4", "live"]],
    [`${bus.url}empty`, { since: "1h", until: "now" }, ["live"]],
  ]) {
    const states = [];
    got.length = 0;
    await subscribe(address, {
      ...options,
      onmessage: ({ body }) => got.push(new TextDecoder().decode(body)),
      onlive: () => got.push("live"),
      onstate: ({ name, reason }) => states.push(name + reason),
    });
    assert.deepEqual(got, expected);
    assert.deepEqual(states, ["connecting", "open", "closed"]);
  }
  await assert.rejects(subscribe(url, { until: "now" }), { status: 400, message: /add since/ });
  await kill(bus);
});

test("A stream that is lost before history ends is asked for again", async () => {
  const head = "HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed;boundary=B\r\n\r\n--B\r\n";
  const part = (id) =>
    `Content-Type: a/b\r\nContent-Length: 1\r\nMsgbus-Id: ${id}\r\n\r\nx\r\n--B\r\n`;
  for (const end of ["Msgbus-Live: 1\r\n\r\n--B--\r\n", "Msgbus-Live: 1\r\n"]) {
    const server = await say(head + part("1-1"), head + part("1-2") + end);
    const ids = [];
    const onmessage = ({ id }) => ids.push(id);
    await subscribe(server.url, { since: "all", until: "now", onmessage });
    assert.deepEqual(ids, ["1-1", "1-2"]);
    assert.match(server.asked[1], /last-event-id: 1-1/i);
    assert.equal(server.asked.length, 2);
  }
});

test("With an interval, the newest messages come", async () => {
  const bus = await start();
  const url = `${bus.url}foo`;
  const over = new AbortController();
  const got = [];
  let opened;
  const open = new Promise((resolve) => (opened = resolve));
  const all = subscribe(url, {
    overflow: "latest",
    interval: "2s",
    signal: over.signal,
    onstate: ({ name }) => name === "open" && opened(),
    onmessage: ({ body }) => {
      got.push(new TextDecoder().decode(body));
      if (got.at(-1) === "50") over.abort();
    },
    ongap: (count) => got.push({ count }),
  });
  await open;
  for (let number = 0; number <= 50; number++) await publish(url, String(number));
  await all;
  assert(got.length < 20, String(got));
  await kill(bus);
});

test("Who is slow is waited for", async () => {
  const bus = await start();
  for (const text of "123") await publish(`${bus.url}foo`, text);
  let under_way = 0;
  const over = new AbortController();
  const order = [];
  await subscribe(`${bus.url}foo`, {
    since: "all",
    signal: over.signal,
    async onmessage({ body }) {
      assert.equal(++under_way, 1);
      await new Promise((resolve) => setTimeout(resolve, 50));
      order.push(String.fromCharCode(...body));
      under_way--;
      if (order.length === 3) over.abort();
    },
  });
  assert.deepEqual(order, ["1", "2", "3"]);
  await kill(bus);
});

test("A password comes from the address, or the options", async () => {
  const bus = await start(0, "--secret", "s:ß");
  const url = `${bus.url}foo`;
  await assert.rejects(publish(url, "x"), (error) => error.status === 401);
  await assert.rejects(publish(url, "x", "", { user: "a:b" }), BusError);
  await publish(url, "1", "", { user: "älice", password: "s:ß" });
  await publish(url.replace("//", "//%C3%A4lice:s%3A%C3%9F@"), "2");
  const got = await take(url.replace("//", "//x:s%3A%C3%9F@"), (got) => got.length === 2, { last: 2 });
  assert.deepEqual(got.map(({ sender }) => sender), ["älice", "älice"]);
  await kill(bus);
});

test("Who has not signed in is told so", async () => {
  const file = join(folder, "users");
  // The password is "secret".
  writeFileSync(file, "alice:$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW\n");
  const bus = await start(0, "--users", file);
  await assert.rejects(signIn(bus.url), (error) => {
    assert(error instanceof BusError);
    assert.deepEqual([error.status, error.passing], [401, false]);
    assert.match(error.message, /have not signed in/);
    return true;
  });
  await assert.rejects(signIn(bus.url.replace("//", "//alice:wrong@")), { status: 401 });
  await signIn(bus.url.replace("//", "//alice:secret@"));
  await kill(bus);
  const open = await start();
  await signIn(open.url);
  await kill(open);
});

test("What is refused says why, and is not tried again", async () => {
  const bus = await start(0, "--max-message", "10");
  for (const [attempt, status, sentence] of [
    [() => publish(`${bus.url}a//b`, "x"), 400, /empty segment/],
    [() => publish(`${bus.url}foo`, "x".repeat(11), "", { patience: 60 }), 413, /10 bytes/],
    [() => publish(`${bus.url}foo`, "x", "nonsense"), 400, /type/],
    [() => subscribe(`${bus.url}foo?type=!`), 400, /!/],
    [() => subscribe(bus.url.replace("/msgbus", "/nothing")), 404, /\/msgbus\//],
  ]) {
    await assert.rejects(attempt, (error) => {
      assert(error instanceof BusError);
      assert.deepEqual([error.status, error.passing], [status, false]);
      assert.match(error.message, sentence);
      return true;
    });
  }
  await kill(bus);
});

const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed;boundary=B\r\n\r\n--B\r\n";
const PART = "Content-Location: /msgbus/foo\r\nContent-Type: a/b\r\nContent-Length: 1\r\n\r\n1\r\n--B\r\n";

test("What is no stream of messages ends with one sentence", async () => {
  for (const [answer, sentence] of [
    [`${HEAD}${PART}garbage\r\n`, /no header line/],
    [`${HEAD}Content-Location: /x/\r\n\r\nx\r\n--B\r\n`, /not below/],
    [`${HEAD}Content-Location: /msgbus/%ff\r\n\r\nx\r\n--B\r\n`, /no address/],
    ["HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<h1>", /no bus: it answered 200 with text/],
    ["HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed\r\n\r\n", /no stream.*boundary/],
    ["HTTP/1.1 403 No\r\nContent-Type: text/plain\r\n\r\nNot you.\nNor him.", /^Not you.$/],
    ["HTTP/1.1 404 No\r\nContent-Type: text/html\r\n\r\n<h1>", /^The answer is 404.$/],
  ]) {
    const { url, asked } = await say(answer);
    const states = [];
    const got = [];
    await assert.rejects(
      subscribe(url, {
        onmessage: (message) => got.push(message),
        onstate: (state) => states.push(state),
      }),
      (error) => error instanceof BusError && sentence.test(error.message),
    );
    assert.equal(states.at(-1).name, "closed");
    assert.match(states.at(-1).reason, sentence);
    assert.equal(asked.length, 1);
    assert.equal(got.length, answer.includes(PART) ? 1 : 0);
  }
});

test("What may pass is tried again, behind the last message", async () => {
  const part = PART.replace("\r\n\r\n", "\r\nMsgbus-Id: 7-7\r\n\r\n");
  const { url, asked } = await say(
    "",
    "HTTP/1.1 503 No\r\n\r\n",
    "HTTP/1.1 200",
    `${HEAD}${part}Content-Type: a/b\r\nContent-Le`,
    `${HEAD}${part.replace("7-7", "7-8")}`,
  );
  const got = await take(url, (got) => got.length === 2, { since: "1h" });
  assert.deepEqual(got.map(({ id }) => id), ["7-7", "7-8"]);
  assert.equal(asked.length, 5);
  assert(!asked[3].toLowerCase().includes("last-event-id"));
  assert.match(asked[4], /last-event-id: 7-7/i);
  assert.match(asked[4], /^GET \/msgbus\/foo\?since=1h&heartbeat=25 /);
  assert.match(asked[4], /accept: multipart\/mixed/i);
});

test("A silent server is given up, but not one that cannot beat", async () => {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    const beats = server.asked++ ? "" : "Msgbus-Prefix: /msgbus/\r\n";
    socket.once("data", () => {
      socket.write(HEAD.replace("\r\n\r\n", `\r\n${beats}\r\n`));
      if (!beats) setTimeout(() => socket.write(PART), 10_500);
    });
  });
  server.asked = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const states = [];
  const url = `http://127.0.0.1:${server.address().port}/msgbus/foo`;
  await take(url, () => true, { heartbeat: 5, onstate: (state) => states.push(state) });
  const told = states.map(({ name }) => name);
  assert.deepEqual(told, ["connecting", "open", "lost", "connecting", "open", "closed"]);
  assert.match(states.find(({ name }) => name === "lost").reason, /silent for 10 seconds/);
  server.close();
});

test("What a callback throws ends it", async () => {
  const { url, asked } = await say(HEAD + PART);
  const onmessage = () => {
    throw new RangeError("mine");
  };
  await assert.rejects(subscribe(url, { onmessage }), RangeError);
  assert.equal(asked.length, 1);
});

test("It ends at once, whenever it is told to", async () => {
  const { url } = await say("");
  for (const when of ["before", "connecting", "lost", "later"]) {
    const over = new AbortController();
    if (when === "before") over.abort();
    if (when === "later") setTimeout(() => over.abort(), 1);
    const states = [];
    const onstate = ({ name }) => {
      states.push(name);
      if (name === when) over.abort();
    };
    await subscribe(url, { signal: over.signal, onstate });
    assert.equal(states.at(-1), "closed", when);
    await assert.rejects(publish(url, "x", "", { patience: 60, signal: over.signal }), /abort/i);
  }
});

test("A publication whose answer is lost is delivered once", async () => {
  const bus = await start();
  // The first answer is lost on its way.
  let connections = 0;
  const proxy = createServer(async (socket) => {
    const { Socket } = await import("node:net");
    const behind = new Socket().connect(Number(bus.port), "127.0.0.1");
    const first = ++connections === 1;
    for (const end of [socket, behind]) end.on("error", () => {});
    socket.pipe(behind);
    if (first) behind.once("data", () => socket.destroy());
    else behind.pipe(socket);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const url = `http://127.0.0.1:${proxy.address().port}/msgbus/foo`;
  await assert.rejects(publish(url, "0"), /cannot be reached/);
  connections = 0;
  await publish(url, "1", "", { patience: 30 });
  assert(connections > 1);
  await publish(`${bus.url}foo`, "2");
  const got = await take(`${bus.url}foo`, (got) => got.length === 3, { since: "all" });
  assert.deepEqual(bodies(got), ["0", "1", "2"]);
  proxy.close();
  await kill(bus);
});

test("What a callback throws is none of ours, whatever it is", async () => {
  const { url, asked } = await say(HEAD.replace("\r\n--B", "\r\n--B\r\nMsgbus-Gap: 3, 4") + PART);
  const error = new BusError("mine", 0, true);
  const fail = () => {
    throw error;
  };
  const slowly = async () => fail();
  for (const callbacks of [{ onmessage: fail }, { onmessage: slowly }, { ongap: slowly }]) {
    await assert.rejects(subscribe(url, callbacks), (one) => one === error);
  }
  assert.equal(asked.length, 3);
});

test("Nothing is told behind its end", async () => {
  const { url } = await say(HEAD.replace("--B\r\n", "--B\r\nMsgbus-Gap: 3, 4\r\n") + PART);
  assert.deepEqual(await take(url, () => true), [{ gap: 3 }]);
  assert.deepEqual(await take(url, (got) => got.length === 2), [{ gap: 3 }, { gap: 4 }]);
});

test("What cannot be asked is said at once", async () => {
  const { url, asked } = await say("");
  const gone = new Blob(["x"]);
  gone.arrayBuffer = () => Promise.reject(new DOMException("gone", "NotReadableError"));
  await assert.rejects(publish(url, "x", "text/plain; name=ж", { patience: 60 }), TypeError);
  await assert.rejects(publish(url, gone, "", { patience: 60 }), /gone/);
  assert.equal(asked.length, 0);
});

test("The heartbeat is that of the address, and the bus judges it", async () => {
  const bus = await start();
  for (const [query, heartbeat] of [["?heartbeat=3", undefined], ["", 0]]) {
    await assert.rejects(subscribe(`${bus.url}foo${query}`, { heartbeat }), /5 to 300 seconds/);
  }
  await kill(bus);
});

test("A refusal that has no end, or breaks off, is told", async () => {
  for (const end of [false, true]) {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => {
        socket.write("HTTP/1.1 403 No\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\nNo");
        setTimeout(() => (end ? socket.destroy() : socket.write(", never.\nNor")), 50);
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${server.address().port}/msgbus/foo`;
    const sentence = end ? /: No$/ : /: No, never\.$/;
    await assert.rejects(publish(url, "x"), sentence);
    await assert.rejects(subscribe(url), sentence);
    server.close();
  }
});

test("Channels are listed in pages, as they are", async () => {
  const bus = await start();
  const names = ["a/1", "a/ä &?#", "b"];
  for (const name of names) {
    await publish(bus.url + name.split("/").map(encodeURIComponent).join("/"), "x", "text/plain");
  }
  const got = [];
  let after;
  do {
    const page = await channels(bus.url, { limit: 1, after });
    got.push(...page.channels);
    after = page.next;
  } while (after);
  assert.deepEqual(got.map(({ name }) => name), names);
  assert.equal(got[0].subscribers, 0);
  assert.equal(got[0].last.type, "text/plain");
  assert.equal(new Date(got[0].last.time).getTime(), timeOf(got[0].last).getTime());
  const below = await channels(`${bus.url}a/?x`, { channel: "*ä*" });
  assert.deepEqual([below.channels.map(({ name }) => name), below.next], [["a/ä &?#"], null]);
});

test("A list that is refused, or that is none, says why", async () => {
  const bus = await start();
  await assert.rejects(
    channels(bus.url, { limit: 0 }),
    (error) => error instanceof BusError && error.status === 400 && /1 to 1000/.test(error.message),
  );
  const { url } = await say("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<h1>");
  await assert.rejects(channels(url), /This is no bus/);
  await assert.rejects(channels(bus.url, { signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("Headers and a time to live travel with a message", async () => {
  const bus = await start();
  const url = `${bus.url}orders`;
  const headers = { "CE-Type": "com.example.made", "x-who": "a~b" };
  await publish(url, "a", "text/plain", { headers: { "ce-type": "other" } });
  await publish(url, "b", "text/plain", { headers, maxAge: 60, keep: true });
  const header = { "ce-type": "com.*", "X-Who": "a*" };
  const [message] = await take(url, () => true, { header, since: "all" });
  assert.equal(message.body, "b");
  assert.deepEqual(message.headers, { "ce-type": "com.example.made", "x-who": "a~b" });
  assert.equal(message.maxAge, 60);
  for (const name of ["Cookie", "Authorization", "x-\n", "X", ""]) {
    const told = { headers: { [name]: "a" } };
    await assert.rejects(publish(url, "c", "text/plain", told), /does not travel/);
  }
  for (const value of ["ü", "\n"]) {
    const told = { headers: { "x-a": value } };
    await assert.rejects(publish(url, "c", "text/plain", told), /encode it in ASCII/);
  }
  const refused = publish(url, "c", "text/plain", { maxAge: "soon" });
  await assert.rejects(refused, /max-age/);
});

test("Content codings are undone, if they are what they say", async () => {
  const bus = await start();
  const url = `${bus.url}coded`;
  const zipped = await compressed(new TextEncoder().encode("hello"), "gzip");
  const bomb = await compressed(new Uint8Array(70e6), "gzip");
  for (const [body, coding] of [
    [zipped, "gzip"],
    [await compressed(zipped, "deflate"), "gzip, Deflate"],
    [zipped, "deflate"],
    [zipped.slice(0, -1), "gzip"],
    [zipped, "br"],
    [zipped, "constructor"],
    [bomb, "gzip"],
  ]) {
    await publish(url, body, "text/plain", { headers: { "Content-Encoding": coding } });
  }
  const got = [];
  const over = new AbortController();
  await subscribe(url, {
    since: "all",
    signal: over.signal,
    onmessage: (message) => {
      got.push(message);
      if (got.length === 7) over.abort();
    },
  });
  const [plain, twice, ...others] = got;
  for (const each of [plain, twice]) {
    assert.equal(new TextDecoder().decode(each.body), "hello");
    assert.deepEqual(each.headers, {});
  }
  assert.deepEqual(
    others.map(({ headers }) => headers["content-encoding"]),
    ["deflate", "gzip", "br", "constructor", "gzip"],
  );
  assert.deepEqual(others.at(-1).body, bomb);
});
