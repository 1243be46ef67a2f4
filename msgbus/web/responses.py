"""
Answers a request with a status and one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.web import http, server
from twisted.web.server import NOT_DONE_YET

from ..access.rate_fields import retry_after
from ..bus.bus import Nobody, Stopping, TooLarge
from ..bus.idempotency import Reused
from ..bus.log import Unavailable
from ..message import Invalid
from .quotas import Throttled
from .visitor import BASIC, Denied

__all__ = [
    "REASONS",
    "REFUSALS",
    "Refusal",
    "answer",
    "answer_refusal",
    "plain_refusal",
    "reason_of",
    "set_refusal_headers",
    "set_stream_headers",
    "status_of",
]

# The errors for which a message is not published, and what they are answered with.  A
# subclass stands before its base class.
_STATUSES: dict[type[Exception], int] = {
    TooLarge: 413,
    Reused: 422,
    Nobody: 409,
    Invalid: 400,
    Stopping: 503,
    Throttled: 429,
    Unavailable: 503,
    # Or 401; see `Denied.status`.
    Denied: 403,
}
REFUSALS = tuple(_STATUSES)

_REASON_NAMES = {
    TooLarge: "too_large",
    Reused: "key_reused",
    Nobody: "no_subscriber",
    Invalid: "invalid",
    Stopping: "stopping",
    Throttled: "throttled",
    Unavailable: "log_unavailable",
    Denied: "denied",
}

# What statistics call a `Refusal` with one of these status codes that does not say it.
_REASONS_BY_STATUS = {
    401: "denied",
    403: "denied",
    405: "method",
    408: "too_slow",
    413: "too_large",
    421: "host",
    429: "throttled",
}
REASONS = (
    *_REASON_NAMES.values(),
    *("method", "too_slow", "host", "cross_site"),
    *("sign_in", "guesses", "busy", "connections", "memory", "tls"),
)

# When a publisher may try again, in seconds, for which the log cannot be reached.
RETRY_SECONDS = 5

# The reason phrases of codes for which Twisted has none, or an outdated one.
_REASONS = {
    408: b"Request Timeout",
    413: b"Content Too Large",
    421: b"Misdirected Request",
    422: b"Unprocessable Content",
    429: b"Too Many Requests",
    426: b"Upgrade Required",
}


class Refusal(Exception):
    """
    A request is to be answered with this status code and sentence.

    Args:
        reason: What statistics call it, which is one of `REASONS`; if it is not given, the
            code decides.
    """

    def __init__(
        self,
        code: int,
        sentence: str,
        headers: Iterable[tuple[bytes, bytes]] = (),
        reason: str = "",
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.headers = headers
        self.reason = reason or _REASONS_BY_STATUS.get(code, "invalid")

    @property
    def is_refusal(self) -> bool:
        """
        Is something refused?  Nothing is by a redirection, by a page, or if there is
        nothing at the path.
        """
        return self.code >= http.BAD_REQUEST and self.code != http.NOT_FOUND


def answer(
    request: server.Request,
    code: int,
    text: str | bytes = "",
    content_type: bytes = b"text/plain; charset=utf-8",
) -> int:
    """
    End a response with one sentence of text, with the bytes of another type, or with
    nothing for a 204.
    """
    request.setResponseCode(code, _REASONS.get(code))
    # The client may have gone while the answer waited for a Deferred.
    if request._disconnected:
        return NOT_DONE_YET
    if code == http.UNAUTHORIZED and not request.responseHeaders.hasHeader(
        b"WWW-Authenticate"
    ):
        request.setHeader(b"WWW-Authenticate", BASIC.encode("ascii"))
    if code != http.NO_CONTENT:
        body = f"{text}\n".encode() if isinstance(text, str) else text
        request.setHeader(b"Content-Type", content_type)
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
    request.finish()
    return NOT_DONE_YET


def answer_refusal(request: server.Request, error: Exception) -> int:
    """
    Answer a request that is refused because of an error, which is a `Refusal` or one of
    `REFUSALS`.
    """
    set_refusal_headers(request, error)
    return answer(request, status_of(error), str(error))


def set_refusal_headers(request: server.Request, error: Exception) -> None:
    """
    Set the headers that an answer has beside its status and sentence.

    Args:
        error: A refusal, or one of `REFUSALS`.
    """
    if isinstance(error, Denied) and error.challenges:
        request.responseHeaders.setRawHeaders(
            b"WWW-Authenticate", [text.encode("ascii") for text in error.challenges]
        )
    elif isinstance(error, Throttled | Refusal):
        for name, value in error.headers:
            request.setHeader(name, value)
    elif isinstance(error, Unavailable | Stopping):
        request.setHeader(b"Retry-After", _retry_after(error))


def plain_refusal(error: Exception, headers: bytes, closing: bool) -> bytes:
    """
    The answer to a request that is refused because of an error that is one of `REFUSALS`,
    as bytes, where no request of Twisted's is there to be answered.

    Args:
        headers: The lines that every answer to that request has; see
            `set_safety_headers`.
        closing: Whether the connection is closed after it.
    """
    status = status_of(error)
    body = f"{error}\n".encode()
    reason = _REASONS.get(status) or http.RESPONSES[status]
    head = b"HTTP/1.1 %d %b\r\nDate: %b\r\n" % (status, reason, http.datetimeToString())
    head += headers
    if isinstance(error, Unavailable | Stopping):
        head += b"Retry-After: %b\r\n" % _retry_after(error)
    if closing:
        head += b"Connection: close\r\n"
    return b"%bContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b" % (
        head,
        len(body),
        body,
    )


def _retry_after(error: Unavailable | Stopping) -> bytes:
    seconds = error.seconds if isinstance(error, Stopping) else RETRY_SECONDS
    return retry_after(seconds).encode("ascii")


def set_stream_headers(request: server.Request) -> None:
    """
    Set the headers by which caches keep no answer that is a stream, and proxies hand it on
    as it comes: RFC 10036, and the older one that nginx knows.
    """
    request.setHeader(b"Cache-Control", b"no-store")
    request.setHeader(b"X-Accel-Buffering", b"no")
    request.setHeader(b"Incremental", b"?1")


def status_of(error: Exception) -> int:
    """
    The status code for an error that is a `Refusal` or one of `REFUSALS`.
    """
    if isinstance(error, Refusal):
        return error.code
    if isinstance(error, Denied):
        return error.status
    return next(code for kind, code in _STATUSES.items() if isinstance(error, kind))


def reason_of(error: Exception) -> str:
    """
    What statistics call an error that is a `Refusal` or one of `REFUSALS`: one of
    `REASONS`.
    """
    if isinstance(error, Refusal):
        return error.reason
    kind = next(kind for kind in _STATUSES if isinstance(error, kind))
    return _REASON_NAMES[kind]
