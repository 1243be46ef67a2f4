"""
What a subscriber chooses about how it is sent messages.

No I/O and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .overflow import Overflow

__all__ = ["Choices", "Live"]


class Live(Enum):
    """
    What happens where a replay ends, and messages follow that are published from then on.
    """

    UNTOLD = "untold"
    """
    They just follow.
    """
    TOLD = "told"
    """
    The subscriber is told so, and they follow.
    """
    END = "end"
    """
    The subscriber is told so, and the response ends.
    """


@dataclass(frozen=True, slots=True)
class Choices:
    """
    The choices of one subscriber.

    Attributes:
        overflow: What happens when too much waits for it.
        heartbeat: Seconds between two heartbeats, or None for no heartbeats.
        live: What happens where its replay ends; without a replay, where it begins.
        interval: If it is not zero, what is published is sent every so many seconds, and of
            that only the newest message of each channel.
    """

    overflow: Overflow = Overflow.DROP_NEWEST
    heartbeat: int | None = None
    live: Live = Live.UNTOLD
    interval: float = 0
