"""
The protocol of one WebSocket connection (RFC 6455): takes over from HTTP, reads what the
client sends, and closes with a code that says why.

What it is sent as a subscriber goes out through `fanout`, like any stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.web import server
from twisted.web.server import NOT_DONE_YET
from wsproto import events
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.frame_protocol import CloseReason, Opcode

from ..fanout.backlog import Overflow
from ..fanout.member import Member, Response
from ..formats.envelope import line
from ..formats.publication import InvalidPublication, Publication, parse_publication
from ..formats.websocket_frames import WebSocketFraming, close, frame
from ..message import Message, Receipt
from .auth import sender_of
from .headers import check_origin, header
from .mount import Mount, when_published
from .query import Wanted
from .responses import REFUSALS, Refusal, status_of
from .site import LINGER_SECONDS, Request
from .websocket_handshake import accept_token

__all__ = ["WebSocket", "open_websocket"]

# What a client is read from in one turn of the reactor.
EVENTS_A_TURN = 64

# How much of what is answered may wait for one who does not read, and in how many
# seconds it is looked whether it has.
ANSWER_BYTES = 64 * 1024
PAUSE_SECONDS = 0.1

# How long a client whose frames are none has to read why, in seconds: its answer is not
# read any more (RFC 6455, section 7.1.7), but a reset would take that away.
FAIL_SECONDS = 0.2

# Of what is published by a frame without an envelope.
RAW_TEXT = "text/plain; charset=utf-8"
RAW_BINARY = "application/octet-stream"

# With what a connection without envelopes is closed, by the status of a refusal.
_CODES = {413: CloseReason.MESSAGE_TOO_BIG, 503: CloseReason.GOING_AWAY}

# What an envelope may take: JSON can have six characters for a byte.
ENVELOPE_FACTOR = 6
ENVELOPE_BYTES = 16 * 1024


def open_websocket(mount: Mount, request: server.Request, name: str, wanted: Wanted) -> int:
    """
    Answer with a WebSocket, whose client subscribes to this channel or folder, and may
    publish.

    Raises:
        Refusal: The handshake is faulty, or the client may not.
    """
    if not isinstance(request, Request):
        raise Refusal(501, "There is no WebSocket here: it takes msgbus.web.Site.")
    token = accept_token(request)
    # Browsers let any page open one, and read what comes.
    check_origin(request, mount.origins)
    sender = sender_of(header(request, b"Authorization"))
    publish = partial(_publish, mount, request.getClientAddress, name, sender)
    outlet = mount.outlet(request, wanted.overflow is Overflow.LATEST)
    cursor, begins = mount.begin(name, wanted)
    websocket = WebSocket(
        request, mount.reactor, publish, wanted.raw, mount.bus.max_message
    )
    headers = [(b"Msgbus-Prefix", mount.prefix.encode("ascii"))]
    if begins is not None:
        headers.append((b"Msgbus-Id", begins.encode("ascii")))
    websocket.accept(token, headers)
    response = Response(
        outlet,
        partial(websocket.close, CloseReason.GOING_AWAY, "The bus is stopping."),
        partial(
            websocket.close,
            CloseReason.TRY_AGAIN_LATER,
            "More waited for you than the bus keeps.",
        ),
    )
    member = mount.subscribe_request(
        request, name, wanted, WebSocketFraming(wanted.raw), response, cursor
    )
    websocket.joined(member)
    return NOT_DONE_YET


def _publish(
    mount: Mount,
    client: Callable[[], IAddress],
    name: str,
    sender: str,
    publication: Publication,
) -> Receipt | Deferred[Receipt]:
    """
    Publish what a client has sent to this channel, unless it has named another.
    """
    channel = name if publication.channel is None else publication.channel
    message = Message(channel, publication.body, publication.content_type, sender)
    return mount.publish(
        client, message, publication.keep, publication.require, publication.key
    )


class WebSocket:
    """
    One connection.

    Args:
        request: The opening handshake.
        publish: Publishes what the client sends; raises one of `REFUSALS` if it may not.
        raw: Whether frames hold bodies alone, both ways.
        max_message: Bytes of the largest body.
    """

    __slots__ = (
        "_channel",
        "_closed",
        "_connection",
        "_ending",
        "_events",
        "_limit",
        "_member",
        "_payload",
        "_publish",
        "_raw",
        "_reactor",
        "_request",
        "_resuming",
    )

    def __init__(
        self,
        request: Request,
        reactor: IReactorTime,
        publish: Callable[[Publication], Receipt | Deferred[Receipt]],
        raw: bool,
        max_message: int,
    ) -> None:
        self._request = request
        self._channel = request.channel
        self._reactor = reactor
        self._publish = publish
        self._raw = raw
        self._limit = max_message
        if not raw:
            self._limit = ENVELOPE_FACTOR * max_message + ENVELOPE_BYTES
        self._member: Member | None = None
        # Most clients never send: made with the first byte.
        self._connection: Connection | None = None
        self._events: Iterator[events.Event] = iter(())
        self._payload = bytearray()
        self._closed = False
        # Reading is paused until then.
        self._resuming: IDelayedCall | None = None
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
        self._request.begin_stream(self._received)

    def joined(self, member: Member) -> None:
        """
        This is the subscriber that it is.
        """
        self._member = member
        self._request.notifyFinish().addBoth(self._gone)

    def close(self, code: int, reason: str, seconds: float = LINGER_SECONDS) -> None:
        """
        Close the connection: once the client has answered, or after so many seconds.
        """
        if self._say_last(close(code, reason)):
            self._ending = self._reactor.callLater(seconds, self._channel.loseConnection)

    def _say_last(self, farewell: bytes) -> bool:
        """
        Send a close frame, and nothing behind it; False if one was sent already.
        """
        if self._closed or self._member is None:
            return False
        self._closed = True
        self._member.dismiss(farewell)
        self._request.unregisterProducer()  # type: ignore[no-untyped-call]  # Twisted
        return True

    def _gone(self, _: object) -> None:
        self._member = None
        for call in (self._resuming, self._ending):
            if call is not None and call.active():
                call.cancel()

    def _received(self, data: bytes) -> None:
        if self._connection is None:
            self._connection = Connection(ConnectionType.SERVER)
        self._connection.receive_data(data)
        # TLS may have more than it was read for.
        if self._resuming is None:
            self._events = self._connection.events()
            self._work()

    def _work(self) -> None:
        """
        Take some of what has come; and read no more before all of it is taken.
        """
        transport = self._channel.transport
        for _ in range(EVENTS_A_TURN):
            if self._unread():
                break
            event = next(self._events, None)
            if event is None:
                if self._resuming is not None:
                    self._resuming = None
                    transport.resumeProducing()
                return
            self._take(event)
        if self._resuming is None:
            transport.pauseProducing()
        pause = PAUSE_SECONDS if self._unread() else 0
        self._resuming = self._reactor.callLater(pause, self._work)

    def _unread(self) -> bool:
        """
        Does so much wait for the client that it is to read first?
        """
        return self._member is not None and len(self._member.aside) > ANSWER_BYTES

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.Ping):
            self._tell(frame(Opcode.PONG, bytes(event.payload)))
        elif isinstance(event, events.CloseConnection):
            if self._connection and self._connection.state is ConnectionState.OPEN:
                # It was no close frame, but what wsproto has against the others.
                self.close(event.code, event.reason or "", FAIL_SECONDS)
                return
            unsaid = event.code == CloseReason.NO_STATUS_RCVD
            self._say_last(frame(Opcode.CLOSE, b"") if unsaid else close(event.code, ""))
            self._channel.loseConnection()
        elif isinstance(event, events.Message) and not self._closed:
            data = event.data
            self._payload += data.encode("utf-8") if isinstance(data, str) else data
            if len(self._payload) > self._limit:
                self._refuse_size()
            elif event.message_finished:
                payload, self._payload = bytes(self._payload), bytearray()
                self._post(payload, isinstance(event, events.TextMessage))

    def _post(self, payload: bytes, is_text: bool) -> None:
        ack = None
        try:
            if self._raw:
                wish = Publication(RAW_TEXT if is_text else RAW_BINARY, payload)
            else:
                wish = parse_publication(payload)
            ack = wish.ack
            published = self._publish(wish)
        except REFUSALS as error:
            self._refuse(error, error.ack if isinstance(error, InvalidPublication) else ack)
            return
        if ack is not None:
            when_published(published, partial(self._acknowledge, ack))

    def _acknowledge(self, ack: str | int, receipt: Receipt) -> None:
        told = {"ack": ack, "id": receipt.id, "subscribers": receipt.subscribers}
        self._tell(frame(Opcode.TEXT, line(told)))

    def _refuse(self, error: Exception, ack: str | int | None) -> None:
        status = status_of(error)
        if self._raw:
            # There is no frame that it could not take for a message.
            self.close(_CODES.get(status, CloseReason.POLICY_VIOLATION), str(error))
            return
        told: dict[str, object] = {"error": str(error), "status": status}
        if ack is not None:
            told["ack"] = ack
        self._tell(frame(Opcode.TEXT, line(told)))

    def _refuse_size(self) -> None:
        self.close(CloseReason.MESSAGE_TOO_BIG, f"A frame has at most {self._limit} bytes.")

    def _tell(self, data: bytes) -> None:
        if self._member is not None:
            self._member.tell(data)
