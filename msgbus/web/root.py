"""
The root of a site: refuses requests by their `Host`, asks for the password, and then leads
to the bus or to a document.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource, Resource
from twisted.web.util import DeferredResource

from ..access.addresses import PROXY_HEADERS
from ..access.checker import Busy
from ..access.grant import BadGrant
from ..access.rate_fields import retry_after
from ..access.users import check_user
from ..message import Invalid
from .auth import is_constant, sender_of, set_visitor, visitor_of
from .bearer import Bearer, Stranger, refused
from .certified import OR_CERTIFICATE, Certificates, Certified
from .documents import Document
from .front import Front, is_front, wants_front_page
from .grants import Grants
from .headers import check_host, header, is_preflight, set_safety_headers
from .origins import Origins
from .pages import closed_page
from .refusals import attempt_of, journal_of, refuse
from .request import Request, peer_of
from .resource import BusResource
from .responses import Refusal, set_refusal_headers, status_of
from .sign_in import SignIn, TooManyGuesses
from .site import Site
from .visitor import Access, Denied, Visitor

__all__ = ["Root"]


class Root(Resource):
    """
    The root resource of a site: has the children that are put below it, such as the bus,
    and documents at all other paths.

    Args:
        origins: Which web pages may use what is below it.
        documents: The folder of the documents, if there is one.
        portal: Checks the credentials, if a password is asked for.
        access: The users and rules that hold, if the portal knows users; whoever changes
            them has to call `Site.heads.forget`.
        grants: Verifies links and tokens, if there are any.
        certificates: Checks client certificates, if any are accepted.
        user_header: The header in which trusted proxies name whom they have signed in, if
            there is one; it takes `access`.

    If there are grants or certificates, and no portal, nobody else may do anything.

    Attributes:
        guarded: Whether a password, a link, a token or a certificate is asked for.
        sign_in: Checks the passwords; None if none is asked for.
    """

    _log = Logger()

    def __init__(
        self,
        origins: Origins | None = None,
        documents: Path | None = None,
        portal: Portal | None = None,
        access: Access | None = None,
        grants: Grants | None = None,
        certificates: Certificates | None = None,
        user_header: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._origins = origins or Origins()
        self._documents = documents
        self._portal = portal
        self._access = access
        self._grants = grants
        self._certificates = certificates
        self.guarded = any(each is not None for each in (portal, grants, certificates))
        self.sign_in = None
        if portal is not None:
            # Where there is one password for all, each name has it.
            self.sign_in = SignIn(portal, by_name=not is_constant(portal))
        self._user_header = user_header
        self._proxy_seen = False

    def getChildWithDefault(self, path: bytes, request: server.Request) -> IResource:
        """
        The resource that the path names, if the `Host` and the password are right.
        """
        try:
            check_host(request, self._origins)
            if is_preflight(request):
                return self._behind(path, request, Visitor("", self._access))
            # A header that cannot be read is refused here, since `_denied` cannot.
            header(request, b"Origin")
            authorization = header(request, b"Authorization")
            self._look_for_proxy(request)
            known = self._bearer(request, authorization)
            # A proxy may show a certificate of its own.
            known = known or self._vouched(request)
            known = known or self._certified(request, authorization)
            known = known or self._without_password(authorization)
            if known is not None:
                return self._behind(path, request, known)
            assert self.sign_in is not None  # noqa: S101 # for mypy
            entered = self.sign_in.login(peer_of(request), authorization)
        except Refusal as refusal:
            return _Page(refusal)
        except Invalid as error:
            return _Page(error)
        except Denied as denied:
            # With these headers, a page of an allowed origin can read why it is refused.
            set_safety_headers(request, self._origins)
            return _Page(denied)
        entered.addCallback(self._entered, path, request)
        return DeferredResource(entered.addErrback(self._denied, request))

    def _bearer(self, request: server.Request, authorization: str | None) -> Visitor | None:
        """
        Who shows a link or a token; None if the request shows none, or the bus takes none.

        Raises:
            Denied: It gives no right.
        """
        if self._grants is None:
            return None
        asks_for_password = self._portal is not None
        try:
            query = request.uri.partition(b"?")[2]
            shown = self._grants.find(query, authorization)
        except BadGrant as error:
            _keep_private(request)
            raise refused(error, asks_for_password) from None
        if shown is None:
            return None
        _keep_private(request)
        return Bearer(self._grants, shown, asks_for_password)

    def _certified(
        self, request: server.Request, authorization: str | None
    ) -> Visitor | None:
        """
        Who is named by the certificate of the client; None if it has shown none, or if
        certificates are not accepted.

        What a request shows itself counts more: a certificate is that of a connection, on
        which a proxy, say, may send the requests of others with their credentials.

        Raises:
            Denied: The certificate does not hold, or names no user.
        """
        if self._certificates is None or authorization is not None:
            return None
        # Other sites than ours do not remember it.
        shown = request.channel.client_certificate if type(request) is Request else None
        return None if shown is None else Certified(self._certificates, shown, self._access)

    def _without_password(self, authorization: str | None) -> Visitor | None:
        """
        Somebody whose password is not asked for; None if it is.
        """
        if self._portal is None:
            if self.guarded:
                return self._stranger()
            return Visitor(sender_of(authorization), trusted=True)
        if authorization is not None:
            return None
        if self._access is not None:
            return Visitor("", self._access)
        # The bus refuses them, but for the modules that a page with a link loads.
        return None if self._grants is None else self._stranger()

    def _stranger(self) -> Stranger:
        return Stranger(
            asks_for_password=self._portal is not None,
            takes_grants=self._grants is not None,
            takes_certificates=self._certificates is not None,
        )

    def _vouched(self, request: server.Request) -> Visitor | None:
        """
        Whom a trusted proxy has signed in; None if the request does not come from one, or
        names nobody.

        Raises:
            Refusal: The header is there twice.
            Invalid: The name cannot be that of a user.
        """
        if self._user_header is None:
            return None
        field = self._user_header.encode("ascii")
        name = header(request, field)
        # It must not travel with a message.
        request.requestHeaders.removeHeader(field)
        if (
            not name
            or not isinstance(request, Request)
            or not request.channel.peer.is_trusted
        ):
            return None
        check_user(name)
        return Visitor(name, self._access, vouched=True)

    def _look_for_proxy(self, request: server.Request) -> None:
        """
        Warn once if a proxy seems to be in front of the bus that is not trusted: then all
        its clients count as one.
        """
        if self._proxy_seen or not isinstance(request, Request):
            return
        headers, peer = request.requestHeaders, request.channel.peer
        if any(map(headers.hasHeader, PROXY_HEADERS)) and peer.is_private:
            self._proxy_seen = True
            if not peer.is_trusted:
                self._log.warn(
                    "Requests from {peer} name other addresses that they come from, as"
                    " those of a proxy do. If it is one, give its address by"
                    " --trusted-proxy; until then, limits take all of its clients for one",
                    peer=peer.address or "a Unix socket",
                )

    def _entered(
        self, login: tuple[object, object, object], path: bytes, request: server.Request
    ) -> IResource:
        """
        The resource for somebody whose password is right.
        """
        _, avatar, _ = login
        if not isinstance(avatar, Visitor):
            # It is of a portal that a program has made.
            avatar = Visitor(sender_of(header(request, b"Authorization")))
        return self._behind(path, request, avatar)

    def _behind(self, path: bytes, request: server.Request, visitor: Visitor) -> IResource:
        # Before the child is looked up, because `getChild` asks what the visitor may do.
        set_visitor(request, visitor)
        child = cast(IResource, super().getChildWithDefault(path, request))  # type: ignore[no-untyped-call]  # Twisted
        if type(request) is Request:
            # Nothing else may judge the request: neither a resource that a program has put
            # around this one or the bus, nor a portal that may judge the same credentials
            # in another way next time.
            request.repeatable = (
                type(self) is Root
                and not isinstance(visitor, Bearer)
                and type(request.site) is Site
                and request.site.resource is self
                and type(child) is BusResource
                and (
                    self._portal is None
                    or self._access is not None
                    or is_constant(self._portal)
                )
            )
        return child

    def getChild(self, path: bytes, request: server.Request) -> Resource:
        """
        The document that the path names; without documents, the front page at the root, and
        elsewhere a sentence that says where the bus is.
        """
        try:
            visitor_of(request).check_enter()
        except Denied as denied:
            set_safety_headers(request, self._origins)
            return _Page(denied)
        if self._documents is not None:
            return Document(self._documents)
        if is_front(request):
            return Front(self._origins, self.children.items())
        return _Page(Refusal(404, "Nothing is here; the bus is at /msgbus/."))

    def _denied(self, failure: Failure, request: server.Request) -> Resource:
        # With these headers, a page of an allowed origin can read why it is refused.
        set_safety_headers(request, self._origins)
        if failure.check(Invalid):
            return _Page(Refusal(400, failure.getErrorMessage()))
        if isinstance(failure.value, Busy):
            later = (b"Retry-After", b"%d" % failure.value.retry_after)
            return _Page(Refusal(503, failure.getErrorMessage(), [later], "busy"))
        if isinstance(failure.value, TooManyGuesses):
            wait = retry_after(failure.value.seconds).encode("ascii")
            later = (b"Retry-After", wait)
            return _Page(Refusal(429, failure.getErrorMessage(), [later], "guesses"))
        failure.trap(UnauthorizedLogin)
        return _Page(
            Refusal(
                401,
                "This bus asks for a password: give it by Basic authentication"
                + (", under any name," if self._access is None else " with your name,")
                + " as in curl -u NAME:PASSWORD."
                + ("" if self._certificates is None else OR_CERTIFICATE),
                reason="sign_in",
            )
        )


class _Page(Resource):
    """
    Answers any request with the same status and sentence.  A browser that asks for the
    front page, and may not see it, gets the sentence in a page.
    """

    isLeaf = True

    def __init__(self, refusal: Refusal | Denied | Invalid) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._refusal = refusal

    def render(self, request: server.Request) -> int:
        """
        Answer with the status and the sentence.
        """
        journal, refusal = journal_of(request), self._refusal
        code = status_of(refusal)
        if code not in (401, 403) or not wants_front_page(request):
            return refuse(journal, request, refusal)
        journal.refuses(attempt_of(journal, request), refusal)
        set_refusal_headers(request, refusal)
        return closed_page(request, code, str(refusal))


def _keep_private(request: server.Request) -> None:
    """
    Have a browser neither tell other sites the address, which may hold a link, nor keep the
    answer (RFC 6750, section 5.3).
    """
    request.setHeader(b"Referrer-Policy", b"no-referrer")
    request.setHeader(b"Cache-Control", b"no-store")
