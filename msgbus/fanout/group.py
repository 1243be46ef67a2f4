"""
A group: the subscribers of one channel or folder with equal filter and equal
framing, to whom the same bytes go at the same moment.

For each member that reads there remains a system call a turn of the reactor, and
for one that does not, nothing.  What waits for it is `backlog`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from .backlog import SLICE_BYTES, Backlog, Overflow, Position
from .outlet import Outlet
from .replay import Replay

__all__ = ["Group", "Member"]

Send = Callable[[bytes], int]

# What one member is given in one turn of the reactor.
SLICES = 64


@implementer(IPushProducer)
class Member:
    """
    One subscriber of a group: an open response, and its producer.

    A member is level, and then it holds nothing, or behind: then it holds a
    position, or, as long as it gets what was published before it came, a replay.
    """

    __slots__ = (
        "outlet",
        "overflow",
        "position",
        "replay",
        "aside",
        "progress",
        "late",
        "_finish",
        "_group",
    )

    def __init__(
        self,
        outlet: Outlet,
        overflow: Overflow,
        finish: Callable[[], object],
        late: Callable[[], object] | None,
        group: Group,
    ) -> None:
        self.outlet = outlet
        self.overflow = overflow
        self.position: Position | None = None
        self.replay: Replay | None = None
        # For it alone, and waiting.
        self.aside = b""
        # When it last took a byte, or had none to take.
        self.progress = 0.0
        self.late = late
        self._finish = finish
        self._group: Group | None = group

    def pauseProducing(self) -> None:
        """
        The transport is full.
        """
        self.outlet.paused = True

    def resumeProducing(self) -> None:
        """
        There is room again: take what is owed, until it is full once more.
        """
        self.outlet.paused = False
        if self._group is not None:
            self._group.feed(self)

    def stopProducing(self) -> None:
        """
        End it: the response is gone.  Ending it twice is no error, because
        Twisted tells it twice.
        """
        group, self._group = self._group, None
        if group is not None:
            # Nothing more, in the midst of a flush neither.
            self.outlet.paused = True
            group.leave(self)

    def cut(self) -> None:
        """
        End it, and the connection.
        """
        if self._group is not None:
            # What waits for it is gone at once, and its connection in its own time.
            self.stopProducing()
            self.outlet.abort()

    def finish(self) -> None:
        """
        End the response.
        """
        if self._group is not None:
            self._finish()

    def tell(self, data: bytes) -> None:
        """
        Send something to this one alone, between two messages.
        """
        if self._group is not None:
            self._group.tell(self, data)

    def dismiss(self, data: bytes) -> None:
        """
        End it: send this, behind what it has a part of, and nothing more.
        """
        if self._group is not None:
            self._group.dismiss(self, data)


class Group:
    """
    To the bus, one subscriber.

    The members get its messages at one moment, the flush at the end of each
    turn of the reactor: those that are level all that is new, in one piece;
    those that are behind later, by their positions, when they have room.

    Args:
        reactor: Its turns join what is published.
        backlog: What waits for those who are behind, empty.
        heartbeat: Is sent to members that ask for it, from time to time.
        in_turn: Calls something later, when others have had their turn.
        emptied: Called when the last member has left.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        backlog: Backlog,
        heartbeat: bytes,
        in_turn: Callable[[Callable[[], None]], None],
        emptied: Callable[[], object],
    ) -> None:
        self.backlog = backlog
        self._heartbeat = heartbeat
        self._in_turn = in_turn
        self._ending = False
        self._reactor = reactor
        self._emptied = emptied
        # The channels and frames of this turn of the reactor, nobody's yet.
        self._fresh: list[tuple[str, bytes]] = []
        self._flushing: IDelayedCall | None = None
        # Level members by what sends to them, and all that sends, once more:
        # for each subscriber a flush touches nothing but that.
        self._level: dict[Send, Member] = {}
        self._sends: tuple[Send, ...] | None = None
        self._behind: dict[Position, Member] = {}
        self._replaying: set[Member] = set()
        # By the second in which they get their next heartbeat, those that do,
        # each with the seconds between two.
        self._heartbeats: dict[int, dict[Member, int]] = {}

    def __len__(self) -> int:
        return len(self._level) + len(self._behind) + len(self._replaying)

    def deliver(self, channel: str, frame: bytes) -> None:
        """
        Send a message that was published to this channel, at the end of this
        turn of the reactor.
        """
        # No timer: a busy bus joins what is published in one turn by itself,
        # and an idle one does not wait.
        self._fresh.append((channel, frame))
        if self._flushing is None:
            self._flushing = self._reactor.callLater(0, self._flush)

    def join(
        self,
        outlet: Outlet,
        finish: Callable[[], object],
        overflow: Overflow,
        heartbeat: int | None,
        replay: Replay | None,
        late: Callable[[], object] | None = None,
    ) -> Member:
        """
        Add a member.  It gets what is delivered from now on, behind what is replayed.
        """
        self._flush()
        member = Member(outlet, overflow, finish, late, self)
        if replay is None:
            self._put_behind(member, self.backlog.fall_behind(overflow))
        else:
            member.replay = replay
            member.progress = self._reactor.seconds()
            self._replaying.add(member)
        if heartbeat is not None:
            self._beat_later(member, heartbeat)
        # The head of its response may still wait in the transport.
        if outlet.ask():
            self.feed(member)
        return member

    def leave(self, member: Member) -> None:
        """
        Remove a member: nothing is written to it any more.
        """
        self._take_from_level(member.outlet.send)
        self._take_from_behind(member)
        self._end_replay(member)
        for members in self._heartbeats.values():
            members.pop(member, None)
        if not len(self):
            self._flush()
            self._emptied()

    def feed(self, member: Member) -> None:
        """
        Give a member that has room what it is owed.
        """
        member.progress = self._reactor.seconds()
        if member.replay is not None:
            self._replay_later(member, member.replay)
        slices = SLICES
        while (position := member.position) is not None:
            if member.aside and not position.line and not position.offset:
                position.line, member.aside = member.aside, b""
            pieces = self.backlog.owed(position)
            if not pieces:
                if self._ending:
                    member.finish()
                    return
                self._take_from_behind(member)
                self._level[member.outlet.send] = member
                self._sends = None
                return
            taken, all_taken = self._send(member, pieces)
            # A write may have found out that it is gone.
            if member.position is not None:
                self.backlog.advance(position, taken)
            if not all_taken:
                return
            slices -= 1
            if not slices:
                # It reads as fast as it is fed: others have their turn.
                self._reactor.callLater(0, self._feed_on, member)
                return

    def tell(self, member: Member, data: bytes) -> None:
        """
        Send something to one member alone, between two messages.
        """
        if member.outlet.send not in self._level:
            member.aside += data
            return
        taken, all_taken = self._send(member, [data])
        if not all_taken and self._take_from_level(member.outlet.send):
            position = self.backlog.fall_behind(member.overflow)
            position.line = data[taken:]
            self._put_behind(member, position)

    def dismiss(self, member: Member, data: bytes) -> None:
        """
        Send something to one member, behind what it has a part of, and nothing more.
        """
        self._flush()
        rest: bytes | memoryview = b""
        if member.replay is not None:
            rest = member.replay.rest
        elif member.position is not None:
            rest = self.backlog.rest(member.position)
        # It might never be read.
        if len(rest) > SLICE_BYTES:
            member.outlet.abort()
        else:
            member.outlet.write(bytes(rest) + member.aside + data)
        member.aside = b""
        member.stopProducing()

    def end(self) -> None:
        """
        End the responses of all members, each once it has what it is owed.
        """
        self._ending = True
        self._flush()
        for member in tuple(self._level.values()):
            member.finish()

    def cut(self, before: float) -> int:
        """
        Cut the members that bytes have waited for, and that have taken none
        since this time.

        Returns:
            How many these are.
        """
        behind = (*self._behind.values(), *self._replaying)
        stalled = [member for member in behind if member.progress <= before]
        for member in stalled:
            member.cut()
        return len(stalled)

    def beat(self) -> bool:
        """
        Send a heartbeat to the members whose time has come, unless something
        waits for them anyway.

        Returns:
            Whether there are members that ask for it.
        """
        now = self._reactor.seconds()
        for second in [second for second in self._heartbeats if second <= now]:
            for member, seconds in self._heartbeats.pop(second).items():
                self._beat_later(member, seconds)
                if member.outlet.send in self._level:
                    self.tell(member, self._heartbeat)
        return any(self._heartbeats.values())

    def stalest(self) -> Member | None:
        """
        The member with a replay that has taken nothing for longest.
        """
        return min(self._replaying, key=lambda member: member.progress, default=None)

    def shed(self) -> None:
        """
        Let those who are farthest behind lose what waits for them.
        """
        self.backlog.shed()
        for member in self._late():
            if member.late is None:
                member.cut()
            else:
                # What it published may be what is delivered just now.
                self._reactor.callLater(0, member.late)

    def _flush(self) -> None:
        if self._flushing is None:
            return
        if self._flushing.active():
            self._flushing.cancel()
        fresh, self._fresh, self._flushing = self._fresh, [], None
        frames = [frame for _, frame in fresh]
        joined = b"".join(frames)
        size = len(joined)
        full = []
        if self._sends is None:
            self._sends = tuple(self._level)
        # The innermost loop of the program: for each subscriber nothing but
        # the system call.  Not even a tuple of two, as `items` would make:
        # thousands of them have the garbage collector look at all there is.
        for send in self._sends:
            try:
                taken = send(joined)
                if taken == size:
                    continue
            except BlockingIOError:
                taken = 0
            except OSError:
                # Only a write tells the reactor that the peer is gone.
                if send in self._level:
                    self._level[send].outlet.write(joined)
                continue
            # One may have left while others were sent to.
            if (member := self._take_from_level(send)) is not None:
                full.append(member)
                position = self.backlog.fall_behind(member.overflow, frames, taken)
                self._put_behind(member, position)
        for channel, frame in fresh:
            self.backlog.add(channel, frame)
        for member in full:
            if member.position is not None:
                member.outlet.ask()
        for member in self._late():
            # Not at once: somebody may be about to join, and the group not empty.
            self._reactor.callLater(0, member.late or member.cut)

    def _send(self, member: Member, pieces: list[bytes | memoryview]) -> tuple[int, bool]:
        """
        Send to one member; how many bytes it took, and whether these were all.  If
        not, it is fed once there is room.
        """
        size = sum(map(len, pieces))
        try:
            taken = member.outlet.sendmsg(pieces)
        except BlockingIOError:
            taken = 0
        except OSError:
            # Only a write tells the reactor that the peer is gone.
            member.outlet.write(b"".join(pieces))
            taken = size
        if taken < size:
            member.outlet.ask()
        return taken, taken == size

    def _feed_on(self, member: Member) -> None:
        if not member.outlet.paused:
            self.feed(member)

    def _replay_later(self, member: Member, replay: Replay) -> None:
        if not replay.queued:
            replay.queued = True
            self._in_turn(partial(self._replay, member, replay))

    def _replay(self, member: Member, replay: Replay) -> None:
        replay.queued = False
        if member.replay is None or member.outlet.paused:
            return
        if member.aside and replay.insert(member.aside):
            member.aside = b""
        pieces = replay.owed()
        if pieces is None:
            # All that was delivered in this turn was replayed, so nobody may get it
            # who is put among the others before they have.
            self._flush()
            self._end_replay(member)
            self._put_behind(member, self.backlog.fall_behind(member.overflow))
            self.feed(member)
            return
        if pieces:
            member.progress = self._reactor.seconds()
            taken, all_taken = self._send(member, pieces)
            replay.advance(taken)
            if not all_taken:
                return
        if member.replay is not None:
            self._replay_later(member, replay)

    def _end_replay(self, member: Member) -> None:
        replay, member.replay = member.replay, None
        if replay is not None:
            replay.close()
            self._replaying.discard(member)

    def _late(self) -> list[Member]:
        """
        Those that are past their backlog, to be closed.
        """
        late = [self._behind[p] for p in self.backlog.late if p in self._behind]
        self.backlog.late.clear()
        self.backlog.counters.closed += len(late)
        return late

    def _beat_later(self, member: Member, seconds: int) -> None:
        second = int(self._reactor.seconds()) + seconds
        self._heartbeats.setdefault(second, {})[member] = seconds

    def _put_behind(self, member: Member, position: Position) -> None:
        member.progress = self._reactor.seconds()
        member.position = position
        self._behind[position] = member

    def _take_from_level(self, send: Send) -> Member | None:
        self._sends = None
        return self._level.pop(send, None)

    def _take_from_behind(self, member: Member) -> None:
        position, member.position = member.position, None
        if position is not None:
            del self._behind[position]
            self.backlog.discard(position)
