"""
A way in: a request for an endless stream of messages, in one of the formats.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.server import NOT_DONE_YET

from ..bus.cursor import Cursor
from ..fanout.member import Response
from ..fanout.overflow import Overflow
from ..formats.framing import ChunkedFraming, Framing
from ..formats.stream_formats import STREAM_FORMATS, FramingOptions
from ..ids import Since, parse_id
from ..match import EVERYTHING
from ..message import Invalid
from .auth import visitor_of
from .channel import Channel
from .heads import Head, ResponseHead
from .mount import Mount, finish
from .peer import Peer
from .query import Wanted
from .quotas import Throttled
from .request import Request
from .responses import set_stream_headers
from .subscriber import Subscriber
from .visitor import Visitor

__all__ = ["stream"]


def stream(mount: Mount, request: server.Request, name: str, wanted: Wanted) -> int:
    """
    Answer with the messages of a channel or folder, as they are published.
    """
    form = STREAM_FORMATS[wanted.format]
    framing = form.framing(
        FramingOptions(mount.bus.boundary, mount.prefix, wanted.envelope)
    )
    content_type = form.media_type + framing.parameters
    request.setHeader(b"Content-Type", content_type.encode("ascii"))
    set_stream_headers(request)
    cursor, begins = mount.begin(name, wanted.filter, wanted.since)
    if begins is not None:
        request.setHeader(b"Msgbus-Id", begins.encode("ascii"))
    if request.method == b"HEAD":
        if cursor is not None:
            cursor.close()
        request.finish()
        return NOT_DONE_YET

    # The head and the opening are given to the transport in this turn of the reactor, so
    # they go before everything that is published from now on.
    request.write(framing.opening(begins))
    if isinstance(request, Request):
        channel = request.channel
        if request.chunked:
            framing = ChunkedFraming(framing)
        if begins is not None:
            request.remember(
                partial(RepeatedSubscription, mount, request, name, wanted, framing)
            )
        opened = Stream(mount, channel, framing)
        visitor, peer = visitor_of(request), request.peer
        if channel.site.access_log is not None:
            opened.request = request
        request.replace_with(opened)
        opened.begin(visitor, peer, name, wanted, cursor, ready=False)
    else:
        outlet = mount.outlet(request, wanted.overflow is Overflow.LATEST)
        farewell = partial(mount.farewell, framing) if _beats(wanted, framing) else bytes
        response = Response(outlet, partial(finish, request, farewell))
        mount.subscribe_request(request, name, wanted, framing, response, cursor)
    return NOT_DONE_YET


def _beats(wanted: Wanted, framing: Framing) -> bool:
    """
    Does a stream have heartbeats?  Simple readers, which ask for none, might take for a
    broken message what is sent at its end.
    """
    return bool(wanted.heartbeat or framing.heartbeat_seconds)


class Stream:
    """
    An open response.  It takes the place of its request in `Channel.requests`, so that
    the memory of the request is released, because streams are many and live long.

    Args:
        channel: The connection of the response.
        framing: Writes the response, perhaps in chunks (RFC 9112, section 7.1).

    Attributes:
        request: The request, if there is an access log, which needs it.
    """

    __slots__ = ("_beats", "_channel", "_framing", "_mount", "_subscriber", "request")

    def __init__(self, mount: Mount, channel: Channel, framing: Framing) -> None:
        self._mount = mount
        self._channel = channel
        self._framing = framing
        # Whether the client understands what is said between two messages.
        self._beats = False
        self._subscriber: Subscriber | None = None
        self.request: Request | None = None

    def begin(
        self,
        visitor: Visitor,
        peer: Peer,
        name: str,
        wanted: Wanted,
        cursor: Cursor | None,
        ready: bool,
    ) -> None:
        """
        Subscribe, now that the head of the response is written.

        Args:
            visitor: Who subscribes.
            peer: From where.
            name: The name of the channel or folder that is subscribed to.
            ready: Whether the head has been sent, so that nothing waits in the transport.
        """
        self._beats = _beats(wanted, self._framing)
        latest = wanted.overflow is Overflow.LATEST
        outlet = self._mount.outlet_for(self._channel, latest)
        if self.request is not None:
            outlet = self.request.count(outlet)
        response = Response(outlet, self._finish, ready=ready)
        self._channel.begin_stream()
        self._subscriber = self._mount.subscribe(
            visitor, peer, name, wanted, self._framing, response, cursor
        )
        self._channel.registerProducer(self._subscriber.member, True)  # type: ignore[no-untyped-call]  # Twisted

    def announce_close(self) -> None:
        """
        Do nothing: the head is written already, so no header can tell the client.
        """

    def connectionLost(self, reason: Failure) -> None:
        """
        The client has gone.
        """
        self._leave()

    def _finish(self) -> None:
        channel = self._channel
        channel.unregisterProducer()  # type: ignore[no-untyped-call]  # Twisted
        farewell = self._mount.farewell(self._framing) if self._beats else b""
        if isinstance(self._framing, ChunkedFraming):
            farewell += b"0\r\n\r\n"
        if farewell:
            channel.write(farewell)  # type: ignore[no-untyped-call]  # Twisted
        channel.requestDone(self)
        self._leave()

    def _leave(self) -> None:
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is not None:
            access_log = self._channel.site.access_log
            if self.request is not None and access_log is not None:
                access_log.answered(self.request)
            self._mount.leave(subscriber)


class RepeatedSubscription:
    """
    The meaning of a head that subscribes: a request with this head opens a stream like that
    of the request from which the head is remembered.

    Args:
        request: The request from which the head is remembered, whose response has begun.
        wanted: What that request asked for.  If it had a `Last-Event-ID`, each repetition
            has one of its own, and begins there.
        framing: The framing of its response.
    """

    __slots__ = (
        "_answer",
        "_framing",
        "_mount",
        "_name",
        "_peer",
        "_persistent",
        "_unfiltered",
        "_visitor",
        "_wanted",
    )

    def __init__(
        self, mount: Mount, request: Request, name: str, wanted: Wanted, framing: Framing
    ) -> None:
        self._mount = mount
        self._visitor = visitor_of(request)
        # Whom the head names, if it comes from a trusted proxy.
        self._peer = None if request.peer is request.channel.peer else request.peer
        self._name = name
        # A filter remembers results, which take more memory than its text.  All filters
        # that let every message pass are replaced by one that they share.
        self._unfiltered = wanted.filter == EVERYTHING
        self._wanted = replace(wanted, filter=EVERYTHING) if self._unfiltered else wanted
        self._framing = framing
        self._persistent = bool(request.channel.persistent)
        self._answer = ResponseHead(request, http.OK, [b"Msgbus-Id"])

    @property
    def size(self) -> int:
        """
        About how many bytes of memory it takes.
        """
        return 2_000 if self._unfiltered else 250_000

    def repeat(self, head: Head, body: bytes, channel: Channel) -> bool:
        """
        Open another stream; see `heads.Meaning`.
        """
        mount, wanted, since = self._mount, self._wanted, self._wanted.since
        seconds_left = self._visitor.seconds_left()
        if (
            mount.closed
            or mount.memory.lasts
            or (seconds_left is not None and seconds_left <= 0)
        ):
            return False
        peer = self._peer or channel.peer
        try:
            mount.quotas.check_subscribe(self._visitor, peer, self._name)
        except Throttled:
            return False
        if head.last_id:
            try:
                since = Since(parse_id(head.last_id.decode("ascii")))
            except Invalid:
                return False
        since = mount.within_history(self._visitor, self._name, since)
        cursor, begins = mount.begin(self._name, wanted.filter, since)
        if begins is None:
            # Where the stream begins is not known: its `since` is an id of another bus, or
            # the last so many messages are still looked for.  Then the head of the response
            # has no `Msgbus-Id`, which the template has.
            if cursor is not None:
                cursor.close()
            return False
        opening = self._framing.opening(begins)
        channel.repeater.answers.append(self._answer.fill(begins.encode("ascii")))
        channel.repeater.answers.append(opening)
        opened = Stream(mount, channel, self._framing)
        channel.begin_answer(opened, self._persistent)
        ready = channel.repeater.flush()
        opened.begin(self._visitor, peer, self._name, wanted, cursor, ready)
        return True
