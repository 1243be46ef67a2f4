"""
A member of a group: one subscriber, which is one open response.

A member is *level* when it has been sent all messages of its group; then it holds nothing.
Otherwise it is *behind*, and holds its position in the backlog; or it is sent messages that
were published before it came, and holds a replay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from ..formats.framing import Framing
from ..match import Filter
from .backlog import Backlog, Position
from .outlet import Outlet
from .overflow import Overflow
from .replay import Replay

__all__ = ["Member", "Response", "Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """
    How far a subscriber is.

    Attributes:
        state: `level` if it has been sent everything; otherwise `behind`, or `replay` if it
            is being sent kept messages.
        messages: How many messages wait for it; in a replay, those that have been read.
        bytes: How many bytes that is.
        missed: How many messages it does not get because too much waited for it.
    """

    state: str
    messages: int
    bytes: int
    missed: int


@dataclass(frozen=True, slots=True)
class Response:
    """
    An open response, as fan-out sees it.

    Attributes:
        outlet: Takes its bytes.
        finish: Ends the response; called once all that waits for it has been sent.
        complete: The same, if the subscriber wants nothing more; if None, `finish` is
            called.
        close_late: Ends the response if more waits for it than the backlog allows, and its
            subscriber has chosen `Overflow.CLOSE`; if None, the connection is cut.
        deny: Ends the response, with a sentence that says why, if its subscriber loses the
            right to it; if None, it just ends.
        ready: Whether nothing waits in its transport, so that its outlet need not be asked
            for room.
    """

    outlet: Outlet
    finish: Callable[[], object]
    close_late: Callable[[], object] | None = None
    deny: Callable[[str], object] | None = None
    ready: bool = False
    complete: Callable[[], object] | None = None


class _Group(Protocol):
    """
    A group, as far as a member uses it, and those who ask the member; see `group.Group`.
    """

    backlog: Backlog
    filter: Filter
    framing: Framing

    def feed(self, member: Member) -> None: ...
    def leave(self, member: Member) -> None: ...
    def standing(self, member: Member) -> Standing: ...
    def tell(self, member: Member, data: bytes) -> None: ...
    def dismiss(self, member: Member, data: bytes) -> None: ...


@implementer(IPushProducer)
class Member:
    """
    One subscriber, and the producer of its response.

    Attributes:
        outlet: Takes the bytes of the response.
        overflow: What happens when too much waits for the member.
        position: Where it stands in the backlog, if it is behind.
        replay: What it is sent of the history; None if that has ended.
        aside: Bytes that wait for this member alone, such as answers on a WebSocket.
        progress: When it last took a byte, or last had none to take; in seconds of the
            reactor's clock.
        close_late: See `Response`.
        missed: How many messages were dropped for it, each time that it was behind; the
            last time is counted when that is over.
    """

    __slots__ = (
        "outlet",
        "overflow",
        "position",
        "replay",
        "aside",
        "progress",
        "close_late",
        "missed",
        "_complete",
        "_finish",
        "_group",
    )

    def __init__(self, response: Response, overflow: Overflow, group: _Group) -> None:
        self.outlet = response.outlet
        self.overflow = overflow
        self.position: Position | None = None
        self.replay: Replay | None = None
        self.aside = b""
        self.progress = 0.0
        self.close_late = response.close_late
        self.missed = 0
        self._finish = response.finish
        self._complete = response.complete or response.finish
        # None once it has left.
        self._group: _Group | None = group

    def pauseProducing(self) -> None:
        """
        The transport is full.
        """
        self.outlet.paused = True

    def resumeProducing(self) -> None:
        """
        The transport has room again: send what waits until it is full once more.
        """
        self.outlet.paused = False
        if self._group is not None:
            self._group.feed(self)

    def stopProducing(self) -> None:
        """
        Leave the group, because the response has ended.  Calling this twice is no error:
        Twisted reports a lost connection to the producer and to the request.
        """
        group, self._group = self._group, None
        if group is not None:
            # A flush or a replay that is going on must not write to it either.
            self.outlet.paused = True
            group.leave(self)

    @property
    def group(self) -> _Group | None:
        """
        The group; None once the member has left.
        """
        return self._group

    @property
    def standing(self) -> Standing:
        """
        How far it is.
        """
        if self._group is None:
            return Standing("level", 0, 0, self.missed)
        return self._group.standing(self)

    def cut(self) -> None:
        """
        Leave the group, and close the connection without sending what waits.
        """
        if self._group is not None:
            # The waiting bytes are released now; the connection may take longer to close.
            self.stopProducing()
            self.outlet.abort()

    def end(self) -> None:
        """
        End the response now: in order if nothing waits for the member, otherwise by closing
        the connection, without sending what waits.
        """
        if self.position is None and self.replay is None:
            self.finish()
        else:
            self.cut()

    def finish(self) -> None:
        """
        End the response.
        """
        if self._group is not None:
            self._finish()

    def complete(self) -> None:
        """
        End the response, because its subscriber wants nothing more.
        """
        if self._group is not None:
            self._complete()

    def tell(self, data: bytes) -> None:
        """
        Send bytes to this member alone, between two messages.
        """
        if self._group is not None:
            self._group.tell(self, data)

    def dismiss(self, data: bytes) -> None:
        """
        Send these last bytes, and leave the group.  If a message has been sent in part, its
        rest goes first.
        """
        if self._group is not None:
            self._group.dismiss(self, data)
