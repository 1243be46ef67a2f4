"""
Messages to parts of a multipart stream, and back (RFC 2046, section 5.1).

No I/O.  The encoder writes one exact form; the decoder reads any, in pieces of
any size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import quote, unquote

from ..message import Invalid, Message
from .framing import Framing

__all__ = [
    "Decoder",
    "MultipartFraming",
    "Malformed",
    "Part",
    "boundary_of",
    "gap_value",
    "location",
]

# What RFC 3986, section 3.3, allows in a path as it is.
_PATH_SAFE = "/!$&'()*+,;=:@"

_MAX_PREAMBLE = 64 * 1024
_MAX_HEADER_BYTES = 16 * 1024
_MAX_BOUNDARY = 70
_MAX_PADDING = 128
# What HTTP and MIME have as white space, where Python knows more.
_SPACE = " \t"

# A constant, where that of any other server is random.
_ORIGINAL_BOUNDARY = "00MsgBus00"


class Malformed(ValueError):
    """
    A stream is no multipart stream, or exceeds the decoder's limits.
    """


@dataclass(frozen=True, slots=True)
class MultipartFraming(Framing):
    """
    Writes messages as parts.

    The delimiter that closes a part goes with it, because a reader may show
    a part only once it has seen the delimiter behind it, and the next message
    may be hours away.  So a stream begins with `preamble` and may end after
    any part, and what is said between two is a header line of the part to come.

    Attributes:
        boundary: Letters and digits, at most 70 of them; no part may hold it,
            which `Bus.publish` sees to.
        prefix: The path at which the bus is mounted, percent-encoded, with a
            slash at both ends.
    """

    boundary: str
    prefix: str = "/msgbus/"

    @property
    def parameters(self) -> str:
        """
        The boundary, unquoted, and nothing else: simple readers look for just that.
        """
        return f";boundary={self.boundary}"

    @property
    def preamble(self) -> bytes:
        """
        The first delimiter line: it opens the first part.
        """
        return b"--%s\r\n" % self.boundary.encode("ascii")

    def opening(self, begins: str | None) -> bytes:
        """
        The preamble.
        """
        return self.preamble

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        The headers and body of a part, and the delimiter line that closes it.
        """
        lines = [
            f"Content-Type: {message.content_type}",
            f"Content-Length: {len(message.body)}",
            f"Content-Location: {location(self.prefix, message.channel)}",
        ]
        if message.sender:
            lines.append(f"From: {message.sender}")
        if message.id:
            lines.append(f"Msgbus-Id: {message.id}")
        head = "\r\n".join([*lines, "", ""]).encode("utf-8")
        return head, message.body, b"\r\n%s" % self.preamble

    def gap(self, count: int | None) -> bytes:
        """
        Tell that messages were not delivered.
        """
        return b"Msgbus-Gap: %s\r\n" % gap_value(count)

    @property
    def heartbeat(self) -> bytes:
        """
        Tell that the stream is alive.
        """
        return b"Msgbus-Heartbeat: 1\r\n"


def location(prefix: str, channel: str) -> str:
    """
    The path of a channel of the bus that is mounted at this prefix.
    """
    return prefix + quote(channel, safe=_PATH_SAFE)


def gap_value(count: int | None) -> bytes:
    """
    The value of `Msgbus-Gap` for so many messages, or for nobody knows how many.
    """
    return b"unknown" if count is None else b"%d" % count


@dataclass(frozen=True, slots=True)
class Part:
    """
    One part as it came.

    Attributes:
        headers: Names in lower case, values without outer white space; of
            two lines with one name, both, joined by ", ".
        body: As it was before it was framed.
    """

    headers: dict[str, str]
    body: bytes

    def message(self, prefix: str = "/msgbus/") -> Message:
        """
        The message that a bus mounted at `prefix` sent as this part.

        Raises:
            Invalid: It cannot have been one.
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
        )


class Decoder:
    """
    Reads any multipart stream, split anywhere: with or without
    `Content-Length`, with CRLF or bare LF, with preamble and epilogue.

    A part with a `Content-Length` is complete with the last byte of its body,
    which may hold anything; one without, with the delimiter behind it.

    Args:
        boundary: As the `Content-Type` gave it; see `boundary_of`.
        max_body: Bytes of one body; a stream that exceeds it is malformed.
    """

    def __init__(self, boundary: str, max_body: int = 64 * 1024 * 1024) -> None:
        delimiter = re.escape(b"--" + boundary.encode("ascii"))
        # RFC 2046: the line end before a delimiter belongs to it, spaces
        # behind it are padding, and two hyphens end the stream.
        line = rb"%s(--|[ \t]{0,%d}\r?\n)" % (delimiter, _MAX_PADDING)
        # The original msgbus sends none, and no length either to HTTP/1.1, so that a line
        # end there is the body's.
        before = rb"" if boundary == _ORIGINAL_BOUNDARY else rb"(?:\A|\r?\n)"
        self._delimiter = re.compile(before + line)
        # Some servers send none before it when they have sent a length.
        self._delimiter_here = re.compile(rb"(?:\r?\n)?" + line)
        # The last bytes may be the beginning of a delimiter.
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
            The parts that they complete, made as they are asked for; what is
            not asked for comes with the next call.

        Raises:
            Malformed: On asking: the stream cannot be read further.
        """
        self._buffer += data
        return self._read()

    @property
    def ahead(self) -> dict[str, str]:
        """
        The headers of the part to come, as far as they are there; what is taken out of
        them, the part will not have.
        """
        return self._headers if self._state == self._head else {}

    def end(self) -> None:
        """
        Take the end of the stream, which may come behind any delimiter.

        Raises:
            Malformed: The stream ended inside a part, or before the first.
        """
        if self._state == self._preamble:
            raise Malformed("The stream ended before the first delimiter.")
        # What the server itself says, it may say ahead of a part.
        begun = any(not name.startswith("msgbus-") for name in self._headers)
        if self._state == self._body or (
            self._state == self._head and (begun or self._buffer)
        ):
            raise Malformed("The stream ended inside a part.")

    def _read(self) -> Iterator[Part]:
        while result := self._state():
            if isinstance(result, Part):
                yield result

    # The states.  Each looks at the beginning of the buffer, and answers a
    # part, or whether it got on; else it waits for more.

    def _preamble(self) -> bool:
        found = self._search(_MAX_PREAMBLE, "There is no delimiter in sight.")
        return found is not None and self._pass(found)

    def _head(self) -> bool:
        # A delimiter straight behind another closes no part.
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
            # RFC 5322: it continues the one before.
            self._headers[self._last_name] += " " + line.strip(_SPACE)
            return
        name, colon, value = line.partition(":")
        name, value = name.strip(_SPACE).lower(), value.strip(_SPACE)
        if not colon or not name:
            raise Malformed(f"{line[:100]!r} is no header line.")
        if name == "msgbus-heartbeat":
            # It belongs to no part, and there may be any number of them.
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
        Malformed: It is no multipart type, or names none, or a longer one
            than the 70 characters of RFC 2046, section 5.1.1.
    """
    header = EmailMessage()
    try:
        header["Content-Type"] = content_type
        boundary = header.get_boundary()
    except Exception:  # `email` raises an IndexError for some garbage.
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
