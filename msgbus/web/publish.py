"""
A way in: a request that publishes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import BinaryIO, NamedTuple, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.server import NOT_DONE_YET

from ..formats.caching import parse_cache_control
from ..message import Message, Receipt
from .auth import visitor_of
from .channel import Channel
from .headers import (
    check_origin,
    check_transfer_encoding,
    header,
    travelling_headers,
)
from .heads import Head, ResponseHead
from .journal import Attempt
from .mount import Mount, when_published
from .query import channel_name, requires_subscriber
from .refusals import refuse
from .request import Request, peer_of
from .responses import REFUSALS, Refusal, answer, plain_refusal
from .visitor import Visitor

__all__ = ["publish"]


def publish(mount: Mount, request: server.Request, path: bytes) -> int:
    """
    Publish the body of a request, and answer with 204 once the message has its place in
    the order of messages for every subscriber and, with a history file, is on the disk.

    Args:
        path: The path of the channel below the root of the bus, percent-encoded.

    Raises:
        Refusal: The request may not publish, or is faulty.
        Invalid: The message cannot be made; see `Bus.publish` for the other errors.
    """
    check_transfer_encoding(request)
    check_origin(request, mount.origins)
    content_type = header(request, b"Content-Type")
    if not content_type:
        raise Refusal(
            400, "A message needs a Content-Type, such as text/plain or image/jpeg."
        )
    visitor = visitor_of(request)
    keep, max_age = parse_cache_control(header(request, b"Cache-Control", many=True))
    message = Message(
        channel_name(path),
        _body(request),
        content_type,
        visitor.sender,
        headers=travelling_headers(request),
        max_age=max_age,
    )
    options = Options(
        keep=keep,
        require=requires_subscriber(request.uri.partition(b"?")[2]),
        key=header(request, b"Idempotency-Key"),
    )
    peer = peer_of(request)
    published = mount.publish(visitor, peer, message, message.body, *options)
    traffic = mount.counters.requests
    traffic.messages += 1
    traffic.bytes += len(message.body)

    def acknowledge(receipt: Receipt) -> None:
        id, subscribers = _told(receipt)
        request.setHeader(b"Msgbus-Id", id)
        request.setHeader(b"Msgbus-Subscribers", subscribers)
        if (
            isinstance(request, Request)
            and not request._disconnected
            and request.requestHeaders.hasHeader(b"Content-Length")
        ):
            request.remember(
                partial(RepeatedPublication, mount, request, visitor, message, options)
            )
        answer(request, 204)

    when_published(published, acknowledge, partial(refuse, mount.journal, request))
    return NOT_DONE_YET


class Options(NamedTuple):
    """
    What a publisher asks for, beside the message; see `Bus.publish`.
    """

    keep: bool
    require: bool
    key: str | None


class RepeatedPublication:
    """
    The meaning of a head that publishes: a request with this head publishes a message like
    that of the request from which the head is remembered, but with its own body.

    Args:
        request: The request from which the head is remembered; about to be answered.
        visitor: Who sent it.  The head and the client's certificate tell, so it is the same
            for each repetition.
        message: The message of that request.
        options: What that request asked for.  If it had a key, each repetition has a key
            of its own, which replaces it.
    """

    __slots__ = (
        "_answer",
        "_headers",
        "_message",
        "_mount",
        "_options",
        "_peer",
        "_persistent",
        "_visitor",
    )

    # About how many bytes of memory it takes.
    size = 2_000

    def __init__(
        self,
        mount: Mount,
        request: Request,
        visitor: Visitor,
        message: Message,
        options: Options,
    ) -> None:
        self._mount = mount
        self._visitor = visitor
        self._message = message.with_body(b"")
        self._options = options
        # Whom the head names, if it comes from a trusted proxy.
        self._peer = None if request.peer is request.channel.peer else request.peer
        self._persistent = bool(request.channel.persistent)
        told = [b"Msgbus-Id", b"Msgbus-Subscribers"]
        self._answer = ResponseHead(request, http.NO_CONTENT, told)
        # What a refusal has as well, such as the headers that let a page of another site
        # read it.
        self._headers = b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, values in request.responseHeaders.getAllRawHeaders()
            for value in values
            if name not in (b"Date", b"Connection", *told)
        )

    def repeat(self, head: Head, body: bytes, channel: Channel) -> bool:
        """
        Publish this body, and answer; see `heads.Meaning`.
        """
        keep, require, _ = self._options
        key = head.key.decode("ascii") or None
        peer = self._peer or channel.peer
        try:
            published = self._mount.publish(
                self._visitor, peer, self._message, body, keep, require, key
            )
        except REFUSALS:
            return False
        traffic = self._mount.counters.requests
        traffic.messages += 1
        traffic.bytes += len(body)
        if isinstance(published, Deferred):
            attempt = Attempt(peer, self._visitor.sender, "POST", self._message.channel)
            refused = partial(self._mount.journal.refuses, attempt)
            owed = _PendingAnswer(channel, self._answer, self._headers, refused)
            channel.begin_answer(owed, self._persistent)
            when_published(published, owed.acknowledge, owed.refuse)
            return True
        id, subscribers, _ = published
        channel.repeater.answers.append(
            self._answer.fill(id.encode("ascii"), b"%d" % subscribers)
        )
        if not self._persistent:
            channel.repeater.flush()
            channel.persistent = False
            channel.loseConnection()
        return True


class _PendingAnswer:
    """
    An answer to a repeated request that has to wait until the message is on the disk.
    Takes the place of a request of Twisted's in `Channel.requests`.

    Args:
        answer: The answer if the message is published.
        headers: Those of a refusal; see `plain_refusal`.
        refused: Called with the error if the message is not published.
    """

    __slots__ = ("_answer", "_channel", "_closing", "_headers", "_refused")

    def __init__(
        self,
        channel: Channel,
        answer: ResponseHead,
        headers: bytes,
        refused: Callable[[Exception], object],
    ) -> None:
        self._channel: Channel | None = channel
        self._answer = answer
        self._headers = headers
        self._closing = False
        self._refused = refused

    def acknowledge(self, receipt: Receipt) -> None:
        """
        Send the answer, unless the client has gone.
        """
        if self._channel is not None:
            answer = self._answer.fill(*_told(receipt), closing=self._closing)
            self._channel.repeater.answers.append(answer)
            self._channel.repeater.flush()
            self._channel.requestDone(self)

    def refuse(self, error: Exception) -> None:
        """
        Tell the client that the message is not published, unless the client has gone.
        """
        self._refused(error)
        if self._channel is not None:
            refusal = plain_refusal(error, self._headers, self._closing)
            self._channel.repeater.answers.append(refusal)
            self._channel.repeater.flush()
            self._channel.requestDone(self)

    def announce_close(self) -> None:
        """
        Tell the client that the connection is closed after this answer.
        """
        self._closing = True

    def connectionLost(self, reason: Failure) -> None:
        """
        The client has gone.
        """
        self._channel = None


def _told(receipt: Receipt) -> tuple[bytes, bytes]:
    """
    The values of the headers `Msgbus-Id` and `Msgbus-Subscribers`.
    """
    return receipt.id.encode("ascii"), b"%d" % receipt.subscribers


def _body(request: server.Request) -> bytes:
    # None only until Twisted has read the head, which is before it renders a resource.
    return cast(BinaryIO, request.content).read()
