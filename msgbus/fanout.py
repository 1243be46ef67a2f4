"""
Fan-out: one message to many open responses.

The bus sees groups; a group sees members.  What is the same for all members is
done once for the group: the match, the framing, and the joining of all that was
published in one turn of the reactor.  For each member there remains a write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from .bus import Bus
from .match import Filter
from .message import Message
from .multipart import Encoder

__all__ = ["Fanout", "Framing", "Member"]

# What the original server meant to keep for a subscriber that does not read.
MAX_BACKLOG = 1_000_000


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

    While its transport is full, up to `MAX_BACKLOG` bytes wait; what comes
    then is dropped and counted, and the count is told when the transport has
    drained.
    """

    __slots__ = (
        "_write",
        "_finish",
        "_group",
        "_paused",
        "_waiting",
        "_waiting_bytes",
        "_gap",
    )

    def __init__(
        self,
        write: Callable[[bytes], object],
        finish: Callable[[], object],
        group: Group,
    ) -> None:
        self._write = write
        self._finish = finish
        self._group: Group | None = group
        self._paused = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._gap = 0

    def deliver(self, frames: list[bytes], joined: bytes) -> None:
        """
        Deliver the messages of one turn: `joined` is `frames` in one piece.
        """
        if self._group is None:
            return
        if not self._paused:
            self._write(joined)
            return
        for frame in frames:
            if self._gap or self._waiting_bytes > MAX_BACKLOG:
                self._gap += 1
            else:
                self._waiting.append(frame)
                self._waiting_bytes += len(frame)

    def pauseProducing(self) -> None:
        """
        The transport is full: let what comes wait.
        """
        self._paused = True

    def resumeProducing(self) -> None:
        """
        The transport has drained: deliver what waits.
        """
        self._paused = False
        if waiting := self._owed():
            self._write(b"".join(waiting))

    def end(self) -> None:
        """
        Hand over what is owed, and end the response.
        """
        # Piece by piece: a transport that is never read from copies nothing.
        for frame in self._owed():
            self._write(frame)
        self._finish()

    def _owed(self) -> list[bytes]:
        if self._group is None:
            return []
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if self._gap:
            waiting.append(self._group.framing.gap(self._gap))
            self._gap = 0
        return waiting

    def stopProducing(self) -> None:
        """
        End it: the response is gone.  Ending it twice is no error, because
        Twisted tells it twice.
        """
        group, self._group = self._group, None
        if group is not None:
            group.leave(self)


class Group:
    """
    The subscribers of one channel or folder with equal filter and equal
    framing: to the bus, one subscriber.
    """

    def __init__(self, fanout: Fanout, name: str, filter: Filter, framing: Framing) -> None:
        self.key = (name, filter, framing)
        self.framing = framing
        self._fanout = fanout
        self._subscription = fanout.bus.subscribe(name, self._deliver, filter)
        self._members: dict[Member, None] = {}
        # Published in this turn of the reactor.
        self._frames: list[bytes] = []
        self._flushing: IDelayedCall | None = None

    def join(
        self, write: Callable[[bytes], object], finish: Callable[[], object]
    ) -> Member:
        """
        Add a member.  It gets what is published from now on.
        """
        self._flush()
        member = Member(write, finish, self)
        self._members[member] = None
        return member

    def leave(self, member: Member) -> None:
        """
        Remove a member: nothing is written to it any more.
        """
        del self._members[member]
        if not self._members:
            self._flush()
            self._subscription.cancel()
            self._fanout.forget(self)

    def end(self) -> None:
        """
        End the responses of all members, with what they are owed.
        """
        self._flush()
        for member in tuple(self._members):
            member.end()

    def _deliver(self, message: Message) -> None:
        # All members get it at the end of this turn of the reactor, with all
        # others of the turn in one write.  No timer: a busy bus joins by
        # itself, and an idle one does not wait.
        self._frames.append(self._fanout.frame(self.framing, message))
        if self._flushing is None:
            self._flushing = self._fanout.reactor.callLater(0, self._flush)

    def _flush(self) -> None:
        if self._flushing is None:
            return
        if self._flushing.active():
            self._flushing.cancel()
        frames, self._frames, self._flushing = self._frames, [], None
        joined = b"".join(frames)
        # A write may find that a member has gone.
        for member in tuple(self._members):
            member.deliver(frames, joined)


class Fanout:
    """
    Keeps the groups of one bus.
    """

    def __init__(self, bus: Bus, reactor: IReactorTime) -> None:
        self.bus = bus
        self.reactor = reactor
        self._groups: dict[tuple[str, Filter, Framing], Group] = {}
        self._framed: tuple[Message | None, dict[Framing, bytes]] = (None, {})

    def subscribe(
        self,
        name: str,
        filter: Filter,
        framing: Framing,
        write: Callable[[bytes], object],
        finish: Callable[[], object],
    ) -> Member:
        """
        Deliver what is published from now on to one more response.

        Args:
            name: A channel or folder.
            write: Takes bytes for this response.
            finish: Ends this response, and with it the subscription.

        Returns:
            The producer to register with what `write` writes to.  Its
            `stopProducing` ends the subscription.

        Raises:
            Invalid: The name is none.
        """
        key = (name, filter, framing)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self, name, filter, framing)
        return group.join(write, finish)

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
