"""
Reads multipart streams, of this bus and of others (RFC 2046, section 5.1).

No I/O: the decoder takes a stream in pieces of any size.  Writing one is up to
`multipart_framing`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from typing import NamedTuple
from urllib.parse import unquote

from ..headers import headers_of
from ..message import Invalid, Message
from .caching import parse_cache_control
from .repeated_head import RepeatedHead

__all__ = ["Decoder", "Malformed", "Part", "TooLarge", "boundary_of", "declared_boundary"]

_MAX_PREAMBLE = 64 * 1024
_MAX_HEADER_BYTES = 16 * 1024
_MAX_BOUNDARY = 70
# The longest that is taken from the first line of a stream, or of a publisher.
_MAX_ODD_BOUNDARY = 200
# A boundary that could not be told from the end of a delimiter, or none.
_HYPHENS = re.compile("|--+")
# How many line ends there may be before a delimiter.
_MAX_EMPTY_LINES = 4
_MAX_PADDING = 128
# The white space of HTTP and MIME; `str.strip` would also remove other characters.
_SPACE = " \t"

# The boundary of the original msgbus, which is the same on all its servers.
_ORIGINAL_BOUNDARY = "00MsgBus00"


# With these, the first part of a stream without its first delimiter begins; the longest
# stands first.
_FIRST_HEADERS = (b"content-length:", b"content-type:")
_LAST_LINE_END = re.compile(rb"\r?\n\Z")
_FIRST_HEADER = re.compile(rb"content-(?:type|length)[ \t]*:", re.IGNORECASE)


class Malformed(ValueError):
    """
    The stream is not a multipart stream, or exceeds the decoder's limits.
    """


class TooLarge(Malformed):
    """
    A part has a larger body than the decoder takes.
    """


class Part(NamedTuple):
    """
    One part of a stream, as it was received.

    Attributes:
        headers: Values by name.  Names are in lower case, values have no outer white
            space; the values of lines with the same name are joined by ", ".
        body: The bytes between the headers and the line end before the delimiter.
    """

    headers: dict[str, str]
    body: bytes

    def message(self, prefix: str = "/msgbus/") -> Message:
        """
        The message that a bus mounted at `prefix` sent as this part.

        Raises:
            Invalid: The part has no location below `prefix`, or its headers cannot be
                those of a message.
        """
        location = self.headers.get("content-location", "")
        if not location.startswith(prefix):
            raise Invalid(f"The part's location {location!r} is not below {prefix!r}.")
        return Message(
            channel=unquote(location.removeprefix(prefix), errors="strict"),
            body=self.body,
            content_type=self.headers.get("content-type", ""),
            sender=self.headers.get("from", ""),
            id=self.headers.get("msgbus-id", ""),
            origin=self.headers.get("msgbus-origin", ""),
            headers=headers_of(self.headers.items()),
            max_age=parse_cache_control(self.headers.get("cache-control"))[1],
        )


class Decoder:
    """
    Reads any multipart stream, split anywhere: with or without
    `Content-Length`, with CRLF or bare LF, with preamble and epilogue.

    A part with a `Content-Length` is complete with the last byte of its body, and the
    body may contain the delimiter.  A part without one is complete with the delimiter
    that follows it.

    What cameras and encoders get wrong is read all the same: a boundary that is named with
    the hyphens before it, or not at all; a stream without its first delimiter; several
    delimiters, or empty lines, between two parts.

    Args:
        boundary: The boundary that the `Content-Type` names; see `boundary_of`.  None if it
            names none: then the first line of the stream tells it.
        max_body: Bytes of the largest body; a stream with a larger one is malformed.
    """

    def __init__(self, boundary: str | None, max_body: int = 64 * 1024 * 1024) -> None:
        self._boundary = boundary
        self._max_body = max_body
        # What has come and was not read yet: the bytes from `_at` on.
        self._buffer = b""
        self._at = 0
        # The part that is being read.
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._last_name = ""
        self._pieces: list[bytes] = []
        # Bytes of its body, or of the preamble, that were passed.
        self._size = 0
        self._length: int | None = None
        # Where in the buffer its head begins, with the delimiter; None if that is gone.
        self._head_at: int | None = None
        self._repeated = RepeatedHead()
        self._state: Callable[[], Part | bool] = self._first_line
        # Is the next byte the first one behind a body with a length?
        self._is_behind = False
        if boundary is not None:
            self._set_boundary(boundary)

    def _set_boundary(self, boundary: str) -> None:
        delimiter = re.escape(b"--" + boundary.encode("ascii"))
        if boundary.startswith("--"):
            delimiter = rb"(?:--)?" + re.escape(boundary.encode("ascii"))
        # RFC 2046, section 5.1.1: the line end before a delimiter belongs to the
        # delimiter, spaces behind it are padding, and two hyphens end the stream.
        line = rb"%s(--|[ \t]{0,%d}\r?\n)" % (delimiter, _MAX_PADDING)
        # The original msgbus sends no line end before a delimiter, and no lengths over
        # HTTP/1.1: a line end before its delimiter belongs to the body.
        before = rb"" if boundary == _ORIGINAL_BOUNDARY else rb"\r?\n"
        self._delimiter = re.compile(before + line)
        # Behind a body with a length, some servers send no line end before the delimiter,
        # and others several.
        self._delimiter_here = re.compile(rb"(?:\r?\n){0,%d}%s" % (_MAX_EMPTY_LINES, line))
        self._delimiter_at_once = re.compile(rb"(?:%s)?%s" % (before, line))
        # So many bytes at the end of the buffer may be the beginning of a delimiter.
        self._overlap = len(boundary) + _MAX_PADDING + 2 * _MAX_EMPTY_LINES + 8

    def feed(self, data: bytes) -> Iterator[Part]:
        """
        Take the next bytes of the stream.

        Returns:
            The parts that are complete now.  They are decoded while one iterates; parts
            that were not iterated over come from the next call.

        Raises:
            Malformed: The stream cannot be read further.  Raised while one iterates.
        """
        self._release()
        self._buffer = self._buffer + data if self._buffer else data
        return self._read()

    def _release(self) -> None:
        """
        Release the bytes that were read.
        """
        at, self._at = self._at, 0
        self._buffer = self._buffer[at:]
        if self._head_at is not None:
            self._head_at = self._head_at - at if self._head_at >= at else None

    @property
    def ahead(self) -> dict[str, str]:
        """
        The headers of the next part that have been received so far.  A header that the
        caller removes from this dictionary will be missing from the part.
        """
        return self._headers if self._state == self._head else {}

    @property
    def is_inside(self) -> bool:
        """
        Has a part begun that is not complete?  Heartbeats and gaps do not begin a part,
        because a bus sends them long before the rest of it.
        """
        if self._state == self._head:
            begun = any(not name.startswith("msgbus-") for name in self._headers)
            return begun or bool(self._buffer[self._at :].strip(b"\r\n"))
        return self._state == self._body or self._state == self._open_body

    def end(self) -> None:
        """
        Take the end of the stream.  It may come behind any delimiter, not only behind
        one with two hyphens.

        Raises:
            Malformed: The stream ended inside a part, or before the first.
        """
        if self._state in (self._first_line, self._preamble):
            raise Malformed("The stream ended before the first delimiter.")
        if self.is_inside:
            raise Malformed("The stream ended inside a part.")

    def last(self) -> Part | None:
        """
        Take the end of a stream of which it is known, by other means, that it is whole:
        then it ends a part that has no length.

        Returns:
            That part, without the line end behind it; None if there is none.

        Raises:
            Malformed: As for `end`.
        """
        if self._state != self._open_body:
            self.end()
            return None
        self._keep(len(self._buffer) - self._at)
        body = b"".join(self._pieces)
        if not self._headers and not body.strip(b"\r\n"):
            # Not a part, but empty lines behind the last delimiter.
            return None
        return self._part(_LAST_LINE_END.sub(b"", body))

    def close(self) -> None:
        """
        Read nothing more, and release what was received.
        """
        self._buffer, self._at = b"", 0
        self._pieces = []
        self._state, self._is_behind = self._epilogue, False

    def _read(self) -> Iterator[Part]:
        while True:
            if self._is_behind:
                repeated = self._repeated.read(self._buffer, self._at)
                if repeated is not None:
                    headers, length, begin = repeated
                    end = begin + length
                    if length <= self._max_body and end <= len(self._buffer):
                        self._at = end
                        yield Part(headers, self._buffer[begin:end])
                        continue
            result = self._state()
            if not result:
                self._release()
                return
            if isinstance(result, Part):
                yield result

    # The states.  Each consumes what it can, from `_at` on.  It returns the part that it
    # has completed, True if it consumed anything else, or False if it needs more bytes.

    def _first_line(self) -> bool:
        buffer = self._buffer
        while (end := buffer.find(b"\n", self._at)) >= 0:
            line = buffer[self._at : end].strip(b" \t\r")
            if not line:
                self._at = end + 1
                continue
            if self._boundary is None:
                self._set_boundary(_boundary_in(line))
            elif _FIRST_HEADER.match(line):
                # The delimiter before it is missing.
                self._state = self._head
                return True
            self._state = self._preamble
            return True
        return self._is_too_long(_MAX_PREAMBLE, "There is no delimiter in sight.")

    def _preamble(self) -> bool:
        found = None
        if not self._size:
            found = self._delimiter_at_once.match(self._buffer, self._at)
        found = found or self._delimiter.search(self._buffer, self._at)
        if found:
            return self._pass(found)
        # What was searched is not searched again, or a preamble that comes in small pieces
        # would take half a minute.
        passed = max(0, len(self._buffer) - self._at - self._overlap)
        self._at += passed
        self._size += passed
        limit = _MAX_PREAMBLE - self._size
        return self._is_too_long(limit, "There is no delimiter in sight.")

    def _head(self) -> bool:
        buffer, at = self._buffer, self._at
        # A delimiter directly behind another one: there is no part between them.
        if buffer.startswith(b"--", at):
            found = self._delimiter_here.match(buffer, at)
            if found:
                return self._pass(found)
        end = buffer.find(b"\n", at)
        self._head_bytes += end + 1 - at if end >= 0 else 0
        if self._head_bytes + (len(buffer) - at if end < 0 else 0) > _MAX_HEADER_BYTES:
            raise Malformed("The headers of a part are longer than 16 KiB.")
        if end < 0:
            return False
        line = buffer[at:end].removesuffix(b"\r").decode("utf-8", "replace")
        if not line and not self._headers:
            # Before the first header, there may be an empty line.
            follows = buffer[end + 1 : end + 1 + len(_FIRST_HEADERS[0])].lower()
            if follows in _FIRST_HEADERS or follows.startswith(_FIRST_HEADERS):
                self._at = end + 1
                return True
            if any(name.startswith(follows) for name in _FIRST_HEADERS):
                self._head_bytes = 0
                return False
        self._at = end + 1
        if line:
            self._header(line)
            return True
        self._length = _length(self._headers)
        self._pieces, self._size = [], 0
        if self._length is None:
            self._state = self._open_body
            return True
        if self._length > self._max_body:
            raise TooLarge(f"A part of {self._length} bytes is too large.")
        if self._head_at is not None:
            self._repeated.learn(buffer[self._head_at : self._at], self._headers)
        self._state = self._body
        return True

    def _header(self, line: str) -> None:
        if line.startswith((" ", "\t")) and self._last_name in self._headers:
            # RFC 5322, section 2.2.3: it continues the line before.
            self._headers[self._last_name] += " " + line.strip(_SPACE)
            return
        name, colon, value = line.partition(":")
        name, value = name.strip(_SPACE).lower(), value.strip(_SPACE)
        if not colon or not name:
            raise Malformed(f"{line[:100]!r} is no header line.")
        if name == "msgbus-heartbeat":
            # Heartbeats belong to no part.  A stream may hold any number of them, so they
            # do not count for the limit on headers.
            self._head_bytes = 0
            self._head_at = None
            return
        known = self._headers.get(name)
        self._headers[name] = value if known is None else f"{known}, {value}"
        self._last_name = name

    def _body(self) -> Part | bool:
        size = min(len(self._buffer) - self._at, (self._length or 0) - self._size)
        self._keep(size)
        if self._size < (self._length or 0):
            return False
        self._state, self._is_behind = self._tail, True
        return self._part(b"".join(self._pieces))

    def _open_body(self) -> Part | bool:
        found = None
        if not self._pieces:
            found = self._delimiter_at_once.match(self._buffer, self._at)
        found = found or self._delimiter.search(self._buffer, self._at)
        if found:
            self._keep(found.start() - self._at)
            part = self._part(b"".join(self._pieces))
            self._pass(found)
            return part
        self._keep(max(0, len(self._buffer) - self._at - self._overlap))
        return False

    def _keep(self, size: int) -> None:
        """
        Take so many bytes into the body of the part.
        """
        if not size:
            return
        begin, self._at = self._at, self._at + size
        self._pieces.append(self._buffer[begin : self._at])
        self._size += size
        if self._size > self._max_body:
            raise TooLarge("A part without a length is too large.")

    def _part(self, body: bytes) -> Part:
        self._pieces = []
        part = Part(self._headers, body)
        self._headers = {}
        return part

    def _tail(self) -> bool:
        if found := self._delimiter_here.match(self._buffer, self._at):
            return self._pass(found)
        self._is_too_long(
            self._overlap, "No delimiter follows a part of the length that it gave."
        )
        return False

    def _epilogue(self) -> bool:
        self._at = len(self._buffer)
        return False

    def _is_too_long(self, limit: int, complaint: str) -> bool:
        """
        Refuse what has come if it is longer than this, since nothing was found in it.
        """
        if len(self._buffer) - self._at > limit:
            raise Malformed(complaint)
        return False

    def _pass(self, delimiter: re.Match[bytes]) -> bool:
        self._state = self._epilogue if delimiter[1] == b"--" else self._head
        self._is_behind = False
        self._head_at, self._at = delimiter.start(), delimiter.end()
        self._headers = {}
        self._last_name = ""
        self._head_bytes = 0
        return True


def boundary_of(content_type: str) -> str:
    """
    The boundary that a `Content-Type` names, quoted or not.

    Raises:
        Malformed: The type is not multipart, has no boundary, or has one that is longer
            than the 70 characters of RFC 2046, section 5.1.1.
    """
    kind, boundary = _type_and_boundary(content_type, _MAX_BOUNDARY)
    if kind != "multipart" or not boundary:
        raise Malformed(f"{content_type[:100]!r} is not multipart with a boundary.")
    return boundary


def declared_boundary(content_type: str) -> str | None:
    """
    The boundary that a publisher's `Content-Type` names, if it names one, however odd; see
    `Decoder` for what becomes of it.

    Raises:
        Malformed: It has more than 200 characters, or some that are not ASCII.
    """
    _, boundary = _type_and_boundary(content_type, _MAX_ODD_BOUNDARY)
    return None if _HYPHENS.fullmatch(boundary) else boundary


def _type_and_boundary(content_type: str, longest: int) -> tuple[str, str]:
    """
    The main type, and the boundary, which is empty if there is none.

    Args:
        longest: How many characters the boundary may have.
    """
    header = EmailMessage()
    try:
        header["Content-Type"] = content_type
        boundary = header.get_boundary() or ""
    except Exception:  # `email` raises an IndexError for some malformed types.
        raise Malformed(f"{content_type[:100]!r} is no content type.") from None
    if len(boundary) > longest or not boundary.isascii():
        raise Malformed(f"The boundary {boundary[:100]!r} is not up to {longest} of ASCII.")
    return header.get_content_maintype(), boundary


def _boundary_in(line: bytes) -> str:
    """
    The boundary in the first line of a stream, which is a delimiter.
    """
    text = line.decode("latin-1")
    boundary = text.removeprefix("--")
    if boundary == text or _HYPHENS.fullmatch(boundary):
        raise Malformed("The type names no boundary, and the stream begins with none.")
    if not boundary.isascii() or len(boundary) > _MAX_ODD_BOUNDARY:
        raise Malformed("The boundary in the first line is not up to 200 of ASCII.")
    return boundary


def _length(headers: dict[str, str]) -> int | None:
    length = headers.get("content-length")
    if length is None:
        return None
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise Malformed(f"{length[:100]!r} is no length of a part.")
    return int(length)
