"""
The access log: one line for each request, in the Combined Log Format, which programs that
count visitors read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

from .peer import Peer
from .request import Request

__all__ = ["AccessLog"]

# The status of a request whose client has gone before it was answered, as nginx has it.
GONE = 499

MAX_CHARACTERS = 1000

# What Twisted has in place of the version of a request of which only a part has come.
_UNREAD = Request.clientproto

# In the name of a user, all but these is percent-encoded, so that it has no space.
_PLAIN = "@:/+.~!$&'()*,;="


class AccessLog:
    """
    Writes lines without what may be secret: no query, neither of the request nor of its
    `Referer`.

    Args:
        write: Takes each line, with its line end.
        seconds: Tells the time.
    """

    def __init__(
        self, write: Callable[[str], object], seconds: Callable[[], float] = time.time
    ) -> None:
        self._write = write
        self._seconds = seconds

    def answered(self, request: Request) -> None:
        """
        The answer to a request has ended, or its client has gone.
        """
        if request.clientproto == _UNREAD:
            return
        path = request.uri.partition(b"?")[0]
        line = b"%b %b %b" % (request.method, path, request.clientproto)
        user = request.visitor.sender if request.visitor is not None else ""
        headers = request.requestHeaders
        sent = request.sentLength
        if request.counted is not None:
            sent += request.counted.count
        status = request.code if request.startedWriting else GONE
        referer = headers.getRawHeaders(b"Referer", [b""])[0]
        referer = referer.partition(b"?")[0].partition(b"#")[0]
        agent = headers.getRawHeaders(b"User-Agent", [b""])[0]
        self._line(request.peer, user, line, (status, sent), (referer, agent))

    def refused(self, peer: Peer, status: int, sent: int) -> None:
        """
        A connection, or a request that could not be read, is refused.

        Args:
            sent: How many bytes the body of the answer has.
        """
        self._line(peer, "", b"", (status, sent), (b"", b""))

    def _line(
        self,
        peer: Peer,
        user: str,
        request: bytes,
        answer: tuple[int, int],
        headers: tuple[bytes, bytes],
    ) -> None:
        now = self._seconds()
        moment = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(now))
        named = quote(user[:MAX_CHARACTERS], safe=_PLAIN, errors="backslashreplace")
        texts = " ".join(f'"{_escaped(text)}"' for text in headers)
        self._write(
            f"{peer.address or '-'} - {named or '-'} [{moment}] "
            f'"{_escaped(request)}" {answer[0]} {answer[1]} {texts}\n'
        )


def _escaped(data: bytes) -> str:
    """
    The text between quotation marks; a hyphen if there is none.
    """
    text = data[:MAX_CHARACTERS].decode("latin-1")
    plain = text.isascii() and text.isprintable() and not set(text) & {'"', "\\"}
    if not plain:
        text = "".join(
            c if " " <= c <= "~" and c not in '"\\' else f"\\x{ord(c):02x}" for c in text
        )
    return text or "-"
