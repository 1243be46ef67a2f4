"""
How many messages a second there are now: for each subscriber, and in each channel.

Nothing is counted for that when a message is published or delivered.  The groups of
subscribers are looked at from time to time, and a channel's rate is seen from the times of
its kept messages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from ..bus.history import History, entry_id
from ..fanout.fanout import Fanout
from ..fanout.group import Group

__all__ = ["CHANNEL_SECONDS", "GroupRates", "channel_rate"]

# For so many seconds back, the messages of a channel are counted.
CHANNEL_SECONDS = 10


class GroupRates:
    """
    The rates of groups, from two looks at them.
    """

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        # When the last look was and when the one before it, and the numbers that the
        # messages of each group had reached at that one.
        self._last = self._before = 0.0
        self._numbers: dict[Group, int] = {}
        self._next: dict[Group, int] = {}

    def look(self, seconds: float) -> Iterator[None]:
        """
        Look at all groups, beginning at this time, one with each step of the iterator.
        """
        numbers = {}
        for group in self._fanout.groups():
            numbers[group] = group.backlog.numbered
            yield
        self._before, self._numbers = self._last, self._next
        self._last, self._next = seconds, numbers

    def of(self, group: object) -> float:
        """
        How many messages a second this group had between the last two looks.
        """
        seconds = self._last - self._before
        if not isinstance(group, Group) or group not in self._next or seconds <= 0:
            return 0.0
        return (self._next[group] - self._numbers.get(group, 0)) / seconds


def channel_rate(history: History, name: str, milliseconds: int) -> float:
    """
    How many messages a second a channel had in the last ten seconds, of which history
    keeps some.

    Args:
        milliseconds: The time, in milliseconds since 1970.
    """
    count, last = history.last(name)
    since = milliseconds - CHANNEL_SECONDS * 1000
    if last is None:
        return 0.0
    entries = history.entries(name)
    if entries[-1].id[0] < since:
        return 0.0
    begin = bisect_right(entries, (since, 0), key=entry_id)
    recent = [entry for entry in entries[begin:] if entry.message is not None]
    seconds = float(CHANNEL_SECONDS)
    if len(recent) == count >= history.keep.count:
        # Earlier ones of these seconds are not kept any more.
        seconds = max(0.001, (milliseconds - recent[0].id[0]) / 1000)
    return len(recent) / seconds
