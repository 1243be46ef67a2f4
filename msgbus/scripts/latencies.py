"""
How long something took, measured often and told as percentiles.
"""

from __future__ import annotations

from collections import Counter

__all__ = ["Latencies"]


class Latencies:
    """
    Counts measurements in memory that does not grow with their number: by tenths of a
    millisecond, and from a second on by whole milliseconds.

    Attributes:
        count: How many measurements there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._times: Counter[float] = Counter()

    def add(self, milliseconds: float) -> None:
        """
        Count one measurement.
        """
        self.count += 1
        self._times[round(milliseconds, 1 if milliseconds < 1000 else None)] += 1

    def percentile(self, share: float) -> float:
        """
        The milliseconds that this share of the measurements, from 0 to 1, did not exceed;
        zero if there were none.
        """
        left = self.count * share
        for milliseconds, times in sorted(self._times.items()):
            left -= times
            if left <= 0:
                return milliseconds
        return 0.0

    def __str__(self) -> str:
        return f"p50 {self.percentile(0.5)} ms, p99 {self.percentile(0.99)} ms"
