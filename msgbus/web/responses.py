"""
Reading the headers of a request, and answering it in one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.web import http, server
from twisted.web.server import NOT_DONE_YET

from ..bus.bus import Nobody, Stopping, TooLarge
from ..bus.idempotency import Reused
from ..message import Invalid
from .origins import Origins

__all__ = [
    "REFUSALS",
    "Refusal",
    "answer",
    "check_host",
    "header",
    "is_loopback",
    "shield",
    "status_of",
]

# Why a message is not published, each before what it is a kind of.
_STATUSES: dict[type[Exception], int] = {
    TooLarge: 413,
    Reused: 422,
    Nobody: 409,
    Invalid: 400,
    Stopping: 503,
}
REFUSALS = tuple(_STATUSES)

# Codes for which Twisted has no reason phrase, or an outdated one.
_REASONS = {
    413: b"Content Too Large",
    421: b"Misdirected Request",
    422: b"Unprocessable Content",
    426: b"Upgrade Required",
}

# A message is not a page of ours: what a publisher sent must not act in the
# name of the bus's origin when a browser opens it.
_SAFETY = (
    (b"Content-Security-Policy", b"sandbox; default-src 'none'"),
    (b"X-Content-Type-Options", b"nosniff"),
)


class Refusal(Exception):
    """
    A request is answered with this code and sentence.
    """

    def __init__(
        self, code: int, sentence: str, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.headers = headers

    def answer(self, request: server.Request) -> int:
        """
        End the response to this request with it.
        """
        for name, value in self.headers:
            request.setHeader(name, value)
        return answer(request, self.code, str(self))


def answer(request: server.Request, code: int, sentence: str = "") -> int:
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
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
    request.finish()
    return NOT_DONE_YET


def status_of(error: Exception) -> int:
    """
    The code for one of `REFUSALS`.
    """
    return next(code for kind, code in _STATUSES.items() if isinstance(error, kind))


def header(request: server.Request, name: bytes, many: bool = False) -> str | None:
    """
    The value of a header that may be given once; of one that may be given
    often, all values as one list (RFC 9110, section 5.3).

    Raises:
        Refusal: It is given more often, or is not UTF-8.
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


def check_host(request: server.Request, origins: Origins) -> None:
    """
    Refuse a request that a rebound name may have brought to the loopback.

    Raises:
        Refusal: Its `Host` is no name of the bus, or missing where it must
            not be (RFC 9112, section 3.2).
    """
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


def is_loopback(address: IAddress) -> bool:
    """
    Does only this machine reach this address?
    """
    if isinstance(address, IPv6Address):
        return address.host == "::1" or address.host.startswith("::ffff:127.")
    return isinstance(address, IPv4Address) and address.host.startswith("127.")


def shield(request: server.Request, origins: Origins) -> None:
    """
    Set the headers that keep web pages and messages apart.
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
