"""
Which members of a group are due for a heartbeat.

No I/O and no clock: the caller says what time it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from .member import Member

__all__ = ["Heartbeats"]


class Heartbeats:
    """
    Members by the second in which their next heartbeat is due, so that those that are not
    due cost nothing.
    """

    __slots__ = ("_due",)

    def __init__(self) -> None:
        # For each second, the members, each with the seconds between two heartbeats.
        self._due: dict[int, dict[Member, int]] = {}

    def __bool__(self) -> bool:
        return any(self._due.values())

    def add(self, member: Member, seconds: int, now: float) -> None:
        """
        This member gets a heartbeat every so many seconds, from now on.
        """
        self._due.setdefault(int(now) + seconds, {})[member] = seconds

    def remove(self, member: Member) -> None:
        """
        This member gets no more heartbeats; it need not have got any.
        """
        for members in self._due.values():
            members.pop(member, None)

    def due(self, now: float) -> Iterator[Member]:
        """
        The members whose time has come; their next one is due after their interval.
        """
        for second in [second for second in self._due if second <= now]:
            for member, seconds in self._due.pop(second).items():
                self.add(member, seconds, now)
                yield member
