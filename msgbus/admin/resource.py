"""
What is at which path of the operator's address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import server
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from .metrics import Metrics
from .readiness import Readiness

__all__ = ["pages"]

_INDEX = b"""msgbus, for its operator:

/metrics  numbers, for Prometheus
/healthz  200 if the process answers
/readyz   200 if messages get through, otherwise 503 and why not
"""

_log = Logger()


def pages(metrics: Metrics, readiness: Readiness) -> dict[bytes, Resource]:
    """
    The resources below the root, by their paths.
    """
    return {
        b"": _Text(lambda: _INDEX),
        b"metrics": _Text(metrics.text, metrics.content_type),
        # This answers whenever the reactor does, whatever else is wrong.
        b"healthz": _Text(lambda: b"alive\n"),
        b"readyz": _Ready(readiness),
    }


class _Text(Resource):
    isLeaf = True

    def __init__(
        self, text: Callable[[], bytes], content_type: str = "text/plain; charset=utf-8"
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._text = text
        self._type = content_type

    def render_GET(self, request: server.Request) -> bytes:
        """
        The text as it is now.
        """
        _set_headers(request, self._type)
        return self._text()


class _Ready(Resource):
    isLeaf = True

    def __init__(self, readiness: Readiness) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._readiness = readiness

    def render_GET(self, request: server.Request) -> int:
        """
        200, or 503 and a sentence that says what is wrong.
        """
        found = Deferred.fromCoroutine(self._readiness.trouble())
        # That the client has gone is seen when there is an answer.
        request.notifyFinish().addErrback(lambda _: None)

        def answer(trouble: str) -> None:
            if request._disconnected:
                return
            _set_headers(request)
            if trouble:
                request.setResponseCode(503)
            request.write(f"{trouble or 'ready'}\n".encode())
            request.finish()

        found.addCallback(answer)
        found.addErrback(lambda failure: _log.failure("Cannot tell readiness", failure))
        return NOT_DONE_YET


def _set_headers(request: Any, content_type: str = "text/plain; charset=utf-8") -> None:
    request.setHeader(b"Content-Type", content_type.encode("ascii"))
    request.setHeader(b"Cache-Control", b"no-store")
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
