"""
How much somebody may do in a time: token buckets, for users, addresses, or any other key.

No clock: the time is a parameter, in seconds, of any clock that never goes back.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass

from ..message import Invalid

__all__ = ["Limiter", "Rate"]

# How many keys a limiter knows at once; when there are more, it forgets one in this many.
MAX_KEYS = 10_000
FORGOTTEN = 8

# Less than what floats lose when times are added, in seconds.
_NOTHING = 1e-6

_RATE = re.compile(r"([1-9][0-9]{0,11})([kMG]?)/(s|min|h|d|[1-9][0-9]{0,5}s)")
_UNIT_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_UNIT_QUOTA = {"": 1, "k": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True, slots=True)
class Rate:
    """
    A quota and the time in which it fills again.  It may be used at once, or bit by bit.

    Attributes:
        quota: How much fits into the bucket.
        seconds: The time in which an empty bucket becomes full.
    """

    quota: int
    seconds: int

    def __post_init__(self) -> None:
        if self.quota < 1 or self.seconds < 1:
            raise Invalid("A rate is at least 1 in at least one second.")

    @classmethod
    def parse(cls, text: str) -> Rate:
        """
        Read a rate, such as `10/s`, `1000/h`, `60/30s` or `64M/10s`: per s, min, h or d, or
        in so many seconds; k, M and G are powers of 1,024.

        Raises:
            Invalid: It is none.
        """
        found = _RATE.fullmatch(text)
        if not found:
            raise Invalid(f"{text[:100]!r} is no rate, such as 10/s or 1000/h.")
        count, factor, unit = found.groups()
        seconds = _UNIT_SECONDS.get(unit) or int(unit[:-1])
        return cls(int(count) * _UNIT_QUOTA[factor], seconds)


class Limiter:
    """
    Buckets of one rate, one for each key, in a table of bounded size.

    A bucket is kept as the time at which it will be full again.  When the table is full,
    the buckets that are full first are forgotten.  From then on, a key that is not in the
    table begins with the time of the last of those: so no key gains by being forgotten,
    however many keys its owner uses.  Nobody else loses by that, unless 7 of 8 buckets in
    the table are used in part at the same time; and then a newcomer has to wait no longer
    than any of those 7.
    """

    def __init__(self, rate: Rate, max_keys: int = MAX_KEYS) -> None:
        self.rate = rate
        self._seconds = rate.seconds
        self._seconds_each = rate.seconds / rate.quota
        self._max_keys = max_keys
        self._full_at: dict[Hashable, float] = {}
        # No key that was forgotten is full later than this.
        self._forgotten_full_at = float("-inf")

    def wait(self, key: Hashable, cost: int, now: float) -> float:
        """
        The seconds until this may be taken, or 0 if it may be taken now.  What costs more
        than the whole quota may be taken from a full bucket.
        """
        missing = self._missing_seconds(key, now)
        quota, seconds = self.rate.quota, self.rate.seconds
        wait = missing - seconds * (1 - min(cost, quota) / quota)
        return wait if wait > _NOTHING else 0.0

    def charge(self, key: Hashable, cost: int, now: float) -> None:
        """
        Take this, also if the bucket does not hold so much: then the next to take from it
        waits longer.
        """
        missing = self._missing_seconds(key, now)
        if key not in self._full_at and len(self._full_at) >= self._max_keys:
            self._forget()
        self._full_at[key] = now + missing + cost * self.rate.seconds / self.rate.quota

    def take(self, key: Hashable, cost: int, now: float) -> float:
        """
        Take this, if it may be taken now.

        Returns:
            0, or the seconds until it may be taken; then nothing was taken.
        """
        wait = self.wait(key, cost, now)
        if not wait:
            self.charge(key, cost, now)
        return wait

    def take_quickly(self, key: Hashable, cost: int, now: float) -> bool:
        """
        Take this, if it may be taken now and that is certain at once.

        Returns:
            Whether it was taken.  If not, `wait` knows why.
        """
        full_at = self._full_at.get(key)
        if full_at is None:
            return not self.take(key, cost, now)
        later = (full_at if full_at > now else now) + cost * self._seconds_each
        if later > now + self._seconds:
            return not self.take(key, cost, now)
        self._full_at[key] = later
        return True

    def give_back(self, key: Hashable, cost: int) -> None:
        """
        Give back what was just taken.
        """
        if key in self._full_at:
            self._full_at[key] -= cost * self._seconds_each

    def remaining(self, key: Hashable, now: float) -> tuple[int, float]:
        """
        How much may be taken now, and the seconds until it is at least one more; 0 if the
        bucket is full.
        """
        quota, seconds = self.rate.quota, self.rate.seconds
        missing = self._missing_seconds(key, now) * quota / seconds
        left = max(0, int(quota - missing + _NOTHING))
        if left == quota:
            return left, 0.0
        return left, (left + 1 - quota + missing) * seconds / quota

    def _missing_seconds(self, key: Hashable, now: float) -> float:
        """
        The seconds until the bucket of a key is full.
        """
        return max(0.0, self._full_at.get(key, self._forgotten_full_at) - now)

    def _forget(self) -> None:
        """
        Forget some of the buckets that are full first.
        """
        times = sorted(self._full_at.values())
        last = times[max(0, len(times) // FORGOTTEN - 1)]
        self._forgotten_full_at = max(self._forgotten_full_at, last)
        # Buckets that are full at that very time lose nothing by being forgotten, too.
        self._full_at = {
            key: at for key, at in self._full_at.items() if at > self._forgotten_full_at
        }
