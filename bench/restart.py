"""
How a bus and its subscribers get over a restart: `restart.py`, or `restart.py --quick`.

Many subscribers read a bus with `--history-file`, while somebody publishes.  Then the bus
is stopped as an operator does, and started again.  The subscribers behave as our clients
do: they come back when the bus has told them to, try again after growing random delays, and
resume behind the last message that they have.  All of them have to be back, with every
message, in their order, and none twice.

What is printed: how long the stop took, the start, and when the first, the middle and the
last subscriber was back, from the start of the stop.  It ends with an error if somebody has
missed a message, or if the last one was back later than `--within` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from msgbus.client.retry import delay
from msgbus.formats.multipart import Decoder, boundary_of

BIN = Path(sys.executable).parent
CLIENT_PROCESSES = 2
# So many subscribers of one address need less than half of its ports.
SUBSCRIBERS_OF_ADDRESS = 10_000
SECONDS = 120


class Subscriber:
    """
    One subscriber.

    Attributes:
        numbers: What it has received.
        back: When its stream after the restart began; 0 before.
        refused: How often it was not let in.
    """

    def __init__(self, port: int, address: str) -> None:
        self.numbers: list[int] = []
        self.back = 0.0
        self.refused = 0
        self._port = port
        self._address = address
        self._last_id = ""
        self._failures = 0

    async def run(self) -> None:
        """
        Read stream after stream.
        """
        while True:
            asked = 0.0
            try:
                asked = await self._read()
            except (OSError, asyncio.IncompleteReadError):
                self.refused += 1
            seconds = delay(self._failures, random.random(), asked)
            self._failures += 1
            await asyncio.sleep(seconds)

    async def _read(self) -> float:
        """
        Read one stream; when to come back, if the bus has told it.
        """
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(self._address, 0), limit=1 << 16
        )
        try:
            resume = f"Last-Event-ID: {self._last_id}\r\n" if self._last_id else ""
            request = f"GET /msgbus/restart?heartbeat=25 HTTP/1.0\r\n{resume}\r\n"
            writer.write(request.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(re.findall(r"^([\w-]+): (.*)\r$", head, re.MULTILINE))
            if " 200 " not in head[:15]:
                self.refused += 1
                return float(fields.get("Retry-After", 0))
            self._failures = 0
            self._last_id = self._last_id or fields["Msgbus-Id"]
            decoder = Decoder(boundary_of(fields["Content-Type"]), 1000)
            if self.numbers or resume:
                self.back = time.monotonic()
            while data := await reader.read(1 << 16):
                for part in decoder.feed(data):
                    self.numbers.append(int(part.body))
                    self._last_id = part.headers["msgbus-id"]
            return float(decoder.ahead.get("msgbus-retry", 0))
        finally:
            writer.close()


async def subscribers(port: int, count: int, first: int, pipe: Connection) -> None:
    """
    Run so many subscribers, and answer at the pipe how they do.
    """
    each = [
        Subscriber(port, f"127.0.0.{2 + (first + n) // SUBSCRIBERS_OF_ADDRESS}")
        for n in range(count)
    ]
    tasks = []
    for begun, subscriber in enumerate(each):
        tasks.append(asyncio.create_task(subscriber.run()))
        # Not more at once than a bus has places for.
        if begun % 100 == 99:
            await asyncio.sleep(0.05)
    loop = asyncio.get_running_loop()
    while (wanted := await loop.run_in_executor(None, pipe.recv)) is not None:
        if wanted == "results":
            pipe.send([(s.numbers, s.back, s.refused) for s in each])
        else:
            pipe.send(sum(len(s.numbers) >= wanted for s in each))
    for task in tasks:
        task.cancel()


def client(port: int, count: int, first: int, pipe: Connection) -> None:
    """
    A process of subscribers.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(subscribers(port, count, first, pipe))


class Bus:
    """
    A bus that can be started again at its port.
    """

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._folder = folder
        self._starts = 0

    def start(self) -> None:
        """
        Start it, and wait until it serves.
        """
        self._starts += 1
        log = self._folder / f"log{self._starts}"
        command: list[str | Path] = [
            sys.executable,
            BIN / "twistd",
            "-n",
            "--pidfile=",
            f"--logfile={log}",
        ]
        command += ["msgbus", "--listen", f"tcp:{self.port}:interface=127.0.0.1"]
        command += ["--history-file", self._folder / "history.db", "--history", "1000"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS
        while not log.exists() or "Serving, until" not in log.read_text():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "The bus does not start."
            time.sleep(0.02)

    def stop(self) -> None:
        """
        Stop it in order.
        """
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0

    def publish(self, number: int) -> None:
        """
        Publish one message.
        """
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/msgbus/restart",
            data=b"%d" % number,
            headers={"Content-Type": "text/plain"},
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            assert answer.status == 204


class Crowd:
    """
    The processes of the subscribers.
    """

    def __init__(self, port: int, count: int) -> None:
        self._count = count
        self._pipes: list[Connection] = []
        self._processes = []
        share = -(-count // CLIENT_PROCESSES)
        for first in range(0, count, share):
            here, there = multiprocessing.Pipe()
            arguments = (port, min(share, count - first), first, there)
            self._processes.append(multiprocessing.Process(target=client, args=arguments))
            self._processes[-1].start()
            self._pipes.append(here)

    def _ask(self, wanted: object) -> Iterator[object]:
        for pipe in self._pipes:
            pipe.send(wanted)
        for pipe in self._pipes:
            yield pipe.recv()

    def wait_for(self, messages: int) -> None:
        """
        Wait until all have so many messages.
        """
        deadline = time.monotonic() + SECONDS
        while sum(self._ask(messages)) < self._count:  # type: ignore[arg-type]
            assert time.monotonic() < deadline, f"Not all have {messages} messages."
            time.sleep(0.1)

    def results(self) -> list[tuple[list[int], float, int]]:
        """
        What each has received, when it was back, and how often it was refused.
        """
        return [each for some in self._ask("results") for each in some]  # type: ignore[attr-defined]

    def end(self) -> None:
        """
        End the processes.
        """
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(SECONDS)


def measure(count: int, within: float, folder: Path) -> None:
    """
    Restart a bus with so many subscribers.
    """
    bus = Bus(folder)
    bus.start()
    crowd = Crowd(bus.port, count)
    try:
        subscribed = time.monotonic() + SECONDS
        while open_files(bus.process.pid) < count:
            assert time.monotonic() < subscribed, "Not all have subscribed."
            time.sleep(0.1)
        time.sleep(1)
        for number in range(10):
            bus.publish(number)
        crowd.wait_for(10)
        began = time.monotonic()
        bus.stop()
        stopped = time.monotonic()
        bus.start()
        started, idle = time.monotonic(), cpu_seconds(bus.process.pid)
        for number in range(10, 20):
            bus.publish(number)
            time.sleep(0.1)
        crowd.wait_for(20)
        busy = cpu_seconds(bus.process.pid) - idle
        results = crowd.results()
    finally:
        crowd.end()
        bus.stop()
    wrong = [numbers for numbers, _, _ in results if numbers != list(range(20))]
    back = sorted(at - began for _, at, _ in results)
    print(f"{count:,} subscribers; the stop took {stopped - began:.1f} s,", end=" ")
    print(f"the start {started - stopped:.1f} s")
    places = (0, count // 2, count * 99 // 100, count - 1)
    first, middle, most, last = (back[place] for place in places)
    print(
        f"back after {first:.1f} s (first), {middle:.1f} s (middle), {most:.1f} s (99 of"
        f" 100), {last:.1f} s (last); {sum(refused for _, _, refused in results):,} tries"
        " failed before"
    )
    print(
        f"the bus took {busy:.1f} s of a core for it: it can take back"
        f" {count / busy:,.0f} subscribers a second"
    )
    assert not wrong, f"{len(wrong)} have missed something, as {wrong[0]}."
    assert last < within, f"The last was back after more than {within} s."
    print("everyone has everything")


def open_files(pid: int) -> int:
    """
    How many files a process has open.
    """
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    """
    How many seconds of a core a process has used.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """
    Run it.
    """
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--subscribers", type=int, default=10_000)
    parser.add_argument("--within", type=float, default=15.0, help="seconds [%(default)s]")
    parser.add_argument(
        "--quick", action="store_true", help="500 subscribers, however long it takes"
    )
    options = parser.parse_args()
    count = 500 if options.quick else options.subscribers
    within = math.inf if options.quick else options.within
    with tempfile.TemporaryDirectory() as folder:
        measure(count, within, Path(folder))


if __name__ == "__main__":
    main()
