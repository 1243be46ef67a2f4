/**
 * Real buses, for tests.
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const TWISTD = process.env.TWISTD ?? ".venv/bin/twistd";

/** For what they write. */
export const folder = mkdtempSync(join(tmpdir(), "msgbus-"));
const buses = new Set();

/** Kill those that are left. */
export function stop() {
  for (const bus of buses) bus.kill("SIGKILL");
}

/** Start a bus with these options; it has a `url`. */
export async function start(port = 0, ...options) {
  const listen = ["--listen", `tcp:${port}:interface=127.0.0.1`];
  const file = join(folder, `${randomUUID()}.log`);
  const output = openSync(file, "a");
  const bus = spawn(TWISTD, ["-n", "--pidfile=", "msgbus", ...listen, ...options], {
    stdio: ["ignore", output, output],
  });
  closeSync(output);
  buses.add(bus);
  let log = "";
  while (!log.includes("Serving, until SIGTERM")) {
    assert.equal(bus.exitCode, null, log);
    await new Promise((resolve) => setTimeout(resolve, 20));
    log = readFileSync(file, "utf-8");
  }
  bus.port = /starting on (\d+)/.exec(log)[1];
  bus.url = `http://127.0.0.1:${bus.port}/msgbus/`;
  return bus;
}

/** Kill a bus, as a power cut would. */
export async function kill(bus) {
  const gone = once(bus, "exit");
  bus.kill("SIGKILL");
  await gone;
  buses.delete(bus);
}
