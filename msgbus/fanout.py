"""
Fan-out: one message to many open responses.

The bus sees groups; a group sees members.  What is the same for all members is
done once for the group: the match, the framing, and the joining of all that was
published in one turn of the reactor.  For each member that reads there remains a
system call, and for one that does not, nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from .bus import Bus
from .match import Filter
from .message import Message
from .multipart import Encoder
from .outlet import SLICE_BYTES, Outlet

__all__ = ["Fanout", "Framing", "Member"]

# What the original server meant to keep for a subscriber that does not read.
MAX_BACKLOG = 1_000_000

STALL_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Framing:
    """
    How messages become bytes for one kind of subscriber.

    Attributes:
        encoder: Writes the parts.
        chunked: Whether each part is an HTTP/1.1 chunk (RFC 9112, section
            7.1) of its own.
    """

    encoder: Encoder
    chunked: bool

    def frame(self, message: Message) -> bytes:
        """
        The bytes of one message.
        """
        return self._chunk(self.encoder.encode(message))

    def gap(self, count: int) -> bytes:
        """
        Tell that this many messages were not delivered: a header line of the
        part to come, whose delimiter is already out.
        """
        return self._chunk(b"Msgbus-Gap: %d\r\n" % count)

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data


@implementer(IPushProducer)
class Member:
    """
    One subscriber of a group: an open response, and its producer.

    A member is level, and then it holds nothing, or behind: then it holds a
    position, the number of the message that it is to get next, and the rest
    of the bytes that it is being given.
    """

    __slots__ = (
        "outlet",
        "position",
        "start",
        "window",
        "progress",
        "_finish",
        "_group",
        "_hand",
        "_offset",
    )

    def __init__(self, outlet: Outlet, finish: Callable[[], object], group: Group) -> None:
        self.outlet = outlet
        # The number of the next message, and of the bytes before it.
        self.position = 0
        self.start = 0
        # The number of the first, and all the messages that it still gets
        # before a gap, once it is past its backlog.
        self.window: tuple[int, tuple[bytes, ...]] | None = None
        # When it last took a byte, or had none to take.
        self.progress = group.seconds()
        self._finish = finish
        self._group: Group | None = group
        # Given to the outlet from the offset on.
        self._hand = b""
        self._offset = 0

    def fall_behind(self, frames: list[bytes], taken: int) -> None:
        """
        Go on, once there is room, with the first of these messages that is
        not among the bytes that were taken, or not whole; `position` is that
        of the first of all.
        """
        for frame in frames:
            if taken < 0:
                break
            self._hand, self._offset = frame, min(taken, len(frame))
            self.position += 1
            self.start += len(frame)
            taken -= len(frame)
        if self._group is not None:
            self.progress = self._group.seconds()
        self.outlet.ask()

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
            self.progress = self._group.seconds()
        while self._group is not None and not self._group.is_level(self):
            if self._offset < len(self._hand):
                rest = memoryview(self._hand)[self._offset :]
                try:
                    taken = self.outlet.send(rest)
                except BlockingIOError:
                    taken = 0
                except OSError:
                    # Only a write tells the reactor that the peer is gone.
                    self.outlet.write(rest)
                    self._offset = len(self._hand)
                    taken = 0
                self._offset += taken
                if taken < len(rest):
                    self.outlet.ask()
                    return
            self._hand, self._offset = self._group.next_for(self), 0

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

    def end(self) -> None:
        """
        Hand over what is owed, and end the response.
        """
        group = self._group
        if group is None:
            return
        # Piece by piece: a transport that is never read from copies nothing.
        while not group.is_level(self):
            self.outlet.write(self._hand[self._offset :])
            self._hand, self._offset = group.next_for(self), 0
        self._finish()


class Group:
    """
    The subscribers of one channel or folder with equal filter and equal
    framing: to the bus, one subscriber.

    It numbers its messages.  The members get them at one moment, the flush at
    the end of each turn of the reactor: those that are level all that is new,
    in one piece; those that are behind later, by their positions, when they
    have room.  So a member that does not read costs nothing a message.
    """

    def __init__(self, fanout: Fanout, name: str, filter: Filter, framing: Framing) -> None:
        self.key = (name, filter, framing)
        self._framing = framing
        self._fanout = fanout
        self._subscription = fanout.bus.subscribe(name, self._deliver, filter)
        # Framed in this turn of the reactor, and nobody's yet.
        self._fresh: list[bytes] = []
        self._flushing: IDelayedCall | None = None
        # Level members, each with what sends to it.
        self._level: dict[Member, Callable[[bytes], int]] = {}
        self._behind: set[Member] = set()
        # Those of them that get what comes, so far: not past their backlog.
        self._open: set[Member] = set()
        # What an open member may still need, and the number of the first.
        self._frames: deque[bytes] = deque()
        self._first = 0
        # How many messages and bytes there were, and how many bytes there may
        # be before an open member could be past its backlog.
        self._next = 0
        self._bytes = 0
        self._patience = 0

    def seconds(self) -> float:
        """
        The time, for whoever takes nothing.
        """
        return self._fanout.reactor.seconds()

    def cut(self, before: float) -> int:
        """
        Cut the members that bytes have waited for, and that have taken none
        since this time.

        Returns:
            How many these are.
        """
        stalled = [member for member in self._behind if member.progress <= before]
        for member in stalled:
            member.outlet.abort()
        return len(stalled)

    def is_level(self, member: Member) -> bool:
        """
        Does nothing wait for this member?
        """
        return member in self._level

    def join(self, outlet: Outlet, finish: Callable[[], object]) -> Member:
        """
        Add a member.  It gets what is published from now on.
        """
        self._flush()
        member = Member(outlet, finish, self)
        self._put_behind(member, self._next, self._bytes)
        # The head of its response may still wait in the transport.
        if outlet.ask():
            member.resumeProducing()
        return member

    def leave(self, member: Member) -> None:
        """
        Remove a member: nothing is written to it any more.
        """
        self._level.pop(member, None)
        self._behind.discard(member)
        self._close(member)
        if not self._level and not self._behind:
            self._flush()
            self._subscription.cancel()
            self._fanout.forget(self)

    def end(self) -> None:
        """
        End the responses of all members, with what they are owed.
        """
        self._flush()
        for member in (*self._level, *self._behind):
            member.end()

    def next_for(self, member: Member) -> bytes:
        """
        What a member that is behind gets next; if that is nothing, it is
        level from now on.
        """
        first, frames = member.window or (self._first, self._frames)
        pieces: list[bytes] = []
        size = 0
        for frame in islice(frames, member.position - first, None):
            pieces.append(frame)
            size += len(frame)
            if size >= SLICE_BYTES:
                break
        member.position += len(pieces)
        member.start += size
        if pieces:
            return b"".join(pieces)
        if member.window:
            gap = self._next - member.position
            member.window = None
            self._put_behind(member, self._next, self._bytes)
            return self._framing.gap(gap)
        self._behind.discard(member)
        self._close(member)
        self._level[member] = member.outlet.send
        return b""

    def _deliver(self, message: Message) -> None:
        # No timer: a busy bus joins what is published in one turn by itself,
        # and an idle one does not wait.
        self._fresh.append(self._fanout.frame(self._framing, message))
        if self._flushing is None:
            self._flushing = self._fanout.reactor.callLater(0, self._flush)

    def _flush(self) -> None:
        if self._flushing is None:
            return
        if self._flushing.active():
            self._flushing.cancel()
        fresh, self._fresh, self._flushing = self._fresh, [], None
        number, start = self._next, self._bytes
        for frame in fresh:
            self._keep(frame)
        joined = b"".join(fresh)
        size = len(joined)
        full = []
        # The innermost loop of the program: for each subscriber nothing but
        # the system call.
        for member, send in tuple(self._level.items()):
            try:
                taken = send(joined)
                if taken == size:
                    continue
            except BlockingIOError:
                taken = 0
            except OSError:
                # Only a write tells the reactor that the peer is gone.
                member.outlet.write(joined)
                taken = size
            full.append((member, taken))
        if full and not self._open:
            self._frames.extend(fresh)
            self._first = number
        for member, taken in full:
            # One may have left while others were sent to.
            if self._level.pop(member, None):
                self._put_behind(member, number, start)
                member.fall_behind(fresh, taken)
        self._forget_frames()

    def _keep(self, frame: bytes) -> None:
        """
        Number a message, and keep it for those that are behind.
        """
        # One message always fits: the backlog is looked at before it is added.
        if self._open and self._bytes > self._patience:
            self._close_the_late()
        if self._open:
            self._frames.append(frame)
        else:
            self._first += 1
        self._next += 1
        self._bytes += len(frame)

    def _put_behind(self, member: Member, number: int, start: int) -> None:
        """
        Let a member be at this message, with so many bytes before it.
        """
        member.position, member.start = number, start
        patience = start + self._fanout.max_backlog
        self._patience = min(self._patience, patience) if self._open else patience
        self._behind.add(member)
        self._open.add(member)

    def _close_the_late(self) -> None:
        """
        Close the windows of the members past their backlog: they get what
        they have waited for, and then a gap up to what is newest then.
        """
        windows: dict[int, tuple[bytes, ...]] = {}
        for member in tuple(self._open):
            if self._bytes - member.start > self._fanout.max_backlog:
                position = member.position
                if position not in windows:
                    windows[position] = self._window(position)
                member.window = (position, windows[position])
                self._close(member)
        if self._open:
            self._patience = min(m.start for m in self._open) + self._fanout.max_backlog
            for _ in range(min(m.position for m in self._open) - self._first):
                self._frames.popleft()
                self._first += 1

    def _window(self, position: int) -> tuple[bytes, ...]:
        """
        The messages from this one on that fit into a backlog.
        """
        kept: list[bytes] = []
        size = 0
        for frame in islice(self._frames, position - self._first, None):
            if size > self._fanout.max_backlog:
                break
            kept.append(frame)
            size += len(frame)
        return tuple(kept)

    def _close(self, member: Member) -> None:
        """
        Keep nothing more for this member.
        """
        self._open.discard(member)
        self._forget_frames()

    def _forget_frames(self) -> None:
        """
        Keep no message that nobody may need any more.
        """
        if not self._open:
            self._frames.clear()
            self._first = self._next


class Fanout:
    """
    Keeps the groups of one bus.

    Args:
        bus: Whose messages are delivered.
        reactor: Its turns join what is published, and its time tells who is
            stalled.
        max_backlog: Bytes of framed messages that may wait for a member
            before it gets no more; looked at before a message is added.
        stall_seconds: A member that takes no byte for so long, while some wait
            for it, is cut.
    """

    _log = Logger()

    def __init__(
        self,
        bus: Bus,
        reactor: IReactorTime,
        max_backlog: int = MAX_BACKLOG,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.bus = bus
        self.reactor = reactor
        self.max_backlog = max_backlog
        self._stall_seconds = stall_seconds
        self._sweeping: IDelayedCall | None = None
        self._groups: dict[tuple[str, Filter, Framing], Group] = {}
        self._framed: tuple[Message | None, dict[Framing, bytes]] = (None, {})

    def subscribe(
        self,
        name: str,
        filter: Filter,
        framing: Framing,
        outlet: Outlet,
        finish: Callable[[], object],
    ) -> Member:
        """
        Deliver what is published from now on to one more response.

        Args:
            name: A channel or folder.
            outlet: Takes bytes for this response.
            finish: Ends this response, and with it the subscription.

        Returns:
            The producer to register with what the outlet writes to.  Its
            `stopProducing` ends the subscription.

        Raises:
            Invalid: The name is none.
        """
        key = (name, filter, framing)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self, name, filter, framing)
            self._sweep_later()
        return group.join(outlet, finish)

    def end(self) -> None:
        """
        End all responses, with what they are owed.
        """
        for group in tuple(self._groups.values()):
            group.end()

    def forget(self, group: Group) -> None:
        """
        Drop a group that has no members any more.
        """
        del self._groups[group.key]
        if not self._groups and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            # One look at all for each tenth of the time, not a timer for each.
            self._sweeping = self.reactor.callLater(self._stall_seconds / 10, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        before = self.reactor.seconds() - self._stall_seconds
        cut = sum(group.cut(before) for group in tuple(self._groups.values()))
        if cut:
            self._log.warn(
                "Cut {count} subscribers that took nothing for {seconds} seconds",
                count=cut,
                seconds=self._stall_seconds,
            )
        if self._groups:
            self._sweep_later()

    def frame(self, framing: Framing, message: Message) -> bytes:
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
