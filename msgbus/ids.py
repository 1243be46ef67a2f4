"""
Ids of messages, origins of messages, where a replay begins, and gaps between messages.

No I/O and no clock.  How ids are made is up to `bus.id_sequence`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from .invalid import Invalid

__all__ = [
    "COUNT_DIGITS",
    "Gap",
    "Id",
    "MAX_LIFE",
    "Since",
    "ZERO",
    "format_id",
    "life_of",
    "origin_of",
    "parse_id",
    "parse_origin",
]

# The last 12 digits of an id's number count the messages of a bus.  The digits before them
# are the life of the bus, which is smaller than MAX_LIFE; see `Bus.life`.
COUNT_DIGITS: Final = 12
MAX_LIFE = 10**6

Id = tuple[int, int]
"""
The time in milliseconds since 1970, and a number that tells ids of the same time apart; see
`bus.id_sequence`.
"""

# Smaller than every id that a bus gives.
ZERO: Id = (0, 0)

_ID = re.compile(r"([0-9]{1,16})-([0-9]{1,24})")


def parse_id(text: str) -> Id:
    """
    Read an id as messages are sent with it.

    Raises:
        Invalid: The text is not an id.
    """
    match = _ID.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:100]!r} is no id of a message: give one that came with one.")
    return int(match[1]), int(match[2])


def format_id(id: Id) -> str:
    """
    Write an id as messages are sent with it.
    """
    milliseconds, number = id
    return f"{milliseconds}-{number}"


def life_of(id: Id) -> int:
    """
    The life of the bus that gave this id.  If it is `MAX_LIFE` or more, no bus can have
    given the id.
    """
    return id[1] // 10**COUNT_DIGITS


def origin_of(id: str) -> str:
    """
    The origin of a message that was published first at the bus that gave it this id: the
    life of that bus, a slash, and the id, as in `4711/1764-4711000000000017`.

    Raises:
        Invalid: The text is not an id, or no bus can have given it.
    """
    parsed = parse_id(id)
    if (life := life_of(parsed)) >= MAX_LIFE:
        raise Invalid(f"{id!r} is no id that a bus of msgbus gives.")
    return f"{life}/{format_id(parsed)}"


def parse_origin(text: str) -> Id:
    """
    The id in an origin: the id that the bus at which the message was published first has
    given it.

    Raises:
        Invalid: The text is not an origin as `origin_of` writes it.  Another spelling, with
            zeros in front of a number, is refused, because origins are compared as texts.
    """
    _, _, id = text.partition("/")
    with suppress(Invalid):
        if origin_of(id) == text:
            return parse_id(id)
    raise Invalid(
        f"{text[:100]!r} is no origin of a message: give LIFE/ID, as it came with one."
    )


@dataclass(frozen=True, slots=True)
class Since:
    """
    Where a replay begins.  Without any of the attributes, it begins at the first message
    that is kept.

    Attributes:
        id: Behind the message with this id.
        seconds: So many seconds ago; not given together with `id`.
        last: At the last so many messages that match the filter.  With `id` or `seconds`,
            only those count that come after that.
        each: Only the newest message of each channel is read of those that were published
            before the replay began.
    """

    id: Id | None = None
    seconds: int | None = None
    last: int | None = None
    each: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """
    Messages that are missing at this place.

    Attributes:
        count: How many, or None if nobody knows.
    """

    count: int | None

    def __str__(self) -> str:
        if self.count is None:
            return "Messages are missing here; nobody knows how many."
        messages = "message is" if self.count == 1 else "messages are"
        return f"{self.count} {messages} missing here."
