"""
Remembered heads: a table of heads that have come before, byte for byte, and of what a
request with such a head means.

Publishers and subscribers send the same head again and again.  A head is the request line
and the headers, up to the empty line.  Once Twisted has parsed a head, and the bus has
judged and accepted its request, the same bytes at the beginning of another request mean the
same, as long as nothing has changed by which the request was judged.  So they need not be
parsed and judged again, and nothing here parses HTTP.

The values of three headers may differ, because the meaning of the rest of the head does not
depend on them: `Content-Length`, `Idempotency-Key` and `Last-Event-ID`.  They are cut out
of the head, and the rest is its key in the table.  A value is cut out only if it is spelled
so plainly that there is one way to read it, and a head is remembered only if Twisted read
the same values in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from twisted.web import http

__all__ = ["ResponseHead", "Head", "Heads", "Known", "MAX_HEAD", "Meaning", "UNKNOWN"]

# Bytes of the longest head that is remembered, and of all entries of the table together.
MAX_HEAD = 4096
MAX_SIZE = 4 * 1024 * 1024

# How many whole heads `Heads.find` remembers with its results, and how many bytes each may
# have.
MAX_EXACT = 1000
MAX_EXACT_BYTES = 1024

# How many heads are known to have come once.
MAX_ONCE = 10_000

# Visible ASCII, without the characters that have a meaning in lists and parameters.
_TOKEN = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,200}")

# The headers whose values are cut out, as most clients spell them.  Heads with another
# spelling are not remembered.
_LENGTH_NAMES = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_KEY_NAMES = (b"\r\nIdempotency-Key: ", b"\r\nidempotency-key: ")
_LAST_ID_NAMES = (b"\r\nLast-Event-ID: ", b"\r\nlast-event-id: ")


class Head(NamedTuple):
    """
    A head, split into the values that may differ and the rest.

    Attributes:
        rest: The head without these values; its key in the table of `Heads`.
        length: The value of `Content-Length`, or the empty string if there is none.
        key: The value of `Idempotency-Key`, likewise.
        last_id: The value of `Last-Event-ID`, likewise.
    """

    rest: bytes
    length: bytes
    key: bytes
    last_id: bytes

    @classmethod
    def split(cls, head: bytes) -> Head | None:
        """
        Cut the values out of a head, which ends with its empty line; None if one of the
        values is not plain.
        """
        try:
            head, length = _cut(head, _LENGTH_NAMES, _is_length)
            head, key = _cut(head, _KEY_NAMES, _TOKEN.fullmatch)
            head, last_id = _cut(head, _LAST_ID_NAMES, _TOKEN.fullmatch)
        except ValueError:
            return None
        return cls(head, length, key, last_id)

    def is_of(self, request: http.Request) -> bool:
        """
        Did Twisted read the same values in the head of this request?
        """
        return all(
            request.requestHeaders.getRawHeaders(name, []) == ([value] if value else [])
            for name, value in (
                (b"Content-Length", self.length),
                (b"Idempotency-Key", self.key),
                (b"Last-Event-ID", self.last_id),
            )
        )


def _is_length(value: bytes) -> bool:
    """
    Is this a number without needless zeros, and with no more digits than any limit?
    """
    return value.isdigit() and len(value) < 10 and (value[0] != 0x30 or len(value) == 1)


def _cut(
    head: bytes, names: tuple[bytes, bytes], is_plain: Callable[[bytes], object]
) -> tuple[bytes, bytes]:
    """
    A head without the value of a header, and the value; the whole head and the empty string
    if it has no such header.

    Raises:
        ValueError: The value is not plain.
    """
    begin = head.find(names[0])
    if begin < 0:
        begin = head.find(names[1])
        if begin < 0:
            return head, b""
    begin += len(names[0])
    end = head.index(b"\r\n", begin)
    value = head[begin:end]
    if not is_plain(value):
        raise ValueError
    return head[:begin] + head[end:], value


C = TypeVar("C", contravariant=True)


class Meaning(Protocol[C]):
    """
    What a request with a certain head asks for, in a form that can be done again.
    """

    @property
    def size(self) -> int:
        """
        About how many bytes of memory this object takes.
        """

    def repeat(self, head: Head, body: bytes, channel: C) -> bool:
        """
        Do what another request with this head asks for, and answer it.

        Args:
            head: The head of that request, with its own values.
            body: The body of that request.
            channel: The connection on which that request came.

        Returns:
            Whether the request was answered.  If not, nothing was done, and the caller has
            the request parsed as usual, which refuses it and says why.
        """


class Known(NamedTuple, Generic[C]):
    """
    What `Heads.find` knows about the head of a request that has just come.

    Attributes:
        head: The head, split; None for a head that is never remembered.
        length: Bytes of the body of the request.
        meaning: What the head means; None if that is not remembered.
    """

    head: Head | None
    length: int
    meaning: Meaning[C] | None


UNKNOWN: Known[Any] = Known(None, 0, None)


class Heads(Generic[C]):
    """
    A table of heads and their meanings.  Its size is limited to 4 MiB; past that, the heads
    that have not come for longest are removed first.

    A head is added when it comes for the second time.  So a head that never comes again
    costs almost nothing, and any number of such heads removes no other from the table.

    Args:
        max_body: Bytes of the largest body that a request may have.

    Attributes:
        max_body: As given.
        size: About how many bytes the table takes.
        version: Changes whenever something is removed from the table.
    """

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body
        self.size = 0
        self.version = 0
        self._meanings: dict[tuple[object, bytes], Meaning[C]] | None = {}
        # Results of `find` by the whole bytes of the head, because most heads come again
        # without any difference.
        self._exact: dict[tuple[object, bytes], Known[C]] = {}
        # Hashes of the heads that have come once, as a set that keeps their order.
        self._once: dict[int, None] = {}

    def find(self, place: object, raw: bytes) -> Known[C]:
        """
        Look up a head.

        Args:
            place: What else the request is judged by; see `Repeater.place`.  A head is
                found only with the `place` with which it was remembered.
            raw: The bytes of the head, including its empty line.
        """
        known = self._exact.get((place, raw))
        if known is not None:
            return known
        head = Head.split(raw)
        if head is None or self._meanings is None:
            return UNKNOWN
        meaning = self._meanings.pop((place, head.rest), None)
        length = int(head.length or b"0")
        if meaning is None:
            return Known(head, length, None)
        # Now it is the youngest.
        self._meanings[place, head.rest] = meaning
        if length > self.max_body:
            return Known(head, length, None)
        known = Known(head, length, meaning)
        # A head with a key or an id has another one next time.
        if not head.key and not head.last_id and len(raw) <= MAX_EXACT_BYTES:
            if len(self._exact) >= MAX_EXACT:
                self._exact.clear()
            self._exact[place, raw] = known
        return known

    def remember(
        self, place: object, head: Head, meaning: Callable[[], Meaning[C]]
    ) -> None:
        """
        Remember what a head means, if this is not the first time that it comes.

        Args:
            place: As for `find`.
            meaning: Makes the meaning; called only if it is going to be remembered.
        """
        if self._meanings is None or (place, head.rest) in self._meanings:
            return
        hashed = hash((place, head.rest))
        if hashed not in self._once:
            self._once[hashed] = None
            if len(self._once) > MAX_ONCE:
                del self._once[next(iter(self._once))]
            return
        del self._once[hashed]
        made = self._meanings[place, head.rest] = meaning()
        self.size += len(head.rest) + made.size
        while self.size > MAX_SIZE:
            self._exact.clear()
            self.version += 1
            oldest = next(iter(self._meanings))
            self.size -= len(oldest[1]) + self._meanings.pop(oldest).size

    def forget(self) -> None:
        """
        Forget all heads, because something has changed by which requests are judged.
        """
        if self._meanings is not None:
            self._meanings.clear()
            self._exact.clear()
            self._once.clear()
            self.size = 0
        self.version += 1

    def close(self) -> None:
        """
        Forget all heads, and remember none from now on.
        """
        self.forget()
        self._meanings = None


class ResponseHead:
    """
    A template of the head of a response, which is filled in for each repetition of its
    request: with the date, and with the values of some other headers.

    Args:
        request: A request whose response has all its headers.  `Date` is among them, and
            stands before those of `varying`.
        code: The status of the response.
        varying: Names of the headers whose values are given to `fill`, in their order in
            the response.
    """

    __slots__ = ("_closing", "_template")

    def __init__(self, request: http.Request, code: int, varying: Sequence[bytes]) -> None:
        template = _literal(
            b"%s %d %s\r\n" % (request.clientproto, code, http.RESPONSES[code])
        )
        for name, values in request.responseHeaders.getAllRawHeaders():
            for value in values:
                shown = b"%b" if name in (b"Date", *varying) else _literal(value)
                template += b"%b: %b\r\n" % (_literal(name), shown)
        self._template = template + b"\r\n"
        first = b"%b: %%b" % varying[0]
        self._closing = self._template
        if not request.responseHeaders.hasHeader(b"Connection"):
            closing = b"Connection: close\r\n" + first
            self._closing = self._template.replace(first, closing)

    def fill(self, *values: bytes, closing: bool = False) -> bytes:
        """
        The bytes of the head.

        Args:
            values: The values of the headers in `varying`.
            closing: Whether to add `Connection: close`.
        """
        template = self._closing if closing else self._template
        return template % (_date(int(time.time())), *values)


def _literal(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    """
    The value of `Date`, as Twisted writes it; made once a second.
    """
    date: bytes = http.datetimeToString(seconds)
    return date
