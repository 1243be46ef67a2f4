"""
Writes messages as parts of a multipart stream (RFC 2046, section 5.1).

No I/O.  Reading such a stream is up to `multipart`.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from urllib.parse import quote

from ..headers import NO_HEADERS, Headers, shown_name
from ..message import Message
from .framing import Framing

__all__ = ["MultipartFraming", "location", "gap_value"]

# What RFC 3986, section 3.3, allows in a path as it is.
_PATH_SAFE = "/!$&'()*+,;=:@"

# The last second of the year 9999: a later one has no date.
MAX_DATE = 253_402_300_799


@dataclass(frozen=True, slots=True)
class MultipartFraming(Framing):
    """
    One message is one part.

    The delimiter that closes a part is sent together with it, because a reader may show a
    part only once it has seen the delimiter behind it, and the next message may be hours
    away.  So a stream begins with `preamble` and may end after any part, and gaps and
    heartbeats are header lines of the part that follows.

    Attributes:
        boundary: 1 to 70 letters and digits.  No part may contain it; `Bus.publish`
            refuses messages that do.
        prefix: The path at which the bus is mounted, percent-encoded, with a
            slash at both ends.
    """

    boundary: str
    prefix: str = "/msgbus/"

    @property
    def form(self) -> str:
        """
        See `Framing.form`.
        """
        return "multipart"

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
        return _delimiter(self.boundary).removeprefix(b"\r\n")

    def opening(self, begins: str | None) -> bytes:
        """
        The preamble.
        """
        return self.preamble

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        The headers and body of a part, and the delimiter line that closes it.
        """
        id, headers, body = message.id, message.headers, message.body
        end = id.find("-") - 3
        template = _head(
            self.prefix,
            message.content_type,
            message.channel,
            message.sender,
            # Without milliseconds, the time is that of many messages.
            id[:end] if end > 0 else "",
        )
        lines = b"" if headers is NO_HEADERS else _lines(headers)
        if message.max_age is not None:
            lines += b"Cache-Control: max-age=%d\r\n" % message.max_age
        ids = b"Msgbus-Id: %b\r\n" % id.encode() if id else b""
        if message.origin:
            ids += b"Msgbus-Origin: %b\r\n" % message.origin.encode()
        return template % (len(body), lines, ids), body, _delimiter(self.boundary)

    def gap(self, count: int | None) -> bytes:
        """
        A `Msgbus-Gap` header line of the next part.
        """
        return b"Msgbus-Gap: %s\r\n" % gap_value(count)

    def live(self, last: bool = False) -> bytes:
        """
        A `Msgbus-Live` header line of the next part; the last part is that line alone,
        with the closing delimiter behind it.
        """
        line = b"Msgbus-Live: 1\r\n"
        return b"%b\r\n--%b--\r\n" % (line, self.boundary.encode()) if last else line

    def retry(self, seconds: float) -> bytes:
        """
        A `Msgbus-Retry` header line of the next part, which does not come any more.
        """
        return b"Msgbus-Retry: %.1f\r\n" % seconds

    @property
    def heartbeat(self) -> bytes:
        """
        A `Msgbus-Heartbeat` header line of the next part.
        """
        return b"Msgbus-Heartbeat: 1\r\n"


@lru_cache
def _delimiter(boundary: str) -> bytes:
    """
    The delimiter line, with the line end before it, which belongs to it.
    """
    return f"\r\n--{boundary}\r\n".encode("ascii")


@lru_cache(maxsize=1024)
def _head(prefix: str, content_type: str, channel: str, sender: str, seconds: str) -> bytes:
    """
    A template of the head of a part, with places for the length of the body, for the lines
    of headers that travel, and for those of id and origin.  It is cached, because the next
    message often has the same channel, type and sender, and comes in the same second.

    Args:
        seconds: When the message was published, in decimal digits, since 1970; empty if its
            id does not say so.
    """
    before = f"Content-Type: {content_type}\r\nContent-Length: "
    after = f"\r\nContent-Location: {location(prefix, channel)}\r\n"
    if sender:
        after += f"From: {sender}\r\n"
    before, after = (text.replace("%", "%%") for text in (before, after))
    date = ""
    if seconds and int(seconds) <= MAX_DATE:
        # RFC 9110, section 6.6.1.
        date = f"Date: {formatdate(int(seconds), usegmt=True)}\r\n"
    return f"{before}%d{after}%b{date}%b\r\n".encode()


@lru_cache(maxsize=256)
def _lines(headers: Headers) -> bytes:
    """
    The lines of the headers that travel with a message.
    """
    return "".join(f"{shown_name(n)}: {v}\r\n" for n, v in headers.items()).encode()


def location(prefix: str, channel: str) -> str:
    """
    The path of a channel, percent-encoded, on a bus that is mounted at this prefix.
    """
    return prefix + quote(channel, safe=_PATH_SAFE)


def gap_value(count: int | None) -> bytes:
    """
    The value of the header `Msgbus-Gap`: how many messages are missing, or `unknown` for
    None.
    """
    return b"unknown" if count is None else b"%d" % count
