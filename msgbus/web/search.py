"""
A search for one message: in the history, and then among those that are published.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..bus.bus import Bus
from ..bus.subscriptions import Subscription
from ..fanout.turns import Turns
from ..ids import Gap
from ..message import Message
from .query import Wanted

__all__ = ["Search"]


class Search:
    """
    Looks for the first message that matches: first among the kept messages, a limited
    number in each turn of the reactor, and then, if the request waits, among those that
    are published.

    Args:
        bus: The bus whose messages are searched.
        turns: Calls `look` again in a later turn, as long as kept messages are left.
        name: A channel or folder.
        wanted: `filter` says what matches; `since`, where the search begins (None for what
            is published from now on); `wait`, for how many seconds it waits for a message
            to be published.
        answer: Called once with the message, or with None if none was found, unless the
            search is stopped before.

    Attributes:
        gap: What is missing before the message, or None if nothing is.

    Raises:
        Invalid: The name cannot be that of a channel or folder.
    """

    def __init__(
        self,
        bus: Bus,
        reactor: IReactorTime,
        turns: Turns,
        name: str,
        wanted: Wanted,
        answer: Callable[[Message | None], object],
    ) -> None:
        self.gap: Gap | None = None
        self._bus = bus
        self._reactor = reactor
        self._turns = turns
        self._name = name
        self._filter = wanted.filter
        self._wait = wanted.wait
        self._answer: Callable[[Message | None], object] | None = answer
        self._subscription: Subscription | None = None
        self._cursor = None
        if wanted.since is not None:
            self._cursor = bus.replay(name, wanted.filter, wanted.since)
        self._waiting: IDelayedCall | None = None
        self._message: Message | None = None

    def look(self) -> int:
        """
        Look at the next messages that are kept; or, if none are left, begin to wait.

        Returns:
            About how many bytes of work that was, for `Turns`.
        """
        if self._answer is None:
            return 0
        if self._cursor is None:
            self._await()
            return 0
        items = self._cursor.read(self._bus.milliseconds())
        effort = self._cursor.effort
        if items is None:
            self._close()
            self._await()
            return effort
        for item in items:
            if isinstance(item, Message):
                self._message = item
                self.end()
                return effort + len(item.body)
            self._missed(item)
        if not self._cursor.waits:
            self._turns.call(self.look)
            return effort
        # For a message that has not come to this process: no longer than for a new one.
        if self._waiting is None:
            self._waiting = self._reactor.callLater(self._wait, self.end)
        self._turns.wait(self.look)
        return effort

    def _await(self) -> None:
        """
        Wait for a message to be published, if that is wanted.
        """
        if self._wait:
            self._subscription = self._bus.subscribe(
                self._name,
                self._found,
                self._filter,
                missed=partial(self._missed, Gap(None)),
            )
            if self._waiting is None:
                self._waiting = self._reactor.callLater(self._wait, self.end)
        else:
            self.end()

    def hurry(self) -> None:
        """
        Do not wait: answer as soon as everything that is kept has been looked at.
        """
        self._wait = 0
        if self._cursor is None or self._cursor.waits:
            self.end()

    def end(self) -> None:
        """
        Answer with the message that was found, or with None.  Calling this twice is no
        error.
        """
        answer = self._answer
        self.stop()
        if answer is not None:
            answer(self._message)

    def stop(self) -> None:
        """
        End the search without an answer.  Calling this twice is no error.
        """
        self._answer = None
        self._close()
        self._stop_waiting()

    def _found(self, message: Message) -> None:
        # Answer in the next turn, and not during the delivery.  After the answer, the next
        # request of the connection is read, and it may publish.
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
