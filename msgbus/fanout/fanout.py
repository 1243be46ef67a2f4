"""
Fan-out: one message to many open responses.

The bus sees groups; a group sees members.  What is the same for all members is
done once for the group: the match, the framing, and the joining of all that was
published in one turn of the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..bus.bus import Bus
from ..bus.history import Cursor
from ..formats.framing import Framing
from ..match import Filter
from ..message import Message
from .backlog import Backlog, Counters, Overflow
from .group import Group, Member
from .outlet import Outlet
from .replay import Alone, Held, Replay

__all__ = ["Fanout", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What may wait for subscribers that do not read.

    Attributes:
        backlog: Bytes of framed messages for one of them, before it is past
            its backlog; looked at before a message is added.  The original
            server meant to keep as much.
        waiting: Bytes for all of them together.
        stall_seconds: One that takes no byte for so long, while some wait for
            it, is cut.
    """

    backlog: int = 1_000_000
    waiting: int = 256 * 1024 * 1024
    stall_seconds: float = 300


# How many replays go on in one turn of the reactor.
REPLAYS_A_TURN = 4

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

    Attributes:
        limits: Of what waits.
        counters: Of what is kept and dropped.
    """

    _log = Logger()

    def __init__(
        self, bus: Bus, reactor: IReactorTime, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.counters = Counters()
        self._held = Held(self.counters)
        # Replays that wait for their turn.
        self._queue: deque[Callable[[], None]] = deque()
        self._bus = bus
        self._reactor = reactor
        self._groups: dict[tuple[str, Filter, Framing], Group] = {}
        self._framed: tuple[Message | None, dict[Framing, bytes]] = (None, {})
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
        outlet: Outlet,
        finish: Callable[[], object],
        overflow: Overflow = Overflow.DROP_NEWEST,
        heartbeat: int | None = None,
        cursor: Cursor | None = None,
        late: Callable[[], object] | None = None,
    ) -> Member:
        """
        Deliver what is published from now on, and, if asked for, what was kept
        before, to one more response.

        Args:
            name: A channel or folder.
            outlet: Takes bytes for this response.
            finish: Ends this response, and with it the subscription.
            overflow: What becomes of it once it is past its backlog.
            heartbeat: Every how many seconds it gets one, or None for never.
            cursor: Where its replay reads, or None for none; it is closed in the end.
            late: Closes one that is past its backlog, where that is what becomes of it;
                unless it is given, the connection is cut.

        Returns:
            The producer to register with what the outlet writes to.  Its
            `stopProducing` ends the subscription.

        Raises:
            Invalid: The name is none.
        """
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
        return group.join(outlet, finish, overflow, heartbeat, replay, late)

    def answer(
        self,
        message: Message,
        framing: Framing,
        outlet: Outlet,
        finish: Callable[[], object],
    ) -> Member:
        """
        Deliver this message alone to a response, and end it.

        Args:
            framing: Of such responses alone.

        Returns:
            The producer, as `subscribe` does.
        """
        key = ("", Filter(), framing)
        group = self._groups.get(key)
        if group is None:
            group = self._new_group(framing, partial(self._remove, key))
            self._groups[key] = group
            # So each of its members ends once it has what it is owed.
            group.end()
        self._watch()
        replay = Replay(Alone(message), framing, self._bus.milliseconds, self._held)
        return group.join(outlet, finish, Overflow.CLOSE, None, replay)

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
        return Group(self._reactor, backlog, framing.heartbeat, self.in_turn, emptied)

    def _remove(self, key: tuple[str, Filter, Framing]) -> None:
        del self._groups[key]
        if not self._groups:
            self._rest()

    def _watch(self) -> None:
        if not self._sweeping.running:
            self._sweeping.start(self.limits.stall_seconds / 10, now=False)

    def in_turn(self, call: Callable[[], None]) -> None:
        """
        Call something that looks at what is kept, when others have had their turn.
        """
        self._queue.append(call)
        if len(self._queue) == 1:
            self._reactor.callLater(0, self._take_turns)

    def _take_turns(self) -> None:
        for _ in range(min(REPLAYS_A_TURN, len(self._queue))):
            # One that calls again must find it waiting, or there would be two turns.
            try:
                self._queue[0]()
            except Exception:
                self._log.failure("A replay failed")
            self._queue.popleft()
        if self.counters.waiting > self.limits.waiting:
            self._shed()
        if self._queue:
            self._reactor.callLater(0, self._take_turns)

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
        enough = self.limits.waiting * 3 / 4
        closed = self.counters.closed
        for group in sorted(self._groups.values(), key=lambda g: -g.backlog.kept):
            if self.counters.waiting <= enough:
                break
            group.shed()
        if self.counters.closed > closed:
            # What waits for some of them goes with the close that they are sent.
            return
        while self.counters.waiting > enough:
            # Who has a part of a message that history has dropped can only be cut.
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
