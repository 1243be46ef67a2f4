"""
Deletes from the stream of a log in Redis what the history has dropped, some time later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..ids import ZERO, Id, format_id
from .connection import Argument, RedisConnection
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

# How long Redis may take to answer such a command.
LATE_SECONDS = 5.0


@dataclass(slots=True)
class _Dropped:
    """
    What was dropped in about one second.

    Attributes:
        seconds: When that second began, by the clock of the reactor.
        ids: Of the messages.
        lost: By name of a channel or folder, the newest id that it has lost.
        size: About how many bytes it takes in Redis.
    """

    seconds: float
    ids: list[Id] = field(default_factory=list)
    lost: dict[str, Id] = field(default_factory=dict)
    size: int = 0


class RedisTrimmer:
    """
    Waits until the other nodes can have read what is to be deleted, and deletes it.

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
        Delete nothing of what was added so far, because the log in Redis is another one.
        """
        self._dropped.clear()
        self._size = 0

    def add(self, ids: Iterable[Id], lost: Mapping[str, Id | None], size: int) -> None:
        """
        Delete these messages later.

        Args:
            lost: See `Changes.lost`.
            size: About how many bytes they take in Redis.
        """
        now = self._reactor.seconds()
        if not self._dropped or self._dropped[-1].seconds + EACH_SECONDS < now:
            self._dropped.append(_Dropped(now))
        dropped = self._dropped[-1]
        dropped.ids += ids
        dropped.size += size
        self._size += size
        for name, id in lost.items():
            if id is not None and id > dropped.lost.get(name, ZERO):
                dropped.lost[name] = id

    def _delete(self) -> None:
        before = self._reactor.seconds() - STAY_SECONDS
        while self._connection is not None and self._dropped:
            if self._dropped[0].seconds > before and self._size <= STAY_BYTES:
                return
            dropped = self._dropped.popleft()
            self._size -= dropped.size
            lost = [t for name, id in dropped.lost.items() for t in (name, format_id(id))]
            for place in range(0, max(1, len(dropped.ids)), MESSAGES):
                ids = [format_id(id) for id in dropped.ids[place : place + MESSAGES]]
                arguments: tuple[Argument, ...] = (len(ids), *ids, *lost)
                lost = []  # The first command has told them.
                deleted = run(self._connection, FORGET, self._keys, arguments, LATE_SECONDS)
                deleted.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        # Nothing is tried again: the next node that starts deletes these messages.
        if not failure.check(ConnectionLost):
            self._log.warn("Redis does not delete: {error}", error=failure.value)
