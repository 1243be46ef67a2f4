"""
Remembered heads: what a request means whose head came before, byte for byte.

Publishers and subscribers repeat themselves.  A head (the request line and the headers, up
to the empty line) that was parsed by Twisted, judged, and accepted means the same when the
same bytes come again at the beginning of a request, as long as what it was judged by has
not changed.  So it need not be parsed and judged again, and nothing here parses HTTP.

Three values may differ, each because it decides nothing about the others: the digits of
`Content-Length`, an `Idempotency-Key` and a `Last-Event-ID`.  They are cut out, and what
remains is the key.  They are cut out only where they are spelled so plainly that they could
mean nothing else, and a head is remembered only if Twisted read the same values in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from twisted.web import http

__all__ = ["Answer", "Head", "Heads", "Known", "MAX_HEAD", "Meaning"]

# Bytes of the longest head that is remembered, and of all entries of the table together.
MAX_HEAD = 4096
MAX_SIZE = 4 * 1024 * 1024

# How many heads are looked up by their very bytes, and how long each may be.
MAX_EXACT = 1000
MAX_EXACT_BYTES = 1024

# For how many heads it is known that they have come once.
MAX_ONCE = 10_000

# Visible ASCII without what has a meaning in lists and parameters.
_TOKEN = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,200}")

# As most clients spell them.
_LENGTH_NAMES = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_KEY_NAMES = (b"\r\nIdempotency-Key: ", b"\r\nidempotency-key: ")
_LAST_ID_NAMES = (b"\r\nLast-Event-ID: ", b"\r\nlast-event-id: ")


class Head(NamedTuple):
    """
    A head, and the values in it that may differ.

    Attributes:
        rest: The head without these values: by this it is remembered.
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
        Cut the values out of a head, which ends with its empty line; None for one whose
        values are not plain.
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
    A head without the value of a header, and the value.

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
    What a head means.
    """

    @property
    def size(self) -> int:
        """
        About how many bytes of memory it takes.
        """

    def repeat(self, head: Head, body: bytes, channel: C) -> bool:
        """
        Do what it asks for once more, and answer.

        Args:
            body: Of the request.
            channel: The connection on which it came.

        Returns:
            Whether it was done.  If not, nothing was done, and the request is to be parsed:
            it is refused then, and told why.
        """


class Known(NamedTuple, Generic[C]):
    """
    What is known of the head of a request that has just come.

    Attributes:
        head: The head, split; None for one that is never remembered.
        length: Of the body.
        meaning: What it means; None if that is not remembered.
    """

    head: Head | None
    length: int
    meaning: Meaning[C] | None


_UNKNOWN: Known[Any] = Known(None, 0, None)


class Heads(Generic[C]):
    """
    A table of heads, which holds no more than a bounded number of bytes: the oldest go.

    A head is remembered when it comes for the second time.  So one that never comes again
    costs next to nothing, and however many of those there are, they drive no other out.

    Args:
        max_body: Bytes of the largest body that a request may have.

    Attributes:
        max_body: As given.
        size: Bytes that it holds.
        version: Another one whenever all was forgotten.
    """

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body
        self.size = 0
        self.version = 0
        self._meanings: dict[tuple[object, bytes], Meaning[C]] | None = {}
        # Heads that have come lately, by their very bytes: most of them come again soon.
        self._exact: dict[tuple[object, bytes], Known[C]] = {}
        # Hashes of heads that have come once, in the order in which they came.
        self._once: dict[int, None] = {}

    def find(self, place: object, raw: bytes) -> Known[C]:
        """
        What is known of a head.

        Args:
            place: The address at which the connection has arrived, by which requests are
                judged, too; the same as when the head was remembered.
            raw: The bytes of the head, up to its empty line.
        """
        known = self._exact.get((place, raw))
        if known is not None:
            return known
        head = Head.split(raw)
        if head is None or self._meanings is None:
            return _UNKNOWN
        meaning = self._meanings.get((place, head.rest))
        length = int(head.length or b"0")
        if meaning is None or length > self.max_body:
            return Known(head, length, None)
        known = Known(head, length, meaning)
        # A head with a key or an id will hardly come again.
        if not head.key and not head.last_id and len(raw) <= MAX_EXACT_BYTES:
            if len(self._exact) >= MAX_EXACT:
                self._exact.clear()
            self._exact[place, raw] = known
        return known

    def remember(
        self, place: object, head: Head, meaning: Callable[[], Meaning[C]]
    ) -> None:
        """
        Remember what a head means, if it has come before.

        Args:
            meaning: Makes it, if need be.
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
            oldest = next(iter(self._meanings))
            self.size -= len(oldest[1]) + self._meanings.pop(oldest).size

    def forget(self) -> None:
        """
        Forget all, because something has changed by which requests are judged.
        """
        if self._meanings is not None:
            self._meanings.clear()
            self._exact.clear()
            self._once.clear()
            self.size = 0
        self.version += 1

    def close(self) -> None:
        """
        Forget all, and remember nothing any more.
        """
        self.forget()
        self._meanings = None


class Answer:
    """
    The head of a response that is sent again, with other values for some of its headers,
    and with the date of the moment.

    Args:
        request: Its response has all its headers, and nothing of it has been sent yet.
        code: The status of the response.
        varying: Names of headers whose values are given each time, in their order in the
            response.
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
            closing: Whether to say that the connection is closed after it.
        """
        template = self._closing if closing else self._template
        return template % (_date(int(time.time())), *values)


def _literal(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    """
    As Twisted writes it, once a second.
    """
    date: bytes = http.datetimeToString(seconds)
    return date
