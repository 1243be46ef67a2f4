"""
Ids of messages, where a replay begins, and gaps between messages.

No I/O and no clock.  How ids are made is up to `bus.id_sequence`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .message import Invalid

__all__ = ["Gap", "Id", "Since", "ZERO", "format_id", "parse_id"]

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


@dataclass(frozen=True, slots=True)
class Since:
    """
    Where a replay begins.  At most one of the attributes is given; without any, it begins
    at the first message that is kept.

    Attributes:
        id: Behind the message with this id.
        seconds: So many seconds ago.
        last: At the last so many messages that match the filter.
    """

    id: Id | None = None
    seconds: int | None = None
    last: int | None = None


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
