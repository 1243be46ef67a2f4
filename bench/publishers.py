"""
Publishers: connections that send prepared requests, a fixed number in flight on each, and
the one subscriber that receives what they publish.

How requests are made, and received messages checked, is up to `prepared`.
"""

import select
import time
from collections import deque
from itertools import islice

from load import SILENCE_SECONDS, connect, receive
from prepared import END

__all__ = ["Publishers"]


class Publisher:
    """
    One connection that publishes.

    Args:
        open: Makes a connection that is ready for the first request.
        watch: Takes each new connection, and a function to call when it is readable.
        requests: Prepared, in the order in which they are sent.
        row: How to publish, a `Row` of `publish`.

    Attributes:
        latencies: Seconds from a request to its answer, for each answer that has come.
        received: All bytes that have come, if the row wants them kept; otherwise None.
    """

    def __init__(self, open, watch, requests, row):
        self._open = open
        self._watch = watch
        self._requests = iter(requests)
        self._row = row
        self._sent = deque()
        self._rest = b""
        self._left = 0
        self.latencies = []
        self.received = bytearray() if row.kept else None
        self._socket = None
        if not row.closes:
            self._connect()

    def _connect(self):
        self._socket = self._open()
        self._watch(self._socket, self._read)

    def publish(self, count):
        """
        Begin with the next so many requests; `_read` sends one more for each answer.
        """
        self._left = count
        self._send(self._row.in_flight)

    def _send(self, count):
        count = min(count, self._left)
        if not count:
            return
        self._left -= count
        data = b"".join(islice(self._requests, count))
        now = time.perf_counter()
        self._sent.extend([now] * count)
        if self._row.closes:
            self._connect()
        if self._socket.send(data) != len(data):
            raise SystemExit("The server does not read what is published.")

    def _read(self):
        """
        Read answers, and send a request for each.
        """
        data = receive(self._socket)
        if data is None:
            # TLS had something of its own, such as a session ticket.
            return
        if self._row.closes:
            if data:
                self._rest += data
                return
            self._socket.close()
        elif not data:
            raise SystemExit("The server has closed a publisher's connection.")
        elif self.received is not None:
            self.received += data
        self._answered(data)

    def _answered(self, data):
        now = time.perf_counter()
        answers, end, self._rest = (self._rest + data).rpartition(self._row.end)
        count = answers.count(self._row.end) + 1 if end else 0
        if answers.count(self._row.good) != count or (self._row.closes and count != 1):
            raise SystemExit(f"Not published: {answers!r}")
        for _ in range(count):
            self.latencies.append(now - self._sent.popleft())
        self._send(count)

    def close(self):
        """
        Close the connection.
        """
        if self._socket is not None:
            self._socket.close()


class Publishers:
    """
    All publishers of a row, and their subscriber.

    Args:
        requests: A list of prepared requests for each publisher.
        row: How to publish, a `Row` of `publish`.

    Attributes:
        received: All bytes that have come to the subscriber.
    """

    def __init__(self, daemon, context, requests, row):
        self._daemon = daemon
        self._context = context
        self._row = row
        self._epoll = select.epoll()
        self._readers = {}
        self._subscriber = None
        self.received = bytearray()
        if row.reads is not None:
            self._subscribe()
        self.members = [
            Publisher(self._connect, self._watch, of_one, row) for of_one in requests
        ]
        if row.reads is None:
            self.received = self.members[0].received

    def _watch(self, connection, read):
        connection.setblocking(False)
        self._epoll.register(connection, select.EPOLLIN)
        self._readers[connection.fileno()] = read

    def _connect(self):
        connection = connect(self._daemon, self._context)
        if self._row.opening:
            ask(connection, self._row.opening, self._row.opened)
        return connection

    def _subscribe(self):
        self._subscriber = connect(self._daemon, self._context)
        request = f"GET /msgbus/{self._row.reads} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ask(self._subscriber, request.encode(), b"HTTP/1.1 200 ")
        self._watch(self._subscriber, self._read)

    def _read(self):
        data = receive(self._subscriber)
        if data == b"":
            raise SystemExit("The server has closed the subscriber's connection.")
        self.received += data or b""

    def publish(self, counts, progress=lambda share: None):
        """
        Have each publisher send so many messages; return when all are answered and have
        reached the subscriber.

        Returns:
            For each message, the seconds from its request to its answer.
        """
        total = sum(counts)
        due = self.received.count(END) + total
        for member, count in zip(self.members, counts, strict=True):
            member.latencies = []
            member.publish(count)
        while (answered := sum(len(member.latencies) for member in self.members)) < total:
            self.look()
            progress(answered / total)
        while self.received.count(END) < due:
            self.look()
        return [seconds for member in self.members for seconds in member.latencies]

    def look(self):
        """
        Wait for data on any connection, and have it read.
        """
        ready = self._epoll.poll(SILENCE_SECONDS)
        if not ready:
            raise SystemExit(f"Nothing came for {SILENCE_SECONDS} s, but more is due.")
        for fileno, _ in ready:
            self._readers[fileno]()

    def close(self):
        """
        Close all connections.
        """
        for member in self.members:
            member.close()
        if self._subscriber is not None:
            self._subscriber.close()
        self._epoll.close()


def ask(connection, request, good):
    """
    Send a request, and read the head of its answer, which has to begin with `good`.
    """
    connection.sendall(request)
    text = b""
    while b"\r\n\r\n" not in text:
        if not (data := connection.recv(65536)):
            break
        text += data
    if not text.startswith(good):
        raise SystemExit(f"{request!r} was answered {text!r}.")
