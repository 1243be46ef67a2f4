"""
Who the sender of a message is.

Without a password, the name is a claim that anybody can make.
"""

from __future__ import annotations

import base64
import binascii

from .message import Invalid

__all__ = ["sender_of"]


def sender_of(authorization: str | None) -> str:
    """
    The sender that an `Authorization` header names: the user of Basic
    authentication (RFC 7617, section 2), as UTF-8; the empty string for no
    header and for other schemes.

    Raises:
        Invalid: It says that it is Basic, and is not.
    """
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True)
        user, colon, _ = decoded.partition(b":")
        if not colon:
            raise ValueError("no colon")
        return user.decode("utf-8")
    except (ValueError, binascii.Error):
        raise Invalid(
            "The Authorization header is not Basic authentication: base64 of"
            " USER:PASSWORD in UTF-8 follows the word Basic."
        ) from None
