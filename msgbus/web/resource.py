"""
The resource that publishes and subscribes over HTTP.

What a request may contain, and means, is decided in `target`, `origin` and
`auth`; who gets a message, in `bus`; how it gets there, in `fanout`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.util import DeferredResource
from wsproto.frame_protocol import CloseReason

from ..bus.bus import Bus, Stopping
from ..bus.history import Cursor
from ..fanout.backlog import SLICE_BYTES, Overflow
from ..fanout.fanout import Fanout, Limits
from ..fanout.group import Member
from ..fanout.outlet import BufferedOutlet, Outlet, outlet_for
from ..formats.envelope import Posted
from ..formats.framing import Chunked, Framing
from ..formats.multipart import gap_value, location
from ..formats.table import FORMATS, Asked
from ..formats.websocket_frames import Frames
from ..ids import format_id
from ..message import Invalid, Message, Receipt
from .auth import login, sender_of
from .documents import Document
from .origins import Origins
from .pages import MODULES, live_page, module
from .poll import Body, Poll
from .query import MESSAGE, PAGE, Wanted, channel_name, required, subscription
from .responses import REFUSALS, Refusal, answer, check_host, header, shield, status_of
from .site import Request, Site
from .websocket import WebSocket, accept_token, wants_websocket

__all__ = ["BusResource", "Root", "Request", "Site"]

_STOPPING = "The bus is stopping; try again in a moment."

_METHODS = b"GET, HEAD, POST, PUT, OPTIONS"

_PREFLIGHT = (
    (b"Access-Control-Allow-Methods", _METHODS),
    (
        b"Access-Control-Allow-Headers",
        b"Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match,"
        b" Last-Event-ID",
    ),
    (b"Access-Control-Max-Age", b"600"),
)

# The destinations of requests (Fetch standard, section 2.2.5) for what acts as the page.
_CODE = {
    "audioworklet",
    "paintworklet",
    "script",
    "serviceworker",
    "sharedworker",
    "style",
    "worker",
    "xslt",
}


class BusResource(Resource):
    """
    A bus over HTTP: `POST` and `PUT` publish, `GET` subscribes, and the rest
    of the path names the channel or folder.

    In a `Site` of this module all limits hold.  In any other it works, but
    what arrives before it is asked is that site's business.

    Args:
        bus: What to publish to and subscribe at.
        reactor: Where fan-out runs.
        prefix: The path at which the resource is mounted, percent-encoded,
            with a slash at both ends; it is told in `Content-Location`.
        origins: Which web pages may use it.
        verbosity: 1 logs subscriptions, 2 publications too.
        limits: Of what waits for subscribers that do not read.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        bus: Bus,
        reactor: IReactorTime,
        *,
        prefix: str = "/msgbus/",
        origins: Origins | None = None,
        verbosity: int = 0,
        limits: Limits | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._bus = bus
        self._prefix = prefix
        self._origins = origins or Origins()
        self._verbosity = verbosity
        self._fanout = Fanout(bus, reactor, limits)
        self._reactor = reactor
        self._closed = False
        self._may_wait = True
        self._polls: dict[Poll, server.Request] = {}

    def close(self) -> None:
        """
        End all streams, each with what its subscriber is owed, and answer what still looks
        for a message, and what comes later, with 503.
        """
        self._closed = True
        self._fanout.end()
        for poll, request in tuple(self._polls.items()):
            poll.stop()
            answer(request, 503, _STOPPING)

    def stop_waiting(self) -> None:
        """
        Answer those who wait for a message, and let nobody wait any more.
        """
        self._may_wait = False
        for poll in tuple(self._polls):
            poll.hurry()

    def render(self, request: server.Request) -> int:
        """
        Answer one request.
        """
        try:
            shield(request, self._origins)
            check_host(request, self._origins)
            if self._closed:
                raise Stopping(_STOPPING)
            return self._render_method(request)
        except Refusal as refusal:
            return refusal.answer(request)
        except REFUSALS as error:
            return answer(request, status_of(error), str(error))

    def _render_method(self, request: server.Request) -> int:
        if request.method == b"OPTIONS":
            return self._options(request)
        if not request.postpath:
            return self._redirect(request)
        if request.method in (b"GET", b"HEAD"):
            path = _path_below(request)
            if path.startswith(MODULES):
                return module(request, path)
            return self._subscribe(request, path)
        if request.method in (b"POST", b"PUT"):
            return self._publish(request)
        raise Refusal(
            405,
            "A channel takes POST or PUT to publish and GET to subscribe.",
            [(b"Allow", _METHODS)],
        )

    def _subscribe(self, request: server.Request, path: bytes) -> int:
        name = channel_name(path)
        wanted = subscription(
            request.uri.partition(b"?")[2],
            header(request, b"Accept", many=True),
            header(request, b"Last-Event-ID"),
        )
        if wants_websocket(request):
            return self._upgrade(request, name, wanted)
        # A proxy may have put the bus elsewhere, but messages tell their location here.
        request.setHeader(b"Msgbus-Prefix", self._prefix.encode("ascii"))
        if wanted.format == PAGE:
            return live_page(request, path)
        if wanted.format == MESSAGE:
            return self._poll(request, name, wanted)
        form = FORMATS[wanted.format]
        framing = form.framing(Asked(self._bus.boundary, self._prefix, wanted.envelope))
        content_type = form.media_type + framing.parameters
        request.setHeader(b"Content-Type", content_type.encode("ascii"))
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Accel-Buffering", b"no")
        cursor, begins = self._begin(name, wanted)
        if begins is not None:
            request.setHeader(b"Msgbus-Id", begins.encode("ascii"))
        if request.method == b"HEAD":
            if cursor is not None:
                cursor.close()
            request.finish()
            return NOT_DONE_YET

        # The head goes out with the opening, in this turn; what is published from now
        # on, at the end of it or later.
        request.write(framing.opening(begins))
        if isinstance(request, Request):
            request.begin_stream()
            if request.chunked:
                framing = Chunked(framing)
        outlet = self._outlet(request, wanted.overflow is Overflow.LATEST)
        finish = partial(_finish, request)
        self._join(request, name, wanted, framing, outlet, finish, cursor)
        return NOT_DONE_YET

    def _poll(self, request: server.Request, name: str, wanted: Wanted) -> int:
        """
        Answer with one message, as itself.
        """
        if header(request, b"Sec-Fetch-Dest") in _CODE:
            raise Refusal(403, "A message is no script and no style sheet of a page.")
        tags = header(request, b"If-None-Match", many=True) or ""

        def respond(message: Message | None) -> None:
            gone(None)
            if poll.gap is not None:
                request.setHeader(b"Msgbus-Gap", gap_value(poll.gap.count))
            # Where none was found, all up to the newest has been looked at, in this turn.
            id = format_id(self._bus.newest) if message is None else message.id
            request.setHeader(b"Msgbus-Id", id.encode("ascii"))
            if message is None:
                request.setHeader(b"Cache-Control", b"no-store")
                answer(request, 204)
                return
            request.setHeader(b"Cache-Control", b"no-cache")
            request.responseHeaders.addRawHeader(b"Vary", b"Sec-Fetch-Dest")
            path = location(self._prefix, message.channel)
            request.setHeader(b"Content-Location", path.encode("ascii"))
            if message.sender:
                request.setHeader(b"From", message.sender.encode("utf-8"))
            request.setHeader(b"ETag", b'"%s"' % id.encode("ascii"))
            # RFC 9110, section 13.1.2: any of a list, weak ones too.
            if tags.strip() == "*" or f'"{id}"' in tags:
                request.setResponseCode(http.NOT_MODIFIED)
                request.finish()
                return
            request.setHeader(b"Content-Type", message.content_type.encode("utf-8"))
            request.setHeader(b"Content-Length", b"%d" % len(message.body))
            # So much may wait in the transport of any connection.
            if request.method == b"HEAD" or len(message.body) <= SLICE_BYTES:
                request.write(message.body)
                request.finish()
            else:
                self._answer(request, message)

        poll = Poll(
            self._bus,
            self._reactor,
            name,
            wanted.filter,
            wanted.since,
            wanted.wait if self._may_wait else 0,
            self._fanout.in_turn,
            respond,
        )
        self._polls[poll] = request
        # A request that has lost its connection has none.
        channel = request.channel if isinstance(request, Request) else None
        if channel is not None:
            channel.waits = True

        def gone(_: object) -> None:
            poll.stop()
            self._polls.pop(poll, None)
            if channel is not None:
                channel.waits = False

        request.notifyFinish().addErrback(gone)
        poll.look()
        return NOT_DONE_YET

    def _answer(self, request: server.Request, message: Message) -> None:
        """
        Answer with a body that may have to wait for its reader.
        """
        request.write(b"")
        outlet = self._outlet(request, latest=False)
        finish = partial(_finish, request)
        member = self._fanout.answer(message, Body(), outlet, finish)
        request.registerProducer(member, True)
        request.notifyFinish().addBoth(lambda _: member.stopProducing())

    def _upgrade(self, request: server.Request, name: str, wanted: Wanted) -> int:
        """
        Answer with a WebSocket, whose client subscribes, and may publish.
        """
        if not isinstance(request, Request):
            raise Refusal(501, "There is no WebSocket here: it takes msgbus.web.Site.")
        token = accept_token(request)
        # Browsers let any page open one, and read what comes.
        self._check_origin(request)
        sender = sender_of(header(request, b"Authorization"))
        publish = partial(self._publish_for, _peer(request), name, sender)
        outlet = self._outlet(request, wanted.overflow is Overflow.LATEST)
        cursor, begins = self._begin(name, wanted)
        websocket = WebSocket(
            request, self._reactor, publish, wanted.raw, self._bus.max_message
        )
        headers = [(b"Msgbus-Prefix", self._prefix.encode("ascii"))]
        if begins is not None:
            headers.append((b"Msgbus-Id", begins.encode("ascii")))
        websocket.accept(token, headers)
        member = self._join(
            request,
            name,
            wanted,
            Frames(wanted.raw),
            outlet,
            partial(websocket.close, CloseReason.GOING_AWAY, "The bus is stopping."),
            cursor,
            late=partial(
                websocket.close,
                CloseReason.TRY_AGAIN_LATER,
                "More waited for you than the bus keeps.",
            ),
        )
        websocket.joined(member)
        return NOT_DONE_YET

    def _begin(self, name: str, wanted: Wanted) -> tuple[Cursor | None, str | None]:
        """
        Where the replay of a subscriber reads, if it wants one, and the id behind which
        its stream begins, if one is known.
        """
        if wanted.since is None:
            return None, format_id(self._bus.newest)
        cursor = self._bus.replay(name, wanted.filter, wanted.since)
        begins = self._bus.begins(cursor)
        return cursor, None if begins is None else format_id(begins)

    def _outlet(self, request: server.Request, latest: bool) -> Outlet:
        if not isinstance(request, Request):
            # It may chunk, compress or multiplex; in HTTP/2 it can be cut by itself.
            channel: Any = request.channel  # of HTTP/1 or HTTP/2
            cut = getattr(channel, "abortConnection", None)
            return BufferedOutlet(request.write, cut or channel.transport.abortConnection)
        transport = request.channel.transport
        return outlet_for(transport, self._fanout.limits.stall_seconds, latest)

    def _join(
        self,
        request: server.Request,
        name: str,
        wanted: Wanted,
        framing: Framing,
        outlet: Outlet,
        finish: Callable[[], object],
        cursor: Cursor | None,
        late: Callable[[], object] | None = None,
    ) -> Member:
        """
        Let the response to this request have what is published from now on.
        """
        member = self._fanout.subscribe(
            name,
            wanted.filter,
            framing,
            outlet,
            finish,
            overflow=wanted.overflow,
            heartbeat=wanted.heartbeat or framing.heartbeat_seconds,
            cursor=cursor,
            late=late,
        )
        request.registerProducer(member, True)

        peer = _peer(request)
        if self._verbosity >= 1:
            self._log.info("{peer} subscribes to {name!r}", peer=peer, name=name)

        def gone(_: object) -> None:
            member.stopProducing()
            if self._verbosity >= 1:
                self._log.info("{peer} leaves {name!r}", peer=peer, name=name)

        request.notifyFinish().addBoth(gone)
        return member

    def _publish(self, request: server.Request) -> int:
        if request.clientproto == b"HTTP/1.0" and request.requestHeaders.hasHeader(
            b"Transfer-Encoding"
        ):
            # RFC 9112, section 6.1: the framing of such a message is faulty.
            raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding; send a Content-Length.")
        self._check_origin(request)
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
        name = channel_name(_path_below(request))
        published = self._publish_for(_peer(request), name, sender, wish)

        def acknowledge(receipt: Receipt) -> None:
            request.setHeader(b"Msgbus-Id", receipt.id.encode("ascii"))
            request.setHeader(b"Msgbus-Subscribers", b"%d" % receipt.subscribers)
            answer(request, 204)

        published.addCallback(acknowledge)
        return NOT_DONE_YET

    def _publish_for(
        self, peer: str, name: str, sender: str, wish: Posted
    ) -> Deferred[Receipt]:
        """
        Publish what somebody has sent to this name.
        """
        if self._closed:
            raise Stopping(_STOPPING)
        channel = name if wish.channel is None else wish.channel
        message = Message(channel, wish.body, wish.content_type, sender)
        published = self._bus.publish(message, wish.keep, wish.require, wish.key)
        if self._verbosity >= 2:
            self._log.info(
                "{peer} publishes {size} bytes of {type} to {name!r} as {sender!r}",
                peer=peer,
                size=len(message.body),
                type=message.content_type,
                name=message.channel,
                sender=message.sender,
            )
        return published

    def _options(self, request: server.Request) -> int:
        origin = header(request, b"Origin")
        request.setHeader(b"Allow", _METHODS)
        if _is_preflight(request):
            if not self._origins.allows(origin):
                raise _foreign_page(origin)
            for name, value in _PREFLIGHT:
                request.setHeader(name, value)
        return answer(request, 204)

    def _redirect(self, request: server.Request) -> int:
        _, question, query = request.uri.partition(b"?")
        location = self._prefix.encode("ascii") + question + query
        raise Refusal(
            308,
            f"The root of the bus is {self._prefix}, with a slash at its end.",
            [(b"Location", location)],
        )

    def _check_origin(self, request: server.Request) -> None:
        origin = header(request, b"Origin")
        if not self._origins.may_publish(
            origin, header(request, b"Sec-Fetch-Site"), header(request, b"Host")
        ):
            raise _foreign_page(origin)


class Root(Resource):
    """
    The front door: judges `Host`, asks for the password, and leads to what was
    put behind it, and to documents elsewhere.

    Args:
        origins: Which web pages may use what is behind it.
        documents: The document root, if there is one.
        portal: Where credentials are shown, if they are asked for.
    """

    def __init__(
        self,
        origins: Origins | None = None,
        documents: Path | None = None,
        portal: Portal | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._origins = origins or Origins()
        self._documents = documents
        self._portal = portal

    def getChildWithDefault(self, path: bytes, request: server.Request) -> IResource:
        """
        What is behind the door, if the request may pass.
        """
        try:
            check_host(request, self._origins)
            if self._portal is None or _is_preflight(request):
                return self._behind(path, request)
            header(request, b"Origin")
            entered = login(self._portal, header(request, b"Authorization"))
        except Refusal as refusal:
            return _Page(refusal)
        entered.addCallback(lambda _: self._behind(path, request))
        return DeferredResource(entered.addErrback(self._denied, request))

    def _behind(self, path: bytes, request: server.Request) -> IResource:
        return cast(IResource, super().getChildWithDefault(path, request))  # type: ignore[no-untyped-call]  # Twisted

    def getChild(self, path: bytes, request: server.Request) -> Resource:
        """
        A document, or a page that says where the bus is.
        """
        if self._documents is not None:
            return Document(self._documents)
        if request.path == b"/" and request.method in (b"GET", b"HEAD"):
            return _Page(
                Refusal(200, "This is msgbus: POST to /msgbus/CHANNEL, and GET it.")
            )
        return _Page(Refusal(404, "Nothing is here; the bus is at /msgbus/."))

    def _denied(self, failure: Failure, request: server.Request) -> Resource:
        # What is refused to a page of an allowed origin, it may read.
        shield(request, self._origins)
        if failure.check(Invalid):
            return _Page(Refusal(400, failure.getErrorMessage()))
        failure.trap(UnauthorizedLogin)
        return _Page(
            Refusal(
                401,
                "This bus asks for a password: give it by Basic authentication, under any"
                " name, as in curl -u NAME:PASSWORD.",
                [(b"WWW-Authenticate", b'Basic realm="msgbus"')],
            )
        )


class _Page(Resource):
    """
    One sentence.
    """

    isLeaf = True

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._refusal = refusal

    def render(self, request: server.Request) -> int:
        return self._refusal.answer(request)


def _is_preflight(request: server.Request) -> bool:
    """
    Does a browser ask whether a page may (Fetch standard, section 3.3.2)?  It
    sends no credentials with that.
    """
    return request.method == b"OPTIONS" and request.requestHeaders.hasHeader(
        b"Access-Control-Request-Method"
    )


def _body(request: server.Request) -> bytes:
    # Twisted sets the content before it renders, but does not promise so.
    return cast(BinaryIO, request.content).read()


def _no_store(cache_control: str | None) -> bool:
    """
    Does a publisher forbid to keep its message (RFC 9111, section 5.2.1.5)?
    """
    directives = (cache_control or "").lower().split(",")
    return "no-store" in (directive.strip() for directive in directives)


def _path_below(request: server.Request) -> bytes:
    """
    The path below the resource, still percent-encoded.  Twisted decodes the
    segments that it hands out, but their number tells where they begin.
    """
    segments = request.uri.partition(b"?")[0].split(b"/")
    depth = len(cast(list[bytes], request.postpath))
    return b"/".join(segments[-depth:])


def _foreign_page(origin: str | None) -> Refusal:
    if origin is None or origin == "null":
        sentence = (
            "A page of another site may not publish here, unless it has an origin that"
            " the operator gives by --allow-origin."
        )
    else:
        sentence = (
            f"Pages of {origin[:200]!r} may not publish here; if they should, have the"
            " operator start the bus with --allow-origin and that origin, or, if it is the"
            " bus's own behind a proxy, with --host and its name."
        )
    return Refusal(403, sentence)


def _finish(request: server.Request) -> None:
    request.unregisterProducer()
    request.finish()


def _peer(request: server.Request) -> str:
    address = request.getClientAddress()
    if isinstance(address, IPv4Address | IPv6Address):
        return f"{address.host}:{address.port}"
    return "a local client"
