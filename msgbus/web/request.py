"""
One request, whose body stays in memory, and within the site's limit.

Twisted's own collects a body of any size, on disk if need be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.web import server
from twisted.web.http_headers import Headers

from .channel import Answering, Channel, too_large
from .heads import Head, Meaning

__all__ = ["Request"]

_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)

_NO_HEADERS = Headers()


class Request(server.Request):
    """
    One request, whose body stays in memory and within the site's limit.
    """

    channel: Channel
    content: Any  # a BytesIO while it is read, and nothing once it streams
    args: Any
    received_cookies: Any
    cookies: Any
    # Its head, if it may be remembered.
    head: Head | None = None
    # `Heads.version` when it was read: if all was forgotten since, it is judged anew.
    _version = -1
    # By whose rules its `Host` was found to be right.
    host_checked_by: object = None
    # Was it judged by nothing but its head and the place where it arrived?
    repeatable = False

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
        repeater = self.channel.repeater
        self._version = self.channel.site.heads.version
        self.head, repeater.head = repeater.head, None
        absolute = _ABSOLUTE_FORM.fullmatch(path)
        if absolute:
            path = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
            # Where there must be one `Host`, two or none stay a mistake.
            hosts = self.requestHeaders.getRawHeaders(b"Host", [])
            if len(hosts) == 1 or (version == b"HTTP/1.0" and not hosts):
                self.requestHeaders.setRawHeaders(b"Host", [absolute[1]])
        super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]  # Twisted

    def say_last(self) -> None:
        """
        Tell the client that the connection is closed behind the answer, if that has not
        begun.
        """
        if not self.startedWriting:
            self.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def remember(self, meaning: Callable[[], Meaning[Channel]]) -> None:
        """
        Remember what its head means, if it may be remembered and has come before.

        Args:
            meaning: Makes it, if need be.
        """
        head, heads = self.head, self.channel.site.heads
        if head is None or not self.repeatable or self._version != heads.version:
            return
        # With the one more is answered than the request; with the other the body does not
        # end where `Content-Length` says.
        if any(map(self.requestHeaders.hasHeader, (b"Expect", b"Transfer-Encoding"))):
            return
        if head.is_of(self):
            heads.remember(self.channel.repeater.place, head, meaning)

    def give_way(self, other: Answering) -> None:
        """
        Let another stand for the rest of the answer, which has begun.
        """
        (place,) = (i for i, r in enumerate(self.channel.requests) if r is self)
        self.channel.requests[place] = other

    def begin_stream(self, receive: Callable[[bytes], None]) -> None:
        """
        Be as small as can be, and read no further requests: the answer has
        begun, and has no end.

        Args:
            receive: Takes what comes behind this one.
        """
        # A quarter of what an idle subscriber would cost.
        self.requestHeaders = self.responseHeaders = _NO_HEADERS
        self.content = self.args = self.received_cookies = self.cookies = None
        self.prepath = self.postpath = self.sitepath = None
        self.channel.begin_stream(receive)

    def _check_body(self, size: int) -> None:
        if size > self.channel.site.max_body:
            raise too_large(self.channel.site.max_body)
