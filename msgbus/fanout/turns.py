"""
Turns for long work: a few pieces of it in each turn of the reactor, so that thousands of
replays hold up nobody else.
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


class Turns:
    """
    Calls what is put in the queue: in one turn of the reactor at most 64 calls, and no more
    after those that have done 256 KiB of work together.

    Args:
        after: Called after each turn.
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
            work: Returns about how many bytes of work it has done; 64 KiB, if it has looked
                at much and found nothing.
        """
        self._queue.append(work)
        if len(self._queue) == 1:
            self._reactor.callLater(0, self._take)

    def _take(self) -> None:
        done = 0
        for _ in range(min(CALLS_A_TURN, len(self._queue))):
            # It stays in the queue while it runs: what it puts there itself must not find
            # the queue empty, or there would be two turns at once.
            try:
                done += self._queue[0]()
            except Exception:
                self._log.failure("A replay failed")
            self._queue.popleft()
            if done >= BYTES_A_TURN:
                break
        self._after()
        if self._queue:
            self._reactor.callLater(0, self._take)
