#!/usr/bin/env python3
"""
Measures fan-out: one message to many open connections of a real `twistd msgbus`.

Run it with the Python into which msgbus is installed; it needs nothing else, and
Linux.  It ends with an error if a message was lost, doubled or out of order.  The
server gets one processor and the load another, if there are two.

    python bench/fanout.py
    python bench/fanout.py --subscribers 5000 --messages 100 plain
    python bench/fanout.py --against ../old/.venv/bin/python plain websocket
    python bench/fanout.py --quick
"""

import re
import select
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass, field

from load import (
    BY_USER,
    SILENCE_SECONDS,
    USERS,
    Column,
    Daemon,
    Server,
    arguments,
    connect,
    parse,
    percentiles,
    processor_seconds,
    run,
)

NUMBER = re.compile(rb"~(\d{8})~")
ID = re.compile(rb"\r\nMsgbus-Id: ([0-9-]+)\r\n")
MARK_BYTES = 10
PACED_MESSAGES, QUICK_PACED_MESSAGES = 50, 5
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
    # Command line options of the server.
    options: tuple[str, ...] = ()


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
    "user": Row("subscribers of one user", headers=f"{BY_USER}\r\n", options=USERS),
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
        return connect(self.daemon, self.context)

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
                if not answer.startswith(b"HTTP/1.1 20"):
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


def measure(row, options, folder, python, progress):
    """
    Run one row: its figures, one for each column.
    """
    server = Server(folder, python, tls=row.scheme == "https")
    backlog = ["--max-backlog", "100000000"] if not row.lazy else []
    with server.start(*backlog, *row.options) as daemon:
        load = Load(daemon, row, options.size, server.context)
        try:
            return figures(load, options, progress)
        finally:
            load.close()


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
    seconds, spent = flat_out(load, options, progress)
    deliveries = load.deliveries
    assert deliveries == options.messages * count
    paced(load, QUICK_PACED_MESSAGES if options.quick else PACED_MESSAGES, progress)
    return (
        count,
        deliveries / seconds,
        spent / deliveries * 1e6,
        *percentiles(load.latencies),
        memory / 1024,
    )


def flat_out(load, options, progress):
    """
    Publish as fast as it goes, for what it costs: in seconds, and the server's processor
    time.
    """
    load.deliveries = 0
    load.latencies.clear()
    spent, started = processor_seconds(load.daemon), time.perf_counter()
    for number in range(options.messages):
        while not load.idle:
            load.look(1)
        load.publish()
        load.look(0)
        if load.row.polls:
            # One who polls would fall behind what history keeps.
            load.settle()
        progress(0.5 + number / options.messages / 4)
    load.settle()
    seconds = time.perf_counter() - started
    return seconds, processor_seconds(load.daemon) - spent


def paced(load, messages, progress):
    """
    Publish at a pace that leaves the server time, for how long a message takes.
    """
    load.latencies.clear()
    for number in range(messages):
        pause = PACED_SECONDS + len(load.subscribers) * PACED_SUBSCRIBER_SECONDS
        due = time.perf_counter() + pause
        while not load.idle:
            load.look(1)
        load.publish()
        while (left := due - time.perf_counter()) > 0:
            load.look(left)
        if load.row.polls:
            # They take longer than the pause.
            load.settle()
        progress(0.75 + number / messages / 4)
    load.settle()


COLUMNS = (
    Column("subscribers", ",.0f"),
    Column("deliveries/s", ",.0f"),
    Column("CPU µs/delivery", ".1f", compared=True),
    Column("p50 ms", ".1f"),
    Column("p99 ms", ".1f"),
    Column("KiB/subscriber", ".1f"),
)


def main():
    """
    Measure what is asked for.
    """
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--subscribers", type=int, default=1000, help="[1000]")
    parser.add_argument(
        "--arriving",
        type=int,
        default=10_000,
        help="that come while messages flow [10000]",
    )
    parser.add_argument("--messages", type=int, default=500, help="flat out [500]")
    parser.add_argument("--size", type=int, default=100, help="bytes of a message [100]")
    options = parse(parser, ROWS)
    if options.size < MARK_BYTES:
        parser.error(f"a message has at least {MARK_BYTES} bytes")
    if options.quick:
        options.subscribers, options.arriving, options.messages = 100, 300, 50
    most = max(2 * options.subscribers, options.arriving)
    run(ROWS, options, COLUMNS, measure, most)


if __name__ == "__main__":
    main()
