"""
Reads the heads of parts that are like the one before, as most are in a stream, without
parsing them.

No I/O.  All other heads are parsed by `multipart`.
"""

from __future__ import annotations

import re

__all__ = ["RepeatedHead"]

# The headers whose values may differ from those of the head before.
_VARYING = re.compile(
    rb"(?<=\n)(Content-Length|Content-Location|Idempotency-Key|Msgbus-Id|Msgbus-Origin)"
    rb":[ \t]*([!-~]{1,200})(?=\r\n)",
    re.IGNORECASE,
)
_LENGTH = "content-length"
_MAX_LENGTH_DIGITS = 10

# The longest value that is read here, and the longest head that is learned.
_MAX_VALUE = 200
_MAX_HEAD = 2048


class RepeatedHead:
    """
    The last head that was parsed, cut into what the next one is likely to repeat, and the
    values that may differ: the length, the ids and the location.

    What is read here is what a parser would read: all bytes are the same, except for
    values of visible ASCII, which can be read in one way only.
    """

    __slots__ = ("_headers", "_last", "_length", "_literals", "_names")

    def __init__(self) -> None:
        # What stands before, between and behind the values; empty if nothing was learned.
        self._literals: list[bytes] = []
        # The name of each value.
        self._names: list[str] = []
        # The last head as a whole, its headers, and the length of its body.
        self._last = b""
        self._headers: dict[str, str] = {}
        self._length = 0

    def learn(self, head: bytes, headers: dict[str, str]) -> None:
        """
        Learn a head, if it can be read here when it comes again.

        Args:
            head: Its bytes, from the line end before the delimiter to the empty line.
            headers: What a parser read in it.
        """
        self._literals = []
        if (
            len(head) > _MAX_HEAD
            or head.count(b"\n") != head.count(b"\r\n")
            or b"\n " in head
            or b"\n\t" in head
            or "msgbus-gap" in headers
            or "msgbus-live" in headers
        ):
            return
        literals, names, begin = [], [], 0
        for match in _VARYING.finditer(head):
            name = match[1].decode("ascii").lower()
            if headers.get(name) != match[2].decode("ascii"):
                # It stands in the head twice.
                return
            literals.append(head[begin : match.start(2)])
            names.append(name)
            begin = match.end(2)
        if _LENGTH in names:
            self._literals = [*literals, head[begin:]]
            self._names = names
            self._last, self._headers = head, dict(headers)
            self._length = int(headers[_LENGTH])

    def read(self, data: bytes, at: int) -> tuple[dict[str, str], int, int] | None:
        """
        Read a head that begins at this index.

        Returns:
            The headers, the length of the body, and the index at which it begins; None if
            the head is another, or not complete.  Heads that are equal have one object for
            their headers, which must not be changed.
        """
        literals = self._literals
        if not literals or not data.startswith(literals[0], at):
            return None
        if data.startswith(self._last, at):
            return self._headers, self._length, at + len(self._last)
        begin = at + len(literals[0])
        headers = self._headers.copy()
        length = 0
        for name, literal in zip(self._names, literals[1:], strict=True):
            end = data.find(b"\r", begin, begin + _MAX_VALUE)
            if end < 0 or not data.startswith(literal, end):
                return None
            value = data[begin:end]
            if name == _LENGTH:
                if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
                    return None
                length = int(value)
            text = value.decode("latin-1")
            if not text.isascii() or not text.isprintable() or " " in text or not text:
                return None
            headers[name] = text
            begin = end + len(literal)
        self._last, self._headers, self._length = data[at:begin], headers, length
        return headers, length, begin
