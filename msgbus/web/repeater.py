"""
Requests that repeat, on one connection: they are answered by their heads, in order, and
what else comes is left for Twisted to parse.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..fanout.outlet import write_at_once
from .heads import MAX_HEAD, Head, Heads

__all__ = ["Connection", "Repeater"]


class Connection(Protocol):
    """
    A connection, as far as requests are repeated on it.
    """

    transport: Any  # TCP, TLS, UNIX or a wrapper: no one interface of Twisted's
    requests: list[Any]  # of Twisted's, or what stands for them
    paused: bool
    ended: bool


class Repeater:
    """
    Answers the requests at the beginning of what comes, as long as their heads are
    remembered.

    Args:
        heads: What is remembered.
        connection: Where answers go.

    Attributes:
        head: The head of the request that Twisted parses next, if it came whole.
        place: The address at which the connection has arrived, by which requests are
            judged, too; None before the first bytes have come.
        missing: How many bytes have still to come of the body of a request that is to be
            repeated.
    """

    __slots__ = (
        "head",
        "missing",
        "place",
        "_answers",
        "_connection",
        "_heads",
        "_partial",
    )

    def __init__(self, heads: Heads[Any], connection: Connection) -> None:
        self.head: Head | None = None
        self.missing = 0
        self.place: str | None = None
        self._heads = heads
        self._connection = connection
        # What has come of a request of which bytes are still missing.
        self._partial: list[bytes] = []
        # Answers that go out together.
        self._answers: list[bytes] = []

    def take(self, data: bytes) -> bytes:
        """
        Answer requests.  The first byte must be the first of a request, or continue one of
        which bytes are missing.

        Returns:
            The bytes behind them, for Twisted to parse.
        """
        if self.missing:
            self._partial.append(data)
            self.missing -= len(data)
            if self.missing > 0:
                return b""
            data = self.give_up()
        if self.place is None:
            # Not before the first bytes: a proxy may tell the address ahead of them.
            host = self._connection.transport.getHost()
            self.place = getattr(host, "host", "")
        place, connection = self.place, self._connection
        begin, size = 0, len(data)
        while begin < size:
            # What is parsed next has another head, or none that came whole.
            self.head = None
            body = data.find(b"\r\n\r\n", begin, begin + MAX_HEAD) + 4
            if body < 4:
                break
            known = self._heads.find(place, data[begin:body])
            if known.meaning is None or known.head is None:
                self.head = known.head
                break
            end = body + known.length
            if end > size:
                self._partial.append(data[begin:])
                self.missing = end - size
                begin = size
                break
            if not known.meaning.repeat(known.head, data[body:end], connection):
                self.head = known.head
                break
            begin = end
            if connection.requests or connection.paused or connection.ended:
                break
        if self._answers:
            self.flush()
        return data[begin:] if begin < size else b""

    def give_up(self) -> bytes:
        """
        What has come of a request of which bytes are missing, for Twisted to parse.
        """
        data = b"".join(self._partial)
        self._partial.clear()
        self.missing = 0
        return data

    def send(self, data: bytes) -> None:
        """
        Send bytes of an answer, together with those of others that came at once.
        """
        self._answers.append(data)

    def flush(self) -> bool:
        """
        Send these answers.

        Returns:
            Whether nothing waits in the transport.
        """
        answers, self._answers = self._answers, []
        data = answers[0] if len(answers) == 1 else b"".join(answers)
        return write_at_once(self._connection.transport, data)
