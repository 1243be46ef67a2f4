"""
One request, whose body stays in memory, and within the site's limit.

Twisted's own request collects a body of any size, on the disk if it is large.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http_headers import Headers

from ..fanout.outlet import CountedOutlet, Outlet
from .channel import Answering, Channel, too_large
from .heads import Head, Meaning
from .peer import Peer, forwarded
from .streamed_body import StreamedBody, is_streamed
from .visitor import Visitor

__all__ = ["Request", "peer_of"]

_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)

_NO_HEADERS = Headers()


class Request(server.Request):
    """
    One request, whose body stays in memory and within the site's limit.
    """

    channel: Channel
    content: Any  # a BytesIO; None once `begin_stream` was called
    args: Any
    received_cookies: Any
    cookies: Any
    # The head of the request, split; None if it cannot be remembered.
    head: Head | None = None
    # `Heads.version` when the request was read.  If that has changed since, the request was
    # judged by old rules, and its head is not remembered.
    _version = -1
    # The `Origins` by whose rules `Host` was accepted, so that it is checked only once.
    host_checked_by: object = None
    # Who has sent the request; set by `Root`.
    visitor: Visitor | None = None
    # For whom a trusted proxy has sent the request.
    _forwarded: Peer | None = None
    # The body, if it is taken while it comes.
    body: StreamedBody | None = None
    # Counts the bytes of an answer that has no end, if there is an access log.
    counted: CountedOutlet | None = None
    # Was the request judged by nothing but its head and the local address?  Set by `Root`.
    repeatable = False

    def __repr__(self) -> str:
        """
        For logs, and so without the query, which may hold a link.
        """
        method, path = self.method, self.uri.partition(b"?")[0]
        return f"<{type(self).__name__} at {id(self):#x} {method!r} {path!r}>"

    @property
    def peer(self) -> Peer:
        """
        Where the request comes from.
        """
        if self._forwarded is None:
            peer = self.channel.peer
            if not peer.is_trusted:
                return peer
            self._forwarded = forwarded(peer, self, self.channel.site.proxies)
        return self._forwarded

    def gotLength(self, length: int | None) -> None:
        """
        Refuse a body that says that it is too large, before it comes and
        before it is asked for by `100 Continue`.  A request whose body is a stream is
        processed now; see `streamed_body`.
        """
        self.content = BytesIO()
        channel = self.channel
        content_type = self.requestHeaders.getRawHeaders(b"Content-Type", [b""])[0]
        if not is_streamed(channel._command, channel._path, content_type):
            self._check_body(length or 0)
            return
        expected = self.requestHeaders.getRawHeaders(b"Expect", [b""])[0].lower()
        awaited = expected == b"100-continue" and channel._version == b"HTTP/1.1"
        self.body = StreamedBody(channel, awaited)
        channel.begin_body(self.body)
        # No other request can follow an answer that begins before the end of the body.
        self.announce_close()
        self._process(channel._command, channel._path, channel._version)

    def handleContentChunk(self, data: bytes) -> None:
        """
        Take a piece of the body; refuse one that grows too large.
        """
        if self.body is not None:
            self.body.receive(data)
            return
        self._check_body(self.content.tell() + len(data))
        self.content.write(data)

    def count(self, outlet: Outlet) -> Outlet:
        """
        The outlet for an answer that has no end: one that counts its bytes, if there is an
        access log.
        """
        if self.channel.site.access_log is None:
            return outlet
        self.counted = CountedOutlet(outlet)
        return self.counted

    def connectionLost(self, reason: Failure) -> None:
        """
        The client has gone before the end of the answer.
        """
        access_log = self.channel.site.access_log
        if access_log is not None:
            access_log.answered(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        Take the whole request.
        """
        if self.body is not None:
            if self.startedWriting:
                # The client is told already that the connection is closed.
                self.channel.persistent = False
            elif self.channel.persistent:
                self.responseHeaders.removeHeader(b"Connection")
            self.body.end()
        else:
            self._process(command, path, version)

    def _process(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        Have the request answered.  The absolute form of a target is served, and its host
        goes before the `Host` header (RFC 9112, section 3.2.2).
        """
        repeater = self.channel.repeater
        self._version = self.channel.site.heads.version
        self.head, repeater.head = repeater.head, None
        absolute = _ABSOLUTE_FORM.fullmatch(path)
        if absolute:
            path = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
            # A request of HTTP/1.1 must have one `Host`; with two or none, it is still
            # refused.
            hosts = self.requestHeaders.getRawHeaders(b"Host", [])
            if len(hosts) == 1 or (version == b"HTTP/1.0" and not hosts):
                self.requestHeaders.setRawHeaders(b"Host", [absolute[1]])
        super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]  # Twisted

    def announce_close(self) -> None:
        """
        Tell the client, by `Connection: close`, that the connection is closed after the
        answer, unless the head of the answer has been written already.
        """
        if not self.startedWriting:
            self.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def remember(self, meaning: Callable[[], Meaning[Channel]]) -> None:
        """
        Remember what the head of this request means, if it may be remembered, and if this
        is not the first time that it comes.

        Args:
            meaning: Makes the meaning; called only if it is going to be remembered.
        """
        head, heads = self.head, self.channel.site.heads
        if head is None or not self.repeatable or self._version != heads.version:
            return
        # `Expect` asks for a `100 Continue` before the answer.  With `Transfer-Encoding`,
        # the body does not end where `Content-Length` says.
        if any(map(self.requestHeaders.hasHeader, (b"Expect", b"Transfer-Encoding"))):
            return
        if head.is_of(self):
            heads.remember(self.channel.repeater.place, head, meaning)

    def replace_with(self, other: Answering) -> None:
        """
        Have another object take the place of this request in `Channel.requests`, for the
        rest of the answer, which has begun.
        """
        (place,) = (i for i, r in enumerate(self.channel.requests) if r is self)
        self.channel.requests[place] = other

    def begin_stream(self, receive: Callable[[bytes], None]) -> None:
        """
        Read no further requests on the connection, because the answer that has begun has no
        end, and release memory that the request does not need any more.

        Args:
            receive: Takes the bytes that come after this request.
        """
        # This is a quarter of the memory that an idle subscriber would take.
        if self.channel.site.access_log is None:
            self.requestHeaders = _NO_HEADERS
        self.responseHeaders = _NO_HEADERS
        self.content = self.args = self.received_cookies = self.cookies = None
        self.prepath = self.postpath = self.sitepath = None
        self.head = None
        self.channel.begin_stream(receive)

    def _check_body(self, size: int) -> None:
        if size > self.channel.site.max_body:
            raise too_large(self.channel.site.max_body)


def peer_of(request: server.Request) -> Peer:
    """
    Where a request comes from, also if it is of another site, which knows no proxies.
    """
    if isinstance(request, Request):
        return request.peer
    return Peer.at(request.getClientAddress())
