"""
What is published and delivered: an immutable message, the rules for its channel, type and
sender, and the receipt that its publisher gets.

No I/O and no clock.  How a message becomes bytes is up to `formats`, who gets it to `bus`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from .headers import NO_HEADERS, Headers
from .ids import parse_id, parse_origin
from .invalid import Invalid

__all__ = ["Message", "Receipt", "Invalid", "check_name", "is_folder", "names_of"]

MAX_NAME_BYTES = 1024
MAX_SEGMENTS = 32
MAX_FIELD_BYTES = 1000
MAX_AGE = 2**31

# C0, DEL and C1: what Unicode calls "Cc".
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# RFC 9110, sections 5.6.2 and 8.3.1.  Parameters are passed on unchanged, so nothing is
# checked behind the semicolon.
_TCHARS = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_TYPE = re.compile(rf"{_TCHARS}/{_TCHARS}(?= *(?:;|\Z))")


@dataclass(frozen=True, slots=True)
class Message:
    """
    One message.  It is checked when it is made, so every message that exists can be sent
    in every format, and none can forge headers or other messages in a stream.

    Attributes:
        channel: The full name that it was published to, without the bus's
            prefix; see `check_name`.  The name of a folder is allowed, and
            the empty name is the root.
        body: Any bytes, also none.
        content_type: `type/subtype` and whatever parameters the publisher
            gave, unchanged; at most 1,000 bytes of UTF-8.
        sender: The name that the publisher gave, at most 1,000 bytes of
            UTF-8, or the empty string if it gave none.
        id: The id that the bus gave it, or the empty string before it is published.
            Opaque to clients.
        origin: Where the message was published first, if that was another bus, from which
            a program has copied it to this one: `LIFE/ID`, see `ids.parse_origin`.
            Otherwise the empty string.
        headers: What else its publisher has said about it; `NO_HEADERS` if that is nothing.
        max_age: For how many seconds after its publication it is kept and delivered, or
            None for no such limit (RFC 9111, section 5.2.2.1).

    The id and the origin do not count when messages are compared.

    Raises:
        Invalid: A field breaks these rules.
    """

    channel: str
    body: bytes
    content_type: str = "application/octet-stream"
    sender: str = ""
    id: str = field(default="", compare=False)
    origin: str = field(default="", compare=False)
    headers: Headers = NO_HEADERS
    max_age: int | None = None

    def __post_init__(self) -> None:
        check_name(self.channel)
        # A bytearray could be changed after it was checked.
        if not isinstance(self.body, bytes):
            raise Invalid(f"A body is bytes, not {type(self.body).__name__}.")
        _check_field("content type", self.content_type)
        if not _TYPE.match(self.content_type):
            raise Invalid(
                f"The content type {self.content_type!r} does not begin with"
                " type/subtype, such as text/plain."
            )
        _check_field("id", self.id)
        _check_field("sender", self.sender)
        # HTTP strips outer white space from header values, so it would not arrive.
        if self.sender != self.sender.strip():
            raise Invalid(f"The sender {self.sender!r} begins or ends with a space.")
        if self.origin:
            parse_origin(self.origin)
        if self.headers is not NO_HEADERS:
            _set_headers(self, _headers(self.headers))
        if self.max_age is not None:
            _set_max_age(self, _seconds(self.max_age))

    def published(self, id: str, body: bytes | None = None) -> Message:
        """
        The same message with an id, as a bus sends it; with this body, if one is given.
        """
        # The new message is not checked, because its fields come from a checked one.
        message = object.__new__(Message)
        _set_channel(message, self.channel)
        _set_body(message, self.body if body is None else body)
        _set_content_type(message, self.content_type)
        _set_sender(message, self.sender)
        _set_id(message, id)
        _set_origin(message, self.origin)
        _set_headers(message, self.headers)
        _set_max_age(message, self.max_age)
        return message

    def expires(self) -> int | None:
        """
        When a published message is not to be delivered any more, in milliseconds since
        1970; None for never.
        """
        if self.max_age is None:
            return None
        return parse_id(self.id)[0] + self.max_age * 1000

    def with_body(self, body: bytes) -> Message:
        """
        The same message, not published, with another body.
        """
        return self.published("", body)

    def with_max_age(self, max_age: int | None) -> Message:
        """
        The same message, not published, with this `max_age`.
        """
        message = self.published("")
        _set_max_age(message, max_age)
        return message

    def with_origin(self, origin: str) -> Message:
        """
        The same message, not published, with this origin, or with none.

        Raises:
            Invalid: It is no origin.
        """
        if origin:
            parse_origin(origin)
        message = self.published("")
        _set_origin(message, origin)
        return message


# These functions set the fields of a message although it is frozen.  They are faster than
# `object.__setattr__`, which looks up the field each time; every message is copied once.
(
    _set_channel,
    _set_body,
    _set_content_type,
    _set_sender,
    _set_id,
    _set_origin,
    _set_headers,
    _set_max_age,
) = (
    vars(Message)[name].__set__
    for name in (
        "channel",
        "body",
        "content_type",
        "sender",
        "id",
        "origin",
        "headers",
        "max_age",
    )
)


class Receipt(NamedTuple):
    """
    What the bus answers to a publisher.

    Attributes:
        id: The id that the message was given.
        subscribers: How many subscribers the message is for; some may not have it yet.
        repeated: Whether this bus had the message before, by its origin or its key, and
            has not published it again.  A client sees that only of a stream.
    """

    id: str
    subscribers: int
    repeated: bool = False


def is_folder(name: str) -> bool:
    """
    Is this the name of a folder, whose subscribers get all channels below it?
    """
    return not name or name.endswith("/")


@lru_cache(maxsize=256)
def names_of(channel: str) -> tuple[str, ...]:
    """
    The channel's own name and every folder above it, each once: the names to which one
    can subscribe to get its messages.
    """
    names = [channel] if channel else []
    end = len(channel.removesuffix("/"))
    while (end := channel.rfind("/", 0, end)) >= 0:
        names.append(channel[: end + 1])
    return (*names, "")


def check_name(name: str) -> None:
    """
    Check the name of a channel or folder.

    Args:
        name: Segments joined by slashes; one that ends in a slash is a
            folder, and the empty name is the root, the folder of all.  At
            most 1,024 bytes of UTF-8 and 32 segments.

    Raises:
        Invalid: It is too long or too deep, or a segment is empty, begins
            with a dot, or holds a control character or a backslash.
    """
    if not isinstance(name, str):
        raise Invalid(f"A channel's name is a string, not {type(name).__name__}.")
    if len(name) > MAX_NAME_BYTES or len(_utf8("name", name)) > MAX_NAME_BYTES:
        raise Invalid(f"The name is longer than {MAX_NAME_BYTES} bytes.")
    if not name:
        return
    if _CONTROL.search(name) or "\\" in name:
        raise Invalid(f"The name {name!r} holds a control character or a backslash.")
    segments = name.removesuffix("/").split("/")
    if len(segments) > MAX_SEGMENTS:
        raise Invalid(f"The name has more than {MAX_SEGMENTS} segments.")
    for segment in segments:
        if not segment:
            raise Invalid(f"The name {name!r} has an empty segment.")
        # Reserved for resources of the server, such as .js; also refuses "." and "..".
        if segment.startswith("."):
            raise Invalid(f"The segment {segment!r} begins with a dot.")


def _check_field(what: str, value: str) -> None:
    """
    Refuse a text that cannot be the value of a header line.
    """
    if not isinstance(value, str):
        raise Invalid(f"A {what} is a string, not {type(value).__name__}.")
    if _CONTROL.search(value):
        raise Invalid(f"The {what} {value[:100]!r} holds a control character.")
    if len(value) > MAX_FIELD_BYTES or len(_utf8(what, value)) > MAX_FIELD_BYTES:
        raise Invalid(f"The {what} is longer than {MAX_FIELD_BYTES} bytes.")


def _headers(headers: Mapping[str, str]) -> Headers:
    """
    Headers of a message: `NO_HEADERS` itself if there are none, which is quickly compared.
    """
    if not headers:
        return NO_HEADERS
    return headers if isinstance(headers, Headers) else Headers(headers)


def _seconds(max_age: int) -> int:
    """
    A `max_age` within bounds; RFC 9111, section 1.2.2, has no larger number.
    """
    if type(max_age) is not int or max_age < 0:
        raise Invalid(f"A max-age is a whole number of seconds, not {max_age!r}.")
    return min(max_age, MAX_AGE)


def _utf8(what: str, value: str) -> bytes:
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise Invalid(f"The {what} {value[:100]!r} cannot be UTF-8.") from None
