#!/usr/bin/env python3
"""
Measures a bus of several nodes: real `twistd msgbus` that share a log in a real Redis.

Run it with the Python into which msgbus is installed; it needs `redis-server`, nothing
else, and Linux.  It ends with an error if a message was lost, doubled or out of order.  All
nodes get one processor, and the load another with Redis, if there are two.  So deliveries
are told by processor time: two nodes that spend as much on a delivery as one does alone
deliver twice as many in a second if each has a processor.

    python bench/nodes.py
    python bench/nodes.py --messages 100000 start behind
    python bench/nodes.py --quick
"""

import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass

from crowd import Crowd
from load import (
    READ_BYTES,
    Column,
    Server,
    arguments,
    connect,
    parse,
    percentiles,
    processor_seconds,
    run,
)
from prepared import END, body, check, plain
from publish import SUBSCRIBE, Row
from publishers import Publishers, ask

PUBLISHERS = 16
LOAD = Row("", connections=PUBLISHERS, in_flight=PUBLISHERS)
KEPT = ("--history", "1000000", "--history-bytes", "1000000000")


class Nodes:
    """
    Nodes that share a log, with the load that is for them.

    Args:
        server: A `Server`.
        count: How many there are, at first.
        shared: Whether the log is in Redis; if not, there is one node.
    """

    def __init__(self, server, count, shared=True):
        self._server = server
        self._stack = ExitStack()
        self._options = list(KEPT)
        self.redis = None
        if shared:
            self.redis = self._stack.enter_context(server.redis())
            self._options += ["--log", self.redis.url]
        self.all = []
        for _ in range(count):
            self.add()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stack.__exit__(*error)

    def add(self):
        """
        Start one more.
        """
        node = self._stack.enter_context(self._server.start(*self._options))
        self.all.append(node)
        return node

    def crowd(self, node, count):
        """
        So many subscribers of a node.
        """
        crowd = Crowd(node, None)
        self._stack.callback(crowd.close)
        crowd.arrive([SUBSCRIBE % b""] * count, lambda share: None)
        return crowd

    def publish(self, count, progress):
        """
        Publish so many messages at the first node, as fast as it takes them.
        """
        each = count // PUBLISHERS
        requests = [[plain(p, n) for n in range(each)] for p in range(PUBLISHERS)]
        publishers = Publishers(self.all[0], None, requests, LOAD)
        try:
            publishers.publish([each] * PUBLISHERS, progress)
        finally:
            publishers.close()
        check(publishers.received, [each] * PUBLISHERS)

    def spent(self):
        """
        Seconds of processor time: of all nodes, and of Redis.
        """
        redis = processor_seconds(self.redis) if self.redis is not None else 0.0
        return sum(map(processor_seconds, self.all)), redis

    def bytes(self):
        """
        How much memory Redis uses.
        """
        if self.redis is None:
            return 0
        return int(self.redis.ask("INFO", "memory").split(b"used_memory:")[1].split()[0])


class Measurement:
    """
    What is spent from now on.
    """

    def __init__(self, nodes):
        self._nodes = nodes
        self._spent = nodes.spent()
        self._bytes = nodes.bytes()
        self._begun = time.perf_counter()

    def figures(self, count, latencies=(0.0, 0.0), messages=0):
        """
        The figure for each column, for so many messages or deliveries; the memory is for
        each of so many messages.
        """
        seconds = time.perf_counter() - self._begun
        spent = (
            (now - before) / count * 1e6
            for now, before in zip(self._nodes.spent(), self._spent, strict=True)
        )
        memory = (self._nodes.bytes() - self._bytes) / messages if messages else 0
        return count, seconds, count / seconds, *spent, *percentiles(latencies), memory


class Reader:
    """
    One subscriber that only reads.
    """

    def __init__(self, node, request):
        self._socket = connect(node)
        ask(self._socket, request % b"", b"HTTP/1.1 200 ")

    def read(self, count):
        """
        Read so many messages, and see that they are all that was published.
        """
        text, got = bytearray(), 0
        while got < count:
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise SystemExit("The node has closed the stream.")
            text += data
            got += data.count(END)
        self._socket.close()
        check(text, [count // PUBLISHERS] * PUBLISHERS)


@dataclass(frozen=True)
class Paced:
    """
    One line of the table: messages are published at the first node, each when all
    subscribers have the one before.
    """

    about: str
    # Which of the nodes each of the subscribers is at, in turn.
    at: tuple[int, ...]
    nodes: int
    shared: bool = True
    crowded: bool = True

    def measure(self, options, server, progress):
        """
        Run the row once; return a figure for each column.
        """
        count = options.messages // 100 if self.crowded else options.messages // 10
        size = options.subscribers // len(self.at) if self.crowded else 1
        latencies = []
        with Nodes(server, self.nodes, self.shared) as nodes:
            crowds = [nodes.crowd(nodes.all[place], size) for place in self.at]
            row = Row("", connections=1, reads="other")
            requests = [[plain(0, number) for number in range(count + 1)]]
            publishers = Publishers(nodes.all[0], None, requests, row)
            for number in range(count + 1):
                if number == 1:
                    measured = Measurement(nodes)
                begun = time.perf_counter()
                publishers.members[0].publish(1)
                for crowd in crowds:
                    crowd.wait_for(body(0, number))
                latencies.append(time.perf_counter() - begun)
                while len(publishers.members[0].latencies) <= number:
                    publishers.look()
                progress(number / count)
            figures = measured.figures(count * size * len(self.at), latencies[1:])
            publishers.close()
            for member in (m for crowd in crowds for m in crowd.members):
                check(member.text, [count + 1])
        return figures


@dataclass(frozen=True)
class Publishing:
    """
    One line of the table: messages are published at the first node, many in flight.
    """

    about: str
    nodes: int

    def measure(self, options, server, progress):
        """
        Run the row once; return a figure for each column.
        """
        with Nodes(server, self.nodes) as nodes:
            measured = Measurement(nodes)
            nodes.publish(options.messages, progress)
            return measured.figures(options.messages, messages=options.messages)


@dataclass(frozen=True)
class Start:
    """
    One line of the table: a node starts when the log has messages.
    """

    about: str

    def measure(self, options, server, progress):
        """
        Run the row once; return a figure for each column.
        """
        count = options.messages
        with Nodes(server, 1) as nodes:
            nodes.publish(count, progress)
            measured = Measurement(nodes)
            new = nodes.add()
            figures = measured.figures(count)
            reader = Reader(new, SUBSCRIBE.replace(b" HTTP", b"?since=all HTTP"))
            reader.read(count)
        return figures


@dataclass(frozen=True)
class Behind:
    """
    One line of the table: a node is stopped while messages are published at another, and
    goes on; until its subscriber has all of them.
    """

    about: str

    def measure(self, options, server, progress):
        """
        Run the row once; return a figure for each column.
        """
        count = options.messages
        with Nodes(server, 2) as nodes:
            second = nodes.all[1]
            reader = Reader(second, SUBSCRIBE)
            second.process.send_signal(signal.SIGSTOP)
            try:
                nodes.publish(count, progress)
                measured = Measurement(nodes)
            finally:
                second.process.send_signal(signal.SIGCONT)
            reader.read(count)
            return measured.figures(count)


COLUMNS = (
    Column("number", ",.0f"),
    Column("seconds", ".2f"),
    Column("a second", ",.0f"),
    Column("CPU µs each", ".1f", compared=True),
    Column("Redis µs each", ".1f"),
    Column("p50 ms", ".2f"),
    Column("p99 ms", ".2f"),
    Column("bytes each", ".0f"),
)

ROWS = {
    "memory": Paced("seen, log in memory", (0,), 1, shared=False, crowded=False),
    "near": Paced("seen at the same node", (0,), 1, crowded=False),
    "far": Paced("seen at another node", (1,), 2, crowded=False),
    "alone": Paced("deliveries, log in memory", (0,), 1, shared=False),
    "one": Paced("deliveries of 1 node", (0,), 1),
    "two": Paced("deliveries of 2 nodes", (0, 1), 2),
    "publishing": Publishing("publishing, 1 node", 1),
    "followed": Publishing("publishing, 2 nodes", 2),
    "start": Start("a node starts"),
    "behind": Behind("a node catches up"),
}


def measure(row, options, folder, python, progress):
    """
    Run one row once; return a figure for each column.
    """
    return row.measure(options, Server(folder, python), progress)


def main():
    """
    Measure what is asked for.
    """
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--messages", type=int, default=20_000, help="of a row [20000]")
    parser.add_argument("--subscribers", type=int, default=1000, help="of a row [1000]")
    options = parse(parser, ROWS)
    if options.quick:
        options.messages, options.subscribers = 1600, 20
    run(ROWS, options, COLUMNS, measure, options.subscribers + PUBLISHERS)


if __name__ == "__main__":
    main()
