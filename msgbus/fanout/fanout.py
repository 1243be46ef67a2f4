"""
Fan-out: one message to many open responses.

The bus sees groups, and a group sees members, each of which is one open response.  What is
the same for all members of a group is done once: matching the filter, writing the message
in the group's format, and joining all that is published in one turn of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..bus.bus import Bus
from ..bus.cursor import Cursor
from ..formats.framing import Framing
from ..match import Filter
from ..message import Message
from .backlog import Backlog, Counters, Overflow
from .group import Group
from .member import Member, Response
from .replay import Alone, Held, Replay
from .turns import Turns

__all__ = ["Fanout", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What may wait for subscribers that do not read.

    Attributes:
        backlog: Bytes of written messages that may wait for one subscriber; looked at
            before a message is added, so one message always fits.  The original server
            meant to keep as much.
        waiting: Bytes that may wait for all subscribers together.
        stall_seconds: A subscriber for which bytes wait, and which takes none of them for
            so long, is cut.
    """

    backlog: int = 1_000_000
    waiting: int = 256 * 1024 * 1024
    stall_seconds: float = 300


_TOLD = {
    "dropped": "Dropped {count} messages for subscribers that read too slowly",
    "closed": "Closed {count} subscribers that were past their backlog",
}


class Fanout:
    """
    Keeps the groups of one bus.

    Args:
        bus: Whose messages are delivered.
        reactor: Its turns join what is published, and by its clock stalled subscribers
            are found out.

    Attributes:
        limits: What may wait.
        counters: What is kept and dropped.
        turns: Where replays, and others that look at what is kept, wait for their turn.
    """

    _log = Logger()

    def __init__(
        self, bus: Bus, reactor: IReactorTime, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.counters = Counters()
        self._held = Held(self.counters)
        self.turns = Turns(reactor, self._shed_if_full)
        self._bus = bus
        self._reactor = reactor
        self._groups: dict[tuple[str, Filter, Framing], Group] = {}
        self._framings: dict[Framing, Framing] = {}
        # The last message, and its bytes by the identity of the framing.
        self._framed: tuple[Message | None, dict[int, bytes]] = (None, {})
        self._told: dict[str, int] = {}
        # One look at all from time to time, not a timer for each.
        self._sweeping = LoopingCall(self._sweep)
        self._beating = LoopingCall(self._beat)
        self._sweeping.clock = self._beating.clock = reactor

    def subscribe(
        self,
        name: str,
        filter: Filter,
        framing: Framing,
        response: Response,
        overflow: Overflow = Overflow.DROP_NEWEST,
        heartbeat: int | None = None,
        cursor: Cursor | None = None,
    ) -> Member:
        """
        Deliver what is published from now on, and, if asked for, what was kept before, to
        one more response.

        Args:
            name: A channel or folder.
            overflow: What becomes of the subscriber when too much waits for it.
            heartbeat: Seconds between two heartbeats, or None for no heartbeats.
            cursor: Where its replay reads the history, or None for no replay; it is closed
                in the end.

        Returns:
            The producer to register with the transport of the response.  Its
            `stopProducing` ends the subscription.

        Raises:
            Invalid: The name is none.
        """
        # One object for all that are equal: its messages are found by its identity.
        framing = self._framings.setdefault(framing, framing)
        key = (name, filter, framing)
        group = self._groups.get(key)
        if group is None:
            group = self._group(*key)
        self._watch()
        if heartbeat is not None and not self._beating.running:
            self._beating.start(1, now=False)
        replay = None
        if cursor is not None:
            replay = Replay(cursor, framing, self._bus.milliseconds, self._held)
        return group.join(response, overflow, heartbeat, replay)

    def answer(self, message: Message, framing: Framing, response: Response) -> Member:
        """
        Deliver this message alone to a response, and end it.

        Args:
            framing: One that no subscription has.

        Returns:
            The producer, as `subscribe` does.
        """
        framing = self._framings.setdefault(framing, framing)
        key = ("", Filter(), framing)
        group = self._groups.get(key)
        if group is None:
            group = self._new_group(framing, partial(self._remove, key))
            self._groups[key] = group
            # A member of a group that ends is finished once it has what it is owed.
            group.end()
        self._watch()
        replay = Replay(Alone(message), framing, self._bus.milliseconds, self._held)
        return group.join(response, Overflow.CLOSE, None, replay)

    def end(self) -> None:
        """
        End all responses, each once its member has what it is owed.
        """
        for group in tuple(self._groups.values()):
            group.end()

    def _group(self, name: str, filter: Filter, framing: Framing) -> Group:
        def deliver(message: Message) -> None:
            group.deliver(message.channel, self._frame(framing, message))
            if self.counters.waiting > self.limits.waiting:
                self._shed()

        def emptied() -> None:
            subscription.cancel()
            self._remove((name, filter, framing))

        group = self._new_group(framing, emptied)
        subscription = self._bus.subscribe(name, deliver, filter, count=group.__len__)
        self._groups[name, filter, framing] = group
        return group

    def _new_group(self, framing: Framing, emptied: Callable[[], None]) -> Group:
        backlog = Backlog(self.limits.backlog, framing.gap, self.counters)
        return Group(self._reactor, backlog, framing.heartbeat, self.turns, emptied)

    def _remove(self, key: tuple[str, Filter, Framing]) -> None:
        del self._groups[key]
        if not self._groups:
            self._rest()

    def _watch(self) -> None:
        if not self._sweeping.running:
            self._sweeping.start(self.limits.stall_seconds / 10, now=False)

    def _frame(self, framing: Framing, message: Message) -> bytes:
        """
        The bytes of one message, made once for all groups with this framing.
        """
        last, frames = self._framed
        if message is not last:
            frames = {}
            self._framed = (message, frames)
        frame = frames.get(id(framing))
        if frame is None:
            frame = frames[id(framing)] = framing.frame(message)
        return frame

    def _shed_if_full(self) -> None:
        if self.counters.waiting > self.limits.waiting:
            self._shed()

    def _shed(self) -> None:
        """
        Drop what waits for those who are farthest behind, until there is room.
        """
        for group in self._groups.values():
            group.backlog.prune()
        # Some room at once, or the next message would begin anew.
        enough = self.limits.waiting * 3 / 4
        closed = self.counters.closed
        for group in sorted(self._groups.values(), key=lambda g: -g.backlog.kept):
            if self.counters.waiting <= enough:
                break
            group.shed()
        if self.counters.closed > closed:
            # What waits for them is released when their responses have ended.
            return
        while self.counters.waiting > enough:
            # A replay holds messages that history may have dropped meanwhile, one of them
            # sent in part: nothing but cutting its member releases them.
            replaying = [m for group in self._groups.values() if (m := group.stalest())]
            if not replaying:
                break
            stalest = min(replaying, key=lambda member: member.progress)
            stalest.cut()
            self.counters.closed += 1

    def _sweep(self) -> None:
        seconds = self.limits.stall_seconds
        before = self._reactor.seconds() - seconds
        cut = sum(group.cut(before) for group in tuple(self._groups.values()))
        if cut:
            self._log.warn(
                "Cut {count} subscribers that took nothing for {seconds} seconds",
                count=cut,
                seconds=seconds,
            )
        self._tell()

    def _tell(self) -> None:
        for name, sentence in _TOLD.items():
            total = getattr(self.counters, name)
            if count := total - self._told.get(name, 0):
                self._log.warn(sentence, count=count)
                self._told[name] = total

    def _rest(self) -> None:
        for look in (self._sweeping, self._beating):
            if look.running:
                look.stop()
        self._tell()

    def _beat(self) -> None:
        asked = [group.beat() for group in tuple(self._groups.values())]
        if not any(asked):
            self._beating.stop()
