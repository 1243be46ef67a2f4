"""
What happens when too much waits for a subscriber.

No I/O and no clock.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Overflow"]


class Overflow(Enum):
    """
    What happens to a member for which more waits than the backlog allows: the value of
    `?overflow=`.
    """

    DROP_NEWEST = "drop-newest"
    """
    It gets what already waits for it, and then goes on with the newest message; those
    between are dropped.
    """
    DROP_OLDEST = "drop-oldest"
    """
    It gets the last messages that fit into the backlog; older ones are dropped.
    """
    LATEST = "latest"
    """
    As soon as anything waits for it, it gets only the newest message of each channel.
    """
    CLOSE = "close"
    """
    Its connection is closed.
    """
