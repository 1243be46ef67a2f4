"""
A message as a JSON object, for forms that have no headers.

No I/O and no clock.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import lru_cache
from typing import Any

from ..ids import parse_id
from ..message import Invalid, Message

__all__ = [
    "NotPosted",
    "Posted",
    "envelope",
    "gap",
    "is_text",
    "line",
    "posted",
    "published_at",
]

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


def line(told: Mapping[str, object]) -> bytes:
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
    # Any digits may come from a server, but not any year.
    with suppress(ValueError, OverflowError, OSError):
        milliseconds, _ = parse_id(id)
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    return None


@dataclass(frozen=True, slots=True)
class Posted:
    """
    What one sends to have it published.

    Attributes:
        channel: None for the one that it is sent to.
        keep: See `Bus.publish`.
        require: See `Bus.publish`.
        key: See `Bus.publish`.
        ack: With what the publication is to be acknowledged, or None for not at all.
    """

    content_type: str
    body: bytes
    channel: str | None = None
    keep: bool = True
    require: bool = False
    key: str | None = None
    ack: str | int | None = None


class NotPosted(Invalid):
    """
    What was sent to be published is not.

    Attributes:
        ack: With what that is to be acknowledged, or None for not at all.
    """

    def __init__(self, sentence: str, ack: str | int | None = None) -> None:
        super().__init__(sentence)
        self.ack = ack


_FIELDS: dict[str, tuple[type, ...]] = {
    "type": (str,),
    "body": (str,),
    "base64": (str,),
    "channel": (str,),
    "keep": (bool,),
    "require": (bool,),
    "key": (str,),
    "ack": (str, int),
}
_MAX_ACK = 100
_EXAMPLE = 'send {"type": "text/plain", "body": "hello"}, or bodies alone with ?raw=1'
_SURROGATE = re.compile("[\ud800-\udfff]")


def posted(text: bytes) -> Posted:
    """
    Read an envelope that is to be published: a JSON object with a `type`, and a `body` or
    a `base64`; `channel`, `keep`, `require`, `key` and `ack`, if need be.

    Raises:
        NotPosted: It is none.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise NotPosted(f"This is no JSON; {_EXAMPLE}.") from None
    if not isinstance(told, dict):
        raise NotPosted(f"This is no object; {_EXAMPLE}.")
    ack = told.get("ack")
    if type(ack) not in _FIELDS["ack"] or len(str(ack)) > _MAX_ACK:
        ack = None
    try:
        return _posted(told)
    except Invalid as error:
        raise NotPosted(str(error), ack) from None


def _posted(told: dict[str, Any]) -> Posted:
    for name, value in told.items():
        if type(value) not in _FIELDS.get(name, ()):
            raise Invalid(_complaint(name))
        # JSON can name surrogates, which are no characters.
        if isinstance(value, str) and _SURROGATE.search(value):
            raise Invalid(f"{name!r} holds half of a character.")
    if "type" not in told:
        raise Invalid("A message needs a 'type', such as text/plain or image/jpeg.")
    if ("body" in told) == ("base64" in told):
        raise Invalid("A message has either a 'body' or a 'base64'.")
    if len(str(told.get("ack", ""))) > _MAX_ACK:
        raise Invalid(f"An 'ack' has at most {_MAX_ACK} characters.")
    try:
        base64 = told.pop("base64", None)
        body = None if base64 is None else b64decode(base64, validate=True)
    except ValueError:
        raise Invalid("'base64' holds no base64 (RFC 4648, section 4).") from None
    if body is None:
        body = told.pop("body").encode("utf-8")
    return Posted(told.pop("type"), body, **told)


def _complaint(name: str) -> str:
    if name not in _FIELDS:
        return f"{name[:100]!r} is not one of: {', '.join(_FIELDS)}."
    kinds = {str: "a string", bool: "true or false", int: "a whole number"}
    return f"{name!r} is {' or '.join(kinds[kind] for kind in _FIELDS[name])}."


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
