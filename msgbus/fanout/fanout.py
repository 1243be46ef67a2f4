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
from ..match import EVERYTHING, Filter
from ..message import Message
from .backlog import Backlog
from .choices import Choices, Live
from .counters import Counters
from .group import Group
from .member import Member, Response
from .overflow import Overflow
from .paced import PacedGroup
from .replay import HeldFrames, Nothing, Replay, SingleMessage, Source
from .turns import Turns

__all__ = ["Fanout", "Limits"]

# No channel has this name, so that nothing takes the place of a gap that waits.
_NO_CHANNEL = "."

# Of a group: the name of a channel or folder, what its members have in common, and the
# seconds of `Choices.interval`.
_Key = tuple[str, Filter, Framing, float]


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What may wait for subscribers that do not read.

    Attributes:
        backlog: Bytes of messages in their format that may wait for one subscriber.  The
            limit is checked before a message is added, so one message always fits.  The
            default is the limit that the original server was meant to have.
        waiting: Bytes that may wait for all subscribers together.
        stall_seconds: If bytes wait for a subscriber, and it takes none of them for so
            long, its connection is cut.
    """

    backlog: int = 1_000_000
    waiting: int = 256 * 1024 * 1024
    stall_seconds: float = 300


class Fanout:
    """
    Keeps the groups of one bus.

    Args:
        bus: The bus whose messages are delivered.
        reactor: The messages of one of its turns are sent together, and its clock tells
            which subscribers have stalled.

    Attributes:
        limits: What may wait for subscribers.
        counters: What was delivered and dropped, and how much waits.
        turns: The queue in which replays and searches of the history wait for their turn.
    """

    _log = Logger()

    def __init__(
        self, bus: Bus, reactor: IReactorTime, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.counters = Counters()
        self._held = HeldFrames(self.counters)
        self.turns = Turns(reactor, self._shed_if_full)
        self._bus = bus
        self._reactor = reactor
        self._groups: dict[_Key, Group] = {}
        self._framings: dict[Framing, Framing] = {}
        # The last message, and its bytes by the identity of the framing.
        self._framed: Message | None = None
        self._frames: dict[int, bytes] = {}
        # What has been logged.
        self._told_dropped = self._told_closed = 0
        # Each looks at all members from time to time: that is cheaper than many timers.
        self._sweeping = LoopingCall(self._sweep)
        self._beating = LoopingCall(self._beat)
        self._sweeping.clock = self._beating.clock = reactor

    def subscribe(
        self,
        name: str,
        filter: Filter,
        framing: Framing,
        response: Response,
        choices: Choices = Choices(),  # noqa: B008  # it is frozen
        cursor: Cursor | None = None,
    ) -> Member:
        """
        Deliver to one more response what is published from now on; before that, if it has
        a cursor, the kept messages that the cursor reads.

        Args:
            name: A channel or folder.
            choices: What the subscriber chooses.
            cursor: Reads the history for its replay; None for no replay.  The cursor is
                closed when the replay or the subscription ends.

        Returns:
            The producer to register with the transport of the response.  Its
            `stopProducing` ends the subscription.

        Raises:
            Invalid: The name cannot be that of a channel or folder.
        """
        # All equal framings are replaced by one object, because the bytes of a message are
        # looked up by the identity of its framing.
        framing = self._framings.setdefault(framing, framing)
        key = (name, filter, framing, choices.interval)
        group = self._groups.get(key)
        if group is None:
            group = self._group(key)
        self._watch()
        if choices.heartbeat is not None and not self._beating.running:
            self._beating.start(1, now=False)
        replay = None
        if cursor is not None or choices.live is Live.END:
            replay = self._replay(cursor or Nothing(), framing, choices.live)
        return group.join(response, choices, replay)

    def answer(self, message: Message, framing: Framing, response: Response) -> Member:
        """
        Send this one message to a response, as fast as its client reads, and end the
        response.

        Args:
            framing: A framing that no subscription has.

        Returns:
            The producer to register with the transport; see `subscribe`.
        """
        framing = self._framings.setdefault(framing, framing)
        key = ("", EVERYTHING, framing, 0.0)
        group = self._groups.get(key)
        if group is None:
            group = self._new_group(key, partial(self._remove, key))
            self._groups[key] = group
            # In a group that ends, a member is finished when it has been sent everything.
            group.end()
        self._watch()
        replay = self._replay(SingleMessage(message), framing)
        return group.join(response, Choices(Overflow.CLOSE), replay)

    def _replay(self, source: Source, framing: Framing, live: Live = Live.UNTOLD) -> Replay:
        delivered = self.counters.delivered_in(framing.form)
        now = self._bus.milliseconds
        return Replay(source, framing, now, self._held, delivered, live)

    def groups(self) -> tuple[Group, ...]:
        """
        The groups of all responses.
        """
        return tuple(self._groups.values())

    def replace_limits(self, limits: Limits) -> None:
        """
        Change what may wait for subscribers, also for those that are there.
        """
        self.limits = limits
        for group in self._groups.values():
            group.backlog.limit_to(limits.backlog)
        if self._sweeping.running:
            self._sweeping.stop()
            self._watch()

    def end(self) -> None:
        """
        End all responses, each once its member has been sent all that waits for it.
        """
        for group in tuple(self._groups.values()):
            group.end()

    def _group(self, key: _Key) -> Group:
        name, filter, framing, _ = key

        def deliver(message: Message) -> None:
            expires = None if message.max_age is None else message.expires()
            group.deliver(message.channel, self._frame(framing, message), expires)
            if self.counters.waiting > self.limits.waiting:
                self._shed()

        def missed() -> None:
            if gap := framing.gap(None):
                group.deliver(_NO_CHANNEL, gap)

        def emptied() -> None:
            subscription.cancel()
            self._remove(key)

        group = self._new_group(key, emptied)
        subscription = self._bus.subscribe(name, deliver, filter, group.__len__, missed)
        self._groups[key] = group
        return group

    def _new_group(self, key: _Key, emptied: Callable[[], None]) -> Group:
        _, filter, framing, interval = key
        delivered = self.counters.delivered_in(framing.form)
        backlog = Backlog(
            self.limits.backlog,
            framing.gap,
            self.counters,
            delivered,
            self._bus.milliseconds,
        )
        kind = partial(PacedGroup, interval) if interval else Group
        return kind(self._reactor, backlog, filter, framing, self.turns, emptied)

    def _remove(self, key: _Key) -> None:
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
        if message is not self._framed:
            self._framed = message
            self._frames.clear()
        frame = self._frames.get(id(framing))
        if frame is None:
            frame = self._frames[id(framing)] = framing.frame(message)
        return frame

    def _shed_if_full(self) -> None:
        if self.counters.waiting > self.limits.waiting:
            self._shed()

    def _shed(self) -> None:
        """
        Drop what waits for the members that are farthest behind, until no more than three
        quarters of the limit wait.
        """
        for group in self._groups.values():
            group.backlog.prune()
        # Make room for more than one message, or this would be done for each.
        enough = self.limits.waiting * 3 / 4
        closed = self.counters.closed
        for group in sorted(self._groups.values(), key=lambda g: -g.backlog.kept):
            if self.counters.waiting <= enough:
                break
            group.shed()
        if self.counters.closed > closed:
            # Members are being closed.  What waits for them is released when their
            # responses have ended.
            return
        while self.counters.waiting > enough:
            # A replay holds messages that it has read and not sent.  Its member may have
            # been sent a part of one, so only cutting the member can release them.
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
            self.counters.stalled += cut
            self._log.warn(
                "Cut {count} subscribers that took nothing for {seconds} seconds",
                count=cut,
                seconds=seconds,
            )
        self._tell()

    def _tell(self) -> None:
        dropped, closed = self.counters.dropped.total(), self.counters.closed
        if count := dropped - self._told_dropped:
            self._log.warn(
                "Dropped {count} messages for subscribers that read too slowly", count=count
            )
        if count := closed - self._told_closed:
            self._log.warn(
                "Closed {count} subscribers that were past their backlog", count=count
            )
        self._told_dropped, self._told_closed = dropped, closed

    def _rest(self) -> None:
        for look in (self._sweeping, self._beating):
            if look.running:
                look.stop()
        self._tell()

    def _beat(self) -> None:
        asked = [group.beat() for group in tuple(self._groups.values())]
        if not any(asked):
            self._beating.stop()
