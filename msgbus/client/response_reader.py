"""
Reads one response of HTTP/1.1 that may come while its request is still being sent.

No I/O.  Neither Twisted's `Agent` nor the standard library hands out such a response.  What
it means is up to `responses`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .errors import Unreachable, printable

__all__ = ["ResponseReader"]

_MAX_HEAD_BYTES = 64 * 1024
_MAX_LINE_BYTES = 8 * 1024

_STATUS_LINE = re.compile(r"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: .*)?")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)


class ResponseReader:
    """
    Takes the bytes of a connection, and gives those of the response's body.

    Attributes:
        status: The status code, or 0 until the head is complete.  Interim responses
            (RFC 9110, section 15.2) are passed over.
        head: The headers, with names in lower case; values of the same name are joined by
            commas (RFC 9110, section 5.3).
        ended: Whether the body is complete.
    """

    def __init__(self) -> None:
        self.status = 0
        self.head: dict[str, str] = {}
        self.ended = False
        self._buffer = bytearray()
        # How many bytes of the body, or of the present chunk, are yet to come.
        self._left = 0
        self._state: Callable[[], bytes | None] = self._head

    def feed(self, data: bytes) -> bytes:
        """
        Take the next bytes of the connection, and return those of the body among them.

        Raises:
            Unreachable: This is no HTTP.
        """
        self._buffer += data
        body = bytearray()
        while not self.ended and (piece := self._state()) is not None:
            body += piece
        return bytes(body)

    def end(self) -> None:
        """
        Take the end of the connection, which ends a body that has neither a length nor
        chunks (RFC 9112, section 6.3).

        Raises:
            Unreachable: The response is not complete.
        """
        if self._state == self._until_close:
            self.ended = True
        if self.ended:
            return
        if self.status or self._buffer:
            raise Unreachable("The connection was cut.")
        raise Unreachable("The server closed the connection; does it ask for TLS?")

    # The states.  Each consumes what it can from the beginning of the buffer, and returns
    # the bytes of the body that it found there, or None if it needs more bytes.

    def _head(self) -> bytes | None:
        found = re.search(rb"\r?\n\r?\n", self._buffer)
        if (found.end() if found else len(self._buffer)) > _MAX_HEAD_BYTES:
            raise _no_http("the head is too long")
        if found is None:
            first = bytes(self._buffer[:5])
            if not b"HTTP/".startswith(first):
                raise _no_http(first.decode("latin-1"))
            return None
        lines = self._buffer[: found.start()].decode("utf-8", "replace").splitlines()
        del self._buffer[: found.end()]
        self._read_head(lines)
        return b""

    def _read_head(self, lines: list[str]) -> None:
        status = _STATUS_LINE.fullmatch(lines[0]) if lines else None
        if status is None:
            raise _no_http(lines[0] if lines else "an empty line")
        if status[1].startswith("1"):
            return
        self.status = int(status[1])
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            known = self.head.get(name)
            self.head[name] = value if known is None else f"{known},{value}"
        length = self.head.get("content-length", "")
        if self.status in (204, 304):
            self.ended = True
        elif self.head.get("transfer-encoding", "").lower().endswith("chunked"):
            self._state = self._chunk_size
        elif not length:
            self._state = self._until_close
        elif length.isascii() and length.isdigit() and len(length) < 20:
            self._left = int(length)
            self.ended = not self._left
            self._state = self._fixed
        else:
            raise _no_http(f"a length of {length}")

    def _fixed(self) -> bytes | None:
        piece = self._take()
        self.ended = not self._left
        return piece

    def _until_close(self) -> bytes | None:
        self._left = len(self._buffer)
        return self._take()

    def _chunk_size(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise _no_http(f"a chunk of {line.decode('latin-1')}")
        self._left = int(size[1], 16)
        self._state = self._chunk if self._left else self._trailer
        return b""

    def _chunk(self) -> bytes | None:
        piece = self._take()
        if not self._left:
            self._state = self._chunk_end
        return piece

    def _chunk_end(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        if line:
            raise _no_http("a chunk is longer than it says")
        self._state = self._chunk_size
        return b""

    def _trailer(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        self.ended = not line
        return b""

    def _take(self) -> bytes | None:
        piece = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        self._left -= len(piece)
        return piece or None

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        if (len(self._buffer) if end < 0 else end) > _MAX_LINE_BYTES:
            raise _no_http("a line is too long")
        if end < 0:
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        return line


def _no_http(what: str) -> Unreachable:
    return Unreachable(f"This is no HTTP: {printable(what)}.")
