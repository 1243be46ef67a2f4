"""
A message that somebody asks to have published, and how it is read from a JSON object: one
that a WebSocket client sends, or an envelope that another bus has written.

No I/O and no clock.  Envelopes are written by `envelope`.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType
from typing import Any

from ..headers import NO_HEADERS, Headers
from ..ids import origin_of
from ..message import Invalid

__all__ = ["Publication", "InvalidPublication", "parse_envelope", "parse_publication"]

# The fields that an object may have, and the types of their values.
_COMMON_FIELDS: dict[str, tuple[type, ...]] = {
    "type": (str,),
    "body": (str,),
    "base64": (str,),
    "channel": (str,),
    "keep": (bool,),
    "require": (bool,),
    "key": (str,),
    "headers": (dict,),
    "max_age": (int,),
}
_WEBSOCKET_FIELDS = {**_COMMON_FIELDS, "ack": (str, int)}
# An envelope has no time, which is null then, if its id has none.
_ENVELOPE_FIELDS = {
    **_COMMON_FIELDS,
    "sender": (str,),
    "id": (str,),
    "origin": (str,),
    "time": (str, NoneType),
    "size": (int,),
}
_KINDS = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    NoneType: "null",
    dict: "an object of strings",
}
_MAX_ACK_CHARACTERS = 100
_EXAMPLE = 'send {"type": "text/plain", "body": "hello"}, or bodies alone with ?raw=1'
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Publication:
    """
    A message that somebody asks to have published, and how.  Its fields are checked later,
    when a `Message` is made of them.

    Attributes:
        channel: None for the channel whose URL it was sent to.
        keep: See `Bus.publish`.
        require: See `Bus.publish`.
        key: See `Bus.publish`.
        ack: A value of the publisher's choice that the acknowledgement repeats; None if
            the publisher wants no acknowledgement.
        sender: The name that was sent with the message; empty if there was none.
        origin: See `Message.origin`.
        id: The id that another bus has given the message; empty if there was none.
        headers: See `Message.headers`.
        max_age: See `Message.max_age`.
    """

    content_type: str
    body: bytes
    channel: str | None = None
    keep: bool = True
    require: bool = False
    key: str | None = None
    ack: str | int | None = None
    sender: str = ""
    origin: str = ""
    id: str = ""
    headers: Headers = NO_HEADERS
    max_age: int | None = None


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
    Read a JSON object as a WebSocket client sends it.  It has a `type` and either a `body`
    or a `base64`, and may have `channel`, `keep`, `require`, `key`, `headers`, `max_age`
    and `ack`.

    Raises:
        InvalidPublication: The text is not such an object.
    """
    fields = _parse_object(text)
    ack = fields.get("ack")
    if type(ack) not in _WEBSOCKET_FIELDS["ack"] or len(str(ack)) > _MAX_ACK_CHARACTERS:
        ack = None
    try:
        _check(fields, _WEBSOCKET_FIELDS)
        if len(str(fields.get("ack", ""))) > _MAX_ACK_CHARACTERS:
            raise Invalid(f"An 'ack' has at most {_MAX_ACK_CHARACTERS} characters.")
        body = _take_body(fields)
    except Invalid as error:
        raise InvalidPublication(str(error), ack) from None
    return Publication(fields.pop("type"), body, **fields)


def parse_envelope(text: bytes) -> Publication | None:
    """
    Read one line of NDJSON as a subscriber gets it, so that it can be published at another
    bus: an envelope, to which `keep`, `require` and `key` may have been added.

    Without an `origin`, the origin is made from the `id`, if that is an id of msgbus.
    `time` and `size` are not used.

    Returns:
        None if the line has no message, but tells of a gap, or where the past ends.

    Raises:
        InvalidPublication: The line is nothing that a bus sends.
    """
    fields = _parse_object(text)
    if fields.keys() in ({"gap"}, {"live"}):
        return None
    try:
        _check(fields, _ENVELOPE_FIELDS)
        body = _take_body(fields)
    except Invalid as error:
        raise InvalidPublication(str(error)) from None
    if not fields.get("origin"):
        with suppress(Invalid):
            fields["origin"] = origin_of(fields.get("id", ""))
    for unused in ("time", "size"):
        fields.pop(unused, None)
    return Publication(fields.pop("type"), body, **fields)


def _parse_object(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidPublication(f"This is no JSON; {_EXAMPLE}.") from None
    if not isinstance(fields, dict):
        raise InvalidPublication(f"This is no object; {_EXAMPLE}.")
    return fields


def _check(fields: dict[str, Any], known: Mapping[str, tuple[type, ...]]) -> None:
    """
    Refuse an object that has other fields than these, with other types of values, or that
    has not exactly one body.
    """
    for name, value in fields.items():
        if type(value) not in known.get(name, ()):
            raise Invalid(_complaint(name, known))
        # JSON can escape single surrogates, which cannot be encoded as UTF-8.
        if isinstance(value, str) and _SURROGATE.search(value):
            raise Invalid(f"{name!r} holds half of a character.")
    if "headers" in fields:
        fields["headers"] = Headers(fields["headers"])
    if "type" not in fields:
        raise Invalid("A message needs a 'type', such as text/plain or image/jpeg.")
    if ("body" in fields) == ("base64" in fields):
        raise Invalid("A message has either a 'body' or a 'base64'.")


def _take_body(fields: dict[str, Any]) -> bytes:
    """
    Remove the body from an object that was checked.
    """
    if "body" in fields:
        text: str = fields.pop("body")
        return text.encode("utf-8")
    try:
        return b64decode(fields.pop("base64"), validate=True)
    except ValueError:
        raise Invalid("'base64' holds no base64 (RFC 4648, section 4).") from None


def _complaint(name: str, known: Mapping[str, tuple[type, ...]]) -> str:
    if name not in known:
        return f"{name[:100]!r} is not one of: {', '.join(known)}."
    return f"{name!r} is {' or '.join(_KINDS[kind] for kind in known[name])}."
