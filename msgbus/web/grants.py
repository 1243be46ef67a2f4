"""
The keys that hold at the moment, by which links and tokens are verified.

No I/O.  What a link and a token consist of is up to `access.links` and `access.tokens`;
what their bearer may do is up to `bearer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..access import links
from ..access.credentials import bearer_of, link_of
from ..access.grant import INVALID_REQUEST, BadGrant, Grant
from ..access.link_keys import Keys

if TYPE_CHECKING:
    from ..access.tokens import Tokens

__all__ = ["Grants"]

# How many links and tokens are remembered, so that not each request of the same bearer
# pays for the signature.
MAX_REMEMBERED = 1000


class Grants:
    """
    Finds links and tokens in requests, and verifies them.

    Args:
        keys: The keys that sign links; None if there are no links.
        tokens: Verifies tokens; None if there are no tokens.
        now: Gives the time, in seconds since 1970.

    Attributes:
        now: As given.
        version: Changes whenever the keys do.
    """

    def __init__(
        self,
        keys: Keys | None,
        tokens: Tokens | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.now = now
        self.version = 0
        self._keys = keys
        self._tokens = tokens
        # What has been verified with these keys.
        self._verified: dict[str, Grant] = {}

    def replace(self, keys: Keys | None, tokens: Tokens | None) -> None:
        """
        From now on, these hold.
        """
        self._keys, self._tokens = keys, tokens
        self._verified.clear()
        self.version += 1

    def find(self, query: bytes, authorization: str | None) -> str | None:
        """
        The link or token that a request shows, not verified yet: in the parameter `link` of
        its query, or in its `Authorization` header.  None if it shows none.

        Raises:
            BadGrant: It shows several, or something that can be neither.
        """
        link = link_of(query)
        token = bearer_of(authorization)
        if link is None:
            return token
        if token is not None:
            # RFC 6750, section 2: one way for each request.
            raise BadGrant(
                "The request has a link, and another link or token in its Authorization"
                " header: show one of the two.",
                INVALID_REQUEST,
            )
        # Tokens are taken in headers only, since addresses are logged (RFC 9700, section
        # 4.3.2).  A link has to be one all the same if it stands in a header.
        if not links.is_link(link):
            raise BadGrant("The link is not complete, or was changed.")
        return link

    def verify(self, shown: str) -> Grant:
        """
        What a link or token allows.

        Raises:
            BadGrant: It gives no right, or none any more.
        """
        grant = self._verified.get(shown)
        if grant is not None and self.now() < grant.expires:
            return grant
        grant = self._verify(shown)
        if len(self._verified) == MAX_REMEMBERED:
            self._verified.clear()
        self._verified[shown] = grant
        return grant

    def _verify(self, shown: str) -> Grant:
        if links.is_link(shown):
            if self._keys is None:
                raise BadGrant("This bus takes no links, but tokens.")
            return links.verify(self._keys, shown, self.now())
        if self._tokens is None:
            raise BadGrant("This bus takes no tokens, but links.")
        return self._tokens.verify(shown, self.now())
