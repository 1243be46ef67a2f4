"""
The root of a site: refuses requests by their `Host`, asks for the password, and then leads
to the bus or to a document.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource, Resource
from twisted.web.util import DeferredResource

from ..message import Invalid
from .auth import is_constant, login
from .documents import Document
from .headers import check_host, header, is_preflight, set_safety_headers
from .origins import Origins
from .request import Request
from .resource import BusResource
from .responses import Refusal
from .site import Site

__all__ = ["Root"]


class Root(Resource):
    """
    The root resource of a site: has the children that are put below it, such as the bus,
    and documents at all other paths.

    Args:
        origins: Which web pages may use what is below it.
        documents: The folder of the documents, if there is one.
        portal: Checks the credentials, if a password is asked for.

    Attributes:
        guarded: Whether a password is asked for.
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
        self.guarded = portal is not None

    def getChildWithDefault(self, path: bytes, request: server.Request) -> IResource:
        """
        The resource that the path names, if the `Host` and the password are right.
        """
        try:
            check_host(request, self._origins)
            if self._portal is None or is_preflight(request):
                return self._behind(path, request)
            # A header that cannot be read is refused here, since `_denied` cannot.
            header(request, b"Origin")
            entered = login(self._portal, header(request, b"Authorization"))
        except Refusal as refusal:
            return _Page(refusal)
        entered.addCallback(lambda _: self._behind(path, request))
        return DeferredResource(entered.addErrback(self._denied, request))

    def _behind(self, path: bytes, request: server.Request) -> IResource:
        child = cast(IResource, super().getChildWithDefault(path, request))  # type: ignore[no-untyped-call]  # Twisted
        if isinstance(request, Request):
            request.is_open = self._portal is None
        if type(request) is Request:
            # Nothing else may judge the request: neither a resource that a program has put
            # around this one or the bus, nor a portal that may judge the same credentials
            # in another way next time.
            request.repeatable = (
                type(self) is Root
                and type(request.site) is Site
                and request.site.resource is self
                and type(child) is BusResource
                and (self._portal is None or is_constant(self._portal))
            )
        return child

    def getChild(self, path: bytes, request: server.Request) -> Resource:
        """
        The document that the path names; without documents, a page that says where the bus
        is.
        """
        if self._documents is not None:
            return Document(self._documents)
        if request.path == b"/" and request.method in (b"GET", b"HEAD"):
            return _Page(
                Refusal(200, "This is msgbus: POST to /msgbus/CHANNEL, and GET it.")
            )
        return _Page(Refusal(404, "Nothing is here; the bus is at /msgbus/."))

    def _denied(self, failure: Failure, request: server.Request) -> Resource:
        # With these headers, a page of an allowed origin can read why it is refused.
        set_safety_headers(request, self._origins)
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
    Answers any request with the same status and sentence.
    """

    isLeaf = True

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._refusal = refusal

    def render(self, request: server.Request) -> int:
        return self._refusal.answer(request)
