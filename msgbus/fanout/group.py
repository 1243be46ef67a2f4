"""
A group: the subscribers of one channel or folder with equal filters and equal framings,
which are sent the same bytes at the same moment.

For each member that reads, all messages of a turn of the reactor cost one system call; for
a member that does not read, they cost nothing.  What waits for such a member is up to
`backlog`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..formats.framing import Framing
from ..match import Filter
from .backlog import SLICE_BYTES, Backlog, Position
from .choices import Choices, Live
from .heartbeats import Heartbeats
from .level import Level
from .member import Member, Response, Standing
from .replay import Replay
from .replaying import Replaying
from .turns import Turns

__all__ = ["Group"]

# How many slices of 64 KiB one member may be sent in one turn of the reactor.
SLICES = 64


class Group:
    """
    To the bus, one subscriber that stands for many.

    The messages that were published in a turn of the reactor are sent to all members at one
    moment, the flush at the beginning of the next turn.  Members that are level are sent
    them in one piece.  Members that are behind get them later, by their positions in the
    backlog, when their sockets have room.

    Args:
        reactor: The messages of one of its turns are sent together.
        backlog: Keeps what waits for members that are behind; empty at first.
        filter: Which messages the members get.
        framing: In which format.
        turns: The queue in which replays wait for their turn.
        emptied: Called when the last member has left.

    Attributes:
        backlog, filter, framing: As given.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        backlog: Backlog,
        filter: Filter,
        framing: Framing,
        turns: Turns,
        emptied: Callable[[], object],
    ) -> None:
        self.backlog = backlog
        self.filter = filter
        self.framing = framing
        self._heartbeat = framing.heartbeat
        self._turns = turns
        self._ending = False
        self._reactor = reactor
        self._emptied = emptied
        # The messages that were published in this turn of the reactor, each as its channel,
        # its bytes and when it expires; they have not been sent to any member yet.
        self._fresh: list[tuple[str, bytes, int | None]] = []
        # When the first of them was.
        self._since = 0.0
        self._flushing: IDelayedCall | None = None
        self._level = Level()
        self._behind: dict[Position, Member] = {}
        self._replaying = Replaying(
            reactor, turns, backlog.counters, self._send, self._caught_up
        )
        self._heartbeats = Heartbeats()

    def __len__(self) -> int:
        return len(self._level.members) + len(self._behind) + len(self._replaying.members)

    def deliver(self, channel: str, frame: bytes, expires: int | None = None) -> None:
        """
        Have a message that was published to this channel sent at the beginning of the next
        turn of the reactor.

        Args:
            frame: The bytes of the message.
            expires: When it is not to be sent any more, in milliseconds since 1970; None
                for never.
        """
        # There is no delay: on a busy bus, many messages are published in one turn and are
        # sent together; on an idle bus, the next turn begins at once.
        self._fresh.append((channel, frame, expires))
        if self._flushing is None:
            self._since = self._reactor.seconds()
            self._flushing = self._reactor.callLater(0, self._flush)

    def join(
        self,
        response: Response,
        choices: Choices,
        replay: Replay | None,
    ) -> Member:
        """
        Add a member.  It gets what its replay finds, and then what is delivered from now
        on.
        """
        self._flush()
        member = Member(response, choices.overflow, self)
        self.backlog.counters.open[self.framing.form] += 1
        if choices.heartbeat is not None:
            self._heartbeats.add(member, choices.heartbeat, self._reactor.seconds())
        told = choices.live is not Live.UNTOLD
        if replay is None and response.ready and not self._ending and not told:
            self._level.add(member)
            return member
        if replay is None:
            position = self.backlog.fall_behind(choices.overflow)
            position.line = self.framing.live() if told else b""
            self._put_behind(member, position)
        else:
            self._replaying.add(member, replay)
        # If the head of its response still waits in the transport, the member is fed when
        # the transport has room.
        if response.ready or member.outlet.ask():
            self.feed(member)
        return member

    def standing(self, member: Member) -> Standing:
        """
        How far a member is.
        """
        if (position := member.position) is not None:
            messages, size, lost = self.backlog.waiting(position)
            missed = member.missed + position.missed + lost
            return Standing("behind", messages, size, missed)
        if member.replay is not None:
            return Standing("replay", *member.replay.waiting, member.missed)
        return Standing("level", 0, 0, member.missed)

    def leave(self, member: Member) -> None:
        """
        Remove a member, to which nothing is written any more.
        """
        self.backlog.counters.open[self.framing.form] -= 1
        missed = self.standing(member).missed
        self._level.remove(member)
        self._take_from_behind(member)
        member.missed = missed
        self._replaying.end(member)
        self._heartbeats.remove(member)
        if not len(self):
            self._flush()
            self._emptied()

    def feed(self, member: Member) -> None:
        """
        Send a member that has room what waits for it.  For a replay, that happens in one
        of its turns.
        """
        member.progress = self._reactor.seconds()
        if member.replay is not None:
            self._replaying.go_on(member)
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
                self._level.add(member)
                return
            taken, all_taken = self._send(member, pieces)
            # The write may have found out that the peer has gone; then the member has left.
            if member.position is not None:
                self.backlog.advance(position, taken)
            if not all_taken:
                return
            slices -= 1
            if not slices:
                # The member reads as fast as it is fed.  Let the others have their turn.
                self._reactor.callLater(0, self._feed_on, member)
                return

    def tell(self, member: Member, data: bytes) -> None:
        """
        Send bytes to one member alone, between two messages.
        """
        if member not in self._level:
            member.aside += data
            return
        taken, all_taken = self._send(member, [data])
        if not all_taken and self._level.remove(member):
            position = self.backlog.fall_behind(member.overflow)
            position.line = data[taken:]
            self._put_behind(member, position)

    def dismiss(self, member: Member, data: bytes) -> None:
        """
        Send these last bytes to one member, and remove it.  If it has been sent a part of a
        message, the rest of that message goes first.
        """
        self._flush()
        rest: bytes | memoryview = b""
        if member.replay is not None:
            rest = member.replay.rest
        elif member.position is not None:
            rest = self.backlog.rest(member.position)
        # The last bytes, a close frame, might never be read after so many others.
        if len(rest) > SLICE_BYTES:
            member.outlet.abort()
        else:
            member.outlet.write(bytes(rest) + member.aside + data)
        member.aside = b""
        member.stopProducing()

    def end(self) -> None:
        """
        End the responses of all members, each once the member has been sent all that waits
        for it.
        """
        self._ending = True
        self._flush()
        for member in self._level:
            member.finish()

    def cut(self, before: float) -> int:
        """
        Cut the members for which bytes have waited since this time, and which have taken
        none of them.

        Returns:
            How many were cut.
        """
        behind = (*self._behind.values(), *self._replaying)
        stalled = [member for member in behind if member.progress <= before]
        for member in stalled:
            member.cut()
        return len(stalled)

    def beat(self) -> bool:
        """
        Send a heartbeat to the members that are due for one, except those for which other
        bytes wait.

        Returns:
            Whether any member has asked for heartbeats.
        """
        for member in self._heartbeats.due(self._reactor.seconds()):
            if member in self._level:
                self.tell(member, self._heartbeat)
        return bool(self._heartbeats)

    def stalest(self) -> Member | None:
        """
        The member that has taken nothing for longest, of those that are sent a replay; None
        if there is no replay.
        """
        return self._replaying.stalest()

    def shed(self) -> None:
        """
        Drop what waits for the members that are farthest behind, to make room.
        """
        self.backlog.shed()
        for member in self._late():
            if member.close_late is None:
                member.cut()
            else:
                # Not at once, because the client may be the one whose message is being
                # delivered.
                self._reactor.callLater(0, member.close_late)

    def _flush(self) -> None:
        if self._flushing is None:
            return
        if self._flushing.active():
            self._flushing.cancel()
        fresh, self._fresh, self._flushing = self._fresh, [], None
        frames = [frame for _, frame, _ in fresh]
        data = b"".join(frames)
        full = self._level.send(data)
        if count := len(self._level.members):
            self.backlog.delivered.add(count * len(frames), count * len(data))
            # The clock may have been set back.
            delay = max(0.0, self._reactor.seconds() - self._since)
            self.backlog.counters.delay.observe(delay, count * len(frames))
        for member, taken in full:
            position = self.backlog.fall_behind(member.overflow, frames, taken)
            self._put_behind(member, position)
        for channel, frame, expires in fresh:
            self.backlog.add(channel, frame, expires)
        for member, _ in full:
            if member.position is not None:
                member.outlet.ask()
        for member in self._late():
            # Not at once: `join` flushes before it adds its member.  If the last of the
            # other members left during that, the group would be removed as empty.
            self._reactor.callLater(0, member.close_late or member.cut)

    def _send(self, member: Member, pieces: list[bytes | memoryview]) -> tuple[int, bool]:
        """
        Send to one member.

        Returns:
            How many bytes it took, and whether these were all.  If not, it is fed again
            once its transport has room.
        """
        size = sum(map(len, pieces))
        try:
            taken = member.outlet.sendmsg(pieces)
        except BlockingIOError:
            taken = 0
        except OSError:
            # Only a write through the transport tells the reactor that the peer has gone.
            member.outlet.write(b"".join(pieces))
            taken = size
        if taken < size:
            member.outlet.ask()
        return taken, taken == size

    def _feed_on(self, member: Member) -> None:
        if not member.outlet.paused:
            self.feed(member)

    def _caught_up(self, member: Member) -> None:
        """
        One more member that gets what is delivered from now on, like the others.
        """
        # What was delivered in this turn has been replayed to this member already, so the
        # others have to be sent it before this member is one of them.
        self._flush()
        if member.replay is not None and member.replay.ends:
            member.complete()
            return
        # Not before: a group without members is gone.
        self._replaying.end(member)
        self._put_behind(member, self.backlog.fall_behind(member.overflow))
        self.feed(member)

    def _late(self) -> list[Member]:
        """
        The members whose responses are to be ended because too much waits for them.
        """
        late = [self._behind[p] for p in self.backlog.late if p in self._behind]
        self.backlog.late.clear()
        self.backlog.counters.closed += len(late)
        return late

    def _put_behind(self, member: Member, position: Position) -> None:
        member.progress = self._reactor.seconds()
        member.position = position
        self._behind[position] = member
        self.backlog.counters.behind += 1

    def _take_from_behind(self, member: Member) -> None:
        position, member.position = member.position, None
        if position is not None:
            member.missed += position.missed
            del self._behind[position]
            self.backlog.counters.behind -= 1
            self.backlog.discard(position)
