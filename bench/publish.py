#!/usr/bin/env python3
"""
Measures the way in: what publishing to a real `twistd msgbus`, and subscribing to it, cost.

Run it with the Python into which msgbus is installed; it needs nothing else but Linux, and
`redis-server` for the rows whose log is in Redis.  It ends with an error if a message was
lost, doubled or out of order.  The server gets one processor and the load another, with
Redis, if there are two.

Each row that publishes has one subscriber.  Unless the row says otherwise, there are 8
connections with one request in flight on each, bodies have 100 bytes, and requests have the
headers that curl sends.  The server's processor time is the figure that other programs on
the machine disturb least; its resolution is 10 ms, so it takes some thousand messages.

    python bench/publish.py
    python bench/publish.py --messages 50000 one eight pipelined
    python bench/publish.py --against ../old/.venv/bin/python --repeat 5 eight tls
    python bench/publish.py --quick
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from crowd import Crowd
from load import (
    USERS,
    Column,
    Server,
    arguments,
    parse,
    percentiles,
    processor_seconds,
    run,
)
from prepared import (
    CHUNKED,
    END,
    ENDLESS,
    begin_lines,
    begin_parts,
    body,
    by_user,
    check,
    chunked,
    closing,
    enveloped,
    numbers_in,
    of_many_lengths,
    part,
    part_in_chunk,
    part_of_many_lengths,
    plain,
    post,
    raw,
    text_line,
    upgrade,
    with_headers,
    with_key,
    with_many_heads,
    with_new_head,
)
from publishers import Publishers

IN_FLIGHT = 16
# In a stream, the publisher does not wait for every answer.
IN_STREAM = 512

# This share of the messages is published first and not measured, to warm the server up.
WARMING = 0.1

# A subscriber that comes back has missed at most so many messages.
MISSED = 10
ID = re.compile(rb"\r\nMsgbus-Id: ([0-9-]+)\r\n")
SUBSCRIBE = b"GET /msgbus/bench HTTP/1.1\r\nHost: localhost\r\n%s\r\n"


@dataclass(frozen=True)
class Row:
    """
    One line of the table: how messages are published.
    """

    about: str
    connections: int = 8
    # At most so many requests of a connection wait for their answers.
    in_flight: int = 1
    # Makes a request from the place of the publisher and the number of the message.
    request: Callable[[int, int], bytes] = plain
    # How many of --messages it publishes.
    share: float = 1
    # What the subscriber subscribes to; if None, the only publisher is the subscriber.
    reads: str | None = "bench"
    # Sent first on each connection, to open a WebSocket or a stream, and how that has to be
    # answered.
    opening: bytes = b""
    opened: bytes = b"HTTP/1.1 101 "
    # Has each request a connection of its own?
    closes: bool = False
    # Each answer ends with the first, and has the second in it if it is a good one.
    end: bytes = b"\r\n\r\n"
    good: bytes = b"HTTP/1.1 204 "
    # Are the bytes kept that come to publishers?
    kept: bool = False
    tls: bool = False
    # Command line options of the server.
    options: tuple[str, ...] = ()
    # Is the log in Redis?
    redis: bool = False

    def measure(self, options, server, progress):
        """
        Run the row once; return a figure for each column.
        """
        if not self.redis:
            return self._measure(options, server, progress)
        with server.redis() as redis:
            log = replace(self, options=(*self.options, "--log", redis.url))
            return log._measure(options, server, progress)

    def _measure(self, options, server, progress):
        warming = max(int(options.messages * self.share * WARMING) // self.connections, 1)
        count = max(int(options.messages * self.share) // self.connections, 1)
        requests = [
            [self.request(place, number) for number in range(warming + count)]
            for place in range(self.connections)
        ]
        with server.start(*self.options) as daemon:
            publishers = Publishers(daemon, server.context, requests, self)
            try:
                publishers.publish([warming] * self.connections)
                spent, begun = processor_seconds(daemon), time.perf_counter()
                latencies = publishers.publish([count] * self.connections, progress)
                seconds = time.perf_counter() - begun
                spent = processor_seconds(daemon) - spent
            finally:
                publishers.close()
        check(publishers.received, [warming + count] * self.connections)
        return figures(count * self.connections, seconds, spent, latencies)


@dataclass(frozen=True)
class Subscribing:
    """
    One line of the table: subscribers with equal requests arrive.  Behind the measurement,
    all have to get one message.
    """

    about: str
    # How many of --subscribers arrive.
    share: float = 1
    tls: bool = False

    def measure(self, options, server, progress):
        """
        Run the row once; return a figure for each column.
        """
        count = max(int(options.subscribers * self.share), 2)
        with server.start() as daemon:
            crowd = Crowd(daemon, server.context)
            try:
                spent, begun = processor_seconds(daemon), time.perf_counter()
                crowd.arrive([SUBSCRIBE % b""] * count, progress)
                seconds = time.perf_counter() - begun
                spent = processor_seconds(daemon) - spent
                publish(daemon, server.context, [plain(0, 0)])
                crowd.wait_for(END)
            finally:
                crowd.close()
        for member in crowd.members:
            check(member.text, [1])
        return figures(count, seconds, spent, [m.latency for m in crowd.members])


@dataclass(frozen=True)
class Returning:
    """
    One line of the table: subscribers come back to a restarted server, each with its own
    `Last-Event-ID`.  It is measured until all have the messages that they missed, and one
    that is published once all are back.
    """

    about: str
    tls = False

    def measure(self, options, server, progress):
        """
        Run the row once; return a figure for each column.
        """
        count = options.returning
        numbers = range(count // MISSED - 1, count, max(count // MISSED, 1))
        requests = [
            post(body(0, n), channel="bench" if n in numbers else "other")
            for n in range(count)
        ]
        kept = ["--history-file", "history"]
        with server.start(*kept) as daemon:
            ids = ID.findall(publish(daemon, server.context, requests))
        listen = f"tcp:{daemon.port}:interface=127.0.0.1"
        with server.start(*kept, "--listen", listen) as daemon:
            crowd = Crowd(daemon, server.context)
            try:
                spent, begun = processor_seconds(daemon), time.perf_counter()
                asked = [SUBSCRIBE % (b"Last-Event-ID: %s\r\n" % id) for id in ids]
                crowd.arrive(asked, progress)
                publish(daemon, server.context, [plain(0, count)])
                crowd.wait_for(body(0, count))
                seconds = time.perf_counter() - begun
                spent = processor_seconds(daemon) - spent
            finally:
                crowd.close()
        for place, member in enumerate(crowd.members):
            got = [number for _, number in numbers_in(member.text)]
            due = [number for number in (*numbers, count) if number > place]
            if got != due or b"\r\nMsgbus-Gap:" in member.text:
                raise SystemExit(f"Messages {got} came where {due} were due.")
        return figures(count, seconds, spent, [m.latency for m in crowd.members])


def publish(daemon, context, requests):
    """
    Send these requests on one connection.

    Returns:
        The bytes of all answers.
    """
    row = Row("", in_flight=IN_FLIGHT, reads="", kept=True)
    publishers = Publishers(daemon, context, [requests], row)
    try:
        publishers.publish([len(requests)])
    finally:
        publishers.close()
    return publishers.members[0].received


def figures(count, seconds, spent, latencies):
    """
    The figure for each column.
    """
    return (
        count,
        seconds,
        count / seconds,
        spent / count * 1e6,
        *percentiles(latencies),
    )


COLUMNS = (
    Column("number", ",.0f"),
    Column("seconds", ".2f"),
    Column("a second", ",.0f"),
    Column("CPU µs each", ".1f", compared=True),
    Column("p50 ms", ".2f"),
    Column("p99 ms", ".2f"),
)

STREAM = {
    "connections": 1,
    "in_flight": IN_STREAM,
    "request": part,
    "opening": begin_parts(ENDLESS),
    "opened": b"HTTP/1.1 200 ",
    "end": b"}\n",
    "good": b'", "subscribers": 1',
}

ROWS = {
    "one": Row("POST, 1 connection", connections=1),
    "eight": Row("POST, 8 connections"),
    "headers": Row("POST, four headers travel", request=with_headers),
    "crowd": Row("POST, 64 connections", connections=64),
    "lengths": Row("20 lengths of bodies", request=of_many_lengths),
    "heads": Row("200 heads in turn", request=with_many_heads, reads="bench/"),
    "new": Row("a new head each", request=with_new_head),
    "keys": Row("an Idempotency-Key each", request=with_key),
    "chunked": Row("PUT, chunked", request=chunked),
    "pipelined": Row("POST, 16 in flight", connections=1, in_flight=IN_FLIGHT),
    "closing": Row(
        "a new connection each, 4 at a time",
        connections=4,
        request=closing,
        share=0.25,
        closes=True,
    ),
    "websocket": Row(
        "WebSocket, 16 in flight",
        connections=1,
        in_flight=IN_FLIGHT,
        request=enveloped,
        # Nothing is published where it subscribes.
        opening=upgrade("other"),
        end=b"}",
        good=b'{"ack": ',
    ),
    "raw": Row(
        "WebSocket, raw, reads its own",
        connections=1,
        in_flight=IN_FLIGHT,
        request=raw,
        reads=None,
        opening=upgrade("bench?raw=1"),
        end=END,
        good=b"~",
        kept=True,
    ),
    "stream": Row("a stream of parts", **STREAM),
    "stream-lengths": Row(
        "a stream, 20 lengths", **STREAM | {"request": part_of_many_lengths}
    ),
    "stream-chunks": Row(
        "a stream, a chunk for each part",
        **STREAM | {"request": part_in_chunk, "opening": begin_parts(CHUNKED)},
    ),
    "lines": Row(
        "a stream of lines", **STREAM | {"request": text_line, "opening": begin_lines()}
    ),
    "stream-tls": Row("a stream over TLS", tls=True, **STREAM),
    "tls": Row("POST over TLS", tls=True),
    "user": Row(
        "POST, by a user with a right",
        request=by_user,
        options=USERS,
    ),
    "unkept": Row("POST, no history", options=("--history", "0")),
    "redis": Row("POST, 16 connections, log in Redis", connections=16, redis=True),
    "redis-crowd": Row("the same, 64 connections", connections=64, redis=True),
    "redis-pipelined": Row(
        "the same, 16 connections, 16 in flight each",
        connections=16,
        in_flight=IN_FLIGHT,
        redis=True,
    ),
    "redis-streams": Row(
        "the same, 16 streams of parts",
        **STREAM | {"connections": 16, "in_flight": IN_STREAM // 16, "redis": True},
    ),
    "subscribing": Subscribing("subscribing"),
    "subscribing-tls": Subscribing("subscribing over TLS", share=0.2, tls=True),
    "returning": Returning("coming back after a restart"),
}


def measure(row, options, folder, python, progress):
    """
    Run one row once; return a figure for each column.
    """
    return row.measure(options, Server(folder, python, tls=row.tls), progress)


def main():
    """
    Measure what is asked for.
    """
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--messages", type=int, default=20_000, help="of a row [20000]")
    parser.add_argument("--subscribers", type=int, default=5000, help="that come [5000]")
    parser.add_argument(
        "--returning", type=int, default=10_000, help="that come back [10000]"
    )
    options = parse(parser, ROWS)
    if options.quick:
        options.messages, options.subscribers, options.returning = 400, 100, 100
    most = max(options.subscribers, options.returning, 64)
    run(ROWS, options, COLUMNS, measure, most)


if __name__ == "__main__":
    main()
