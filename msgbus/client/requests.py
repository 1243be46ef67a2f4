"""
What the clients send to a bus: the headers of their requests.

No I/O.  Where they are sent is up to `url`.
"""

from __future__ import annotations

import secrets
from base64 import b64encode

from ..message import Message
from .url import BusURL

__all__ = ["publication_headers", "subscription_headers"]


def publication_headers(
    url: BusURL, message: Message, *, keep: bool = True
) -> dict[str, str]:
    """
    The headers with which to publish a message.  Every repetition has to send the same
    ones: by the `Idempotency-Key` the bus knows that it is a repetition.
    """
    headers = {
        **_authorization(url),
        "Content-Type": message.content_type,
        "Idempotency-Key": secrets.token_hex(16),
    }
    if not keep:
        headers["Cache-Control"] = "no-store"
    return headers


def subscription_headers(url: BusURL, last_id: str = "") -> dict[str, str]:
    """
    The headers with which to subscribe.

    Args:
        last_id: The id of the message behind which the stream is to begin, or the empty
            string.
    """
    headers = {**_authorization(url), "Accept": "multipart/x-mixed-replace"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    return headers


def _authorization(url: BusURL) -> dict[str, str]:
    """
    Basic authentication (RFC 7617), if there is a name or a password.
    """
    if not url.user and not url.password:
        return {}
    pair = f"{url.user}:{url.password}".encode()
    return {"Authorization": f"Basic {b64encode(pair).decode()}"}
