"""
What fan-out counts, for whoever operates the bus.

No I/O and no clock.
"""

from __future__ import annotations

from collections import Counter

from ..meters import Histogram, Traffic
from .overflow import Overflow

__all__ = ["Counters"]

# Bounds in seconds: a delivery takes some microseconds on an idle bus, and seconds on one
# that is overloaded.
DELIVERY_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class Counters:
    """
    What is counted for all groups of one bus together.

    Attributes:
        waiting: Bytes that wait in backlogs and replays.
        open: Members, by the form of their streams.
        behind: Members for which messages wait because they are read slowly.
        replays: Members that are being sent kept messages.
        dropped: Messages that were not delivered, by what the subscriber has chosen,
            counted once for each member that did not get them, when that member is told.
        gaps: How often members were told that messages were dropped for them, by the same.
        closed: Members whose response was ended because too much waited for them.
        stalled: Members whose connection was cut because they took nothing for too long.
        delivered: What was delivered, by the form of the stream; see `Framing.form`.  A
            message counts once for each member that got it.
        delay: The seconds from the moment in which a message is published to that in which
            the sockets of all members that are level have it, once for each of them.
    """

    __slots__ = (
        "waiting",
        "open",
        "behind",
        "replays",
        "dropped",
        "gaps",
        "closed",
        "stalled",
        "delivered",
        "delay",
    )

    def __init__(self) -> None:
        self.waiting = 0
        self.open: Counter[str] = Counter()
        self.behind = 0
        self.replays = 0
        self.dropped: Counter[Overflow] = Counter()
        self.gaps: Counter[Overflow] = Counter()
        self.closed = 0
        self.stalled = 0
        self.delivered: dict[str, Traffic] = {}
        self.delay = Histogram(DELIVERY_SECONDS)

    def delivered_in(self, form: str) -> Traffic:
        """
        What counts deliveries in this form.
        """
        return self.delivered.setdefault(form, Traffic())
