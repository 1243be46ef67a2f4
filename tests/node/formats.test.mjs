/**
 * The forms of a stream, read by packages that others wrote; `MODULES` is where they are.
 */

import assert from "node:assert/strict";
import { createServer, connect } from "node:net";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { after, test } from "node:test";

import { publish } from "../../msgbus/web/page/msgbus.js";
import { kill, start, stop } from "./buses.mjs";

const MODULES = process.env.MODULES ?? "node_modules";
const CUTS = 100;
const COUNT = 2000;

const load = (name) =>
  import(pathToFileURL(createRequire(join(MODULES, "of-others.cjs")).resolve(name)));
const { EventSource } = await load("eventsource");
const { meros } = await load("meros/browser");

after(stop);

/** What leads to a bus, and cuts each connection after some bytes, a hundred times; it has a `url`. */
async function proxy(bus) {
  const made = { cuts: 0 };
  const server = createServer((client) => {
    const upstream = connect(bus.port, "127.0.0.1");
    for (const end of [client, upstream]) end.on("error", () => {});
    client.pipe(upstream);
    client.on("close", () => upstream.destroy());
    let left = made.cuts < CUTS ? 300 + Math.floor(Math.random() * 1000) : Infinity;
    upstream.on("data", (data) => {
      if (left <= 0) return;
      client.write(data.subarray(0, left));
      left -= data.length;
      if (left <= 0) {
        made.cuts++;
        client.end(() => client.destroy());
      }
    });
    upstream.on("close", () => client.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  server.unref();
  made.url = `http://127.0.0.1:${server.address().port}/msgbus/`;
  return made;
}

test("eventsource misses nothing, cut off a hundred times", { timeout: 110_000 }, async () => {
  const bus = await start(0, "--history", "20000");
  const way = await proxy(bus);
  // It comes back when the stream says; a test has no such time.
  const hurried = async (input, init) => {
    const answer = await fetch(input, init);
    const decoded = answer.body.pipeThrough(new TextDecoderStream());
    const faster = decoded.pipeThrough(
      new TransformStream({
        transform: (text, sink) => sink.enqueue(text.replace(/^retry: \d+$/m, "retry: 1")),
      }),
    );
    return new Response(faster.pipeThrough(new TextEncoderStream()), answer);
  };
  const source = new EventSource(`${way.url}a/?since=all`, { fetch: hurried });
  const got = [];
  const done = new Promise((resolve, reject) => {
    source.onmessage = ({ data, lastEventId }) => {
      got.push(Number(data));
      assert.match(lastEventId, /^\d+-\d+$/);
      if (got.length === COUNT) resolve();
    };
    source.addEventListener("gap", ({ data }) => reject(new Error(data)));
  });
  for (let number = 0; number < COUNT; number++) {
    await publish(`${bus.url}a/b`, String(number), "text/plain");
  }
  await done;
  source.close();
  assert.deepEqual(got, [...Array(COUNT).keys()]);
  assert.ok(way.cuts >= CUTS, String(way.cuts));
  await kill(bus);
});

test("eventsource hears where history ends, and can stop there", async () => {
  const bus = await start();
  for (const text of "12") await publish(`${bus.url}foo`, text);
  const source = new EventSource(`${bus.url}foo?since=all&until=now`);
  const got = [];
  source.onmessage = ({ data }) => got.push(data);
  await new Promise((resolve) => {
    source.addEventListener("live", ({ data }) => {
      got.push(JSON.parse(data));
      source.close();
      resolve();
    });
  });
  assert.deepEqual(got, ["1", "2", { live: true }]);
  await kill(bus);
});

test("meros reads a stream that ends where history does", async () => {
  const bus = await start();
  for (const text of "12") await publish(`${bus.url}foo`, text, "text/plain");
  for (const live of [false, true]) {
    const over = new AbortController();
    const query = live ? "" : "&until=now";
    const answer = await fetch(`${bus.url}foo?format=mixed&since=all${query}`, { signal: over.signal });
    const got = [];
    for await (const { body, headers } of await meros(answer)) {
      // The last part is none of a message.
      if (headers["content-location"]) got.push(body);
      if (live && got.length === 2) publish(`${bus.url}foo`, "3", "text/plain");
      if (got.length === 3) break;
    }
    over.abort();
    assert.deepEqual(got, live ? ["1", "2", "3"] : ["1", "2"]);
  }
  await kill(bus);
});

test("the WebSocket of Node is closed where history ends", async () => {
  const bus = await start();
  await publish(`${bus.url}foo`, "1", "text/plain");
  const socket = new WebSocket(`${bus.url}foo?since=all&until=now`.replace("http", "ws"));
  const told = [];
  socket.onmessage = ({ data }) => told.push(JSON.parse(data));
  const [{ code, wasClean }] = await once(socket, "close");
  assert.deepEqual([code, wasClean], [1000, true]);
  assert.deepEqual([told.length, told[0].body, told[1]], [2, "1", { live: true }]);
  await kill(bus);
});

test("meros reads the parts", async () => {
  const bus = await start();
  const over = new AbortController();
  const answer = await fetch(`${bus.url}foo?format=mixed`, { signal: over.signal });
  const parts = await meros(answer);
  await publish(`${bus.url}foo`, '{"a": "ä"}', "application/json");
  await publish(`${bus.url}foo`, "text", "text/plain");
  const got = [];
  for await (const { json, body } of parts) {
    got.push([json, body]);
    if (got.length === 2) break;
  }
  over.abort();
  assert.deepEqual(got, [[true, { a: "ä" }], [false, "text"]]);
  await kill(bus);
});

test("the WebSocket of Node reads and writes", async () => {
  const bus = await start();
  const socket = new WebSocket(`${bus.url}foo`.replace("http", "ws"));
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "text/plain", body: "hello", ack: 1 }));
  const told = [];
  await new Promise((resolve) => {
    socket.onmessage = ({ data }) => told.push(JSON.parse(data)) === 2 && resolve();
  });
  const message = told.find(({ type }) => type);
  assert.deepEqual([message.body, message.channel], ["hello", "foo"]);
  assert.equal(told.find(({ ack }) => ack).id, message.id);
  socket.close();
  await kill(bus);
});
