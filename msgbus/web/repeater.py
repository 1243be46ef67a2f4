"""
Requests that repeat, on one connection: they are answered by their heads, in order, and
what else comes is left for Twisted to parse.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..fanout.outlet import write_at_once
from .heads import MAX_HEAD, Head, Heads, Known

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
        place: By what of the connection requests are judged: the address at which it has
            arrived.
        missing: Bytes that are missing of the body of a request that is to be repeated.
    """

    __slots__ = (
        "head",
        "missing",
        "place",
        "_answers",
        "_connection",
        "_heads",
        "_known",
        "_partial",
    )

    def __init__(self, heads: Heads[Any], connection: Connection) -> None:
        self.head: Head | None = None
        self.missing = 0
        self.place: str | None = None
        self._heads = heads
        self._connection = connection
        # The last head: the next one is likely to be the same.
        self._known: Known[Any] | None = None
        # What has come of a request of which bytes are missing.
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
        heads, connection = self._heads, self._connection
        begin, size = 0, len(data)
        while begin < size:
            known = self._known
            if (
                known is None
                or known.version != heads.version
                or not data.startswith(known.raw, begin)
            ):
                known = self._known = self._find(data, begin)
                if known is None:
                    break
            body = begin + len(known.raw)
            end = body + known.length
            if end > size:
                self._partial.append(data[begin:])
                self.missing = end - size
                self.head = None
                begin = size
                break
            if not known.meaning.repeat(known.head, data[body:end], connection):
                self.head = known.head
                break
            begin = end
            # What is parsed next has another head.
            self.head = None
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

    def _find(self, data: bytes, begin: int) -> Known[Any] | None:
        """
        What is known of the head that begins here, if its request may be repeated.
        """
        end = data.find(b"\r\n\r\n", begin, begin + MAX_HEAD) + 4
        self.head = Head.split(data[begin:end]) if end >= 4 else None
        if self.head is None:
            return None
        if self.place is None:
            # Not before there is data: a proxy may tell it first.
            host = self._connection.transport.getHost()
            self.place = getattr(host, "host", "")
        length = int(self.head.length or b"0")
        meaning = self._heads.find(self.place, self.head)
        if meaning is None or length > self._heads.max_body:
            return None
        return Known(data[begin:end], self.head, length, meaning, self._heads.version)
