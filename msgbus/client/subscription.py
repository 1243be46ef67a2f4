"""
A subscription of a Twisted program: it delivers to a callback, and comes back when it is
lost.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from ..message import Message
from .agent import BusAgent, headers_of
from .errors import Unreachable
from .notices import Live, Notice, Subscribed
from .responses import refusal
from .resumable import ResumableStream
from .stream import Item
from .stream_reader import StreamReader

__all__ = ["Callback", "Subscription"]

Callback = Callable[[Message], object]


class Subscription:
    """
    One interest in a channel or folder, until it is cancelled.  Made by
    `Client.subscribe`.

    Attributes:
        name: The name of the channel or folder.
        done: A Deferred that fires with None when the subscription was cancelled, or has
            ended where history does, as `until` asked for.  It fails
            with `Refused`, `Untrusted` or `Malformed` when the subscription has ended by
            itself, because another request would have the same result.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        agent: BusAgent,
        streams: ResumableStream,
        callback: Callback,
        notify: Callable[[Notice], object] | None,
    ) -> None:
        self.name = streams.name
        self._reactor = reactor
        self._agent = agent
        self._streams = streams
        self._callback = callback
        self._notify = notify
        self._active = True
        # What `cancel` has to cancel: the wait for a response, for the end of a stream, or
        # for the time of the next try.
        self._waiting: Deferred[Any] = succeed(None)
        self.done: Deferred[None] = Deferred(lambda _: self.cancel())

    @property
    def prefix(self) -> str:
        """
        The path of the bus, as the server tells it, percent-encoded.
        """
        return self._streams.prefix

    @property
    def last_id(self) -> str:
        """
        The id of the last message, behind which the subscription goes on when it was lost;
        before the first message, an id that the server gave, or the empty string.
        """
        return self._streams.last_id

    def cancel(self) -> None:
        """
        End the subscription.  Nothing is delivered after this call.  Cancelling twice is no
        error.
        """
        self._active = False
        self._waiting.cancel()

    def start(self, on_end: Callable[[Subscription], object]) -> None:
        """
        Subscribe.  For `Client`.

        Args:
            on_end: Called with this subscription before `done` fires.
        """

        def end(result: Failure | None) -> None:
            self._active = False
            on_end(self)
            if self.done.called:
                return
            if isinstance(result, Failure) and not result.check(CancelledError):
                self.done.errback(result)
            else:
                self.done.callback(None)

        Deferred.fromCoroutine(self._run()).addBoth(end)

    async def _run(self) -> None:
        # Twisted's `ClientService` has such a loop too, but it takes a connection for a
        # success before the request on it is answered.
        while self._active:
            asked = 0.0
            try:
                reason = await self._subscribe()
                asked = self._streams.retry_seconds
            except Unreachable as error:
                reason, asked = str(error), error.seconds
            if not self._active:
                break
            lost = self._streams.lost(reason, asked)
            self._tell(lost)
            if self._active:
                self._waiting = deferLater(self._reactor, lost.seconds)
                await self._waiting

    async def _subscribe(self) -> str:
        """
        Ask for a stream, and deliver what comes until it ends; the reason why it did.
        """
        try:
            return await self._read()
        finally:
            # A server that has ended its response may keep the connection open.
            self._agent.abort()

    async def _read(self) -> str:
        self._waiting = self._agent.get(self._streams.url, self._streams.headers())
        response: IResponse = await self._waiting
        head = headers_of(response)
        if response.code != 200:
            self._waiting = self._agent.text(response)
            raise refusal(response.code, head, await self._waiting)
        stream, subscribed = self._streams.begin(response.code, head)
        reader = StreamReader(
            stream,
            self._deliver,
            self._reactor,
            self._streams.silence_seconds,
            self._agent.abort,
        )
        self._waiting = reader.ended
        self._tell(subscribed)
        # The one who was told may have cancelled the subscription.
        if self._active:
            response.deliverBody(reader)
        return await reader.ended

    def _deliver(self, item: Item) -> Deferred[object] | None:
        """
        Hand over a message or a notice.  If the result is a Deferred, the next one may come
        when that fires.
        """
        if not self._active:
            return None
        if not isinstance(item, Message):
            self._tell(item)
            if isinstance(item, Live) and self._streams.ends:
                self.cancel()
            return None
        try:
            result = self._callback(item)
        except Exception:
            self._failed(Failure())
            return None
        if iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if not isinstance(result, Deferred):
            return None
        return result.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("The callback of {name!r} failed", failure, name=self.name)

    def _tell(self, notice: Notice) -> None:
        if self._notify is not None:
            try:
                self._notify(notice)
            except Exception:
                self._failed(Failure())
        elif isinstance(notice, Subscribed | Live):
            self._log.info("{name!r}: {notice}", name=self.name, notice=notice)
        else:
            self._log.warn("{name!r}: {notice}", name=self.name, notice=notice)
