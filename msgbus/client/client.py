"""
A bus over HTTP, for Twisted programs.

What is said to it, and what the answers mean, is `exchange`'s business; the way there,
`connect`'s.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from inspect import iscoroutine
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from ..formats.multipart import Malformed
from ..ids import Gap
from ..message import Message, Receipt
from .endpoint import Route, explained
from .exchange import (
    SENTENCE_BYTES,
    Lost,
    Notice,
    Stream,
    Subscribed,
    Unreachable,
    publication,
    receipt,
    refusal,
    silence_of,
    subscription,
)
from .url import DEFAULT_URL, BusURL

__all__ = ["Client", "Closed", "Subscription"]

T = TypeVar("T")

Callback = Callable[[Message], object]


class Closed(Exception):
    """
    The client was closed.
    """


class Subscription:
    """
    One interest in a channel or folder, until it is cancelled.  Made by
    `Client.subscribe`.

    Attributes:
        name: Of the channel or folder.
        done: A Deferred that fires with None when it is cancelled.  It fails with
            `Refused`, `Untrusted` or `Malformed` when it has ended by itself, because
            to ask again would be of no use.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        address: BusURL,
        callback: Callback,
        notify: Callable[[Notice], object] | None,
        silence: float,
    ) -> None:
        self.name = name
        self._client = client
        self._route = client._route.another()
        self._agent = Agent.usingEndpointFactory(client._reactor, self._route)
        self._address = address
        self._callback = callback
        self._notify = notify
        self._silence = silence
        self._stream: Stream | None = None
        self._active = True
        self._failures = 0
        # What it waits for: an answer, the end of a stream, the next try.
        self._waiting: Deferred[Any] = succeed(None)
        self.done: Deferred[None] = Deferred(lambda _: self.cancel())

    @property
    def last_id(self) -> str:
        """
        Of the last message that came, behind which it begins again when it is lost;
        before the first, one that the server gave, or the empty string.
        """
        return "" if self._stream is None else self._stream.last_id

    def cancel(self) -> None:
        """
        End it: nothing is delivered any more, from this moment.  Cancelling twice is no
        error.
        """
        self._active = False
        self._waiting.cancel()

    def start(self) -> None:
        """
        For `Client`: subscribe.
        """
        Deferred.fromCoroutine(self._run()).addBoth(self._end)

    def _end(self, result: Failure | None) -> None:
        self._active = False
        self._client._subscriptions.discard(self)
        if self.done.called:
            return
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.done.errback(result)
        else:
            self.done.callback(None)

    async def _run(self) -> None:
        # Twisted's `ClientService` has such a loop, but none of its connections may be
        # lost before the request on it is answered.
        while self._active:
            try:
                reason = await self._subscribe()
            except Unreachable as error:
                reason = str(error)
            if not self._active:
                break
            self._failures += 1
            seconds = self._client._delay(self._failures)
            self._tell(Lost(reason, seconds))
            if self._active:
                self._waiting = deferLater(self._client._reactor, seconds)
                await self._waiting

    async def _subscribe(self) -> str:
        """
        Subscribe, and deliver what comes until the stream ends; why it did.
        """
        try:
            return await self._read()
        finally:
            # A server that has ended its answer may keep the connection.
            self._route.abort()

    async def _read(self) -> str:
        self._waiting = self._client._ask(
            self._agent,
            b"GET",
            self._address,
            subscription(self._address, self.last_id),
        )
        response: IResponse = await self._waiting
        head = _head(response)
        if response.code != 200:
            self._waiting = self._client._text(response, self._route)
            raise refusal(response.code, head, await self._waiting)
        again = self._stream is not None
        stream = self._stream = Stream(
            self.name, response.code, head, self._client._max_message, self.last_id
        )
        silence = self._silence if stream.beats else 0
        reading = _Reading(
            stream, self._deliver, self._client._reactor, silence, self._route.abort
        )
        self._waiting = reading.ended
        self._failures = 0
        self._tell(Subscribed(again=again))
        if self._active:
            response.deliverBody(reading)
        return await reading.ended

    def _deliver(self, item: Message | Gap) -> Deferred[object] | None:
        """
        Hand over one item, and tell when the next may come, if that is not at once.
        """
        if not self._active:
            return None
        if isinstance(item, Gap):
            self._tell(item)
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
        self._client._log.failure(
            "The callback of {name!r} failed", failure, name=self.name
        )

    def _tell(self, notice: Notice) -> None:
        if self._notify is not None:
            try:
                self._notify(notice)
            except Exception:
                self._failed(Failure())
        elif isinstance(notice, Subscribed):
            self._client._log.info("{name!r}: {notice}", name=self.name, notice=notice)
        else:
            self._client._log.warn("{name!r}: {notice}", name=self.name, notice=notice)


class Client:
    """
    Publishes to a bus, and subscribes there.

    Args:
        reactor: Where it runs.
        url: Of the bus, such as `https://alice:secret@bus.example/msgbus/`, or
            `http+unix://%2Frun%2Fmsgbus.sock/msgbus/`.
        user: The name to publish under, if the URL has none; anonymous if there is none.
        password: The bus's, if it has one and the URL has not.
        ca: A file of certificates (PEM) to trust, in place of the system's.
        certificate: A file with a private key and a certificate (PEM), for a server that
            asks for one.
        timeout: Seconds that the answer to a request may take.
        patience: Seconds for which a publication is tried again, while the bus cannot be
            reached.
        max_message: Bytes of the largest message that is taken from the bus.

    Attributes:
        patience: As given.

    Raises:
        Invalid: The URL, or one of the files, is none.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        url: str | BusURL = DEFAULT_URL,
        *,
        user: str = "",
        password: str = "",
        ca: Path | str | None = None,
        certificate: Path | str | None = None,
        timeout: float = 30,
        patience: float = 60,
        max_message: int = 64 * 1024 * 1024,
    ) -> None:
        self._reactor = reactor
        address = url if isinstance(url, BusURL) else BusURL.parse(url)
        self._address = address.with_credentials(
            address.user or user, address.password or password
        )
        self._timeout = timeout
        self.patience = patience
        self._max_message = max_message
        self._route = Route(reactor, self._address, ca, certificate)
        # One connection, one request at a time on it.
        self._kept = HTTPConnectionPool(reactor)
        self._kept.maxPersistentPerHost = 1
        # A publication is repeated by us, or it would come twice.
        self._kept.retryAutomatically = False
        self._publications = Agent.usingEndpointFactory(reactor, self._route, self._kept)
        self._delay = backoffPolicy(0.25, 60, 2, random.random)
        self._turn = DeferredLock()
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    def publish(
        self,
        channel: str,
        body: bytes,
        content_type: str,
        *,
        keep: bool = True,
        require: bool = False,
    ) -> Deferred[Receipt]:
        """
        Publish one message.

        Messages arrive in the order of the calls: each waits for the answer to the one
        before.  So wait for the Deferred before you call again, or they pile up in
        memory.

        Args:
            body: At most the server's limit, 1 MiB unless it was told otherwise.
            keep: Whether history may keep it.
            require: Whether there must be a subscriber for it.

        Returns:
            A Deferred that fires once the server has put the message in order for every
            subscriber it had.  It fails with `Refused` if the server says no, with
            `Untrusted` if one end did not prove who it is, with `Unreachable` if there
            was no answer for `patience` seconds, until when it is sent again, and
            delivered once; and with `Closed`.  Cancelling it closes the connection; the
            message may have been delivered all the same.

        Raises:
            Invalid: The channel, type or user is none.
        """
        message = Message(channel, body, content_type, self._address.user)
        address = self._address.channel(channel).with_parameters(
            {"require": "1" if require else ""}
        )
        headers = publication(address, message, keep=keep)
        if self._closed:
            return fail(Closed("The client was closed."))
        give_up = self._reactor.seconds() + self.patience
        return self._turn.run(
            lambda: Deferred.fromCoroutine(self._publish(address, headers, body, give_up))
        )

    def subscribe(
        self,
        name: str,
        callback: Callback,
        *,
        type: str = "",
        sender: str = "",
        channel: str = "",
        since: str = "",
        last: int = 0,
        overflow: str = "",
        heartbeat: int = 25,
        notify: Callable[[Notice], object] | None = None,
    ) -> Subscription:
        """
        Subscribe to a channel or folder, until the subscription is cancelled.  When it
        is lost, it is asked for again, behind the last message that came.

        Args:
            name: See `message.check_name`; the empty name is the root.
            callback: Called with each message.  If it returns a Deferred, or is a
                coroutine function, the next message comes once that has fired, and the
                server is pushed back meanwhile.  If it fails, that is logged.
            type: A list of patterns, such as `text/*,!text/html`.
            sender: Another, for the names of senders.
            channel: Another, for the channels below a folder.
            since: Where history begins: the id of a message, a time such as `10m`, or
                `all`.
            last: How many messages history begins with; not together with `since`.
            overflow: What becomes of it when it is slow: `drop-newest`, `drop-oldest`,
                `latest` or `close`.
            heartbeat: Seconds, 5 to 300.  A server that was silent for twice as long is
                taken for lost; with 0, none is.
            notify: Called with `Subscribed`, `Lost` and `Gap`.  If there is none, they are
                logged.

        Raises:
            Invalid: The name or the heartbeat is none.
            Closed: The client was closed.
        """
        if self._closed:
            raise Closed("The client was closed.")
        parameters: dict[str, str | int] = {
            "type": type,
            "sender": sender,
            "channel": channel,
            "since": since,
            "last": last,
            "overflow": overflow,
            "heartbeat": heartbeat,
        }
        address = self._address.channel(name).with_parameters(parameters)
        silence = silence_of(heartbeat)
        subscribed = Subscription(self, name, address, callback, notify, silence)
        self._subscriptions.add(subscribed)
        subscribed.start()
        return subscribed

    def close(self) -> Deferred[None]:
        """
        Cancel all subscriptions, and take no more publications.

        Returns:
            A Deferred that fires once those that were called for have been answered, or
            given up, and the connections are closed.
        """
        self._closed = True
        for subscribed in tuple(self._subscriptions):
            subscribed.cancel()
        return self._turn.run(self._kept.closeCachedConnections)

    async def _publish(
        self, address: BusURL, headers: dict[str, str], body: bytes, give_up: float
    ) -> Receipt:
        for failures in count(1):
            try:
                response = await self._ask(
                    self._publications, b"POST", address, headers, _Body(body)
                )
                text = await self._text(response, self._route)
                return receipt(response.code, _head(response), text)
            except Unreachable as error:
                seconds = self._delay(failures)
                if self._reactor.seconds() + seconds > give_up:
                    raise
                self._log.warn(
                    "{address}: {lost}", address=address, lost=Lost(str(error), seconds)
                )
                await deferLater(self._reactor, seconds)
        raise AssertionError("`count` does not end")

    def _ask(
        self,
        agent: Agent,
        method: bytes,
        address: BusURL,
        headers: dict[str, str],
        body: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Send a request, and wait for the head of the answer.
        """
        where = f"{address.scheme}://{address.authority}{address.target}"
        asked = agent.request(
            method,
            where.encode("ascii"),
            Headers({name: [value] for name, value in headers.items()}),
            body,
        )
        return self._in_time(asked)

    def _text(self, response: IResponse, route: Route) -> Deferred[bytes]:
        """
        As much of a response as is looked at.
        """
        text = _Text(route.abort)
        response.deliverBody(text)
        return self._in_time(text.read)

    def _in_time(self, answer: Deferred[T]) -> Deferred[T]:
        """
        The answer, if it comes in time; what is wrong is explained.  Cancelling it says
        just that, whatever it makes of what it waits for.
        """
        cancelled = False

        def late(_: object, seconds: float) -> T:
            raise Unreachable(f"There was no answer for {seconds:g} seconds.")

        def cancel(_: object) -> None:
            nonlocal cancelled
            cancelled = True
            answer.cancel()

        def fire(result: T | Failure) -> None:
            if not cancelled:
                outer.callback(result)

        def failed(failure: Failure) -> Failure:
            return Failure(explained(failure))

        outer: Deferred[T] = Deferred(cancel)
        answer.addTimeout(self._timeout, self._reactor, late)
        answer.addErrback(failed).addBoth(fire)
        return outer


@implementer(IBodyProducer)
class _Body:
    """
    The body of a request.
    """

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


class _Text(Protocol):
    """
    Reads the beginning of a body.

    Args:
        abort: Closes the connection.
    """

    def __init__(self, abort: Callable[[], object]) -> None:
        self._abort = abort
        self._text = b""
        self.read: Deferred[bytes] = Deferred(self._cancelled)

    def dataReceived(self, data: bytes) -> None:
        self._text += data
        if len(self._text) > SENTENCE_BYTES:
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.read.called:
            self.read.callback(self._text[:SENTENCE_BYTES])

    def _cancelled(self, _: Deferred[bytes]) -> None:
        self._abort()


class _Reading(Protocol):
    """
    Reads a stream, at the pace of who takes what comes on it.

    Args:
        deliver: Takes one item, and tells when the next may come, if that is not at once.
        silence: Seconds for which the server may send nothing; zero for any time.
        abort: Closes the connection.

    Attributes:
        ended: A Deferred that fires with why the stream has ended, once all that came is
            delivered, and fails with `Malformed`.  Cancelling it closes the connection.
    """

    def __init__(
        self,
        stream: Stream,
        deliver: Callable[[Message | Gap], Deferred[object] | None],
        reactor: IReactorTime,
        silence: float,
        abort: Callable[[], object],
    ) -> None:
        self._stream = stream
        self._deliver = deliver
        self._abort = abort
        self._items: Iterator[Message | Gap] = iter(())
        # Whether something is delivered that is not yet taken, and whether it is just
        # being handed over.
        self._busy = self._handing = False
        self._end: str | None = None
        self._reactor = reactor
        self._silence = silence
        self._alarm: IDelayedCall | None = None
        self._listen()
        self.ended: Deferred[str] = Deferred(self._cancelled)

    def dataReceived(self, data: bytes) -> None:
        self._listen()
        self._items = self._stream.feed(data)
        self._go_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._silence = 0
        self._listen()
        if self._end is None:
            clean = reason.check(ResponseDone, PotentialDataLoss)
            self._end = self._stream.end() if clean else str(explained(reason))
        self._go_on()

    def _go_on(self) -> None:
        transport = cast(IPushProducer, self.transport)
        if self._busy:
            # An `Agent` resumes what it hands out.
            transport.pauseProducing()
            return
        try:
            for item in self._items:
                taken = self._deliver(item)
                if taken is None:
                    continue
                self._busy = self._handing = True
                taken.addCallback(self._taken)
                self._handing = False
                if self._busy:
                    transport.pauseProducing()
                    return
        except Malformed as error:
            self._finish(error)
            return
        if self._end is not None:
            self._finish(self._end)

    def _taken(self, result: object) -> object:
        self._busy = False
        if not self._handing:
            self._listen()
            cast(IPushProducer, self.transport).resumeProducing()
            self._go_on()
        return result

    def _listen(self) -> None:
        """
        Wait for a sign of life from now on.
        """
        if self._alarm is not None and self._alarm.active():
            if self._silence:
                self._alarm.reset(self._silence)
            else:
                self._alarm.cancel()
        elif self._silence:
            self._alarm = self._reactor.callLater(self._silence, self._silent)

    def _silent(self) -> None:
        if self._busy:
            # It is this end that does not listen.
            self._listen()
            return
        self._end = f"The server was silent for {self._silence:g} seconds."
        self._abort()

    def _finish(self, result: str | Malformed) -> None:
        if self.ended.called:
            return
        if isinstance(result, Malformed):
            self._abort()
            self.ended.errback(result)
        else:
            self.ended.callback(result)

    def _cancelled(self, _: Deferred[str]) -> None:
        self._items = iter(())
        self._silence = 0
        self._listen()
        self._abort()


def _head(response: IResponse) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): ",".join(
            v.decode("utf-8", "replace") for v in values
        )
        for name, values in response.headers.getAllRawHeaders()
    }
