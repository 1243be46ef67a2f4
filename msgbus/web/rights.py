"""
The rights on which open streams and waiting requests depend, which end with them.

A right ends when the link or token that gave it expires, or when the operator changes
users, rules or keys.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..match import Filter
from .visitor import Denied, Visitor

__all__ = ["Right", "Rights", "check_unchanged"]

# After how many seconds, at most, it is looked again whether a right has expired.  Rights
# expire by the time of day.  The reactor waits by another clock, which stands still while
# the machine sleeps, and does not follow when the time is set.
LOOK_SECONDS = 60


class Right:
    """
    A right on which something depends that goes on for long.

    Args:
        visitor: Who has the right.
        check: Raises `Denied` if they have it no longer.
        lost: Called once with that error.
    """

    __slots__ = ("_check", "_lost", "_reactor", "_rights", "_timer", "_visitor")

    def __init__(
        self,
        rights: Rights,
        reactor: IReactorTime,
        visitor: Visitor,
        check: Callable[[], object],
        lost: Callable[[Denied], object],
    ) -> None:
        self._rights = rights
        self._reactor = reactor
        self._visitor = visitor
        self._check = check
        self._lost = lost
        self._timer: IDelayedCall | None = None
        self._wait()

    def check(self) -> None:
        """
        End what depends on the right, if that is lost.
        """
        try:
            self._check()
        except Denied as denied:
            self.cancel()
            self._lost(denied)

    def cancel(self) -> None:
        """
        Nothing depends on the right any more.  Calling this twice is no error.
        """
        self._rights.remove(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _wait(self) -> None:
        seconds = self._visitor.seconds_left()
        if seconds is not None:
            wait = min(max(0, seconds), LOOK_SECONDS)
            self._timer = self._reactor.callLater(wait, self._look)

    def _look(self) -> None:
        if (self._visitor.seconds_left() or 0) > 0:
            self._wait()
        else:
            self.check()


class Rights:
    """
    All rights on which something depends at the moment.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        # A set that keeps its order.
        self._rights: dict[Right, None] = {}

    def depend(
        self,
        visitor: Visitor,
        check: Callable[[], object],
        lost: Callable[[Denied], object],
    ) -> Right | None:
        """
        From now on, something depends on a right; see `Right`.

        Returns:
            The right, to be cancelled when that has ended; None if it cannot be lost.
        """
        if not visitor.is_limited:
            return None
        right = Right(self, self._reactor, visitor, check, lost)
        self._rights[right] = None
        return right

    def check(self) -> None:
        """
        End what depends on rights that are lost.
        """
        for right in tuple(self._rights):
            if right in self._rights:
                right.check()

    def remove(self, right: Right) -> None:
        """
        Forget a right; see `Right.cancel`.
        """
        self._rights.pop(right, None)


def check_unchanged(visitor: Visitor, name: str, filter: Filter) -> None:
    """
    Check that somebody may still read exactly what they have subscribed to.

    Args:
        filter: With which they subscribed, as `Visitor.check_subscribe` gave it.

    Raises:
        Denied: They may read less of it, or more: then they subscribe again, and get what
            they may read now.
    """
    if visitor.check_subscribe(name, filter.within(None)) != filter:
        raise Denied(403, "The rights to what this request waits for have changed.")
