"""
When the clients that a stop sends away are to come back: at random times, so that the bus
that starts next can take them as they come.
"""

from __future__ import annotations

import random

__all__ = ["Returns"]

# How many subscribers are asked to come back each second.  With what they have missed, a
# bus that has a core for itself takes back about 3,000 (bench/restart.py).
RETURNS_A_SECOND = 2000

# No client is asked to stay away for longer.
MOST_SECONDS = 60.0

# A bus that was just stopped takes about so long to be there again.
LEAST_SECONDS = 0.5


class Returns:
    """
    The time in which all clients of a bus may come back.

    Attributes:
        seconds: How long it is.
    """

    def __init__(self) -> None:
        self.seconds = LEAST_SECONDS

    def expect(self, clients: int) -> None:
        """
        Choose a time that is long enough for so many clients.
        """
        self.seconds = min(LEAST_SECONDS + clients / RETURNS_A_SECOND, MOST_SECONDS)

    def next(self) -> float:
        """
        After how many seconds one more client is to come back.
        """
        return random.uniform(LEAST_SECONDS, self.seconds)
