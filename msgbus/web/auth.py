"""
Basic authentication: the sender that a request names, and the password that it gives.

With one password for everybody, or with none, the name of a sender is a claim: anybody can
give any name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.web import server
from zope.interface import Interface, implementer

from ..message import Invalid
from .headers import header
from .request import Request
from .visitor import Access, Visitor

__all__ = [
    "ISender",
    "SharedSecret",
    "portal_for",
    "login",
    "portal_with",
    "sender_of",
    "set_visitor",
    "visitor_of",
]


class ISender(Interface):
    """
    A client that may publish and subscribe: an avatar of `twisted.cred`.
    """


@implementer(ICredentialsChecker)
class SharedSecret:
    """
    Checks that everybody gives the same password; the name may be any.

    Args:
        secret: The password; not empty.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, secret: bytes) -> None:
        self._digest = _digest(secret)

    def requestAvatarId(self, credentials: UsernamePassword) -> Deferred[bytes | tuple[()]]:
        """
        Check the password, in a time that does not depend on where it is wrong.

        Returns:
            A Deferred that fires with the name that was given, or fails with
            `UnauthorizedLogin`.
        """
        if hmac.compare_digest(_digest(credentials.password), self._digest):
            return succeed(credentials.username)
        return fail(UnauthorizedLogin())


@implementer(IRealm)
class _Realm:
    def __init__(self, access: Access | None = None) -> None:
        self._access = access

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        name = avatarId.decode("utf-8") if isinstance(avatarId, bytes) else ""
        return ISender, Visitor(name, self._access), lambda: None


def portal_for(secret: bytes) -> Portal:
    """
    A portal of `twisted.cred` that lets in those who give this password.
    """
    return Portal(_Realm(), [SharedSecret(secret)])


def portal_with(checker: ICredentialsChecker, access: Access) -> Portal:
    """
    A portal of `twisted.cred` that lets in those whom this checker knows, to do what they
    may.
    """
    return Portal(_Realm(access), [checker])


def is_constant(portal: Portal) -> bool:
    """
    Does this portal always give the same answer to the same credentials?  That is certain
    only of portals that `portal_for` has made.
    """
    return type(portal.realm) is _Realm and all(
        type(checker) is SharedSecret for checker in portal.checkers.values()
    )


def login(portal: Portal, authorization: str | None) -> Deferred[Any]:
    """
    Log in with the credentials of an `Authorization` header.

    Returns:
        A Deferred that fires if they are right.  It fails with `UnauthorizedLogin` if
        they are missing or wrong, and with `Invalid` if the header is malformed.
    """
    try:
        credentials = _credentials(authorization)
    except Invalid:
        return fail()
    if credentials is None:
        return fail(UnauthorizedLogin())
    return portal.login(UsernamePassword(*credentials), None, ISender)


def visitor_of(request: server.Request) -> Visitor:
    """
    Who has sent a request: whom `Root` has let in, or, without a `Root`, somebody who names
    any sender.

    Raises:
        Refusal: The header `Authorization` is malformed, or given twice.
        Invalid: The same.
    """
    known = (
        request.visitor if isinstance(request, Request) else request.getComponent(ISender)
    )
    if isinstance(known, Visitor):
        return known
    return Visitor(sender_of(header(request, b"Authorization")))


def set_visitor(request: server.Request, visitor: Visitor) -> None:
    """
    Say who has sent a request, which may be one of another site than ours.
    """
    if isinstance(request, Request):
        request.visitor = visitor
    else:
        request.setComponent(ISender, visitor)


def sender_of(authorization: str | None) -> str:
    """
    The sender that an `Authorization` header names: the user of Basic authentication (RFC
    7617, section 2), as UTF-8.  The empty string if there is no header, or one of another
    scheme.

    Raises:
        Invalid: The scheme is Basic, but the rest is malformed.
    """
    credentials = _credentials(authorization)
    return credentials[0].decode("utf-8") if credentials else ""


def _credentials(authorization: str | None) -> tuple[bytes, bytes] | None:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
        user, colon, password = decoded.partition(b":")
        if not colon:
            raise ValueError("no colon")
        user.decode("utf-8")
    except (ValueError, binascii.Error):
        raise Invalid(
            "The Authorization header is not Basic authentication: base64 of"
            " USER:PASSWORD in UTF-8 follows the word Basic."
        ) from None
    return user, password


def _digest(secret: bytes) -> bytes:
    # Digests have the same length, so comparing them does not reveal the length of the
    # secret, as comparing the secrets themselves might.
    return hashlib.sha256(secret).digest()
