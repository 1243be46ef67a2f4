"""
The resource that publishes and subscribes over HTTP.

What a request may contain, and means, is decided in `target`, `origin` and
`auth`; who gets a message, in `bus`; how it gets there, in `fanout`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web import http, server
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from .auth import sender_of
from .bus import Bus, TooLarge
from .fanout import Fanout, Framing
from .message import Invalid, Message
from .multipart import Encoder
from .origin import Origins
from .site import Request, Site
from .target import channel_name, subscription

__all__ = ["BusResource", "Root", "Request", "Site"]

# Codes for which Twisted has no reason phrase, or an outdated one.
_REASONS = {413: b"Content Too Large", 421: b"Misdirected Request"}

_METHODS = b"GET, HEAD, POST, PUT, OPTIONS"

# A message is not a page of ours: what a publisher sent must not act in the
# name of the bus's origin when a browser opens it.
_SAFETY = (
    (b"Content-Security-Policy", b"sandbox; default-src 'none'"),
    (b"X-Content-Type-Options", b"nosniff"),
)

_PREFLIGHT = (
    (b"Access-Control-Allow-Methods", _METHODS),
    (b"Access-Control-Allow-Headers", b"Authorization, Content-Type"),
    (b"Access-Control-Max-Age", b"600"),
)


class _Refusal(Exception):
    """
    A request is answered with this code and sentence.
    """

    def __init__(
        self, code: int, sentence: str, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.headers = headers


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
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._bus = bus
        self._prefix = prefix
        self._origins = origins or Origins()
        self._verbosity = verbosity
        self._fanout = Fanout(bus, reactor)
        self._encoder = Encoder(bus.boundary, prefix)

    def render(self, request: server.Request) -> int:
        """
        Answer one request.
        """
        try:
            self._shield(request)
            _check_host(request, self._origins)
            return self._render_method(request)
        except _Refusal as refusal:
            for name, value in refusal.headers:
                request.setHeader(name, value)
            return _answer(request, refusal.code, str(refusal))
        except TooLarge as error:
            return _answer(request, 413, str(error))
        except Invalid as error:
            return _answer(request, 400, str(error))

    def _render_method(self, request: server.Request) -> int:
        if request.method == b"OPTIONS":
            return self._options(request)
        if not request.postpath:
            return self._redirect(request)
        if request.method in (b"GET", b"HEAD"):
            return self._subscribe(request)
        if request.method in (b"POST", b"PUT"):
            return self._publish(request)
        raise _Refusal(
            405,
            "A channel takes POST or PUT to publish and GET to subscribe.",
            [(b"Allow", _METHODS)],
        )

    def _subscribe(self, request: server.Request) -> int:
        name = channel_name(_path_below(request))
        query = request.uri.partition(b"?")[2]
        filter, media_type = subscription(query, _header(request, b"Accept", many=True))

        # Unquoted, and the only parameter: simple readers look for just that.
        content_type = f"{media_type};boundary={self._encoder.boundary}"
        request.setHeader(b"Content-Type", content_type.encode("ascii"))
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Accel-Buffering", b"no")
        if request.method == b"HEAD":
            request.finish()
            return NOT_DONE_YET

        # The head goes out with the first delimiter, in this turn; what is
        # published from now on, at the end of it or later.
        request.write(self._encoder.preamble)
        if isinstance(request, Request):
            request.channel.discard_input()
            framing = Framing(self._encoder, bool(request.chunked))
            member = self._fanout.subscribe(name, filter, framing, request.channel.write)
        else:
            # A foreign request may chunk, compress or multiplex.
            framing = Framing(self._encoder, chunked=False)
            member = self._fanout.subscribe(name, filter, framing, request.write)
        request.registerProducer(member, True)

        peer = _peer(request)
        if self._verbosity >= 1:
            self._log.info("{peer} subscribes to {name!r}", peer=peer, name=name)

        def gone(_: object) -> None:
            member.stopProducing()
            if self._verbosity >= 1:
                self._log.info("{peer} leaves {name!r}", peer=peer, name=name)

        request.notifyFinish().addBoth(gone)
        return NOT_DONE_YET

    def _publish(self, request: server.Request) -> int:
        if request.clientproto == b"HTTP/1.0" and request.requestHeaders.hasHeader(
            b"Transfer-Encoding"
        ):
            # RFC 9112, section 6.1: the framing of such a message is faulty.
            raise _Refusal(400, "HTTP/1.0 has no Transfer-Encoding; send a Content-Length.")
        self._check_origin(request)
        content_type = _header(request, b"Content-Type")
        if not content_type:
            raise _Refusal(
                400, "A message needs a Content-Type, such as text/plain or image/jpeg."
            )
        message = Message(
            channel=channel_name(_path_below(request)),
            body=_body(request),
            content_type=content_type,
            sender=sender_of(_header(request, b"Authorization")),
        )
        published = self._bus.publish(message)
        if self._verbosity >= 2:
            self._log.info(
                "{peer} publishes {size} bytes of {type} to {name!r} as {sender!r}",
                peer=_peer(request),
                size=len(message.body),
                type=message.content_type,
                name=message.channel,
                sender=message.sender,
            )
        published.addCallback(lambda _: _answer(request, 204))
        return NOT_DONE_YET

    def _options(self, request: server.Request) -> int:
        origin = _header(request, b"Origin")
        request.setHeader(b"Allow", _METHODS)
        if request.requestHeaders.hasHeader(b"Access-Control-Request-Method"):
            if not self._origins.allows(origin):
                raise _foreign_page(origin)
            for name, value in _PREFLIGHT:
                request.setHeader(name, value)
        return _answer(request, 204)

    def _redirect(self, request: server.Request) -> int:
        _, question, query = request.uri.partition(b"?")
        location = self._prefix.encode("ascii") + question + query
        raise _Refusal(
            308,
            f"The root of the bus is {self._prefix}, with a slash at its end.",
            [(b"Location", location)],
        )

    def _shield(self, request: server.Request) -> None:
        """
        Set the headers that keep web pages and messages apart.
        """
        origin = _header(request, b"Origin")
        allowed = self._origins.allows(origin)
        for name, value in _SAFETY:
            request.setHeader(name, value)
        request.setHeader(
            b"Cross-Origin-Resource-Policy", b"cross-origin" if allowed else b"same-origin"
        )
        request.setHeader(
            b"Vary", b"Accept, Origin" if self._origins.allowed else b"Accept"
        )
        if allowed and origin is not None:
            for name, value in self._origins.grants(origin):
                request.setHeader(name, value)

    def _check_origin(self, request: server.Request) -> None:
        origin = _header(request, b"Origin")
        if not self._origins.may_publish(
            origin, _header(request, b"Sec-Fetch-Site"), _header(request, b"Host")
        ):
            raise _foreign_page(origin)


class Root(Resource):
    """
    What is served beside the bus when there are no documents: a sentence at
    `/`, and nothing elsewhere.
    """

    def getChild(self, path: bytes, request: server.Request) -> Resource:
        """
        The page for a path that nothing was put at.
        """
        return _Page()  # type: ignore[no-untyped-call]  # Twisted

    def render(self, request: server.Request) -> int:
        """
        Nothing is at the root itself but its empty child.
        """
        return _Page().render(request)  # type: ignore[no-untyped-call]  # Twisted


class _Page(Resource):
    isLeaf = True

    def render(self, request: server.Request) -> int:
        if request.path == b"/":
            return _answer(
                request, 200, "This is msgbus: POST to /msgbus/CHANNEL, and GET it."
            )
        return _answer(request, 404, "Nothing is here; the bus is at /msgbus/.")


def _answer(request: server.Request, code: int, sentence: str = "") -> int:
    """
    End a response with one sentence of text, or with nothing for a 204.
    """
    request.setResponseCode(code, _REASONS.get(code))
    # A Deferred may fire after the client has gone.
    if request._disconnected:
        return NOT_DONE_YET
    if code != http.NO_CONTENT:
        body = f"{sentence}\n".encode()
        request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
    request.finish()
    return NOT_DONE_YET


def _header(request: server.Request, name: bytes, many: bool = False) -> str | None:
    """
    The value of a header that may be given once; of one that may be given
    often, all values as one list (RFC 9110, section 5.3).
    """
    values = request.requestHeaders.getRawHeaders(name, [])
    if len(values) > 1 and not many:
        raise _Refusal(400, f"The header {name.decode()} may be given once only.")
    if not values:
        return None
    try:
        return b",".join(values).decode("utf-8")
    except UnicodeDecodeError:
        raise _Refusal(400, f"The header {name.decode()} is not UTF-8.") from None


def _body(request: server.Request) -> bytes:
    # Twisted sets the content before it renders, but does not promise so.
    return cast(BinaryIO, request.content).read()


def _path_below(request: server.Request) -> bytes:
    """
    The path below the resource, still percent-encoded.  Twisted decodes the
    segments that it hands out, but their number tells where they begin.
    """
    segments = request.uri.partition(b"?")[0].split(b"/")
    depth = len(cast(list[bytes], request.postpath))
    return b"/".join(segments[-depth:])


def _check_host(request: server.Request, origins: Origins) -> None:
    """
    Refuse a request that a rebound name may have brought to the loopback.
    """
    host = _header(request, b"Host")
    if host is None:
        if request.clientproto == b"HTTP/1.1":
            raise _Refusal(400, "HTTP/1.1 needs a Host header.")
        return
    if is_loopback(request.getHost()) and not origins.knows_host(host):
        raise _Refusal(
            421,
            f"This bus is not known as {host[:200]!r} here; if it should be, have"
            " the operator start it with --host and that name.",
        )


def is_loopback(address: IAddress) -> bool:
    if isinstance(address, IPv6Address):
        return address.host == "::1" or address.host.startswith("::ffff:127.")
    return isinstance(address, IPv4Address) and address.host.startswith("127.")


def _foreign_page(origin: str | None) -> _Refusal:
    return _Refusal(
        403,
        f"Pages of {(origin or 'another site')[:200]!r} may not publish here; if they"
        " should, have the operator start the bus with --allow-origin and that origin.",
    )


def _peer(request: server.Request) -> str:
    address = request.getClientAddress()
    if isinstance(address, IPv4Address | IPv6Address):
        return f"{address.host}:{address.port}"
    return "a local client"
