"""
A group whose members are sent the newest message of each channel, every so many seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..formats.framing import Framing
from ..match import Filter
from .backlog import Backlog
from .choices import Choices
from .group import Group
from .member import Member, Response
from .overflow import Overflow
from .pending import Pending
from .replay import Replay
from .turns import Turns

__all__ = ["PacedGroup"]


class PacedGroup(Group):
    """
    What is published waits for the group, and not for each member, until the next moment in
    which it is sent.  So a message costs the same however many members there are, and what
    is superseded by then is never sent to a socket.

    All channels are sent together, in the order of ids.  So a subscriber that comes back
    behind the last id that it has seen has missed nothing before that.

    Args:
        interval: The seconds between two such moments.  After a longer silence, the next
            message is sent at once.
        reactor, backlog, filter, framing, turns, emptied: See `Group`.
    """

    def __init__(
        self,
        interval: float,
        reactor: IReactorTime,
        backlog: Backlog,
        filter: Filter,
        framing: Framing,
        turns: Turns,
        emptied: Callable[[], object],
    ) -> None:
        super().__init__(reactor, backlog, filter, framing, turns, emptied)
        self._interval = interval
        self._pending: Pending[Member] = Pending()
        # When the next messages may be sent, and what will send those that wait.
        self._due = 0.0
        self._sending: IDelayedCall | None = None

    def deliver(self, channel: str, frame: bytes, expires: int | None = None) -> None:
        """
        Have a message sent at the next moment in which any are, unless a newer one of the
        same channel comes before that.
        """
        if self._ending:
            super().deliver(channel, frame, expires)
            return
        size = self._pending.size
        self._pending.put(channel, frame, self.backlog.limit, expires)
        self.backlog.counters.waiting += self._pending.size - size
        if self._sending is None:
            # The clock may have been set back.
            wait = min(max(0.0, self._due - self._reactor.seconds()), self._interval)
            self._sending = self._reactor.callLater(wait, self._send_pending)

    def join(self, response: Response, choices: Choices, replay: Replay | None) -> Member:
        """
        Add a member.  It gets what its replay finds, without a pause between, and then what
        is published from now on.
        """
        member = super().join(response, choices, replay)
        if replay is None and member.group is not None:
            self._pending.mark(member)
        return member

    def leave(self, member: Member) -> None:
        """
        Remove a member, to which nothing is written any more.
        """
        self._pending.forget(member)
        super().leave(member)
        if not len(self):
            self._take_pending()

    def end(self) -> None:
        """
        End the responses of all members, each once the member has been sent all that waits
        for it.
        """
        self._send_pending()
        super().end()

    def shed(self) -> None:
        """
        Drop what waits for the members that are farthest behind, and the older half of what
        waits for all, to make room.
        """
        super().shed()
        size = self._pending.size
        self._pending.drop_to(size // 2)
        self.backlog.counters.waiting += self._pending.size - size

    def _caught_up(self, member: Member) -> None:
        # What waits for the others, it has been sent by its replay.
        self._pending.mark(member)
        super()._caught_up(member)

    def _take_pending(self) -> list[tuple[str, bytes] | Member | int]:
        sending, self._sending = self._sending, None
        if sending is not None and sending.active():
            sending.cancel()
        self.backlog.counters.waiting -= self._pending.size
        return self._pending.take(self.backlog.milliseconds())

    def _send_pending(self) -> None:
        self._due = self._reactor.seconds() + self._interval
        pending = self._take_pending()
        absent = [item for item in pending if isinstance(item, Member)]
        for member in absent:
            if self._level.remove(member):
                self._put_behind(member, self.backlog.fall_behind(member.overflow))
        for item in pending:
            if isinstance(item, Member):
                absent.remove(item)
                self._flush()
                self._go_on_from_here(item)
            elif isinstance(item, int):
                self._tell_dropped(item)
            else:
                super().deliver(*item)
        self._flush()

    def _go_on_from_here(self, member: Member) -> None:
        """
        Have a member, which is behind, sent what is delivered from now on.
        """
        if member.position is not None:
            self.backlog.skip(member.position)
            self._feed_on(member)

    def _tell_dropped(self, count: int) -> None:
        """
        Have the members told that messages were dropped because too much waited.
        """
        self._flush()
        # Not as a message, which a newer one could replace: then nobody would be told.
        self.backlog.pass_over(count)
        gap, counters = self.framing.gap(count), self.backlog.counters
        for member in self._level:
            member.missed += count
            counters.dropped[Overflow.LATEST] += count
            counters.gaps[Overflow.LATEST] += 1
            self.tell(member, gap)
