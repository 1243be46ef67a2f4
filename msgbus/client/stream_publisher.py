"""
Publishing by one stream with Twisted: no faster than the bus takes the messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Unpack

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .endpoint import BusEndpoint
from .errors import BusError, Closed, Refused, Unreachable
from .failures import explained
from .notices import Notice
from .options import StreamMessage
from .publication_stream import PublicationStream
from .responses import Answer
from .stream_connection import StreamConnection

__all__ = ["Answered", "StreamPublisher"]

# How many callers may wait for room at the same time.
MAX_CALLERS = 1000

Answered = Callable[[int, Answer], object]


class StreamPublisher:
    """
    Publishes to one channel or folder by one request that stays open.  Made by
    `Client.stream`.

    Attributes:
        patience: Seconds for which it tries to reconnect, from the first failure behind the
            last answer.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: BusEndpoint,
        stream: PublicationStream,
        timeout: float,
        patience: float,
        answered: Answered | None,
        notify: Callable[[Notice], object] | None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._stream = stream
        self._timeout = timeout
        self.patience = patience
        self._answered = answered
        self._notify = notify
        self._connection: StreamConnection | None = None
        # Whether `_run` runs.
        self._running = False
        # Those who wait until there is room.
        self._callers: deque[tuple[Deferred[int], int]] = deque()
        self._closing = False
        self._error: BaseException | None = None
        self._ended: list[Deferred[None]] = []

    def publish(
        self, body: bytes, content_type: str, **given: Unpack[StreamMessage]
    ) -> Deferred[int]:
        """
        Publish one message.

        Wait for the Deferred before the next call: that is all that back-pressure needs.
        It does not wait for the answer of the bus, which comes to `answered` of
        `Client.stream`, so a loop that awaits each call keeps many messages on their way,
        and never more than the bus takes.

        Args:
            body: At most the limit of the server, 1 MiB unless it was configured otherwise.
            given: `channel`, `keep`, `sender`, `id`, `origin`, `headers` and `max_age`; see
                `msgbus.client.options.StreamMessage`.

        Returns:
            A Deferred that fires with the number of the message, from 1, as soon as another
            one may be published; at once, if there is room.  It fails with the error by
            which the stream has ended: `Refused` if the bus refuses the stream, or a
            message of it without an `answered`; `Untrusted`; `Unreachable` if the bus could
            not be reached for `patience` seconds; and `Closed`.  Cancelling it only ends
            the wait.

        Raises:
            Invalid: The message cannot be sent.
            RuntimeError: The caller does not wait: a thousand calls wait already.
        """
        if self._error is not None:
            return fail(self._error)
        if self._closing:
            return fail(Closed("The stream was closed."))
        if len(self._callers) >= MAX_CALLERS:
            raise RuntimeError("Wait for the Deferred of publish() before the next call.")
        was_idle = not self._stream.unanswered
        number = self._stream.add(body, content_type, given)
        if self._connection is not None:
            self._connection.more(was_idle)
        else:
            self.connect()
        if self._error is not None:
            return fail(self._error)
        if self._stream.has_room:
            return succeed(number)
        room: Deferred[int] = Deferred()
        self._callers.append((room, number))
        return room

    def connect(self) -> None:
        """
        Connect now, unless there is a connection, and not only with the next message.
        """
        if not self._running and self._error is None:
            self._running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._fail)

    def close(self) -> Deferred[None]:
        """
        Take no more messages, and end the stream; the Deferred is that of `ended`.
        """
        ended = self.ended()
        if not self._closing:
            self._closing = True
            self._stream.close()
            if self._connection is not None:
                self._connection.more(False)
            if not self._running and self._error is None:
                self._end()
        return ended

    def ended(self) -> Deferred[None]:
        """
        Returns:
            A Deferred that fires once the stream was closed, everything is answered, and
            the connection is closed.  It fails as that of `publish` does, but at once.
            Cancelling it only ends the wait.
        """
        if self._error is not None:
            return fail(self._error)
        if self._closing and not self._running:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._ended.append(ended)
        return ended

    async def _run(self) -> None:
        """
        Connect, and connect again until everything is answered.  A connection that is lost
        while nothing is unanswered is no loss: the next message makes another.
        """
        while True:
            try:
                await self._connect()
            except Unreachable as error:
                if self._stream.unanswered:
                    await self._wait(error)
            if not self._stream.unanswered:
                break
        self._running = False
        if self._closing:
            self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, []
        for each in ended:
            if not each.called:
                each.callback(None)

    async def _wait(self, error: Unreachable) -> None:
        lost = self._stream.lost(error, self._reactor.seconds(), self.patience)
        if self._notify is None:
            self._log.warn("{url}: {lost}", url=self._stream.url, lost=lost)
        else:
            self._notify(lost)
        await deferLater(self._reactor, lost.seconds)

    async def _connect(self) -> None:
        """
        Use one connection until its end.
        """
        connection = StreamConnection(
            self._reactor, self._stream, self._timeout, self._take
        )

        def late(_: object, seconds: float) -> None:
            raise Unreachable(f"There was no answer for {seconds:g} seconds.")

        connected = self._endpoint.connect(Factory.forProtocol(lambda: connection))
        connected.addTimeout(self._timeout, self._reactor, late)
        try:
            await connected
        except Exception:
            raise explained(Failure()) from None
        self._connection = connection
        try:
            connection.more(True)
            await connection.ended
        finally:
            self._connection = None

    def _take(self, number: int, answer: Answer) -> None:
        """
        Hand on the answer to one message, and let those go on who wait for room.
        """
        if self._answered is not None:
            try:
                self._answered(number, answer)
            except Refused:
                raise
            except Exception:
                self._log.failure("The callback of {url} failed", url=self._stream.url)
        elif isinstance(answer, Refused):
            raise answer
        while self._callers and self._stream.has_room:
            room, published = self._callers.popleft()
            if not room.called:
                room.callback(published)

    def _fail(self, failure: Failure) -> None:
        """
        End the stream with an error.
        """
        self._running = False
        self._error = failure.value
        if not isinstance(failure.value, BusError | CancelledError):
            self._log.failure("The stream to {url} failed", failure, url=self._stream.url)
        callers, self._callers = self._callers, deque()
        ended, self._ended = self._ended, []
        for room, _ in callers:
            if not room.called:
                room.errback(failure.value)
        for each in ended:
            if not each.called:
                each.errback(failure.value)
