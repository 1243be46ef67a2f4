"""
What counts, for whoever operates the bus: cheap enough to be asked for each message.

No I/O and no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Histogram", "Traffic"]


class Traffic:
    """
    How many messages have passed a place, and how many bytes.
    """

    __slots__ = ("messages", "bytes")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0

    def add(self, messages: int, bytes: int) -> None:
        """
        So many more have passed.
        """
        self.messages += messages
        self.bytes += bytes


class Histogram:
    """
    How many values fell between which bounds.

    Args:
        bounds: The upper bounds of the buckets, in rising order, each of which belongs to
            its bucket.  One more bucket is for what is larger than all.

    Attributes:
        bounds: As given.
        counts: How many values are in each bucket.
        sum: Of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """
        Count a value, so many times.
        """
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times
