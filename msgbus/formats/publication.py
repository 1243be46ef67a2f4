"""
What somebody sends to have it published, and how that is read from a JSON object.

No I/O and no clock.  The messages that a bus sends as JSON are written by `envelope`.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

from ..message import Invalid

__all__ = ["Publication", "InvalidPublication", "parse_publication"]

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
_MAX_ACK_CHARACTERS = 100
_EXAMPLE = 'send {"type": "text/plain", "body": "hello"}, or bodies alone with ?raw=1'
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Publication:
    """
    A message that somebody asks to have published, and how.

    Attributes:
        channel: None for the channel whose URL it was sent to.
        keep: See `Bus.publish`.
        require: See `Bus.publish`.
        key: See `Bus.publish`.
        ack: A value of the publisher's choice that the acknowledgement repeats; None if
            the publisher wants no acknowledgement.
    """

    content_type: str
    body: bytes
    channel: str | None = None
    keep: bool = True
    require: bool = False
    key: str | None = None
    ack: str | int | None = None


class InvalidPublication(Invalid):
    """
    What was sent to be published cannot be read.

    Attributes:
        ack: The `ack` that was sent with it, for the refusal to repeat; None if there was
            no valid one.
    """

    def __init__(self, sentence: str, ack: str | int | None = None) -> None:
        super().__init__(sentence)
        self.ack = ack


def parse_publication(text: bytes) -> Publication:
    """
    Read a JSON object that has a `type` and either a `body` or a `base64`, and may have
    `channel`, `keep`, `require`, `key` and `ack`.

    Raises:
        InvalidPublication: The text is not such an object.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidPublication(f"This is no JSON; {_EXAMPLE}.") from None
    if not isinstance(fields, dict):
        raise InvalidPublication(f"This is no object; {_EXAMPLE}.")
    ack = fields.get("ack")
    if type(ack) not in _FIELDS["ack"] or len(str(ack)) > _MAX_ACK_CHARACTERS:
        ack = None
    try:
        return _from_fields(fields)
    except Invalid as error:
        raise InvalidPublication(str(error), ack) from None


def _from_fields(fields: dict[str, Any]) -> Publication:
    for name, value in fields.items():
        if type(value) not in _FIELDS.get(name, ()):
            raise Invalid(_complaint(name))
        # JSON can escape single surrogates, which cannot be encoded as UTF-8.
        if isinstance(value, str) and _SURROGATE.search(value):
            raise Invalid(f"{name!r} holds half of a character.")
    if "type" not in fields:
        raise Invalid("A message needs a 'type', such as text/plain or image/jpeg.")
    if ("body" in fields) == ("base64" in fields):
        raise Invalid("A message has either a 'body' or a 'base64'.")
    if len(str(fields.get("ack", ""))) > _MAX_ACK_CHARACTERS:
        raise Invalid(f"An 'ack' has at most {_MAX_ACK_CHARACTERS} characters.")
    try:
        base64 = fields.pop("base64", None)
        body = None if base64 is None else b64decode(base64, validate=True)
    except ValueError:
        raise Invalid("'base64' holds no base64 (RFC 4648, section 4).") from None
    if body is None:
        body = fields.pop("body").encode("utf-8")
    return Publication(fields.pop("type"), body, **fields)


def _complaint(name: str) -> str:
    if name not in _FIELDS:
        return f"{name[:100]!r} is not one of: {', '.join(_FIELDS)}."
    kinds = {str: "a string", bool: "true or false", int: "a whole number"}
    return f"{name!r} is {' or '.join(kinds[kind] for kind in _FIELDS[name])}."
