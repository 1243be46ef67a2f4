"""
How a bus makes the ids of its messages.

No I/O; the time is a parameter.  How ids are written and read is up to `ids`.
"""

from __future__ import annotations

import secrets

from ..ids import COUNT_DIGITS, MAX_LIFE, Id

__all__ = ["IdSequence", "zero_id"]


class IdSequence:
    """
    Makes ids, each larger than the one before.

    An id is a pair: the time in milliseconds since 1970, and a number that begins with the
    life of the bus and goes up by one with each id.

    Attributes:
        life: See `Log.life`.
        last: The last id that was given, or `zero_id` if there was none.
    """

    __slots__ = ("life", "last")

    def __init__(self) -> None:
        self.life = secrets.randbelow(MAX_LIFE)
        self.last = zero_id(self.life)

    def next(self, milliseconds: int) -> Id:
        """
        A new id for a message that is published at this time.
        """
        last_milliseconds, number = self.last
        # The clock may have been set back, but ids must grow.
        if milliseconds < last_milliseconds:
            milliseconds = last_milliseconds
        self.last = (milliseconds, number + 1)
        return self.last


def zero_id(life: int) -> Id:
    """
    An id that is smaller than all ids that are given in this life.
    """
    return (0, life * 10**COUNT_DIGITS)
