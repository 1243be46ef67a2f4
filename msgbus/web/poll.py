"""
One message for one request: the newest that there is, or the next one, waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..bus.bus import Bus, Subscription
from ..formats.framing import Framing
from ..ids import Gap, Since
from ..match import Filter
from ..message import Message

__all__ = ["Body", "Poll"]


@dataclass(frozen=True, slots=True)
class Body(Framing):
    """
    The body of a message, and nothing else.
    """

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        The body.
        """
        return (message.body,)

    def gap(self, count: int | None) -> bytes:
        """
        It has its place in the head.
        """
        return b""

    @property
    def heartbeat(self) -> bytes:
        """
        There is none.
        """
        return b""


class Poll:
    """
    Looks for a message, in what is kept, and then in what is published.

    Args:
        name: A channel or folder.
        since: The first behind this is looked for; None for the first that is published
            from now on.
        wait: How many seconds it is waited for one to be published.
        in_turn: Calls something later, when others have had their turn.
        answer: Called once, unless it is stopped before: with the message, or None if
            there is none.

    Attributes:
        gap: What is missing before the message, or None if nothing is.

    Raises:
        Invalid: The name is none.
    """

    def __init__(
        self,
        bus: Bus,
        reactor: IReactorTime,
        name: str,
        filter: Filter,
        since: Since | None,
        wait: int,
        in_turn: Callable[[Callable[[], None]], None],
        answer: Callable[[Message | None], object],
    ) -> None:
        self.gap: Gap | None = None
        self._bus = bus
        self._name = name
        self._filter = filter
        self._in_turn = in_turn
        self._answer: Callable[[Message | None], object] | None = answer
        self._subscription: Subscription | None = None
        self._cursor = None if since is None else bus.replay(name, filter, since)
        self._reactor = reactor
        self._wait = wait
        self._waiting: IDelayedCall | None = None
        self._message: Message | None = None

    def look(self) -> None:
        """
        Look on.
        """
        if self._answer is None:
            return
        items = None
        if self._cursor is not None:
            items = self._cursor.read(self._bus.milliseconds())
        if items is None:
            self._close()
            if not self._wait:
                self.end()
                return
            self._subscription = self._bus.subscribe(self._name, self._found, self._filter)
            self._waiting = self._reactor.callLater(self._wait, self.end)
            return
        for item in items:
            if isinstance(item, Message):
                self._message = item
                self.end()
                return
            self._missed(item)
        self._in_turn(self.look)

    def hurry(self) -> None:
        """
        Wait no longer: answer with what there is, once all that is kept was looked at.
        """
        self._wait = 0
        if self._cursor is None:
            self.end()

    def end(self) -> None:
        """
        Answer with the message, or with nothing.  Ending it twice is no error.
        """
        answer = self._answer
        self.stop()
        if answer is not None:
            answer(self._message)

    def stop(self) -> None:
        """
        Look for nothing any more, and do not answer.  Stopping it twice is no error.
        """
        self._answer = None
        self._close()
        self._stop_waiting()

    def _found(self, message: Message) -> None:
        # Not within the delivery: what is pipelined behind may publish.
        self._stop_waiting()
        self._message = message
        self._waiting = self._reactor.callLater(0, self.end)

    def _stop_waiting(self) -> None:
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        if self._subscription is not None:
            self._subscription.cancel()

    def _close(self) -> None:
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()

    def _missed(self, gap: Gap) -> None:
        before = 0 if self.gap is None else self.gap.count
        if before is None or gap.count is None:
            self.gap = Gap(None)
        else:
            self.gap = Gap(before + gap.count)
