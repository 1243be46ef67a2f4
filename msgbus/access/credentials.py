"""
How a request carries a link or a token, and how logs leave it out.

What a link or token allows is up to `links` and `tokens`.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from .grant import INVALID_REQUEST, BadGrant

__all__ = ["PARAMETER", "bearer_of", "link_of"]

# The parameter of a query that holds a link.
PARAMETER = "link"

# RFC 6750, section 2.1: a `b64token`.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)


def bearer_of(authorization: str | None) -> str | None:
    """
    The token of an `Authorization` header with the scheme Bearer (RFC 6750, section 2.1).
    None if there is no header, or one of another scheme.

    Raises:
        BadGrant: The scheme is Bearer, but the rest is malformed.
    """
    if (authorization or "").partition(" ")[0].lower() != "bearer":
        return None
    found = _BEARER.fullmatch(authorization or "")
    if not found:
        raise BadGrant(
            "The Authorization header has no token behind the word Bearer.", INVALID_REQUEST
        )
    return found[1]


def link_of(query: bytes) -> str | None:
    """
    The link in a query, from the parameter `link`.  None if there is none.

    Raises:
        BadGrant: There are several, or it is not ASCII.
    """
    values = [
        value
        for name, _, value in (item.partition(b"=") for item in query.split(b"&"))
        if unquote_to_bytes(name) == PARAMETER.encode()
    ]
    if not values:
        return None
    try:
        (link,) = values
        # Not percent-decoded: no character of a link needs it, and each link has one form.
        return link.decode("ascii")
    except ValueError:
        raise BadGrant(
            "The query has more than one link, or one that was changed.", INVALID_REQUEST
        ) from None
