"""
The Site and Request that enforce our limits on what strangers send.

Twisted's own collect a body of any size, on disk if need be, answer a long
header line with silence, and stop reading, and so noticing that the peer has
gone, once 16 KiB came behind a request that is still being answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource

from ..fanout.outlet import write_at_once
from .heads import MAX_HEAD, Head, Heads, Known, Meaning

__all__ = ["Answering", "Channel", "Request", "Site"]

# How long, and how much, a client that is refused while it still sends may go
# on: one that writes before it reads would see a reset instead of the answer.
LINGER_SECONDS = 2
LINGER_BYTES = 8 * 1024 * 1024

# What a subscriber may send behind its request, for nothing.
STREAM_INPUT_BYTES = 16 * 1024

# How long a peer may take to agree to the end of the connection, as over TLS it
# must, and then to read what Twisted still holds for it.
CLOSE_SECONDS = 60
CUT_SECONDS = 240

# How long a new connection has for its first request when the server stops: who has
# connected sends it, and would be told nothing.
FIRST_REQUEST_SECONDS = 1

# More digits than any limit, and fewer than Python refuses to read.
_MAX_LENGTH_DIGITS = 30

_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)


_NO_HEADERS = Headers()


class _Refused(Exception):
    """
    The request that is being read gets this answer, and the connection ends.
    """

    def __init__(self, code: int, reason: bytes, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.reason = reason


def _too_large(limit: int) -> _Refused:
    return _Refused(
        413,
        b"Content Too Large",
        f"A message has at most {limit} bytes here; publish less, or have the"
        " operator raise --max-message.",
    )


class Channel(http.HTTPChannel):
    """
    One connection.
    """

    site: Site
    transport: Any  # TCP, TLS, UNIX or a wrapper: no one interface of Twisted's

    # How many more bytes are discarded, once none are read as requests.
    _discardable: int | None = None
    # Does its request wait, for minutes maybe?
    waits = False

    # Has there been a request yet?
    _used = False
    # Takes what comes behind it instead.
    _receive: Callable[[bytes], None] | None = None
    _ended = False
    _closing: IDelayedCall | None = None

    # The head of the request that is read next, if it was whole.
    head: Head | None = None
    # By what of this connection requests are judged: where it has arrived.
    place: str | None = None
    # A request whose head is remembered and whose body is not yet there, and how many bytes
    # of it are missing.
    _partial: list[bytes]
    _missing = 0
    # Answers that are sent together.
    _answers: list[bytes]
    # The last request that was repeated: the next one is likely to be the same.
    _known: Known[Channel] | None = None

    def connectionMade(self) -> None:
        """
        A new connection.
        """
        super().connectionMade()  # type: ignore[no-untyped-call]  # Twisted
        self._partial = []
        self._answers = []
        self.site.channels.add(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Read requests, until one is refused, or the connection ends.
        """
        if self._missing:
            self._partial.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                self.resetTimeout()  # type: ignore[no-untyped-call]  # Twisted
                return
            data = self._take_partial()
        if self._is_between_requests():
            data = self._repeat(data)
            if not data:
                return
        if self._ended:
            self._discard(data)
            return
        try:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted
        except _Refused as refusal:
            self._refuse(refusal)

    def _is_between_requests(self) -> bool:
        """
        Is the next byte the first of a request, which may be answered at once?
        """
        return not (
            self.requests
            or self._buffer
            or self.paused
            or self._ended
            or not self.persistent
            # An empty line before a request may be ignored once.
            or self._HTTPChannel__first_line != 1  # type: ignore[attr-defined]
        )

    def _repeat(self, data: bytes) -> bytes:
        """
        Answer requests whose heads are remembered.

        Returns:
            The bytes behind them, for Twisted to parse.
        """
        if self.place is None:
            # Not before there is data: a proxy may tell it first.
            self.place = getattr(self.transport.getHost(), "host", "")
        heads = self.site.heads
        begin, size = 0, len(data)
        while begin < size:
            known = self._known
            if (
                known is None
                or known.version != heads.version
                or not data.startswith(known.raw, begin)
            ):
                known = self._known = self._find(data, begin)
                if known is None:
                    break
            body = begin + len(known.raw)
            end = body + known.length
            if end > size:
                self._partial.append(data[begin:])
                self._missing = end - size
                begin = size
                break
            if not known.meaning.repeat(known.head, data[body:end], self):
                self.head = known.head
                break
            begin = end
            self._used = True
            if self.requests or self.paused or self._ended:
                break
        if self._answers:
            self.flush()
        self.resetTimeout()  # type: ignore[no-untyped-call]  # Twisted
        return data[begin:] if begin < size else b""

    def _find(self, data: bytes, begin: int) -> Known[Channel] | None:
        """
        What is known of the head that begins here, and whose request may be repeated.
        """
        end = data.find(b"\r\n\r\n", begin, begin + MAX_HEAD) + 4
        self.head = Head.split(data[begin:end]) if end >= 4 else None
        if self.head is None:
            return None
        length = int(self.head.length or b"0")
        if length > self.site.max_body:
            return None
        heads = self.site.heads
        meaning = heads.find(self.place, self.head)
        if meaning is None:
            return None
        return Known(data[begin:end], self.head, length, meaning, heads.version)

    def _take_partial(self) -> bytes:
        data = b"".join(self._partial)
        self._partial.clear()
        self._missing = 0
        return data

    def send(self, data: bytes) -> None:
        """
        Send bytes of an answer, together with those of others that came at once.
        """
        self._answers.append(data)

    def flush(self) -> bool:
        """
        Send these answers.

        Returns:
            Whether nothing waits in the transport.
        """
        answers, self._answers = self._answers, []
        data = answers[0] if len(answers) == 1 else b"".join(answers)
        return write_at_once(self.transport, data)

    def begin_answer(self, request: Answering, persistent: bool) -> None:
        """
        A request that was repeated is going to be answered later; no other is read until
        then.

        Args:
            request: Stands for it, and is to be given to `requestDone`.
            persistent: Whether the connection is kept then.
        """
        self._known = None
        # As Twisted does when it has read a request.
        self.requests.append(request)
        self.persistent = persistent
        self._savedTimeOut = self.setTimeout(None)  # type: ignore[no-untyped-call]  # Twisted
        self._handlingRequest = True
        self.setRawMode()  # type: ignore[no-untyped-call]  # Twisted

    def rawDataReceived(self, data: bytes) -> None:
        """
        Read a body, or what comes behind a request that is being answered.
        """
        if self._receive is not None:
            self._receive(data)
        elif self._discardable is None:
            super().rawDataReceived(data)
            # Past that Twisted reads no more, and does not notice that the peer has gone.
            if self.waits and sum(map(len, self._dataBuffer)) > STREAM_INPUT_BYTES:
                self.transport.abortConnection()
        else:
            self._discard(data)

    def pauseProducing(self) -> None:
        """
        Begin no other request while answers wait for the peer.
        """
        super().pauseProducing()  # type: ignore[no-untyped-call]  # Twisted
        # What comes behind a stream is read all the same.
        self.paused = self._discardable is None

    def resumeProducing(self) -> None:
        """
        Go on.
        """
        super().resumeProducing()  # type: ignore[no-untyped-call]  # Twisted
        if self.paused:
            self.paused = False
            self.dataReceived(b"")

    def headerReceived(self, line: bytes) -> bool:
        """
        Take a header line, unless Python would refuse to read its number.
        """
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value) > _MAX_LENGTH_DIGITS:
            raise _too_large(self.site.max_body)
        return bool(super().headerReceived(line))  # type: ignore[no-untyped-call]  # Twisted

    def lineLengthExceeded(self, line: bytes) -> None:
        """
        Refuse a request or header line of more than 16 KiB.
        """
        raise _Refused(
            431,
            b"Request Header Fields Too Large",
            f"A request or header line has at most {self.MAX_LENGTH} bytes here.",
        )

    def loseConnection(self) -> None:
        """
        Close the connection once what was written has gone out; over TLS
        that takes the peer's consent.  What it sends until then is discarded,
        and in the end the connection is cut.
        """
        self._end(CLOSE_SECONDS, self._close_below)
        super().loseConnection()  # type: ignore[no-untyped-call]  # Twisted

    def _close_below(self) -> None:
        # Not cut at once: a slow peer may still be reading what the kernel
        # holds for it, and a reset would take that away.
        self._end(CUT_SECONDS, self.transport.abortConnection)
        below = self.transport
        while hasattr(below, "transport"):
            below = below.transport
        below.loseConnection()

    def timeoutConnection(self) -> None:
        """
        Close an idle connection, without the line that Twisted logs for each.
        """
        self.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is gone.
        """
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted
        self.site.lost(self)

    def begin_stream(self, receive: Callable[[bytes], None] | None = None) -> None:
        """
        Discard what comes behind the request that is being answered, because
        its answer has no end; close the connection if it is more than a bit.
        Reading on is how we notice that the peer has gone.

        Args:
            receive: Takes it instead, if it is not to be discarded.
        """
        self._receive = receive
        self._discardable = STREAM_INPUT_BYTES
        self.site.streams.add(self)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """
        May the connection have another request?
        """
        self._used = True
        if self.site.draining:
            request.say_last()
            return False
        return bool(super().checkPersistence(request, version))  # type: ignore[no-untyped-call]  # Twisted

    def drain(self) -> None:
        """
        Close the connection once its request, if it has one, is answered.
        """
        if self._missing:
            # Nothing is remembered any more, so Twisted has to read it.
            self.dataReceived(self._take_partial())
        if not self._used:
            # Whether it has another is decided once this one has come.
            self.setTimeout(FIRST_REQUEST_SECONDS)  # type: ignore[no-untyped-call]  # Twisted
            return
        self.persistent = False
        if not self.requests:
            self.loseConnection()
        for request in self.requests:
            request.say_last()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted's own closes at once, and reads on as if nothing were.
        raise _Refused(400, b"Bad Request", "This is no HTTP/1.0 or 1.1 request.")

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
        self._end(LINGER_SECONDS, self.loseConnection)

    def _end(self, seconds: float, close: Callable[[], None]) -> None:
        """
        Read no more requests, and close the connection in so many seconds.
        """
        self._ended = True
        self._discardable = LINGER_BYTES
        self.setTimeout(None)  # type: ignore[no-untyped-call]  # Twisted
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._closing = self.callLater(seconds, close)  # type: ignore[no-untyped-call]  # Twisted

    def _discard(self, data: bytes) -> None:
        self._discardable = (self._discardable or 0) - len(data)
        if self._discardable < 0:
            self.transport.abortConnection()


class Answering(Protocol):
    """
    What is being answered on a connection.
    """

    def say_last(self) -> None:
        """
        Tell the client that the connection is closed behind the answer, if that has not
        begun.
        """

    def connectionLost(self, reason: Failure) -> None:
        """
        The client has gone.
        """


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
        self.head, self.channel.head = self.channel.head, None
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

    def remember(self, meaning: Meaning[Channel]) -> None:
        """
        Remember what its head means, if it may be.
        """
        head = self.head
        if head is None or not self.repeatable or self.requestHeaders.hasHeader(b"Expect"):
            return
        if head.is_of(self):
            self.channel.site.heads.remember(self.channel.place, head, meaning)

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
            raise _too_large(self.channel.site.max_body)


class Site(server.Site):
    """
    Serves a resource over HTTP/1.0 and 1.1, within limits.

    Args:
        resource: The root of the tree.
        max_body: Bytes of the largest request body; answered with 413 above.
        reactor: Where the time-outs of connections run.

    Attributes:
        max_body: As given.
        draining: Whether each connection is closed once its request is answered.
        channels: All connections.
        streams: Those of them whose answers have no end.
        heads: What is remembered of requests; to be forgotten whenever something changes by
            which requests are judged.
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
        self.draining = False
        self.channels: set[Channel] = set()
        self.streams: set[Channel] = set()
        self.heads: Heads[Channel] = Heads()
        self._awaited: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def drain(self) -> Deferred[None]:
        """
        Close every connection once its request is answered, and idle ones at
        once, or, if they are new, soon.

        Returns:
            A Deferred that fires when only streams are left, whose answers
            have no end.
        """
        self.draining = True
        self.heads.close()
        for channel in tuple(self.channels):
            channel.drain()
        return self._when(lambda: len(self.channels) == len(self.streams))

    def closed(self) -> Deferred[None]:
        """
        A Deferred that fires when no connection is left.
        """
        return self._when(lambda: not self.channels)

    def abort(self) -> None:
        """
        Cut every connection.
        """
        for channel in tuple(self.channels):
            channel.transport.abortConnection()

    def lost(self, channel: Channel) -> None:
        """
        A connection has ended.
        """
        self.channels.discard(channel)
        self.streams.discard(channel)
        self._look()

    def _when(self, condition: Callable[[], bool]) -> Deferred[None]:
        awaited: Deferred[None] = Deferred()
        self._awaited.append((condition, awaited))
        self._look()
        return awaited

    def _look(self) -> None:
        for condition, awaited in tuple(self._awaited):
            if condition():
                self._awaited.remove((condition, awaited))
                awaited.callback(None)

    def acceptableProtocols(self) -> list[bytes]:
        """
        No HTTP/2 over TLS: streams over it are not proven.
        """
        return [b"http/1.1", b"http/1.0"]

    def log(self, request: Any) -> None:
        """
        Keep no access log: queries may tell more than their senders want.
        """
