"""
One connection, with limits on what strangers may send.

Twisted's own channel gives no answer to a header line that is too long.  And once 16 KiB
have come after a request that is still being answered, it stops reading, and so does not
notice any more that the peer has gone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.python.failure import Failure
from twisted.web import http
from zope.interface import implementer

from ..access.addresses import TrustedProxies
from ..access.certificates import ClientCertificate
from .connections import Connections
from .heads import Heads
from .journal import Attempt, Journal
from .peer import Peer
from .repeater import Repeater
from .responses import Refusal
from .streamed_body import StreamedBody

__all__ = ["REQUEST_BYTES_A_SECOND", "Answering", "Channel", "Refused", "too_large"]

# For how long, and how much, a client that is refused while it still sends may go on
# sending.  If the connection were closed at once, a client that writes everything before it
# reads would see a reset instead of the answer.
LINGER_SECONDS = 2
LINGER_BYTES = 8 * 1024 * 1024

# When whoever finds too many connections may try again.
_LATER = ((b"Retry-After", b"10"),)

# How many bytes a subscriber may send after its request; they are discarded.
STREAM_INPUT_BYTES = 16 * 1024

# How long a peer may take to agree to the end of the connection, as TLS requires, and then
# to read what Twisted still holds for it.
CLOSE_SECONDS = 60
CUT_SECONDS = 240

# A request that is not taken while it comes has so many seconds, and one more for each so
# many bytes that have come.  So one that comes at this rate or faster is never cut, and one
# that dribbles ends, even if it is never silent for long enough to time out.
REQUEST_SECONDS = 60
REQUEST_BYTES_A_SECOND = 1024

# When the server stops, a new connection has so long for its first request.  The client is
# about to send it, and would get no answer if the connection were closed at once.
FIRST_REQUEST_SECONDS = 1

# More digits than any limit, and fewer than Python refuses to read.
_MAX_LENGTH_DIGITS = 30


class Refused(Refusal):
    """
    The request that is being read gets this answer, and the connection is closed.

    Args:
        phrase: The reason phrase of the status code.
    """

    def __init__(self, code: int, phrase: bytes, sentence: str, reason: str = "") -> None:
        super().__init__(code, sentence, reason=reason)
        self.phrase = phrase


def too_large(limit: int) -> Refused:
    """
    The refusal of a body with more bytes than this.
    """
    return Refused(
        413,
        b"Content Too Large",
        f"A message has at most {limit} bytes here; publish less, or have the"
        " operator raise --max-message.",
    )


class Answering(Protocol):
    """
    Something that is being answered on a connection: a request of Twisted's, or an object
    that has taken its place in `Channel.requests`.
    """

    def announce_close(self) -> None:
        """
        Tell the client, by `Connection: close`, that the connection is closed after the
        answer, unless the head of the answer has been written already.
        """

    def connectionLost(self, reason: Failure) -> None:
        """
        The client has gone.
        """


class AccessLog(Protocol):
    """
    The access log, as far as connections and requests know it; see `access_log.AccessLog`.
    """

    def answered(self, request: Any) -> None: ...

    def refused(self, peer: Peer, status: int, sent: int) -> None: ...


class _Site(Protocol):
    """
    The site, as far as a connection knows it; see `site.Site`.
    """

    max_body: int
    timeOut: int | float | None
    draining: bool
    heads: Heads[Any]
    proxies: TrustedProxies
    connections: Connections
    journal: Journal
    access_log: AccessLog | None
    channels: set[Channel]
    streams: set[Channel]

    def seconds(self) -> float: ...

    def suspects(self, peer: Peer) -> bool: ...

    def lost(self, channel: Channel) -> None: ...


@implementer(IHandshakeListener)
class Channel(http.HTTPChannel):
    """
    One connection.

    Attributes:
        requests: The request that is being read or answered, or what has taken its place.
        repeater: Answers the requests whose heads are remembered.
        waits: Whether its request waits for a message, perhaps for minutes; see `poll`.
        ended: Whether no more requests are read.
    """

    site: _Site
    transport: Any  # TCP, TLS, UNIX or a wrapper: no one interface of Twisted's
    requests: list[Any]  # of Twisted's, or what stands for them
    paused: bool

    repeater: Repeater

    # How many more bytes are discarded before the connection is cut; None as long as bytes
    # are read as requests.
    _discardable: int | None = None
    waits = False

    # Has there been a request yet?
    _used = False
    # Takes the bytes that come after the request that is being answered, if they are not
    # to be discarded.
    _receive: Callable[[bytes], None] | None = None
    ended = False
    # The body that is being read, if it is taken while it comes, and whether the connection
    # may stay open after its request.
    _body: StreamedBody | None = None
    _body_persistent: bool | int = False
    _closing: IDelayedCall | None = None
    # The other end.  A proxy may send the address of its client ahead of the first bytes,
    # by the PROXY protocol: until those come, it is the proxy.
    peer: Peer
    _peer_is_final = True
    # Has the handshake of TLS ended well?
    _is_secured = False
    # When the request that is being read began, and how many bytes of it have come.
    _began: float | None = None
    _come = 0
    # The peer for whose address the connection was counted; None if it was not counted.
    _counted: Peer | None = None

    def connectionMade(self) -> None:
        """
        A new connection.
        """
        super().connectionMade()  # type: ignore[no-untyped-call]  # Twisted
        self.repeater = Repeater(self.site.heads, self)
        self.site.channels.add(self)
        self.peer = Peer.at(self.transport.getPeer(), self.site.proxies)
        if not self.site.connections.open():
            self._refuse(
                Refused(
                    503,
                    b"Service Unavailable",
                    "The bus has as many connections as it may have; try again later.",
                    "connections",
                ),
                LINGER_SECONDS if self.site.connections.may_linger else 0,
            )
            return
        # What counts is the address of the client.  If its connection counted for the proxy
        # until then, whoever opens many and says nothing would lock out all others.
        self._peer_is_final = not isinstance(self.transport, HAProxyProtocolWrapper)
        if self._peer_is_final:
            self._count()

    def handshakeCompleted(self) -> None:
        """
        The handshake of TLS has ended well.
        """
        self._is_secured = True
        self.site.connections.handshakes["done"] += 1

    @cached_property
    def client_certificate(self) -> ClientCertificate | None:
        """
        The certificate that the client has shown, if it was asked for one.  It is known
        before the first bytes of a request come, and stays the same, because clients may
        not begin another handshake.
        """
        if not ISSLTransport.providedBy(self.transport):
            return None
        transport: Any = self.transport  # no interface has `getHandle`
        connection = transport.getHandle()
        certificate = connection.get_peer_certificate()
        if certificate is None:
            return None
        return ClientCertificate(certificate, connection.get_peer_cert_chain() or ())

    def dataReceived(self, data: bytes) -> None:
        """
        Read requests, until one is refused, or the connection ends.  Those whose heads are
        remembered are answered without parsing.
        """
        if not self._peer_is_final and not self.ended:
            self._peer_is_final = True
            if ISSLTransport.providedBy(self.transport):
                # Twisted tells only the wrapper between TLS and this connection.
                self.handshakeCompleted()
            self.peer = Peer.at(self.transport.getPeer(), self.site.proxies)
            self._count()
        if not self.ended and (
            self.repeater.missing
            or (self._is_between_requests() and not self.site.suspects(self.peer))
        ):
            rest = self.repeater.take(data)
            if rest is not data:
                self._used = True
                self.resetTimeout()  # type: ignore[no-untyped-call]  # Twisted
                if not rest:
                    if self.repeater.missing or self._began is not None:
                        self._check_pace_of_repeated(len(data))
                    return
            data = rest
        if self.ended:
            self._discard(data)
            return
        try:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted
            self._check_pace(len(data))
        except Refused as refusal:
            self._refuse(refusal)

    def _count(self) -> None:
        """
        Count the connection for its address; if it is one too many, refuse it.
        """
        counted = self.site.connections.open_from(self.peer)
        if counted:
            self._counted = self.peer
        elif counted is not None:
            self._refuse(
                Refused(
                    429,
                    b"Too Many Requests",
                    "Your address has as many connections as it may have; close one.",
                    "connections",
                )
            )

    def place(self) -> Hashable:
        """
        What requests are judged by, beside their heads: the local address of the
        connection, at which the bus was reached; whether a trusted proxy has sent the head;
        and the fingerprint of the client's certificate, which is empty if there is none.
        """
        certificate = self.client_certificate
        return (
            getattr(self.transport.getHost(), "host", ""),
            self.peer.is_trusted,
            b"" if certificate is None else certificate.fingerprint,
        )

    def _check_pace_of_repeated(self, size: int) -> None:
        try:
            self._check_pace(size)
        except Refused as refusal:
            self._refuse(refusal)

    def _check_pace(self, size: int) -> None:
        """
        Check that the request that is being read, if there is one, comes quickly enough.

        Args:
            size: How many bytes have just come.

        Raises:
            Refused: It dribbles.
        """
        begun = self.requests or self._buffer or self.repeater.missing
        if not begun or self._handlingRequest or self._body is not None or self.ended:
            self._began = None
            return
        now = self.site.seconds()
        if self._began is None:
            self._began, self._come = now, 0
        self._come += size
        if now > self._began + REQUEST_SECONDS + self._come / REQUEST_BYTES_A_SECOND:
            raise Refused(408, b"Request Timeout", "The request comes too slowly.")

    def _is_between_requests(self) -> bool:
        """
        Is the next byte the first byte of a request that may be answered at once?
        """
        return not (
            self.requests
            or self._buffer
            or self.paused
            or not self.persistent
            # It is 2 after an empty line before a request, and 0 within a head.
            or self._HTTPChannel__first_line != 1  # type: ignore[attr-defined]
        )

    def _parse_partial(self) -> None:
        """
        Have Twisted read what has come of a request that the repeater waits for, because
        the connection pauses or the server stops.  Then the request counts as begun, and is
        answered when the rest has come.
        """
        if self.repeater.missing and not self.ended:
            super().dataReceived(self.repeater.give_up())  # type: ignore[no-untyped-call]  # Twisted

    def begin_answer(self, request: Answering, persistent: bool) -> None:
        """
        Begin an answer of the repeater that ends later, and read no other request until
        then.

        Args:
            request: Takes the place of the request; the caller gives it to `requestDone`
                when the answer has ended.
            persistent: Whether the connection stays open after that.
        """
        # As Twisted does when it has read a request.
        self.requests.append(request)
        self.persistent = persistent
        self._savedTimeOut = self.setTimeout(None)  # type: ignore[no-untyped-call]  # Twisted
        self._handlingRequest = True
        self.setRawMode()  # type: ignore[no-untyped-call]  # Twisted

    def rawDataReceived(self, data: bytes) -> None:
        """
        Read a body, or what comes after a request that is being answered.
        """
        if self._receive is not None:
            self._receive(data)
        elif self._discardable is None:
            super().rawDataReceived(data)
            if self._body is not None:
                self._body.flush()
            # With more, Twisted stops reading, and does not notice that the peer has gone.
            if self.waits and sum(map(len, self._dataBuffer)) > STREAM_INPUT_BYTES:
                self.transport.abortConnection()
        else:
            self._discard(data)

    def pauseProducing(self) -> None:
        """
        Read no other request while answers wait for the peer to read them.
        """
        self._parse_partial()
        super().pauseProducing()  # type: ignore[no-untyped-call]  # Twisted
        # What comes after the request of a stream is read and discarded all the same.
        self.paused = self._discardable is None

    def resumeProducing(self) -> None:
        """
        Read requests again.
        """
        super().resumeProducing()  # type: ignore[no-untyped-call]  # Twisted
        if self.paused:
            self.paused = False
            self.dataReceived(b"")

    def headerReceived(self, line: bytes) -> bool:
        """
        Take a header line.  A `Content-Length` with more digits than Python converts to a
        number is refused as too large.
        """
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value) > _MAX_LENGTH_DIGITS:
            raise too_large(self.site.max_body)
        return bool(super().headerReceived(line))  # type: ignore[no-untyped-call]  # Twisted

    def lineLengthExceeded(self, line: bytes) -> None:
        """
        Refuse a request or header line of more than 16 KiB.
        """
        raise Refused(
            431,
            b"Request Header Fields Too Large",
            f"A request or header line has at most {self.MAX_LENGTH} bytes here.",
        )

    def loseConnection(self) -> None:
        """
        Close the connection once everything that was written has been sent; with TLS, the
        peer has to agree.  What the peer sends until then is discarded.  If it takes too
        long, the connection is cut.
        """
        self._end(CLOSE_SECONDS, self._close_below)
        super().loseConnection()  # type: ignore[no-untyped-call]  # Twisted

    def _close_below(self) -> None:
        # The peer has not agreed to the end of TLS, so the socket below is closed without.
        # It is not cut at once, because a slow peer may still be reading what the kernel
        # holds for it, and a reset would discard that.
        self._end(CUT_SECONDS, self.transport.abortConnection)
        below = self.transport
        while hasattr(below, "transport"):
            below = below.transport
        below.loseConnection()

    def timeoutConnection(self) -> None:
        """
        Close an idle connection, without the line that Twisted logs for each.
        """
        if self._body is None or self._body.receiver is None:
            self.loseConnection()
        elif self._body.receiver.stalled():
            self.setTimeout(self.timeOut)  # type: ignore[no-untyped-call]  # Twisted

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection has ended.
        """
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted
        if isinstance(reason.value, SSL.Error):
            refusal = Refusal(400, _reasons(reason.value), reason="tls")
            self.site.journal.refuses(Attempt(self.peer, way="tls"), refusal)
        if not self._is_secured and ISSLTransport.providedBy(self.transport):
            self.site.connections.handshakes["failed"] += 1
        self.site.connections.close()
        if self._counted is not None:
            self.site.connections.close_from(self._counted)
        self.site.lost(self)

    def begin_body(self, body: StreamedBody) -> None:
        """
        Begin to read a body that is taken while it comes.  If its request is answered
        before its end, no other request can follow.
        """
        self._body = body
        self._body_persistent, self.persistent = self.persistent, False

    def allContentReceived(self) -> None:
        """
        Take the end of a request.
        """
        if self._body is not None:
            if self.ended:
                # What comes behind the body is discarded, and not read as lines.
                self.setRawMode()  # type: ignore[no-untyped-call]  # Twisted
                return
            self._body = None
            self.persistent = self._body_persistent and not self.site.draining
            self.setTimeout(self.site.timeOut)  # type: ignore[no-untyped-call]  # Twisted
        # Another one may have begun already, in the same bytes.
        self._began = None
        super().allContentReceived()  # type: ignore[no-untyped-call]  # Twisted

    def requestDone(self, request: Any) -> None:
        """
        Go on after an answer.  If the body of its request is still coming, the client has
        some time to read the answer.
        """
        if self._body is None:
            super().requestDone(request)  # type: ignore[no-untyped-call]  # Twisted
            return
        self.requests.remove(request)
        self._end(LINGER_SECONDS, self.loseConnection)
        self.transport.resumeProducing()

    def _send100Continue(self) -> None:
        # A body that is taken while it comes is accepted by what takes it.
        if self._body is None and not self.ended:
            super()._send100Continue()  # type: ignore[no-untyped-call]  # Twisted

    def begin_stream(self, receive: Callable[[bytes], None] | None = None) -> None:
        """
        Read no further request, because the answer that has begun has no end.  What the
        client sends is discarded; if it is more than 16 KiB, the connection is cut.  It is
        read all the same, because only so we notice that the peer has gone.

        Args:
            receive: Takes what the client sends, if it is not to be discarded.
        """
        self._receive = receive
        self._discardable = STREAM_INPUT_BYTES
        # Requests may be among what is discarded.
        self.persistent = False
        self.site.streams.add(self)
        if receive is None:
            # Twisted has kept what came together with a body, to read it as a request.
            behind, self._dataBuffer = self._dataBuffer, []
            self._discard(b"".join(behind))

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """
        Does the connection stay open after this request?
        """
        self._used = True
        if self.site.draining:
            request.announce_close()
            return False
        return bool(super().checkPersistence(request, version))  # type: ignore[no-untyped-call]  # Twisted

    def drain(self) -> None:
        """
        Close the connection once its request, if it has one, is answered.
        """
        if self.ended:
            # It will be closed; not at once, if the peer has to read an answer first.
            return
        self._parse_partial()
        if not self._used:
            # `checkPersistence` has the connection closed after its first request.
            self.setTimeout(FIRST_REQUEST_SECONDS)  # type: ignore[no-untyped-call]  # Twisted
            return
        self.persistent = False
        if not self.requests:
            self.loseConnection()
        for request in self.requests:
            request.announce_close()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted's method closes the connection at once, and goes on reading requests.
        if self._body is not None:
            raise Refused(400, b"Bad Request", "The chunks of the body are malformed.")
        raise Refused(400, b"Bad Request", "This is no HTTP/1.0 or 1.1 request.")

    def _refuse(self, refusal: Refused, seconds: float = LINGER_SECONDS) -> None:
        if self._body is not None:
            # The request is answered already, or by whoever takes its body.
            self.ended, self._discardable = True, LINGER_BYTES
            self._body.fail(refusal.code, str(refusal))
            return
        self.site.journal.refuses(Attempt(self.peer), refusal)
        body = f"{refusal}\n".encode()
        self.writeHeaders(  # type: ignore[no-untyped-call]  # Twisted
            b"HTTP/1.1",
            b"%d" % refusal.code,
            refusal.phrase,
            [
                (b"Date", http.datetimeToString()),
                (b"Content-Type", b"text/plain; charset=utf-8"),
                (b"Content-Length", b"%d" % len(body)),
                (b"X-Content-Type-Options", b"nosniff"),
                (b"Connection", b"close"),
                *(_LATER if refusal.reason == "connections" else ()),
            ],
        )
        self.write(body)  # type: ignore[no-untyped-call]  # Twisted
        if self.site.access_log is not None:
            self.site.access_log.refused(self.peer, refusal.code, len(body))
        if seconds:
            self._end(seconds, self.loseConnection)
        else:
            self.loseConnection()

    def _end(self, seconds: float, close: Callable[[], None]) -> None:
        """
        Read no more requests, and close the connection in so many seconds.
        """
        self.ended = True
        self._discardable = LINGER_BYTES
        self.setTimeout(None)  # type: ignore[no-untyped-call]  # Twisted
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._closing = self.callLater(seconds, close)  # type: ignore[no-untyped-call]  # Twisted

    def _discard(self, data: bytes) -> None:
        self._discardable = (self._discardable or 0) - len(data)
        if self._discardable < 0:
            self.transport.abortConnection()


def _reasons(error: SSL.Error) -> str:
    """
    Why TLS has failed.  Most errors hold a list of tuples, each with a reason at its end.
    """
    found = error.args[0] if error.args else None
    if not isinstance(found, list):
        return str(error)
    return "; ".join(str(each[-1]) for each in found)
