"""
The Site and Request that enforce our limits on what strangers send.

Twisted's own collect a body of any size, on disk if need be, answer a long
header line with silence, and stop reading, and so noticing that the peer has
gone, once 16 KiB came behind a request that is still being answered.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web import http, server
from twisted.web.resource import IResource

__all__ = ["Site", "Request"]

# How long, and how much, a client that is refused while it still sends may go
# on: one that writes before it reads would see a reset instead of the answer.
LINGER_SECONDS = 2
LINGER_BYTES = 8 * 1024 * 1024

# What a subscriber may send behind its request, for nothing.
STREAM_INPUT_BYTES = 16 * 1024

# For an idle connection that does not let itself be closed.
ABORT_SECONDS = 15

_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)


class _Refused(Exception):
    """
    The request that is being read gets this answer, and the connection ends.
    """

    def __init__(self, code: int, reason: bytes, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.reason = reason


class Channel(http.HTTPChannel):
    """
    One connection.
    """

    site: Site
    transport: Any  # TCP, TLS, UNIX or a wrapper: no one interface of Twisted's

    _refused = False
    _discardable: int | None = None

    def dataReceived(self, data: bytes) -> None:
        """
        Read requests, until one is refused.
        """
        if self._refused:
            self._discard(data)
            return
        try:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted
        except _Refused as refusal:
            self._refuse(refusal)

    def rawDataReceived(self, data: bytes) -> None:
        """
        Read a body, or what comes behind a request that is being answered.
        """
        if self._discardable is None:
            super().rawDataReceived(data)
        else:
            self._discard(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """
        Refuse a request or header line of more than 16 KiB.
        """
        raise _Refused(
            431,
            b"Request Header Fields Too Large",
            f"A request or header line has at most {self.MAX_LENGTH} bytes here.",
        )

    def timeoutConnection(self) -> None:
        """
        Close an idle connection, without the line that Twisted logs for each.
        """
        self.callLater(ABORT_SECONDS, self.transport.abortConnection)  # type: ignore[no-untyped-call]  # Twisted
        self.loseConnection()  # type: ignore[no-untyped-call]  # Twisted

    def discard_input(self) -> None:
        """
        Discard what comes behind the request that is being answered, because
        its answer has no end; close the connection if it is more than a bit.
        Reading on is how we notice that the peer has gone.
        """
        self._discardable = STREAM_INPUT_BYTES

    def _discard(self, data: bytes) -> None:
        self._discardable = (self._discardable or 0) - len(data)
        if self._discardable < 0:
            self.transport.abortConnection()

    def _refuse(self, refusal: _Refused) -> None:
        body = f"{refusal}\n".encode()
        self.writeHeaders(  # type: ignore[no-untyped-call]  # Twisted
            b"HTTP/1.1",
            b"%d" % refusal.code,
            refusal.reason,
            [
                (b"Date", http.datetimeToString()),
                (b"Content-Type", b"text/plain; charset=utf-8"),
                (b"Content-Length", b"%d" % len(body)),
                (b"X-Content-Type-Options", b"nosniff"),
                (b"Connection", b"close"),
            ],
        )
        self.write(body)  # type: ignore[no-untyped-call]  # Twisted
        self._refused = True
        self._discardable = LINGER_BYTES
        self.setTimeout(LINGER_SECONDS)  # type: ignore[no-untyped-call]  # Twisted


class Request(server.Request):
    """
    One request, whose body stays in memory and within the site's limit.
    """

    channel: Channel
    content: BytesIO

    def gotLength(self, length: int | None) -> None:
        """
        Refuse a body that says that it is too large, before it comes and
        before it is asked for by `100 Continue`.
        """
        self.content = BytesIO()
        self._check_body(length or 0)

    def handleContentChunk(self, data: bytes) -> None:
        """
        Take a piece of the body; refuse one that grows too large.
        """
        self._check_body(self.content.tell() + len(data))
        self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        Take the whole request.  The absolute form of a target is served, and
        its host goes before the `Host` header (RFC 9112, section 3.2.2).
        """
        if absolute := _ABSOLUTE_FORM.fullmatch(path):
            self.requestHeaders.setRawHeaders(b"Host", [absolute[1]])
            path = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]  # Twisted

    def _check_body(self, size: int) -> None:
        limit = self.channel.site.max_body
        if size > limit:
            raise _Refused(
                413,
                b"Content Too Large",
                f"A message has at most {limit} bytes here; publish less, or"
                " have the operator raise --max-message.",
            )


class Site(server.Site):
    """
    Serves a resource over HTTP/1.0 and 1.1, within limits.

    Args:
        resource: The root of the tree.
        max_body: Bytes of the largest request body; answered with 413 above.
        reactor: Where the time-outs of connections run.
    """

    noisy = False
    # Twisted's is a wrapper that chooses between HTTP/1.1 and HTTP/2.
    protocol = Channel  # type: ignore[assignment]
    requestFactory = Request

    def __init__(
        self,
        resource: IResource,
        max_body: int = 1024 * 1024,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(resource, parsePOSTFormSubmission=False, reactor=reactor)  # type: ignore[no-untyped-call]  # Twisted
        self.max_body = max_body

    def acceptableProtocols(self) -> list[bytes]:
        """
        HTTP/1.1 alone over TLS: streams over HTTP/2 are not proven.
        """
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """
        Keep no access log: queries may tell more than their senders want.
        """
