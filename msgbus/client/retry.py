"""
When to try again what has failed, and when to give up.

No I/O and no clock: the caller says what time it is.
"""

from __future__ import annotations

import random

from .errors import Unreachable
from .notices import Lost

__all__ = ["Retry", "delay"]

_FIRST_DELAY_SECONDS = 0.5
_LAST_DELAY_SECONDS = 60.0


def delay(failures: int, chance: float, asked: float = 0) -> float:
    """
    How many seconds to wait before the next try: 0.25 to 0.5 after the first failure, twice
    that after each further one, and at most a minute; but as long as the server has asked,
    up to a minute, and up to a quarter longer, because it may have asked all the same.

    Args:
        failures: How many tries had failed in a row before the latest one.
        chance: A random number from 0 to 1, so that clients that lost the same bus at the
            same moment do not all come back at the same moment.
        asked: How many seconds the server has asked to wait.
    """
    longest = min(_FIRST_DELAY_SECONDS * 2.0 ** min(failures, 20), _LAST_DELAY_SECONDS)
    own = longest * (0.5 + chance / 2)
    return max(own, min(asked, _LAST_DELAY_SECONDS) * (1 + chance / 4))


class Retry:
    """
    Decides when one publication is sent again, and for how long.

    Args:
        patience: For how many seconds from now it may be sent again.
        now: The time by any clock that does not jump, in seconds.
    """

    def __init__(self, patience: float, now: float) -> None:
        self._give_up = now + patience
        self._failures = 0

    def after(self, error: Unreachable, now: float, *, at_once: bool = False) -> Lost:
        """
        Take note of a failure, and say when the next try is due.

        Args:
            at_once: The failure says nothing about the bus, so the delay is zero.

        Raises:
            Unreachable: The given error, because the next try would come too late.
        """
        seconds = 0.0 if at_once else delay(self._failures, random.random(), error.seconds)
        self._failures += 1
        if now + seconds > self._give_up:
            raise error
        return Lost(str(error), seconds)
