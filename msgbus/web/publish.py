"""
A way in: a request that publishes.
"""

from __future__ import annotations

from typing import BinaryIO, cast

from twisted.web import server
from twisted.web.server import NOT_DONE_YET

from ..formats.envelope import Posted
from ..message import Receipt
from .auth import sender_of
from .headers import check_origin, header
from .mount import Mount
from .query import channel_name, required
from .responses import Refusal, answer

__all__ = ["publish"]


def publish(mount: Mount, request: server.Request, path: bytes) -> int:
    """
    Publish the body of a request, and answer with 204 once the message is in order for
    every subscriber.

    Args:
        path: Of the channel below the root of the bus, percent-encoded.

    Raises:
        Refusal: The request cannot publish.
        Invalid: Nor can its message be.  See `Bus.publish` for the others.
    """
    if request.clientproto == b"HTTP/1.0" and request.requestHeaders.hasHeader(
        b"Transfer-Encoding"
    ):
        # RFC 9112, section 6.1: the framing of such a message is faulty.
        raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding; send a Content-Length.")
    check_origin(request, mount.origins)
    content_type = header(request, b"Content-Type")
    if not content_type:
        raise Refusal(
            400, "A message needs a Content-Type, such as text/plain or image/jpeg."
        )
    wish = Posted(
        content_type,
        _body(request),
        keep=not _no_store(header(request, b"Cache-Control", many=True)),
        require=required(request.uri.partition(b"?")[2]),
        key=header(request, b"Idempotency-Key"),
    )
    sender = sender_of(header(request, b"Authorization"))
    name = channel_name(path)
    published = mount.publish(request.getClientAddress(), name, sender, wish)
    published.addCallback(_acknowledge, request)
    return NOT_DONE_YET


def _acknowledge(receipt: Receipt, request: server.Request) -> None:
    request.setHeader(b"Msgbus-Id", receipt.id.encode("ascii"))
    request.setHeader(b"Msgbus-Subscribers", b"%d" % receipt.subscribers)
    answer(request, 204)


def _body(request: server.Request) -> bytes:
    # Twisted sets the content before it renders, but does not promise so.
    return cast(BinaryIO, request.content).read()


def _no_store(cache_control: str | None) -> bool:
    """
    Does a publisher forbid to keep its message (RFC 9111, section 5.2.1.5)?
    """
    directives = (cache_control or "").lower().split(",")
    return "no-store" in (directive.strip() for directive in directives)
