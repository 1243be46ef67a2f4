"""
Decides when an event that repeats is logged: once in a while, and not each time.

No clock: the time is a parameter, in seconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["LogThrottle"]

MAX_KEYS = 1000


@dataclass(slots=True)
class _Told:
    at: float
    since: int = 0


class LogThrottle:
    """
    Lets an event be logged if the last one with the same key was logged long enough ago.

    There are at most 1,000 keys at once.  While there are more, all others count as one, so
    that the log grows no faster than 1,001 lines in the interval, whoever writes to it.

    Args:
        seconds: The interval between two lines with the same key.
    """

    def __init__(self, seconds: float, max_keys: int = MAX_KEYS) -> None:
        self._seconds = seconds
        self._max_keys = max_keys
        self._told: dict[Hashable, _Told] = {}
        self._others = _Told(float("-inf"))

    def due(self, key: Hashable, now: float) -> int:
        """
        Count an event.

        Returns:
            How many events there were since the last line, with this one, if it is time for
            the next line; 0 if it is not.
        """
        told = self._told.get(key)
        if told is None:
            if len(self._told) >= self._max_keys:
                self._forget(now)
            if len(self._told) >= self._max_keys:
                told = self._others
            else:
                told = self._told[key] = _Told(float("-inf"))
        told.since += 1
        if now < told.at + self._seconds:
            return 0
        count, told.since, told.at = told.since, 0, now
        return count

    def _forget(self, now: float) -> None:
        """
        Forget the keys whose next event would be logged anyway.
        """
        if now < self._others.at + self._seconds:
            # Looked at no more often than once in the interval.
            return
        self._told = {k: t for k, t in self._told.items() if now < t.at + self._seconds}
