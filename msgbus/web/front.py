"""
The root of a site without documents: a page for people, and one sentence for programs.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import quote

from twisted.web import server
from twisted.web.resource import IResource, Resource

from .headers import header, set_safety_headers
from .origins import Origins
from .pages import front_page
from .query import is_page_preferred
from .resource import BusResource
from .responses import Refusal, answer

__all__ = ["Front", "is_front", "wants_front_page"]


def is_front(request: server.Request) -> bool:
    """
    Is this a request to see the root of the site?
    """
    return request.path == b"/" and request.method in (b"GET", b"HEAD")


def wants_front_page(request: server.Request) -> bool:
    """
    Is it one that a browser sends for its user?
    """
    with suppress(Refusal):
        accept = header(request, b"Accept", many=True)
        return is_front(request) and is_page_preferred(accept)
    return False


class Front(Resource):
    """
    What is at the root of the site.

    Args:
        origins: Which web pages may use the bus.
        children: What is below the root, by its first segment.  If the bus is not among it,
            there is no page.
    """

    isLeaf = True

    def __init__(
        self, origins: Origins, children: Iterable[tuple[bytes, IResource]]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._origins = origins
        buses = (name for name, child in children if isinstance(child, BusResource))
        self._bus = next(buses, None)

    def render(self, request: server.Request) -> int:
        """
        Answer with the page or the sentence.
        """
        if self._bus is not None and wants_front_page(request):
            set_safety_headers(request, self._origins)
            return front_page(request, f"{quote(self._bus, '')}/")
        sentence = "This is msgbus: POST to /msgbus/CHANNEL, and GET it."
        request.setHeader(b"Vary", b"Accept")
        return answer(request, 200, sentence)
