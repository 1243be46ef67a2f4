"""
A message as a JSON object, its envelope, for formats that have no headers.

No I/O and no clock.  The JSON that publishers send is read by `publication`.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import lru_cache

from ..ids import parse_id
from ..message import Message

__all__ = ["LIVE", "envelope", "gap", "is_text", "line", "published_at"]

# The object that tells a subscriber that it has been sent all that is kept.
LIVE = b'{"live": true}'

_TEXT = re.compile(r"text/|application/json\b|[^/]+/[^;]+\+json\b", re.IGNORECASE)
_UTF8 = ("", "utf-8", "utf8", "us-ascii")


def envelope(
    message: Message, published: datetime | None = None, body: bool = True
) -> bytes:
    """
    The object has `id`, `time` (RFC 3339), `channel`, `sender`, `type`, `size` (of the
    body, in bytes), `origin`, `headers` and `max_age` if the message has such, and the body
    itself: as `body` if it is UTF-8, otherwise as `base64` (RFC 4648, section 4).

    Args:
        published: When the message was published; by default, the time in its id.
        body: Whether to include the body.
    """
    published = published or published_at(message.id)
    fields: dict[str, object] = {
        "id": message.id,
        "time": published and published.isoformat(timespec="milliseconds"),
        "channel": message.channel,
        "sender": message.sender,
        "type": message.content_type,
        "size": len(message.body),
    }
    if message.origin:
        fields["origin"] = message.origin
    if message.headers:
        fields["headers"] = dict(message.headers)
    if message.max_age is not None:
        fields["max_age"] = message.max_age
    if body:
        try:
            fields["body"] = message.body.decode("utf-8")
        except UnicodeDecodeError:
            fields["base64"] = b64encode(message.body).decode("ascii")
    return line(fields)


def gap(count: int | None) -> bytes:
    """
    The object that tells a subscriber how many messages are missing; `count` is None if
    nobody knows how many.
    """
    return line({"gap": "unknown" if count is None else count})


def line(fields: Mapping[str, object]) -> bytes:
    """
    One object as JSON (RFC 8259), without line ends.

    It is ASCII without control characters, so that nothing that a publisher sent can
    control the terminal of a reader.
    """
    # DEL is the one control character that `json` does not escape.
    return json.dumps(fields).replace("\x7f", r"\u007f").encode("ascii")


def is_text(message: Message) -> bool:
    """
    Can the body stand unchanged where only text can?  It can if the content type is text
    or JSON in UTF-8 and the body is valid UTF-8.
    """
    if not _is_text_type(message.content_type):
        return False
    try:
        message.body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def published_at(id: str) -> datetime | None:
    """
    When the message with this id was published, or None if the id contains no valid time.
    """
    # A server may send any digits, and `datetime` ends with the year 9999.
    with suppress(ValueError, OverflowError, OSError):
        milliseconds, _ = parse_id(id)
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    return None


@lru_cache(maxsize=256)
def _is_text_type(content_type: str) -> bool:
    if not _TEXT.match(content_type):
        return False
    header = EmailMessage()
    try:
        header["Content-Type"] = content_type
        return header.get_content_charset("") in _UTF8
    except Exception:  # `email` raises an IndexError for some malformed types.
        return False
