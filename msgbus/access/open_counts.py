"""
How many things somebody has open at once: connections, or subscriptions.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["OpenCounts"]


class OpenCounts:
    """
    Counts, for each key, what is open.  Keys with nothing open are not kept, so the table
    is no larger than the number of open things.

    Args:
        limit: How many of them a key may have open; `math.inf` for any number.

    Attributes:
        limit: As given; may be changed.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._open: dict[Hashable, int] = {}

    def count(self, key: Hashable) -> int:
        """
        How many are open.
        """
        return self._open.get(key, 0)

    def open(self, key: Hashable) -> bool:
        """
        Count one more, unless the limit is reached.

        Returns:
            Whether it was counted.  If so, `close` has to be called, once.
        """
        count = self.count(key)
        if count >= self.limit:
            return False
        self._open[key] = count + 1
        return True

    def close(self, key: Hashable) -> None:
        """
        Count one less.
        """
        count = self._open[key] - 1
        if count:
            self._open[key] = count
        else:
            del self._open[key]
