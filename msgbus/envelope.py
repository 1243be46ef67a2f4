"""
A message as a JSON object, for forms that have no headers.

No I/O and no clock.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import lru_cache

from .message import Message

__all__ = ["envelope", "gap", "is_text", "line", "published_at"]

# Ids begin with milliseconds since 1970.
_ID = re.compile(r"([0-9]{1,16})-[0-9]{1,24}")

_TEXT = re.compile(r"text/|application/json\b|[^/]+/[^;]+\+json\b", re.IGNORECASE)
_UTF8 = ("", "utf-8", "utf8", "us-ascii")


def envelope(
    message: Message, published: datetime | None = None, body: bool = True
) -> bytes:
    """
    The object: `id`, `time` (RFC 3339), `channel`, `sender`, `type`, `size` (of the body,
    in bytes), and the body itself, as `body` if it is UTF-8, and as `base64` (RFC 4648,
    section 4) if not.

    Args:
        published: When; unless it is given, as the id tells.
        body: Whether it has one.
    """
    published = published or published_at(message.id)
    told: dict[str, object] = {
        "id": message.id,
        "time": published and published.isoformat(timespec="milliseconds"),
        "channel": message.channel,
        "sender": message.sender,
        "type": message.content_type,
        "size": len(message.body),
    }
    if body:
        try:
            told["body"] = message.body.decode("utf-8")
        except UnicodeDecodeError:
            told["base64"] = b64encode(message.body).decode("ascii")
    return line(told)


def gap(count: int | None) -> bytes:
    """
    The object that tells that so many messages are missing, or nobody knows how many.
    """
    return line({"gap": "unknown" if count is None else count})


def line(told: dict[str, object]) -> bytes:
    """
    One object as JSON (RFC 8259), without line ends, and in ASCII, so that no terminal
    gets a stranger's control character; DEL is one.
    """
    return json.dumps(told).replace("\x7f", r"\u007f").encode("ascii")


def is_text(message: Message) -> bool:
    """
    Is its body text or JSON, by its type, and UTF-8, so that it can stand as it is
    where only text can?
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
    When the message with this id was published, or None if that tells no time.
    """
    told = _ID.fullmatch(id)
    # Any digits may come from a server, but not any year.
    with suppress(ValueError, OverflowError, OSError):
        if told:
            return datetime.fromtimestamp(int(told[1]) / 1000, UTC)
    return None


@lru_cache(maxsize=256)
def _is_text_type(content_type: str) -> bool:
    if not _TEXT.match(content_type):
        return False
    header = EmailMessage()
    try:
        header["Content-Type"] = content_type
        return header.get_content_charset("") in _UTF8
    except Exception:  # `email` raises an IndexError for some garbage.
        return False
