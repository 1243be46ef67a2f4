/**
 * The decoder for browsers, on the vectors that Python's is held to.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { boundaryOf, Decoder, Malformed } from "../../msgbus/web/page/msgbus.js";

const VECTORS = JSON.parse(readFileSync(new URL("../data/multipart.json", import.meta.url)));

/** Bytes, of a string in which a character is one. */
const bytes = (text) => Uint8Array.from(Buffer.from(text, "latin1"));

/** A stream as a vector has it. */
function streamOf(vector) {
  const pieces = vector.stream.map((piece) =>
    typeof piece === "string" ? piece : piece.text.repeat(piece.times),
  );
  return bytes(pieces.join(""));
}

/** What comes of a stream that is cut at these places. */
function decode(vector, stream, cuts) {
  const decoder = new Decoder(vector.boundary ?? "B", vector.max_body);
  const outcome = { parts: [], ahead: {}, malformed: "", ends: true };
  const edges = [0, ...cuts, stream.length];
  try {
    for (let i = 1; i < edges.length; i++) {
      for (const { headers, body } of decoder.feed(stream.subarray(edges[i - 1], edges[i]))) {
        outcome.parts.push({
          headers: Object.fromEntries(headers),
          body: Buffer.from(body).toString("latin1"),
        });
      }
    }
    outcome.ahead = Object.fromEntries(decoder.ahead);
  } catch (error) {
    assert(error instanceof Malformed, error);
    outcome.malformed = error.message;
    return outcome;
  }
  try {
    decoder.end();
  } catch (error) {
    assert(error instanceof Malformed, error);
    outcome.ends = false;
  }
  return outcome;
}

function check(vector, stream, cuts) {
  const outcome = decode(vector, stream, cuts);
  const where = `${vector.name}, cut at ${cuts}`;
  assert.deepEqual(outcome.parts, vector.parts, where);
  if (vector.malformed) {
    assert(outcome.malformed.includes(vector.malformed), `${outcome.malformed}: ${where}`);
    return;
  }
  assert.equal(outcome.malformed, "", where);
  assert.equal(outcome.ends, vector.ends, where);
  if (vector.ahead) assert.deepEqual(outcome.ahead, vector.ahead, where);
}

for (const vector of VECTORS.streams) {
  test(`A stream: ${vector.name}`, () => {
    const stream = streamOf(vector);
    check(vector, stream, []);
    if (stream.length < 1000) {
      check(vector, stream, Array.from(stream.keys()));
      for (const cut of stream.keys()) check(vector, stream, [cut]);
    }
    for (let round = 0; round < 100; round++) {
      const cuts = Array.from({ length: 8 }, () => Math.floor(Math.random() * stream.length));
      check(vector, stream, cuts.sort((a, b) => a - b));
    }
  });
}

for (const [contentType, boundary] of VECTORS.boundaries) {
  test(`A content type: ${contentType.slice(0, 60)}`, () => {
    if (boundary === null) assert.throws(() => boundaryOf(contentType), Malformed);
    else assert.equal(boundaryOf(contentType), boundary);
  });
}

test("What is taken out of what is ahead, the part does not have", () => {
  const decoder = new Decoder("B");
  assert.deepEqual([...decoder.feed(bytes("--B\r\nMsgbus-Gap: 2\r\n"))], []);
  assert.equal(decoder.ahead.get("msgbus-gap"), "2");
  decoder.ahead.delete("msgbus-gap");
  const [part] = decoder.feed(bytes("Content-Length: 1\r\n\r\nx"));
  assert.deepEqual([...part.headers], [["content-length", "1"]]);
  // What is there behind the body is none of the part's.
  assert.equal(decoder.ahead.size, 0);
});

test("Heartbeats may come for years", () => {
  const decoder = new Decoder("B");
  for (const _ of decoder.feed(bytes("--B\r\n")));
  const beat = bytes("Msgbus-Heartbeat: 1\r\n");
  for (let i = 0; i < 20_000; i++) assert.deepEqual([...decoder.feed(beat)], []);
  decoder.end();
});

test("Garbage is parts, waits for more, or is malformed, however it is cut", () => {
  const alphabet = ["--B", "--", "\r\n", "\n", "\r", " ", "x", "Content-Length: 3", ":", "-", "\xff"];
  for (let round = 0; round < 3000; round++) {
    const pieces = Array.from(
      { length: Math.floor(Math.random() * 20) },
      () => alphabet[Math.floor(Math.random() * alphabet.length)],
    );
    const stream = bytes("--B\r\n" + pieces.join(""));
    const whole = decode({ max_body: 50 }, stream, []);
    assert.deepEqual(decode({ max_body: 50 }, stream, stream.keys()), whole, pieces.join(""));
  }
});

test("A large body comes in linear time, and a small one behind it", () => {
  const decoder = new Decoder("B");
  const size = 32 * 1024 * 1024;
  const piece = new Uint8Array(64 * 1024).fill(45);
  const begun = performance.now();
  let parts = [...decoder.feed(bytes(`--B\r\nContent-Length: ${size}\r\n\r\n`))];
  for (let at = 0; at < size; at += piece.length) parts = parts.concat([...decoder.feed(piece)]);
  parts = parts.concat([...decoder.feed(bytes("\r\n--B\r\nContent-Length: 2\r\n\r\nhi"))]);
  assert.deepEqual(parts.map((part) => part.body.length), [size, 2]);
  // Quadratic, it would copy 8 GiB: this is a bound on that, not on the machine.
  assert(performance.now() - begun < 5000);
});

test("So does one without a length, in small pieces", () => {
  const decoder = new Decoder("B");
  const piece = new Uint8Array(1024);
  const begun = performance.now();
  let parts = [...decoder.feed(bytes("--B\r\n\r\n"))];
  for (let at = 0; at < 16 * 1024; at++) parts = parts.concat([...decoder.feed(piece)]);
  parts = parts.concat([...decoder.feed(bytes("\r\n--B\r\n"))]);
  assert.deepEqual(parts.map((part) => part.body.length), [16 * 1024 * 1024]);
  assert(performance.now() - begun < 5000);
});
