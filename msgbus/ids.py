"""
Ids of messages, points in the past that they name, and gaps in what came.

No I/O and no clock.  How ids are made is up to `bus`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .message import Invalid

__all__ = ["Gap", "Id", "Since", "ZERO", "format_id", "parse_id"]

Id = tuple[int, int]
"""
Milliseconds since 1970, and a number; see `Bus`.
"""

ZERO: Id = (0, 0)

_ID = re.compile(r"([0-9]{1,16})-([0-9]{1,24})")


def parse_id(text: str) -> Id:
    """
    The id that a message was sent with.

    Raises:
        Invalid: It is none.
    """
    match = _ID.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:100]!r} is no id of a message: give one that came with one.")
    return int(match[1]), int(match[2])


def format_id(id: Id) -> str:
    """
    The id as a message is sent with it.
    """
    return "{}-{}".format(*id)


@dataclass(frozen=True, slots=True)
class Since:
    """
    Where a replay begins: behind an id; so many seconds ago; at the last so many
    messages that match; or, if none of them is given, at the first that is kept.
    """

    id: Id | None = None
    seconds: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """
    Messages are missing here; how many, or None where nobody knows.
    """

    count: int | None

    def __str__(self) -> str:
        if self.count is None:
            return "Messages are missing here; nobody knows how many."
        messages = "message is" if self.count == 1 else "messages are"
        return f"{self.count} {messages} missing here."
