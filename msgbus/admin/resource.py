"""
What is at which path of the operator's address.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import server
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from .. import __version__
from ..web.front import wants_front_page
from ..web.mount import Mount
from ..web.pages import content_policy
from ..web.resource import BusResource
from .listings import ChannelList, SubscriberList
from .metrics import Metrics
from .rates import GroupRates
from .readiness import Readiness

__all__ = ["pages"]

_INDEX = b"""msgbus, for its operator:

/             in a browser, a page that shows what the bus does
/metrics      numbers, for Prometheus
/healthz      200 if the process answers
/readyz       200 if messages get through, otherwise 503 and why not
/channels     JSON: the channels; ?sort=rate&limit=100&offset=0
/subscribers  JSON: who subscribes; DELETE /subscribers/17 ends a stream
/events/      what happens, as messages, such as /events/refusals
"""

_PAGE = Path(__file__).parent / "page"

_log = Logger()


def pages(
    mount: Mount,
    metrics: Metrics,
    readiness: Readiness,
    rates: GroupRates,
    events: BusResource,
) -> dict[bytes, Resource]:
    """
    The resources below the root, by their paths.
    """
    script = (_PAGE / "status.js").read_bytes()
    return {
        b"": _Status(),  # type: ignore[no-untyped-call]  # Twisted
        b"status.js": _Text(lambda: script, "text/javascript; charset=utf-8"),
        b"metrics": _Text(metrics.text, metrics.content_type),
        # This answers whenever the reactor does, whatever else is wrong.
        b"healthz": _Text(lambda: b"alive\n"),
        b"readyz": _Ready(readiness),
        b"channels": ChannelList(mount),
        b"subscribers": SubscriberList(mount, rates),
        b"events": events,
    }


class _Status(Resource):
    """
    The page that shows what the bus does; for programs, a list of the paths.
    """

    isLeaf = True

    def render_GET(self, request: server.Request) -> bytes:
        """
        The page, if the client prefers pages.
        """
        request.setHeader(b"Vary", b"Accept")
        if not wants_front_page(request):
            _set_headers(request)
            return _INDEX
        nonce = secrets.token_urlsafe(16)
        request.setHeader(b"Content-Security-Policy", content_policy(nonce, "'none'"))
        request.setHeader(b"Referrer-Policy", b"no-referrer")
        _set_headers(request, "text/html; charset=utf-8")
        page = (_PAGE / "status.html").read_text("utf-8")
        return Template(page).substitute(nonce=nonce, version=__version__).encode()


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
