"""
What the bus does, in one line, as `systemctl status` shows it.  With several workers, each
tells its totals to the parent, which adds them up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..web.mount import Mount
from ..web.site import Site

__all__ = ["STATUS_SECONDS", "STOPPING_SECONDS", "StatusLine", "Totals"]

# How often the line is told, while the bus serves and while it stops.
STATUS_SECONDS = 5.0
STOPPING_SECONDS = 1.0


class Totals(NamedTuple):
    """
    What the line is about.

    Attributes:
        connections: How many are open.
        subscribers: How many streams are open.
        published: How many messages have been published here since the start.
        delivered: How many messages subscribers have been sent since the start.
    """

    connections: int = 0
    subscribers: int = 0
    published: int = 0
    delivered: int = 0

    @classmethod
    def of(cls, mount: Mount, site: Site) -> Totals:
        """
        Those of this process.
        """
        counters, fanout = mount.counters, mount.fanout
        ways_in = counters.requests, counters.streams, counters.websockets
        return cls(
            len(site.channels),
            len(mount.subscribers),
            sum(traffic.messages for traffic in ways_in),
            sum(traffic.messages for traffic in fanout.counters.delivered.values()),
        )

    @classmethod
    def sum(cls, several: Iterable[Totals]) -> Totals:
        """
        Those of several processes together.
        """
        return cls(*map(sum, zip(*several, strict=True)))

    @classmethod
    def parse(cls, text: str) -> Totals:
        """
        Read what `str` has made.
        """
        return cls(*map(int, text.split(",")))

    def __str__(self) -> str:
        return ",".join(map(str, self))


class StatusLine:
    """
    Makes the line, with the rates since the line before.
    """

    def __init__(self) -> None:
        self._before = Totals()
        self._at: float | None = None

    def serving(self, now: Totals, seconds: float) -> str:
        """
        The line of a bus that serves.

        Args:
            seconds: The time, by a clock that never goes back.
        """
        counts = (now.subscribers, "subscriber"), (now.connections, "connection")
        line = ", ".join(_count(count, noun) for count, noun in counts)
        if self._at is not None and seconds > self._at:
            before, passed = self._before, seconds - self._at
            # The totals of a worker that was started again begin at zero.
            published = max(0, now.published - before.published) / passed
            delivered = max(0, now.delivered - before.delivered) / passed
            line += f"; {published:,.0f} messages/s in, {delivered:,.0f} messages/s out"
        self._before, self._at = now, seconds
        return line

    def stopping(self, now: Totals) -> str:
        """
        The line of a bus that stops.
        """
        return f"Stopping: {_count(now.connections, 'connection')} left"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
