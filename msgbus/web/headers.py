"""
Reads the headers of a request, refuses it if they show that a foreign web page has sent
it, and sets the headers that protect browsers.

The rules about web pages are in `origins`.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.web import server

from ..headers import MAX_HEADERS, Headers, does_travel, headers_of, shown_name
from .origins import Origins
from .peer import is_loopback
from .request import Request
from .responses import Refusal

__all__ = [
    "allow_travelling",
    "check_host",
    "check_origin",
    "check_transfer_encoding",
    "expose",
    "foreign_page",
    "header",
    "is_preflight",
    "set_safety_headers",
    "travelling_headers",
]

# A message is not a page of the bus: when a browser opens it, it must not run with the
# rights of the bus's origin.
_SAFETY = (
    (b"Content-Security-Policy", b"sandbox; default-src 'none'"),
    (b"X-Content-Type-Options", b"nosniff"),
)


def header(request: server.Request, name: bytes, many: bool = False) -> str | None:
    """
    The value of a header, or None if it is not given.

    Args:
        many: Whether the header may be given several times.  If so, all values are joined
            to one list (RFC 9110, section 5.3).

    Raises:
        Refusal: It is given several times and may not be, or is not UTF-8.
    """
    values = request.requestHeaders.getRawHeaders(name, [])
    if len(values) > 1 and not many:
        raise Refusal(400, f"The header {name.decode()} may be given once only.")
    if not values:
        return None
    try:
        return b",".join(values).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, f"The header {name.decode()} is not UTF-8.") from None


def travelling_headers(request: server.Request) -> Headers:
    """
    The headers of a request that travel with the message that it publishes.

    Raises:
        Refusal: One of them is not UTF-8.
        Invalid: See `Headers`.
    """
    pairs = []
    for name, values in request.requestHeaders.getAllRawHeaders():
        text = name.decode("latin-1")
        if does_travel(text):
            try:
                pairs += [(text, value.decode("utf-8")) for value in values]
            except UnicodeDecodeError:
                raise Refusal(400, f"The header {text} is not UTF-8.") from None
    return headers_of(pairs)


def allow_travelling(request: server.Request) -> None:
    """
    Let a page of another site also send those headers that it asks for by a preflight
    request and that travel with a message (Fetch standard, section 3.3.2).
    """
    asked = header(request, b"Access-Control-Request-Headers", many=True) or ""
    names = [name.strip() for name in asked.split(",", MAX_HEADERS)[:MAX_HEADERS]]
    _extend(request, b"Access-Control-Allow-Headers", filter(does_travel, names))


def check_host(request: server.Request, origins: Origins) -> None:
    """
    Refuse a request that may have come to a loopback address by DNS rebinding.

    Raises:
        Refusal: Its `Host` is no name of the bus, or is missing in HTTP/1.1, which requires
            it (RFC 9112, section 3.2).
    """
    if isinstance(request, Request):
        # `Root` and `BusResource` both check this; once is enough.
        if request.host_checked_by is origins:
            return
        request.host_checked_by = origins
    host = header(request, b"Host")
    if host is None:
        if request.clientproto == b"HTTP/1.1":
            raise Refusal(400, "HTTP/1.1 needs a Host header.")
        return
    if is_loopback(request.getHost()) and not origins.knows_host(host):
        raise Refusal(
            421,
            f"This bus is not known as {host[:200]!r} here; if it should be, have"
            " the operator start it with --host and that name.",
        )


def set_safety_headers(request: server.Request, origins: Origins) -> None:
    """
    Set the headers by which browsers keep foreign web pages from reading the response, and
    a message in it from acting as a page of the bus.
    """
    origin = header(request, b"Origin")
    allowed = origins.allows(origin)
    for name, value in _SAFETY:
        request.setHeader(name, value)
    request.setHeader(
        b"Cross-Origin-Resource-Policy", b"cross-origin" if allowed else b"same-origin"
    )
    request.setHeader(b"Vary", b"Accept, Origin" if origins.allowed else b"Accept")
    if allowed and origin is not None:
        for name, value in origins.grants(origin):
            request.setHeader(name, value)


def expose(request: server.Request, names: Iterable[str]) -> None:
    """
    Let a page of another site read these headers of the response, too, if it may read any
    (Fetch standard, section 3.3.2).
    """
    if request.responseHeaders.hasHeader(b"Access-Control-Expose-Headers"):
        _extend(request, b"Access-Control-Expose-Headers", map(shown_name, names))


def _extend(request: server.Request, field: bytes, names: Iterable[str]) -> None:
    """
    Add names to the list that a header of the response has.
    """
    known = request.responseHeaders.getRawHeaders(field, [b""])[0].decode("ascii")
    request.setHeader(field, ", ".join([known, *names]).encode("ascii"))


def check_transfer_encoding(request: server.Request) -> None:
    """
    Refuse a request of HTTP/1.0 with a `Transfer-Encoding`: its framing is faulty (RFC
    9112, section 6.1).

    Raises:
        Refusal: It is such a request.
    """
    if request.clientproto == b"HTTP/1.0" and request.requestHeaders.hasHeader(
        b"Transfer-Encoding"
    ):
        raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding; send a Content-Length.")


def check_origin(request: server.Request, origins: Origins) -> None:
    """
    Refuse a request that a foreign web page has sent, in order to publish or to open a
    WebSocket.

    Raises:
        Refusal: See `Origins.may_publish`.
    """
    origin = header(request, b"Origin")
    if not origins.may_publish(
        origin, header(request, b"Sec-Fetch-Site"), header(request, b"Host")
    ):
        raise foreign_page(origin)


def foreign_page(origin: str | None) -> Refusal:
    """
    The refusal for a web page of this origin, or of an unknown one.
    """
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
    return Refusal(403, sentence, reason="cross_site")


def is_preflight(request: server.Request) -> bool:
    """
    Is this a browser's question whether a page may send a request (Fetch standard, section
    3.3.2)?  Browsers send it without credentials.
    """
    return request.method == b"OPTIONS" and request.requestHeaders.hasHeader(
        b"Access-Control-Request-Method"
    )
