"""
Appends messages to a log in Redis, many in one round trip.

One batch is on its way at a time, and what comes meanwhile is the next one: so batches grow
with the load.  If the answer to a batch is lost, nobody knows whether the batch was
appended.  So each has a number, Redis remembers the last one of each node with its answer,
and the batch is sent again under its number.  The same happens if too few replicas have
it in time.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..bus.log import Unavailable
from .address import RedisAddress
from .connection import Argument, RedisConnection, RedisError
from .link import run
from .scripts import APPEND

__all__ = ["RedisAppender"]

# How long a publication waits for its answer, and how long Redis may take to answer a batch
# before the connection is cut.
WAIT_SECONDS = 5.0

# How many publications may wait, and how many bytes of bodies in them.
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 32 * 1024 * 1024

# While this node has not read so many bytes of bodies that it has appended, it appends no
# more.  For what it has not read, its history drops nothing, so the stream would grow.
MAX_UNREAD_BYTES = 16 * 1024 * 1024

# A batch has at most so many messages, and ends with the one that exceeds so many bytes.
BATCH_MESSAGES = 256
BATCH_BYTES = 1024 * 1024

# How long to wait before a batch is sent again that Redis has answered with an error.
RETRY_SECONDS = 0.5

# How long Redis waits for its replicas to have a batch, before the batch is sent again.
REPLICAS_SECONDS = 1.0

AWAY = (
    "The log of this bus cannot be reached now, so the message may not be published; try"
    " again in a moment."
)
UNREPLICATED = (
    "Too few replicas of the log of this bus have the message, so it is not known whether"
    " it will be kept; try again in a moment."
)
CROWDED = "Too many messages wait for the log of this bus; try again in a moment."
FULL = (
    "The log of this bus is full: its operator has to give Redis more memory, or to keep"
    " less."
)


class _Publication:
    """
    A message that waits for its id.

    Attributes:
        arguments: For `APPEND`.
        size: Bytes of its body.
        deadline: When it waits no longer, by the clock of the reactor.
        done: Fires with what `APPEND` answers.
    """

    __slots__ = ("arguments", "size", "deadline", "done")

    def __init__(self, arguments: tuple[Argument, ...], size: int, deadline: float) -> None:
        self.arguments = arguments
        self.size = size
        self.deadline = deadline
        self.done: Deferred[str] = Deferred()


class RedisAppender:
    """
    Appends what the publishers at one node publish.

    Args:
        address: Where the stream is, and how many replicas must have a message before it is
            acknowledged.
        reactor: The messages of one of its turns are appended together.
        outdated: Called if Redis has refused a batch because the life of the log is no
            longer `life`.  Whoever is called calls `begin_life`, and `resume`, which sends
            the batch again.

    Attributes:
        life: The life of the log.
        node: A random name of this node, which is stored with each message that it appends.
        failures: How many batches were not appended, or had no answer, when they were sent;
            most of them are sent again.
    """

    _log = Logger()

    def __init__(
        self, address: RedisAddress, reactor: Any, outdated: Callable[[], object]
    ) -> None:
        stream = address.stream
        self.life = 0
        self.node = secrets.token_hex(6)
        self.failures = 0
        batch = f"{stream}:batch:{self.node}"
        self._keys = (stream, f"{stream}:meta", batch, f"{stream}:marks")
        self._replicas = address.replicas
        self._reactor = reactor
        self._outdated = outdated
        self._connection: RedisConnection | None = None
        self._queue: deque[_Publication] = deque()
        self._queued_bytes = 0
        self._batch: list[_Publication] = []
        self._number = 0
        # The numbers and sizes of messages that this node has appended and not read yet.
        self._unread: deque[tuple[int, int]] = deque()
        self._unread_bytes = 0
        # Whether Redis has the batch, but too few replicas have it.
        self._is_unreplicated = False
        # Whether the batch was sent and is not answered yet, and whether `_send` is due in
        # the next turn of the reactor.
        self._sending = False
        self._scheduled = False
        self._expiring = LoopingCall(self._expire)
        self._expiring.clock = reactor

    def append(self, arguments: tuple[Argument, ...], size: int) -> Deferred[str]:
        """
        Append a message.

        Args:
            arguments: `FIELDS`.
            size: Bytes of its body.

        Returns:
            A Deferred that fires with what `APPEND` answers for the message.  It fails
            with `Unavailable` after five seconds.

        Raises:
            Unavailable: Too many messages wait already.
        """
        if len(self._queue) >= MAX_WAITING or self._queued_bytes > MAX_WAITING_BYTES:
            raise Unavailable(CROWDED)
        deadline = self._reactor.seconds() + WAIT_SECONDS
        publication = _Publication(arguments, size, deadline)
        self._queue.append(publication)
        self._queued_bytes += size
        if not self._scheduled and not self._sending:
            self._scheduled = True
            self._reactor.callLater(0, self._send)
        if not self._expiring.running:
            self._expiring.start(WAIT_SECONDS / 10, now=False)
        return publication.done

    def resume(self, connection: RedisConnection) -> None:
        """
        Use this connection from now on.  The batch that was not answered is sent first.
        """
        if connection is not self._connection:
            self._sending = False
        self._connection = connection
        self._send()

    def begin_life(self, life: int) -> None:
        """
        The log has this life now.
        """
        self.life = life
        self._unread.clear()
        self._unread_bytes = 0

    def add_unread(self, number: int, size: int) -> None:
        """
        Note that this node has appended a message with this number and so many bytes, which
        it has not read yet.
        """
        self._unread.append((number, size))
        self._unread_bytes += size

    def read(self, number: int) -> None:
        """
        Note that this node has read the messages up to this number.
        """
        was_full = self._is_full
        while self._unread and self._unread[0][0] <= number:
            self._unread_bytes -= self._unread.popleft()[1]
        if was_full and not self._is_full:
            self._send()

    @property
    def _is_full(self) -> bool:
        return self._unread_bytes > MAX_UNREAD_BYTES

    @property
    def waiting(self) -> int:
        """
        How many messages wait for the answer of Redis.
        """
        return len(self._queue) + len(self._batch)

    @property
    def is_idle(self) -> bool:
        """
        Does nothing wait?
        """
        return not self._queue and not self._batch

    def _send(self) -> None:
        self._scheduled = False
        if self._sending or self._connection is None:
            return
        if not self._batch:
            if self._is_full:
                return
            self._batch = self._take_batch()
            self._number += 1
        if not self._batch:
            return
        self._sending = True
        arguments: list[Argument] = [self.life, self._number]
        for publication in self._batch:
            arguments += publication.arguments
        answered = run(self._connection, APPEND, self._keys, tuple(arguments), WAIT_SECONDS)
        if self._replicas:
            answered.addCallback(self._replicate, self._connection)
        sent = (self._connection, self._number)
        answered.addCallbacks(
            self._answered, self._failed, callbackArgs=sent, errbackArgs=sent
        )
        answered.addErrback(lambda f: self._log.failure("Cannot append", f))

    def _take_batch(self) -> list[_Publication]:
        batch: list[_Publication] = []
        size = 0
        while self._queue and len(batch) < BATCH_MESSAGES and size <= BATCH_BYTES:
            publication = self._queue.popleft()
            size += publication.size
            batch.append(publication)
        self._queued_bytes -= size
        return batch

    def _replicate(self, answer: bytes, connection: RedisConnection) -> Deferred[bytes]:
        """
        Wait until the replicas have what Redis had when it gave this answer.

        Returns:
            A Deferred that fires with the answer, or with an empty one if too few replicas
            have it in time.
        """
        if answer == b"LIFE":
            return succeed(answer)
        replicated = connection.call(
            "WAIT", self._replicas, int(REPLICAS_SECONDS * 1000), seconds=WAIT_SECONDS
        )
        return replicated.addCallback(
            lambda count: answer if count >= self._replicas else b""
        )

    def _answered(self, answer: bytes, connection: RedisConnection, number: int) -> None:
        if connection is self._connection:
            self._sending = False
        self._is_unreplicated = not answer
        if not answer:
            # `WAIT` has taken a second, so the batch can be sent again at once.
            self._send()
            return
        if answer == b"LIFE":
            self._outdated()
            return
        if number == self._number:
            batch, self._batch = self._batch, []
            for publication, told in zip(batch, answer.decode().split(" "), strict=False):
                publication.done.callback(told)
        self._send()

    def _failed(self, failure: Failure, connection: RedisConnection, number: int) -> None:
        if connection is self._connection:
            self._sending = False
        self._is_unreplicated = False
        self.failures += 1
        if failure.check(ConnectionLost):
            # The next connection sends the batch again.
            return
        failure.trap(RedisError)
        text = str(failure.value)
        if text.startswith("OOM") and number == self._number:
            self._give_up(FULL)
            self._send()
            return
        self._log.warn("Redis does not append: {error}", error=text)
        if "READONLY" in text:
            # It has become a replica: the next connection is to the new master.  Redis 6
            # has this word in the middle if a script was refused.
            connection.cut()
        self._reactor.callLater(RETRY_SECONDS, self._send)

    def _give_up(self, sentence: str) -> None:
        batch, self._batch = self._batch, []
        for publication in batch:
            publication.done.errback(Unavailable(sentence))

    def _expire(self) -> None:
        """
        Refuse the publications that have waited for too long.  A batch is given up as a
        whole, because Redis appends it as a whole.
        """
        now = self._reactor.seconds()
        sentence = UNREPLICATED if self._is_unreplicated else AWAY
        if self._batch and self._batch[0].deadline <= now:
            self._give_up(sentence)
        while self._queue and self._queue[0].deadline <= now:
            publication = self._queue.popleft()
            self._queued_bytes -= publication.size
            publication.done.errback(Unavailable(CROWDED if self._is_full else sentence))
        if self.is_idle:
            self._expiring.stop()
