"""
The members of a group that are sent a replay: what was published before they came.

Each replay goes on as fast as its member reads, a slice of it in one turn; when it has
reached the present, the member is handed back to the group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from twisted.internet.interfaces import IReactorTime

from .backlog import SLICE_BYTES
from .counters import Counters
from .member import Member
from .replay import Replay
from .turns import Turns

__all__ = ["Replaying"]


class Replaying:
    """
    Sends replays.

    Args:
        reactor: Its clock tells when a member last took a byte.
        turns: The queue in which replays wait for their turn.
        counters: Count the members.
        send: Sends pieces to a member; returns how many bytes it took, and whether these
            were all.
        caught_up: Called with a member whose replay has reached the present; has to `end`
            it.

    Attributes:
        members: Those that are sent a replay.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        turns: Turns,
        counters: Counters,
        send: Callable[[Member, list[bytes | memoryview]], tuple[int, bool]],
        caught_up: Callable[[Member], None],
    ) -> None:
        self._reactor = reactor
        self._turns = turns
        self._counters = counters
        self._send = send
        self._caught_up = caught_up
        self.members: set[Member] = set()

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self.members))

    def add(self, member: Member, replay: Replay) -> None:
        """
        One more member, which is sent nothing before `go_on` is called.
        """
        member.replay = replay
        member.progress = self._reactor.seconds()
        self.members.add(member)
        self._counters.replays += 1

    def end(self, member: Member) -> None:
        """
        Send no more of its replay, if there is one, and release what that holds.
        """
        replay, member.replay = member.replay, None
        if replay is not None:
            replay.close()
            self.members.discard(member)
            self._counters.replays -= 1

    def go_on(self, member: Member) -> None:
        """
        Send a member that has room more of its replay, when it is its turn.
        """
        replay = member.replay
        if replay is not None and not replay.queued:
            replay.queued = True
            put = self._turns.wait if replay.waits else self._turns.call
            put(partial(self._take_turn, member, replay))

    def stalest(self) -> Member | None:
        """
        The member that has taken nothing for longest; None if there is none.
        """
        return min(self.members, key=lambda member: member.progress, default=None)

    def _take_turn(self, member: Member, replay: Replay) -> int:
        """
        Send one member the next slice of its replay.

        Returns:
            About how many bytes of work that was, for `Turns`.
        """
        replay.queued = False
        if member.replay is None or member.outlet.paused:
            return 0
        if member.aside and replay.insert(member.aside):
            member.aside = b""
        before = replay.effort
        taken = self._send_slice(member, replay)
        return taken + replay.effort - before

    def _send_slice(self, member: Member, replay: Replay) -> int:
        """
        Returns:
            How many bytes the member has taken.
        """
        pieces = replay.owed()
        taken = 0
        if pieces:
            member.progress = self._reactor.seconds()
            taken, all_taken = self._send(member, pieces)
            replay.advance(taken)
            if not all_taken or member.replay is None:
                return taken
            if taken < SLICE_BYTES:
                # Most members have reached the present with so little.
                pieces = replay.owed()
        if pieces is None:
            self._caught_up(member)
        else:
            self.go_on(member)
        return taken
