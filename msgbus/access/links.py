"""
Signed links: a right that a URL carries.

A link is `PAYLOAD.SIGNATURE`, both base64url without padding (RFC 4648, section 5).  The
payload is eight netstrings, each the length of a field in bytes, a colon, the field, and a
comma: the id of the key; the time of expiry, in seconds since 1970; the patterns of the
channels to publish to, and those of the channels to read, each a sorted list with commas;
the filters by type and by sender; the name of the sender; and the largest message, in
bytes.  Fields may be empty, but not the first two.  The signature is HMAC-SHA-256, with the
key of that id, of `msgbus-link-1`, a zero byte, and the payload.

So every grant has one link for each key, and no two grants have the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import replace
from datetime import UTC, datetime

from ..match import Filter, Pattern
from ..message import Invalid
from .channels import Channels
from .grant import BadGrant, Grant
from .link_keys import Keys

__all__ = ["BadLink", "is_link", "sign", "verify"]

# In characters.  All else that a link may be is bounded by that, and by `match`.
MAX_LINK = 4096

_CONTEXT = b"msgbus-link-1\0"
_FIELDS = 8
# A netstring at the beginning of what is left, without leading zeros in its length.
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,3}):")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,14}")
# The last second of the year 9999.
_MAX_EXPIRY = 253_402_300_799


class BadLink(BadGrant):
    """
    A link that gives no right, because it is malformed, not signed by a key that is known,
    or expired.
    """


def sign(keys: Keys, grant: Grant) -> str:
    """
    The link for a grant, signed by the first key, whatever key the grant names.

    Raises:
        Invalid: The grant expires at no whole second, allows nothing, or is too large for a
            link of 4,096 characters.
    """
    grant = replace(grant, key=keys.signing)
    if not grant.publish.patterns and not grant.subscribe.patterns:
        raise Invalid("A link lets its bearer publish or subscribe to a channel.")
    if grant.expires != int(grant.expires) or not 0 < grant.expires <= _MAX_EXPIRY:
        raise Invalid("A link expires at a whole second, before the year 10000.")
    try:
        payload = _encode(grant)
    except UnicodeEncodeError:
        raise Invalid("A filter of a link is UTF-8.") from None
    link = (
        f"{_base64url(payload)}.{_base64url(_signature(keys.secrets[grant.key], payload))}"
    )
    if len(link) > MAX_LINK:
        raise Invalid(f"The link would be longer than {MAX_LINK} characters.")
    return link


def is_link(token: str) -> bool:
    """
    Does this look like a link, and not like a JWT, which has three parts?
    """
    return token.count(".") == 1


def verify(keys: Keys, link: str, now: float) -> Grant:
    """
    The grant that a link carries.  Whether it is enough for a request is up to
    `Grant.check`.

    Args:
        link: From a query, see `credentials.link_of`, or an `Authorization` header, see
            `credentials.bearer_of`.
        now: In seconds since 1970.

    Raises:
        BadLink: The link gives no right.
    """
    if len(link) > MAX_LINK:
        raise BadLink(f"The link is longer than {MAX_LINK} characters.")
    encoded, dot, signature = link.partition(".")
    payload = _decoded(encoded)
    signed = _decoded(signature)
    if not dot or payload is None or signed is None:
        raise BadLink("The link is not complete, or was changed.")
    fields = _fields(payload)
    if fields is None:
        raise BadLink("The link is not complete, or was changed.")
    secret = keys.secrets.get(fields[0])
    if secret is None:
        raise BadLink(f"The key {fields[0][:32]!r} of this link is not known, or revoked.")
    if not hmac.compare_digest(_signature(secret, payload), signed):
        raise BadLink("The signature does not fit the link: one of the two was changed.")
    grant = _grant(fields)
    # Compared, so that nothing signed elsewhere in another form is taken either.
    if grant is None or _encode(grant) != payload:
        raise BadLink("The link is signed, but not as msgbus-sign would have written it.")
    if now >= grant.expires:
        until = datetime.fromtimestamp(grant.expires, UTC)
        raise BadLink(f"The link expired at {until:%Y-%m-%d %H:%M:%S} UTC.")
    return grant


def _encode(grant: Grant) -> bytes:
    fields = (
        grant.key,
        str(int(grant.expires)),
        ",".join(grant.publish.patterns),
        ",".join(grant.subscribe.patterns),
        _list(grant.filter.type),
        _list(grant.filter.sender),
        grant.name,
        "" if grant.max_message is None else str(grant.max_message),
    )
    return b"".join(b"%d:%b," % (len(f), f) for f in (f.encode("utf-8") for f in fields))


def _list(pattern: Pattern) -> str:
    """
    The one text for all lists that mean the same.
    """
    return ",".join([*pattern.positive, *(f"!{glob}" for glob in pattern.negated)])


def _fields(payload: bytes) -> list[str] | None:
    """
    The fields of a payload, or None if it is malformed.
    """
    fields: list[str] = []
    position = 0
    while position < len(payload):
        length = _LENGTH.match(payload, position)
        if not length or len(fields) == _FIELDS:
            return None
        end = length.end() + int(length[1])
        if payload[end : end + 1] != b",":
            return None
        try:
            fields.append(payload[length.end() : end].decode("utf-8"))
        except UnicodeDecodeError:
            return None
        position = end + 1
    return fields if len(fields) == _FIELDS else None


def _grant(fields: list[str]) -> Grant | None:
    """
    The grant with these fields, or None if one of them has no such value.
    """
    key, expires, publish, subscribe, type, sender, name, max_message = fields
    if not _NUMBER.fullmatch(expires) or int(expires) > _MAX_EXPIRY:
        return None
    if max_message and not _NUMBER.fullmatch(max_message):
        return None
    try:
        return Grant(
            Channels(publish.split(",") if publish else ()),
            Channels(subscribe.split(",") if subscribe else ()),
            int(expires),
            name,
            Filter(type, sender),
            int(max_message) if max_message else None,
            key,
        )
    except Invalid:
        return None


def _signature(secret: bytes, payload: bytes) -> bytes:
    return hmac.digest(secret, _CONTEXT + payload, "sha256")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes | None:
    """
    The bytes of this base64url, or None if it is not the one form that they have.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _base64url(data) == text else None
