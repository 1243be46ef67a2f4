"""
A way in: a WebSocket (RFC 6455), over which one client subscribes and publishes.

The messages that it is sent go out through `fanout`, like those of any stream.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web import server
from twisted.web.server import NOT_DONE_YET
from wsproto import events
from wsproto.frame_protocol import CloseReason, Opcode

from ..fanout.choices import Live
from ..fanout.member import Member, Response
from ..fanout.overflow import Overflow
from ..formats.envelope import line
from ..formats.publication import InvalidPublication, Publication, parse_publication
from ..formats.websocket_frames import WebSocketFraming, close, frame
from ..message import Message, Receipt
from .auth import visitor_of
from .channel import LINGER_SECONDS, REQUEST_BYTES_A_SECOND
from .headers import check_origin
from .journal import Attempt
from .mount import Mount, when_published
from .peer import Peer
from .query import Wanted
from .quotas import Throttled
from .request import Request
from .responses import REFUSALS, Refusal, status_of
from .visitor import Visitor
from .websocket_handshake import accept_token
from .websocket_reader import WebSocketReader

__all__ = ["WebSocket", "open_websocket"]

# A client that breaks the protocol is not read any more, so its own close frame is not
# waited for (RFC 6455, section 7.1.7).  But it has so many seconds to read why, because a
# connection that is closed at once may be reset, and the reason lost.
FAIL_SECONDS = 0.2

# The content types of messages that come without an envelope.
RAW_TEXT = "text/plain; charset=utf-8"
RAW_BINARY = "application/octet-stream"

# The close code for the status of a refusal, where there are no envelopes to tell it in.
_CLOSE_CODES = {
    413: CloseReason.MESSAGE_TOO_BIG,
    429: CloseReason.TRY_AGAIN_LATER,
    503: CloseReason.SERVICE_RESTART,
}

# The other way round: the status in the log for a close code.
_STATUSES: dict[int, int] = {
    CloseReason.MESSAGE_TOO_BIG: 413,
    CloseReason.POLICY_VIOLATION: 408,
}

# How large an envelope may be: JSON may need six characters for a byte of the body, and
# the other fields need some room.
ENVELOPE_FACTOR = 6
ENVELOPE_BYTES = 16 * 1024


def open_websocket(mount: Mount, request: server.Request, name: str, wanted: Wanted) -> int:
    """
    Answer with a WebSocket, whose client subscribes to this channel or folder, and may
    publish.

    Raises:
        Refusal: The handshake is faulty, or the client may not open a WebSocket.
    """
    if not isinstance(request, Request):
        raise Refusal(501, "There is no WebSocket here: it takes msgbus.web.Site.")
    token = accept_token(request)
    # Browsers let any page open a WebSocket to any host, and read what comes over it.
    check_origin(request, mount.origins)
    visitor, peer = visitor_of(request), request.peer
    publish = partial(_publish, mount, visitor, peer, name)
    outlet = mount.outlet(request, wanted.overflow is Overflow.LATEST)
    cursor, begins = mount.begin(name, wanted.filter, wanted.since)
    websocket = WebSocket(
        request,
        mount.reactor,
        publish,
        wanted.raw,
        mount.bus.max_message,
        mount.fanout.limits.stall_seconds,
        partial(_refused, mount, visitor, peer, name),
    )
    headers = [(b"Msgbus-Prefix", mount.prefix.encode("ascii"))]
    if begins is not None:
        headers.append((b"Msgbus-Id", begins.encode("ascii")))
    websocket.accept(token, headers)
    complete = None
    if wanted.live is Live.END:
        complete = partial(websocket.close, CloseReason.NORMAL_CLOSURE, "")
    response = Response(
        outlet,
        partial(_send_away, mount, websocket),
        partial(
            websocket.close,
            CloseReason.TRY_AGAIN_LATER,
            "More waited for you than the bus keeps.",
        ),
        partial(websocket.close, CloseReason.POLICY_VIOLATION),
        complete=complete,
    )
    member = mount.subscribe_request(
        request, name, wanted, WebSocketFraming(wanted.raw), response, cursor
    )
    websocket.joined(member)
    return NOT_DONE_YET


def _send_away(mount: Mount, websocket: WebSocket) -> None:
    """
    Close a WebSocket because the bus stops, and say when to come back.
    """
    seconds = mount.returns.next()
    websocket.close(
        CloseReason.SERVICE_RESTART,
        f"The bus is stopping; come back in {seconds:.1f} seconds.",
    )


def _publish(
    mount: Mount,
    visitor: Visitor,
    peer: Peer,
    name: str,
    publication: Publication,
) -> Receipt | Deferred[Receipt]:
    """
    Publish what a client has sent to this channel, unless it has named another.
    """
    channel = name if publication.channel is None else publication.channel
    message = Message(
        channel,
        publication.body,
        publication.content_type,
        visitor.sender,
        headers=publication.headers,
        max_age=publication.max_age,
    )
    published = mount.publish(
        visitor,
        peer,
        message,
        message.body,
        publication.keep,
        publication.require,
        publication.key,
    )
    traffic = mount.counters.websockets
    traffic.messages += 1
    traffic.bytes += len(message.body)
    return published


def _refused(
    mount: Mount,
    visitor: Visitor,
    peer: Peer,
    name: str,
    error: Exception,
    channel: str | None,
) -> None:
    """
    Count and log what is refused on a WebSocket to this channel.

    Args:
        channel: That which the client has named instead, if any.
    """
    attempt = Attempt(peer, visitor.sender, "websocket", channel or name)
    mount.journal.refuses(attempt, error)


class WebSocket:
    """
    One open connection: publishes what the client sends, answers it, and closes.

    Args:
        request: The opening handshake.
        publish: Publishes what the client sends; raises one of `REFUSALS` if it may not.
        raw: Whether frames hold bodies alone, without envelopes, in both directions.
        max_message: Bytes of the largest body.
        seconds: How long a message of the client may take, beside one second for each KiB
            of it that has come.
        refused: Called with the error, and with the channel if the client has named one,
            when something is refused.
    """

    __slots__ = (
        "_began",
        "_channel",
        "_closed",
        "_ending",
        "_limit",
        "_member",
        "_payload",
        "_publish",
        "_raw",
        "_reactor",
        "_reader",
        "_refused",
        "_request",
        "_seconds",
        "_slow",
    )

    def __init__(
        self,
        request: Request,
        reactor: IReactorTime,
        publish: Callable[[Publication], Receipt | Deferred[Receipt]],
        raw: bool,
        max_message: int,
        seconds: float,
        refused: Callable[[Exception, str | None], object],
    ) -> None:
        self._request = request
        self._refused = refused
        self._channel = request.channel
        self._reactor = reactor
        self._publish = publish
        self._raw = raw
        self._limit = max_message
        if not raw:
            self._limit = ENVELOPE_FACTOR * max_message + ENVELOPE_BYTES
        self._member: Member | None = None
        # Made when the first byte comes, because most clients only listen.
        self._reader: WebSocketReader | None = None
        # The payload that has come of a message whose last frame is still missing.
        self._payload = bytearray()
        # When that message began, and what ends it if it dribbles.
        self._seconds = seconds
        self._began = 0.0
        self._slow: IDelayedCall | None = None
        # Whether a close frame has been sent.
        self._closed = False
        # Closes the connection, in case the client does not answer the close frame.
        self._ending: IDelayedCall | None = None

    def accept(self, token: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """
        Answer the handshake, and read frames from then on.
        """
        self._channel.writeHeaders(  # type: ignore[no-untyped-call]  # Twisted
            b"HTTP/1.1",
            b"101",
            b"Switching Protocols",
            [
                (b"Upgrade", b"websocket"),
                (b"Connection", b"Upgrade"),
                (b"Sec-WebSocket-Accept", token),
                *headers,
            ],
        )
        self._request.startedWriting = 1
        self._request.code = 101
        self._request.begin_stream(self._received)

    def joined(self, member: Member) -> None:
        """
        Use this member of a group to send frames to the client, until the connection has
        ended.
        """
        self._member = member
        self._request.notifyFinish().addBoth(self._gone)

    def close(self, code: int, reason: str, seconds: float = LINGER_SECONDS) -> None:
        """
        Send a close frame, and close the connection when the client has answered it, or
        after so many seconds.
        """
        if self._say_last(close(code, reason)):
            self._ending = self._reactor.callLater(seconds, self._channel.loseConnection)

    def _fail(self, code: int, reason: str, seconds: float = LINGER_SECONDS) -> None:
        """
        The same, because the client breaks the protocol, or sends too much or too slowly.
        """
        status = _STATUSES.get(code, 400)
        self._refused(Refusal(status, reason or "This is no WebSocket frame."), None)
        self.close(code, reason, seconds)

    def _say_last(self, farewell: bytes) -> bool:
        """
        Send this close frame, and nothing after it; False if one has been sent already, or
        the connection has gone.
        """
        if self._closed or self._member is None:
            return False
        self._closed = True
        self._stop_waiting()
        self._member.dismiss(farewell)
        self._request.unregisterProducer()  # type: ignore[no-untyped-call]  # Twisted
        return True

    def _gone(self, _: object) -> None:
        self._member = None
        self._stop_waiting()
        if self._reader is not None:
            self._reader.stop()
        if self._ending is not None and self._ending.active():
            self._ending.cancel()

    def _received(self, data: bytes) -> None:
        if self._reader is None:
            self._reader = WebSocketReader(
                self._reactor,
                self._channel.transport,
                self._take,
                partial(self._fail, seconds=FAIL_SECONDS),
                self._waiting,
            )
        self._reader.receive(data)

    def _waiting(self) -> int:
        return 0 if self._member is None else len(self._member.aside)

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.Ping):
            self._tell(frame(Opcode.PONG, bytes(event.payload)))
        elif isinstance(event, events.CloseConnection):
            # The answer has the code of the client's close frame, if that had one.
            has_code = event.code != CloseReason.NO_STATUS_RCVD
            self._say_last(close(event.code, "") if has_code else frame(Opcode.CLOSE, b""))
            self._channel.loseConnection()
        elif isinstance(event, events.Message) and not self._closed:
            data = event.data
            self._payload += data.encode("utf-8") if isinstance(data, str) else data
            if len(self._payload) > self._limit:
                sentence = f"A frame has at most {self._limit} bytes."
                self._fail(CloseReason.MESSAGE_TOO_BIG, sentence)
            elif not event.message_finished:
                self._await_rest()
            else:
                self._stop_waiting()
                payload, self._payload = bytes(self._payload), bytearray()
                self._post(payload, isinstance(event, events.TextMessage))

    def _await_rest(self) -> None:
        """
        Wait for the rest of a message, but not for ever: otherwise each client could have
        the bus hold a message that never ends.
        """
        if self._slow is None:
            self._began = self._reactor.seconds()
            self._slow = self._reactor.callLater(self._seconds, self._check_pace)

    def _check_pace(self) -> None:
        left = self._seconds + len(self._payload) / REQUEST_BYTES_A_SECOND
        left -= self._reactor.seconds() - self._began
        if left > 0:
            self._slow = self._reactor.callLater(left, self._check_pace)
        else:
            self._slow = None
            self._payload.clear()
            self._fail(CloseReason.POLICY_VIOLATION, "The message comes too slowly.")

    def _stop_waiting(self) -> None:
        slow, self._slow = self._slow, None
        if slow is not None:
            slow.cancel()

    def _post(self, payload: bytes, is_text: bool) -> None:
        ack = channel = None
        try:
            if self._raw:
                wish = Publication(RAW_TEXT if is_text else RAW_BINARY, payload)
            else:
                wish = parse_publication(payload)
            ack, channel = wish.ack, wish.channel
            published = self._publish(wish)
        except REFUSALS as error:
            ack = error.ack if isinstance(error, InvalidPublication) else ack
            self._refuse(ack, channel, error)
            return
        if ack is not None:
            when_published(
                published,
                partial(self._acknowledge, ack),
                partial(self._refuse, ack, channel),
            )

    def _acknowledge(self, ack: str | int, receipt: Receipt) -> None:
        told = {"ack": ack, "id": receipt.id, "subscribers": receipt.subscribers}
        self._tell(frame(Opcode.TEXT, line(told)))

    def _refuse(self, ack: str | int | None, channel: str | None, error: Exception) -> None:
        self._refused(error, channel)
        status = status_of(error)
        if self._raw:
            # The client would take any frame for a message, so only a close can tell it.
            self.close(_CLOSE_CODES.get(status, CloseReason.POLICY_VIOLATION), str(error))
            return
        told: dict[str, object] = {"error": str(error), "status": status}
        if isinstance(error, Throttled):
            told["retry"] = error.seconds
        if ack is not None:
            told["ack"] = ack
        self._tell(frame(Opcode.TEXT, line(told)))

    def _tell(self, data: bytes) -> None:
        if self._member is not None:
            self._member.tell(data)
