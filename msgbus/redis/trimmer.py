"""
Deletes from the stream of a log in Redis what the history has dropped, some time later.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from twisted.internet.error import ConnectionLost
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from .connection import RedisConnection
from .link import run
from .scripts import FORGET

__all__ = ["RedisTrimmer"]

# A message stays in the stream so long after it was dropped, for nodes that have not read
# it yet.  If so many bytes were dropped, it is deleted sooner.
STAY_SECONDS = 30.0
STAY_BYTES = 32 * 1024 * 1024

# How often messages are deleted, and at most how many by one command.
EACH_SECONDS = 1.0
MESSAGES = 1000

LATE_SECONDS = 5.0


class _Dropped(NamedTuple):
    """
    What was dropped at one moment.

    Attributes:
        seconds: When, by the clock of the reactor.
        ids: Of the messages.
        lost: By name of a channel or folder, the newest id that it has lost.
        size: About how many bytes it is.
    """

    seconds: float
    ids: list[str]
    lost: dict[str, str]
    size: int


class RedisTrimmer:
    """
    Keeps what is to be deleted until its time has come.

    Args:
        stream: The key of the stream.
        reactor: Twisted's.
    """

    _log = Logger()

    def __init__(self, stream: str, reactor: Any) -> None:
        self._keys = (stream, f"{stream}:meta", f"{stream}:lost")
        self._reactor = reactor
        self._connection: RedisConnection | None = None
        self._dropped: deque[_Dropped] = deque()
        self._size = 0
        self._deleting = LoopingCall(self._delete)
        self._deleting.clock = reactor

    def start(self) -> None:
        """
        Delete from time to time.
        """
        self._deleting.start(EACH_SECONDS, now=False)

    def stop(self) -> None:
        """
        Delete nothing more.
        """
        if self._deleting.running:
            self._deleting.stop()

    def resume(self, connection: RedisConnection) -> None:
        """
        Use this connection from now on.
        """
        self._connection = connection

    def forget(self) -> None:
        """
        Delete nothing of what is to be deleted: the log is another one.
        """
        self._dropped.clear()
        self._size = 0

    def add(self, ids: list[str], lost: dict[str, str], size: int) -> None:
        """
        Delete these messages later; see `_Dropped`.
        """
        now: float = self._reactor.seconds()
        self._dropped.append(_Dropped(now, ids, lost, size))
        self._size += size

    def _delete(self) -> None:
        connection = self._connection
        if connection is None:
            return
        before = self._reactor.seconds() - STAY_SECONDS
        while self._dropped and (
            self._dropped[0].seconds <= before or self._size > STAY_BYTES
        ):
            ids: list[str] = []
            lost: dict[str, str] = {}
            while self._dropped and len(ids) < MESSAGES:
                if self._dropped[0].seconds > before and self._size <= STAY_BYTES:
                    break
                dropped = self._dropped.popleft()
                self._size -= dropped.size
                ids += dropped.ids
                lost.update(dropped.lost)
            pairs = [text for pair in lost.items() for text in pair]
            deleted = run(
                connection, FORGET, self._keys, (len(ids), *ids, *pairs), LATE_SECONDS
            )
            deleted.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        # What is left is deleted when a node starts.
        if not failure.check(ConnectionLost):
            self._log.warn("Redis does not delete: {error}", error=failure.value)
