"""
Slows down the guessing of passwords: a growing delay after each wrong one.

No clock: the time is a parameter, in seconds, of any clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Delays", "Guesses"]

MAX_KEYS = 10_000
# Which part of the keys is forgotten when there are too many.
FORGOTTEN = 8


@dataclass(frozen=True, slots=True)
class Delays:
    """
    How long the next attempt has to wait after wrong ones.

    Attributes:
        free: How many wrong ones cost nothing.
        first: The seconds of delay after the next one.  They double each time.
        longest: The largest delay, in seconds.
        memory: The seconds after which a wrong attempt without another one is forgotten.
    """

    free: int
    first: float = 1.0
    longest: float = 60.0
    memory: float = 900.0

    def after(self, failures: int) -> float:
        """
        The delay after so many wrong attempts in a row.
        """
        late = failures - self.free
        return min(self.first * 2.0 ** min(late - 1, 64), self.longest) if late > 0 else 0.0


class _Failures(NamedTuple):
    number: int
    last: float


class _Table:
    """
    The wrong attempts of each key, for a bounded number of keys.

    When there are too many, those with the fewest wrong attempts are forgotten.  For as
    long as these would have been remembered, keys that are not known have no free attempts
    left, so that whoever uses many keys does not get those again.  But a key that is not
    known never waits before its first wrong attempt, and only for the shortest delay
    after it.
    """

    def __init__(self, delays: Delays, max_keys: int) -> None:
        self._delays = delays
        self._max_keys = max_keys
        self._failures: dict[Hashable, _Failures] = {}
        self._forgotten_last = float("-inf")

    def wait(self, key: Hashable, now: float) -> float:
        failures = self._failures.get(key)
        if failures is None or self._is_old(failures.last, now):
            return 0.0
        return max(0.0, failures.last + self._delays.after(failures.number) - now)

    def failed(self, key: Hashable, now: float) -> None:
        known = self._failures.get(key)
        if known is None and len(self._failures) >= self._max_keys:
            self._forget(now)
        number = 0
        if known is not None and not self._is_old(known.last, now):
            number = known.number
        elif known is None and not self._is_old(self._forgotten_last, now):
            number = self._delays.free
        self._failures[key] = _Failures(number + 1, now)

    def succeeded(self, key: Hashable) -> None:
        self._failures.pop(key, None)

    def _is_old(self, last: float, now: float) -> bool:
        return now >= last + self._delays.memory

    def _forget(self, now: float) -> None:
        self._failures = {
            key: f for key, f in self._failures.items() if not self._is_old(f.last, now)
        }
        known = sorted(self._failures.values())
        count = len(known) - self._max_keys * (FORGOTTEN - 1) // FORGOTTEN
        if count <= 0:
            return
        fewest = known[count - 1]
        self._forgotten_last = max(self._forgotten_last, *(f.last for f in known[:count]))
        self._failures = {key: f for key, f in self._failures.items() if f > fewest}


class Guesses:
    """
    The wrong passwords of each address, and of each address for each name.

    A name alone is never slowed down, or anybody could lock out its owner; so nobody waits
    for what was tried from another address.  A right password makes the wrong ones for this
    name forgotten, but not those of the address, or whoever has one account could guess the
    others' passwords without delay.

    Args:
        pair: The delays for one name from one address.
        address: The delays for one address, behind which there may be many people.
    """

    def __init__(
        self,
        pair: Delays = Delays(free=3),
        address: Delays = Delays(free=20),
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._pairs = _Table(pair, max_keys)
        self._addresses = _Table(address, max_keys)

    def wait(self, address: Hashable, name: str, now: float) -> float:
        """
        The seconds until the next password for this name may be checked; 0 if it may be
        checked now.  Nothing is counted.  A password that was verified before, and is
        remembered, need not wait.

        Args:
            address: What stands for the address; see `addresses.network_of`.
        """
        return max(
            self._pairs.wait((address, name), now), self._addresses.wait(address, now)
        )

    def failed(self, address: Hashable, name: str, now: float) -> None:
        """
        A password was wrong.
        """
        self._pairs.failed((address, name), now)
        self._addresses.failed(address, now)

    def succeeded(self, address: Hashable, name: str) -> None:
        """
        A password was right.
        """
        self._pairs.succeeded((address, name))
