"""
Fan-out: one message to many open responses.

The bus sees groups; a group sees members.  What is the same for all members is
done once for the group: the match, the framing, and the joining of all that was
published in one turn of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from .backlog import Backlog, Counters, Overflow
from .bus import Bus
from .framing import Framing
from .group import Group, Member
from .match import Filter
from .message import Message
from .outlet import Outlet

__all__ = ["Fanout"]

# What the original server meant to keep for a subscriber that does not read.
MAX_BACKLOG = 1_000_000

# What may wait for all of them together.
MAX_WAITING = 256 * 1024 * 1024

STALL_SECONDS = 300

_TOLD = {
    "dropped": "Dropped {count} messages for subscribers that read too slowly",
    "closed": "Closed {count} subscribers that were past their backlog",
}


class Fanout:
    """
    Keeps the groups of one bus.

    Args:
        bus: Whose messages are delivered.
        reactor: Its turns join what is published, and its time tells who is
            stalled.
        max_backlog: Bytes of framed messages that may wait for a member
            before it is past its backlog; looked at before a message is added.
        max_waiting: Bytes that may be kept for all members together.
        stall_seconds: A member that takes no byte for so long, while some wait
            for it, is cut.
    """

    _log = Logger()

    def __init__(
        self,
        bus: Bus,
        reactor: IReactorTime,
        max_backlog: int = MAX_BACKLOG,
        max_waiting: int = MAX_WAITING,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.counters = Counters()
        self._bus = bus
        self._reactor = reactor
        self._max_backlog = max_backlog
        self._max_waiting = max_waiting
        self._stall_seconds = stall_seconds
        self._sweeping: IDelayedCall | None = None
        self._groups: dict[tuple[str, Filter, Framing], Group] = {}
        self._framed: tuple[Message | None, dict[Framing, bytes]] = (None, {})
        self._told: dict[str, int] = {}

    def subscribe(
        self,
        name: str,
        filter: Filter,
        framing: Framing,
        outlet: Outlet,
        finish: Callable[[], object],
        overflow: Overflow = Overflow.DROP_NEWEST,
    ) -> Member:
        """
        Deliver what is published from now on to one more response.

        Args:
            name: A channel or folder.
            outlet: Takes bytes for this response.
            finish: Ends this response, and with it the subscription.
            overflow: What becomes of it once it is past its backlog.

        Returns:
            The producer to register with what the outlet writes to.  Its
            `stopProducing` ends the subscription.

        Raises:
            Invalid: The name is none.
        """
        key = (name, filter, framing)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = self._group(*key)
            self._sweep_later()
        return group.join(outlet, overflow, finish)

    def end(self) -> None:
        """
        End all responses, with what they are owed.
        """
        for group in tuple(self._groups.values()):
            group.end()

    def _group(self, name: str, filter: Filter, framing: Framing) -> Group:
        def deliver(message: Message) -> None:
            group.deliver(message.channel, self._frame(framing, message))
            if self.counters.waiting > self._max_waiting:
                self._shed()

        def emptied() -> None:
            subscription.cancel()
            del self._groups[name, filter, framing]
            if not self._groups and self._sweeping is not None:
                self._sweeping.cancel()
                self._sweeping = None

        backlog = Backlog(self._max_backlog, framing.gap, self.counters)
        group = Group(self._reactor, backlog, emptied)
        subscription = self._bus.subscribe(name, deliver, filter)
        return group

    def _frame(self, framing: Framing, message: Message) -> bytes:
        """
        The bytes of one message, made once for all groups of a framing.
        """
        last, frames = self._framed
        if message is not last:
            frames = {}
            self._framed = (message, frames)
        if framing not in frames:
            frames[framing] = framing.frame(message)
        return frames[framing]

    def _shed(self) -> None:
        for group in self._groups.values():
            group.backlog.prune()
        # Some room at once, or the next message would begin anew.
        enough = self._max_waiting * 3 / 4
        for group in sorted(self._groups.values(), key=lambda g: -g.backlog.kept):
            if self.counters.waiting <= enough:
                break
            group.shed()

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            # One look at all for each tenth of the time, not a timer for each.
            self._sweeping = self._reactor.callLater(self._stall_seconds / 10, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        before = self._reactor.seconds() - self._stall_seconds
        cut = sum(group.cut(before) for group in tuple(self._groups.values()))
        if cut:
            self._log.warn(
                "Cut {count} subscribers that took nothing for {seconds} seconds",
                count=cut,
                seconds=self._stall_seconds,
            )
        for name, sentence in _TOLD.items():
            total = getattr(self.counters, name)
            if count := total - self._told.get(name, 0):
                self._log.warn(sentence, count=count)
                self._told[name] = total
        if self._groups:
            self._sweep_later()
