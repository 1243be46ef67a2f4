#!/usr/bin/env python3
"""
Measures whether those who behave well notice those who do not: the time from a publisher to
a subscriber on a real `twistd msgbus`, alone, and beside an attack.

The attacks are the three modes of slowhttptest (a package of Debian), each with 1,000
connections, and wrong passwords, 100 a second, against hashes of bcrypt with a cost of 10:
from one address, and each from another address.  Run it with the Python into which msgbus
is installed.  Attackers run with the lowest priority, because they would be on machines of
their own.

    python bench/beside.py
    python bench/beside.py --seconds 5 --repeat 3 headers many
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import bcrypt
from load import Daemon, percentiles

CONNECTIONS = 1000
GUESSES_A_SECOND = 100
COST = 10
MESSAGES_A_SECOND = 200
# Until all connections of an attack are open.
SETTLE_SECONDS = 6

RULES = "alice publish,subscribe *\n@anonymous publish,subscribe big\n"
SLOW = {
    "headers": ["-H", "-i", "2"],
    "body": ["-B", "-i", "2", "-s", "8192", "-f", "text/plain"],
    "reading": ["-X", "-w", "512", "-y", "1024", "-n", "2", "-z", "32"],
}
ROWS = [*SLOW, "one", "many"]


def credentials(password):
    """
    The header line of a name and this password.
    """
    encoded = base64.b64encode(b"alice:" + password).decode()
    return f"Authorization: Basic {encoded}\r\n"


class Pair:
    """
    A publisher and a subscriber, who know a password.
    """

    def __init__(self, port):
        head = "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n" + credentials(b"secret")
        self._publisher = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._subscriber = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._post = (
            f"POST /msgbus/foo HTTP/1.1\r\n{head}Content-Type: text/plain\r\n".encode()
        )
        # In HTTP/1.0, there are no chunks.
        self._subscriber.sendall(
            f"GET /msgbus/foo?format=ndjson HTTP/1.0\r\n{head}\r\n".encode()
        )
        self._lines = self._subscriber.makefile("rb")
        while self._lines.readline() != b"\r\n":
            pass
        self.publish("first")

    def publish(self, body):
        """
        Publish a message, and wait until it has come: the seconds that took.
        """
        began = time.perf_counter()
        self._publisher.sendall(
            b"%bContent-Length: %d\r\n\r\n%b" % (self._post, len(body), body.encode())
        )
        while json.loads(self._lines.readline().strip() or b"{}").get("body") != body:
            pass
        seconds = time.perf_counter() - began
        answer = self._publisher.recv(4096)
        if b" 204 " not in answer[:15]:
            raise SystemExit(f"Not published: {answer!r}")
        return seconds

    def measure(self, seconds):
        """
        The 50th and 99th percentile of messages for so long, in milliseconds.
        """
        times, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            times.append(self.publish(str(len(times))))
            time.sleep(1 / MESSAGES_A_SECOND)
        return percentiles(times)


@contextmanager
def slow(row, port, folder):
    """
    slowhttptest, until the end.
    """
    command = ["nice", "-n", "19", "slowhttptest", *SLOW[row]]
    command += ["-c", f"{CONNECTIONS}", "-r", "250", "-l", "600", "-p", "60"]
    command += ["-u", f"http://127.0.0.1:{port}/msgbus/big?format=message"]
    with (folder / "slowhttptest.log").open("wb") as log:
        attack = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield
        if attack.poll() is not None:
            raise SystemExit("slowhttptest has ended early.")
    finally:
        attack.kill()
        attack.wait()


async def guess(port, number, many):
    """
    Send one wrong password, and wait for the answer.
    """
    client = f"198.18.{number // 250 % 250}.{number % 250}" if many else "198.18.0.1"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /msgbus/foo HTTP/1.0\r\nX-Forwarded-For: {client}\r\n"
    writer.write((head + credentials(b"%d" % number) + "\r\n").encode())
    await reader.read()
    writer.close()


async def guess_on(port, many):
    """
    Send wrong passwords for ever, and wait for no answer before the next.
    """
    number = 0
    guesses = set()
    while True:
        guesses.add(task := asyncio.create_task(guess(port, number, many)))
        task.add_done_callback(guesses.discard)
        number += 1
        await asyncio.sleep(1 / GUESSES_A_SECOND)


def guesser(port, many):
    """
    What the process of the attacker does.
    """
    os.nice(19)
    asyncio.run(guess_on(port, many))


@contextmanager
def guessing(row, port, folder):
    """
    Wrong passwords, until the end.
    """
    process = multiprocessing.Process(target=guesser, args=(port, row == "many"))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def run(row, seconds, folder):
    """
    The percentiles alone, and beside the attack.
    """
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(COST))
    users, access = folder / "users", folder / "access"
    users.write_text(f"alice:{hashed.decode()}\n")
    access.write_text(RULES)
    daemon = Daemon(
        folder, "--users", users, "--access", access, "--trusted-proxy", "127.0.0.1"
    )
    try:
        with socket.create_connection(("127.0.0.1", daemon.port)) as publisher:
            publisher.sendall(
                b"POST /msgbus/big HTTP/1.0\r\nContent-Type: image/png\r\n"
                b"Content-Length: 1000000\r\n\r\n" + bytes(1_000_000)
            )
            publisher.recv(4096)
        pair = Pair(daemon.port)
        pair.measure(1)
        alone = pair.measure(seconds)
        attack = slow if row in SLOW else guessing
        with attack(row, daemon.port, folder):
            pair.measure(SETTLE_SECONDS)
            return alone, pair.measure(seconds)
    finally:
        daemon.stop()


def main():
    """
    Measure what the command line asks for.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeat", type=int, default=3, help="of which the medians are")
    options = parser.parse_args()
    print("| beside | p50 ms alone → beside | p99 ms alone → beside | p99 ratio |")
    print("|---|---|---|---|")
    for row in options.rows or ROWS:
        runs = []
        for _ in range(options.repeat):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(run(row, options.seconds, Path(folder)))
        medians = [
            [statistics.median(r[when][which] for r in runs) for when in (0, 1)]
            for which in (0, 1)
        ]
        ratio = medians[1][1] / medians[1][0]
        p50, p99 = (f"{alone:.2f} → {beside:.2f}" for alone, beside in medians)
        print(f"| {row} | {p50} | {p99} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
