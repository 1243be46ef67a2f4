"""
Reads multipart streams, of this bus and of others (RFC 2046, section 5.1).

No I/O: the decoder takes a stream in pieces of any size.  Writing one is up to
`multipart_framing`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import unquote

from ..message import Invalid, Message

__all__ = ["Decoder", "Part", "Malformed", "boundary_of"]

_MAX_PREAMBLE = 64 * 1024
_MAX_HEADER_BYTES = 16 * 1024
_MAX_BOUNDARY = 70
_MAX_PADDING = 128
# The white space of HTTP and MIME; `str.strip` would also remove other characters.
_SPACE = " \t"

# The boundary of the original msgbus, which is the same on all its servers.
_ORIGINAL_BOUNDARY = "00MsgBus00"


class Malformed(ValueError):
    """
    The stream is not a multipart stream, or exceeds the decoder's limits.
    """


@dataclass(frozen=True, slots=True)
class Part:
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
        )


class Decoder:
    """
    Reads any multipart stream, split anywhere: with or without
    `Content-Length`, with CRLF or bare LF, with preamble and epilogue.

    A part with a `Content-Length` is complete with the last byte of its body, and the
    body may contain the delimiter.  A part without one is complete with the delimiter
    that follows it.

    Args:
        boundary: The boundary that the `Content-Type` names; see `boundary_of`.
        max_body: Bytes of the largest body; a stream with a larger one is malformed.
    """

    def __init__(self, boundary: str, max_body: int = 64 * 1024 * 1024) -> None:
        delimiter = re.escape(b"--" + boundary.encode("ascii"))
        # RFC 2046, section 5.1.1: the line end before a delimiter belongs to the
        # delimiter, spaces behind it are padding, and two hyphens end the stream.
        line = rb"%s(--|[ \t]{0,%d}\r?\n)" % (delimiter, _MAX_PADDING)
        # The original msgbus sends no line end before a delimiter, and no lengths over
        # HTTP/1.1: a line end before its delimiter belongs to the body.
        before = rb"" if boundary == _ORIGINAL_BOUNDARY else rb"(?:\A|\r?\n)"
        self._delimiter = re.compile(before + line)
        # Behind a body with a length, some servers send no line end before the delimiter.
        self._delimiter_here = re.compile(rb"(?:\r?\n)?" + line)
        # So many bytes at the end of the buffer may be the beginning of a delimiter.
        self._overlap = len(boundary) + _MAX_PADDING + 8
        self._max_body = max_body
        self._buffer = bytearray()
        self._searched = 0
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._last_name = ""
        self._length: int | None = None
        self._state: Callable[[], Part | bool] = self._preamble

    def feed(self, data: bytes) -> Iterator[Part]:
        """
        Take the next bytes of the stream.

        Returns:
            The parts that are complete now.  They are decoded while one iterates; parts
            that were not iterated over come from the next call.

        Raises:
            Malformed: The stream cannot be read further.  Raised while one iterates.
        """
        self._buffer += data
        return self._read()

    @property
    def ahead(self) -> dict[str, str]:
        """
        The headers of the next part that have been received so far.  A header that the
        caller removes from this dictionary will be missing from the part.
        """
        return self._headers if self._state == self._head else {}

    def end(self) -> None:
        """
        Take the end of the stream.  It may come behind any delimiter, not only behind
        one with two hyphens.

        Raises:
            Malformed: The stream ended inside a part, or before the first.
        """
        if self._state == self._preamble:
            raise Malformed("The stream ended before the first delimiter.")
        # A bus sends `Msgbus-Gap` when there is a gap, long before the rest of the part.
        begun = any(not name.startswith("msgbus-") for name in self._headers)
        if self._state == self._body or (
            self._state == self._head and (begun or self._buffer)
        ):
            raise Malformed("The stream ended inside a part.")

    def _read(self) -> Iterator[Part]:
        while result := self._state():
            if isinstance(result, Part):
                yield result

    # The states.  Each consumes from the beginning of the buffer what it can.  It returns
    # the part that it has completed, True if it consumed anything else, or False if it
    # needs more bytes.

    def _preamble(self) -> bool:
        found = self._search(_MAX_PREAMBLE, "There is no delimiter in sight.")
        return found is not None and self._pass(found)

    def _head(self) -> bool:
        # A delimiter directly behind another one: there is no part between them.
        found = self._delimiter_here.match(self._buffer)
        if found and self._buffer.startswith(b"--"):
            return self._pass(found)
        end = self._buffer.find(b"\n")
        self._head_bytes += end + 1
        if self._head_bytes + (len(self._buffer) if end < 0 else 0) > _MAX_HEADER_BYTES:
            raise Malformed("The headers of a part are longer than 16 KiB.")
        if end < 0:
            return False
        line = bytes(self._buffer[:end]).removesuffix(b"\r").decode("utf-8", "replace")
        del self._buffer[: end + 1]
        if line:
            self._header(line)
        else:
            self._length = _length(self._headers)
            if self._length is not None and self._length > self._max_body:
                raise Malformed(f"A part of {self._length} bytes is too large.")
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
            return
        known = self._headers.get(name)
        self._headers[name] = value if known is None else f"{known}, {value}"
        self._last_name = name

    def _body(self) -> Part | bool:
        if self._length is None:
            found = self._search(self._max_body, "A part without a length is too large.")
            if found is None:
                return False
            part = Part(self._headers, bytes(self._buffer[: found.start()]))
            self._pass(found)
            return part
        if len(self._buffer) < self._length:
            return False
        part = Part(self._headers, bytes(self._buffer[: self._length]))
        del self._buffer[: self._length]
        self._state = self._tail
        return part

    def _tail(self) -> bool:
        if found := self._delimiter_here.match(self._buffer):
            return self._pass(found)
        if len(self._buffer) > self._overlap:
            raise Malformed("No delimiter follows a part of the length that it gave.")
        return False

    def _epilogue(self) -> bool:
        self._buffer.clear()
        return False

    def _search(self, limit: int, complaint: str) -> re.Match[bytes] | None:
        found = self._delimiter.search(self._buffer, self._searched)
        if (found.start() if found else len(self._buffer) - self._overlap) > limit:
            raise Malformed(complaint)
        self._searched = max(0, len(self._buffer) - self._overlap)
        return found

    def _pass(self, delimiter: re.Match[bytes]) -> bool:
        self._state = self._epilogue if delimiter[1] == b"--" else self._head
        del self._buffer[: delimiter.end()]
        self._searched = 0
        self._headers = {}
        self._head_bytes = 0
        return True


def boundary_of(content_type: str) -> str:
    """
    The boundary that a `Content-Type` names, quoted or not.

    Raises:
        Malformed: The type is not multipart, has no boundary, or has one that is longer
            than the 70 characters of RFC 2046, section 5.1.1.
    """
    header = EmailMessage()
    try:
        header["Content-Type"] = content_type
        boundary = header.get_boundary()
    except Exception:  # `email` raises an IndexError for some malformed types.
        raise Malformed(f"{content_type[:100]!r} is no content type.") from None
    if header.get_content_maintype() != "multipart" or not boundary:
        raise Malformed(f"{content_type[:100]!r} is not multipart with a boundary.")
    if len(boundary) > _MAX_BOUNDARY or not boundary.isascii():
        raise Malformed(f"The boundary {boundary[:100]!r} is not up to 70 of ASCII.")
    return boundary


def _length(headers: dict[str, str]) -> int | None:
    length = headers.get("content-length")
    if length is None:
        return None
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise Malformed(f"{length[:100]!r} is no length of a part.")
    return int(length)
