"""
Answers a request with a status and one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.web import http, server
from twisted.web.server import NOT_DONE_YET

from ..bus.bus import Nobody, Stopping, TooLarge
from ..bus.idempotency import Reused
from ..message import Invalid

__all__ = ["REFUSALS", "Refusal", "answer", "status_of"]

# The errors for which a message is not published, and what they are answered with.  A
# subclass stands before its base class.
_STATUSES: dict[type[Exception], int] = {
    TooLarge: 413,
    Reused: 422,
    Nobody: 409,
    Invalid: 400,
    Stopping: 503,
}
REFUSALS = tuple(_STATUSES)

# The reason phrases of codes for which Twisted has none, or an outdated one.
_REASONS = {
    413: b"Content Too Large",
    421: b"Misdirected Request",
    422: b"Unprocessable Content",
    426: b"Upgrade Required",
}


class Refusal(Exception):
    """
    A request is to be answered with this status code and sentence.
    """

    def __init__(
        self, code: int, sentence: str, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.headers = headers

    def answer(self, request: server.Request) -> int:
        """
        Answer this request with the status, the sentence and the headers.
        """
        for name, value in self.headers:
            request.setHeader(name, value)
        return answer(request, self.code, str(self))


def answer(request: server.Request, code: int, sentence: str = "") -> int:
    """
    End a response with one sentence of text, or with nothing for a 204.
    """
    request.setResponseCode(code, _REASONS.get(code))
    # The client may have gone while the answer waited for a Deferred.
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
    The status code for an error that is one of `REFUSALS`.
    """
    return next(code for kind, code in _STATUSES.items() if isinstance(error, kind))
