#!/usr/bin/env python3
"""
Measures fan-out: one message to many open connections of a real `twistd msgbus`.

Run it with the Python into which msgbus is installed; it needs nothing else, and
Linux.  It ends with an error if a message was lost, doubled or out of order.  The
server gets one processor and the load another, if there are two.

    python bench/fanout.py
    python bench/fanout.py --subscribers 5000 --messages 100 plain
    python bench/fanout.py --quick
"""

import argparse
import os
import re
import resource
import select
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.certificates import Authority
from tests.integration.daemon import Daemon

NUMBER = re.compile(rb"~(\d{8})~")
ID = re.compile(rb"\r\nMsgbus-Id: ([0-9-]+)\r\n")
MARK_BYTES = 10
SILENCE_SECONDS = 30
PACED_MESSAGES = 50
FILLING, FILLING_BYTES = 20, 100_000
PACED_SECONDS = 0.03
PACED_SUBSCRIBER_SECONDS = 20e-6


@dataclass
class Row:
    """
    One line of the table: what is measured.
    """

    about: str
    scheme: str = "http"
    version: str = "1.1"
    publishers: int = 1
    # For each that reads, how many never do.
    lazy: float = 0
    # Do subscribers come while messages flow?
    arriving: bool = False
    # What they ask for.
    query: str = ""
    headers: str = ""
    # Does an answer end with its message?
    polls: bool = False


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
ROWS = {
    "plain": Row("HTTP/1.1"),
    "http10": Row("HTTP/1.0", version="1.0"),
    "tls": Row("HTTP/1.1 over TLS", scheme="https"),
    "publishers": Row("16 publishers at once", publishers=16),
    "slow": Row("as many again never read", lazy=1),
    "arriving": Row("connecting meanwhile", arriving=True),
    "events": Row("event stream", headers="Accept: text/event-stream\r\n"),
    "ndjson": Row("lines of JSON", query="?format=ndjson"),
    "websocket": Row("WebSocket", headers=UPGRADE),
    "raw": Row("WebSocket, raw", query="?raw=1", headers=UPGRADE),
    "polls": Row("long polling", query="?format=message", polls=True),
}


@dataclass(eq=False)
class Subscriber:
    """
    One connection that is read from, and the number that it expects next of each
    publisher, once it has got the head of its response.
    """

    socket: socket.socket
    expected: list[int] | None = None
    got: int = 0
    tail: bytes = b""
    # What one who polls asks for: first where to begin.
    since: str = "&since=now"


@dataclass
class Load:
    """
    All connections to one server.
    """

    daemon: Daemon
    row: Row
    size: int
    context: ssl.SSLContext | None = None
    subscribers: dict[int, Subscriber] = field(default_factory=dict)
    lazy: list[socket.socket] = field(default_factory=list)
    publishers: list[socket.socket] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    sent: dict[int, float] = field(default_factory=dict)
    deliveries: int = 0
    ready: int = 0

    def __post_init__(self):
        self.epoll = select.epoll()
        self.idle = deque()
        self.published = [0] * self.row.publishers
        for place in range(self.row.publishers):
            publisher = self.connect()
            self.publishers.append(publisher)
            self.epoll.register(publisher, select.EPOLLIN)
            self.idle.append(place)
        self.places = {p.fileno(): place for place, p in enumerate(self.publishers)}

    def connect(self):
        """
        One more connection.
        """
        connection = socket.create_connection(("127.0.0.1", self.daemon.port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context:
            connection = self.context.wrap_socket(connection, server_hostname="localhost")
        return connection

    def subscribe(self, reads=True):
        """
        One more subscriber.
        """
        connection = self.connect()
        subscriber = Subscriber(connection)
        self.ask(subscriber)
        connection.setblocking(False)
        if reads:
            self.subscribers[connection.fileno()] = subscriber
            self.epoll.register(connection, select.EPOLLIN)
        else:
            self.lazy.append(connection)

    def ask(self, subscriber):
        """
        Send the request of a subscriber.
        """
        row = self.row
        query = row.query + subscriber.since * row.polls
        subscriber.socket.send(
            f"GET /msgbus/bench{query} HTTP/{row.version}\r\nHost: localhost\r\n"
            f"{row.headers}\r\n".encode()
        )

    def ask_on(self, subscriber, answer):
        """
        Send the next request of one who polls, behind this answer.
        """
        subscriber.since = f"&wait=300&since={ID.search(answer)[1].decode()}"
        subscriber.tail = b""
        self.ask(subscriber)

    def publish(self, size=None):
        """
        Publish the next message of a publisher that waits for no answer.
        """
        place = self.idle.popleft()
        number = self.published[place] * len(self.publishers) + place
        body = b"~%08d~" % number
        body = body.ljust(size or self.size, b"x")
        self.published[place] += 1
        self.sent[number] = time.perf_counter()
        self.publishers[place].sendall(
            b"POST /msgbus/bench HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    def look(self, seconds):
        """
        Read what comes within so many seconds at most.
        """
        for fileno, _ in self.epoll.poll(seconds):
            subscriber = self.subscribers.get(fileno)
            if subscriber is not None:
                self.read(subscriber)
            else:
                place = self.places[fileno]
                publisher = self.publishers[place]
                publisher.setblocking(False)
                try:
                    answer = publisher.recv(65536)
                except ssl.SSLWantReadError:
                    # It was TLS's own.
                    continue
                finally:
                    publisher.setblocking(True)
                if not answer.startswith(b"HTTP/1.1 204 "):
                    raise SystemExit(f"Not published: {answer!r}")
                self.idle.append(place)

    def read(self, subscriber):
        """
        Read what a subscriber has, and see that nothing is missing.
        """
        while True:
            try:
                data = subscriber.socket.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                raise SystemExit("A subscriber's connection was closed.")
            now = time.perf_counter()
            text = subscriber.tail + data
            if subscriber.expected is None:
                end = text.find(b"\r\n\r\n")
                if end < 0:
                    subscriber.tail = text
                    continue
                # What is published from now on, it must get.
                subscriber.expected = list(self.published)
                self.ready += 1
                if self.row.polls:
                    self.ask_on(subscriber, text)
                    continue
                text = text[end:]
            end = 0
            for match in NUMBER.finditer(text):
                end = match.end()
                self.count(subscriber, int(match[1]), now)
            if not self.row.polls:
                subscriber.tail = text[max(end, len(text) - MARK_BYTES + 1) :]
            elif end:
                self.ask_on(subscriber, text)
            else:
                subscriber.tail = text
            if self.context is None:
                return

    def count(self, subscriber, number, now):
        """
        Count one delivery.
        """
        sequence, place = divmod(number, len(self.publishers))
        # One that has just come may get some that it was not promised.
        if subscriber.got == 0 and sequence < subscriber.expected[place]:
            subscriber.expected[place] = sequence
        if sequence != subscriber.expected[place]:
            raise SystemExit(
                f"Message {sequence} came where {subscriber.expected[place]} was due."
            )
        subscriber.expected[place] += 1
        subscriber.got += 1
        self.deliveries += 1
        self.latencies.append(now - self.sent[number])

    def settle(self):
        """
        Wait until everybody has everything.
        """
        deadline = time.monotonic() + SILENCE_SECONDS
        while True:
            late = sum(s.expected != self.published for s in self.subscribers.values())
            if not late and len(self.idle) == len(self.publishers):
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"{late} subscribers miss messages.")
            self.look(0.05)

    def close(self):
        """
        Close all connections.
        """
        for connection in (*self.publishers, *self.lazy):
            connection.close()
        for subscriber in self.subscribers.values():
            subscriber.socket.close()
        self.epoll.close()


def processor_seconds(daemon):
    """
    How much processor time the server has had.
    """
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(row, options, folder, progress):
    """
    Run one row: its name and figures, as they stand in the table.
    """
    arguments = ["--max-backlog", "100000000"] if not row.lazy else []
    context = None
    if row.scheme == "https":
        authority = Authority(folder)
        key = authority.issue("localhost")
        arguments += ["--listen", f"ssl:0:privateKey={key}:interface=127.0.0.1"]
        context = ssl.create_default_context(cafile=authority.file)
    daemon = Daemon(folder, *arguments)
    if len(processors := sorted(os.sched_getaffinity(0))) > 1:
        os.sched_setaffinity(daemon.process.pid, {processors[0]})
        os.sched_setaffinity(0, {processors[1]})
    load = Load(daemon, row, options.size, context)
    try:
        return figures(load, options, progress)
    finally:
        load.close()
        os.sched_setaffinity(0, set(processors))
        daemon.stop()


def figures(load, options, progress):
    """
    The figures of one row.
    """
    daemon, row = load.daemon, load.row
    empty = daemon.memory()
    count = options.arriving if row.arriving else options.subscribers
    for place in range(count):
        load.subscribe()
        if row.arriving and load.idle:
            load.publish()
        if place % 16 == 0:
            load.look(0)
            progress(place / count / 2)
    for _ in range(int(count * row.lazy)):
        load.subscribe(reads=False)
    deadline = time.monotonic() + SILENCE_SECONDS
    while load.ready < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{count - load.ready} subscribers got no answer.")
        load.look(0.05)
    load.settle()
    for _ in range(FILLING if row.lazy else 0):
        # More than the kernel takes for those who do not read.
        load.publish(FILLING_BYTES)
        load.settle()
    memory = (daemon.memory() - empty) / (count * (1 + row.lazy))

    # Flat out, for what it costs.
    load.deliveries = 0
    load.latencies.clear()
    spent, started = processor_seconds(daemon), time.perf_counter()
    for number in range(options.messages):
        while not load.idle:
            load.look(1)
        load.publish()
        load.look(0)
        progress(0.5 + number / options.messages / 4)
    load.settle()
    seconds = time.perf_counter() - started
    spent = processor_seconds(daemon) - spent
    deliveries = load.deliveries
    assert deliveries == options.messages * count

    # At a pace that leaves it time, for how long a message takes.
    load.latencies.clear()
    for number in range(PACED_MESSAGES):
        due = time.perf_counter() + PACED_SECONDS + count * PACED_SUBSCRIBER_SECONDS
        while not load.idle:
            load.look(1)
        load.publish()
        while (left := due - time.perf_counter()) > 0:
            load.look(left)
        progress(0.75 + number / PACED_MESSAGES / 4)
    load.settle()
    latencies = statistics.quantiles(load.latencies, n=100)
    return (
        row.about,
        f"{count:,}",
        f"{deliveries / seconds:,.0f}",
        f"{spent / deliveries * 1e6:.1f}",
        f"{latencies[49] * 1000:.1f}",
        f"{latencies[98] * 1000:.1f}",
        f"{memory / 1024:.1f}",
    )


HEAD = (
    "",
    "subscribers",
    "deliveries/s",
    "CPU µs/delivery",
    "p50 ms",
    "p99 ms",
    "KiB/subscriber",
)


def table(rows):
    """
    The rows as a table of Markdown.
    """
    yield "| " + " | ".join(HEAD) + " |"
    yield "|---" * len(HEAD) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def main():
    """
    Measure what is asked for.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all unless told")
    parser.add_argument("--subscribers", type=int, default=1000, help="[1000]")
    parser.add_argument(
        "--arriving",
        type=int,
        default=10_000,
        help="that come while messages flow [10000]",
    )
    parser.add_argument("--messages", type=int, default=500, help="flat out [500]")
    parser.add_argument("--size", type=int, default=100, help="bytes of a message [100]")
    parser.add_argument("--quick", action="store_true", help="see that nothing is lost")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if options.size < MARK_BYTES:
        parser.error(f"a message has at least {MARK_BYTES} bytes")
    if options.quick:
        options.subscribers, options.arriving, options.messages = 100, 300, 50
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    results = []
    for name in options.rows or ROWS:

        def progress(share, name=name):
            if sys.stderr.isatty():
                print(f"\r{name:12}{share:5.0%}", end="\r", file=sys.stderr)

        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(ROWS[name], options, Path(folder), progress))
    for line in table(results):
        print(line)
    print("\nNothing was lost, doubled, or out of order.")


if __name__ == "__main__":
    main()
