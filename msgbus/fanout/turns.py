"""
A queue of long work, such as replays: a limited part of it is done in each turn of the
reactor, so that even thousands of replays do not delay anything else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from .backlog import SLICE_BYTES

__all__ = ["Turns"]

CALLS_A_TURN = 64
BYTES_A_TURN = 4 * SLICE_BYTES
WAIT_SECONDS = 0.02


class Turns:
    """
    Makes the calls that are put in the queue, in order.  In one turn of the reactor, it
    makes at most 64 calls, and no further ones once they have done 256 KiB of work
    together.

    Args:
        after: Called after the calls of each turn.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, after: Callable[[], None]) -> None:
        self._reactor = reactor
        self._after = after
        self._queue: deque[Callable[[], int]] = deque()

    def call(self, work: Callable[[], int]) -> None:
        """
        Put one call at the end of the queue.

        Args:
            work: Returns about how many bytes of work it has done; to look at 1,000
                messages counts as 64 KiB.
        """
        self._queue.append(work)
        if len(self._queue) == 1:
            self._reactor.callLater(0, self._take)

    def wait(self, work: Callable[[], int]) -> None:
        """
        Put one call at the end of the queue after a moment, because it waits for something
        that takes longer than a turn.
        """
        self._reactor.callLater(WAIT_SECONDS, self.call, work)

    def _take(self) -> None:
        done = 0
        for _ in range(min(CALLS_A_TURN, len(self._queue))):
            # The call stays in the queue while it runs.  Otherwise, if it puts another call
            # in an empty queue, `call` would schedule a second `_take`.
            try:
                done += self._queue[0]()
            except Exception:
                self._log.failure("What waited for its turn failed")
            self._queue.popleft()
            if done >= BYTES_A_TURN:
                break
        if self._queue:
            self._reactor.callLater(0, self._take)
        self._after()
