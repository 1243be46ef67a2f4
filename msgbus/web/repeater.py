"""
Answers the requests of one connection whose heads are remembered, without parsing them.

All other requests are left for Twisted to parse.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

from ..fanout.outlet import write_at_once
from .heads import MAX_HEAD, UNKNOWN, Head, Heads, Known

__all__ = ["Connection", "Repeater"]


class Connection(Protocol):
    """
    A connection, as far as a `Repeater` uses it; see `channel.Channel`.
    """

    transport: Any  # TCP, TLS, UNIX or a wrapper: no one interface of Twisted's
    requests: list[Any]  # of Twisted's, or what stands for them
    paused: bool
    ended: bool

    def place(self) -> Hashable:
        """
        What all requests on this connection are judged by, beside their heads; not None.
        Asked for when the first bytes have come.
        """


class Repeater:
    """
    Answers requests in the order in which they come, up to the first whose head is not
    remembered.

    Args:
        heads: The heads that are remembered.
        connection: The connection to which the answers are written.

    Attributes:
        head: The head of the request that Twisted parses next; None if its bytes did not
            come all at once, or if it is never remembered.
        place: What else requests are judged by, beside their heads; see `Connection.place`.
            None before the first bytes have come.
        missing: How many bytes are still to come of the body of a request whose head is
            remembered.
    """

    __slots__ = (
        "head",
        "missing",
        "place",
        "answers",
        "_connection",
        "_heads",
        "_known",
        "_partial",
        "_raw",
        "_version",
    )

    def __init__(self, heads: Heads[Any], connection: Connection) -> None:
        self.head: Head | None = None
        self.missing = 0
        self.place: Hashable = None
        self._heads = heads
        self._connection = connection
        # The bytes that have come of a request of which others are still missing.
        self._partial: list[bytes] = []
        # The last head that was remembered, what was known of it, and `Heads.version` then.
        self._raw = b""
        self._known: Known[Any] = UNKNOWN
        self._version = -1
        # The pieces of answers that `flush` writes together.
        self.answers: list[bytes] = []

    def take(self, data: bytes) -> bytes:
        """
        Answer the requests at the beginning of these bytes whose heads are remembered.

        Args:
            data: Its first byte is the first byte of a request, or the next one of the
                request of which bytes are `missing`.

        Returns:
            The bytes from the first request on that could not be answered so, for Twisted
            to parse; the same object as `data` if there was none that could.
        """
        if self.missing:
            self._partial.append(data)
            self.missing -= len(data)
            if self.missing > 0:
                return b""
            data = self.give_up()
        if self.place is None:
            self.place = self._connection.place()
        heads, place, connection = self._heads, self.place, self._connection
        begin, size = 0, len(data)
        while begin < size:
            # The head that was found last is not the one that Twisted parses next.
            self.head = None
            if heads.version == self._version and data.startswith(self._raw, begin):
                # The same head as the last, as most are.
                known = self._known
                body = begin + len(self._raw)
            else:
                body = data.find(b"\r\n\r\n", begin, begin + MAX_HEAD) + 4
                if body < 4:
                    break
                raw = data[begin:body]
                known = heads.find(place, raw)
                if known.meaning is not None:
                    self._raw, self._known, self._version = raw, known, heads.version
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
        if self.answers:
            self.flush()
        return data[begin:] if begin else data

    def give_up(self) -> bytes:
        """
        Do not wait for the missing bytes of a request any more.

        Returns:
            The bytes of it that have come, for Twisted to parse.
        """
        data = b"".join(self._partial)
        self._partial.clear()
        self.missing = 0
        return data

    def flush(self) -> bool:
        """
        Write the answers.

        Returns:
            Whether all are in the socket, and nothing waits in the transport.
        """
        answers, self.answers = self.answers, []
        data = answers[0] if len(answers) == 1 else b"".join(answers)
        return write_at_once(self._connection.transport, data)
