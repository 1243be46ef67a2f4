"""
The client for Twisted programs: it publishes to one bus, and subscribes there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Unpack

from twisted.internet.defer import Deferred, DeferredList, DeferredLock, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IResponse

from ..message import Message, Receipt
from .agent import BusAgent, headers_of
from .channel_pages import PAGE_BYTES, Channel, ChannelPages
from .endpoint import BusEndpoint
from .errors import Closed, Unreachable
from .notices import Notice
from .options import (
    MAX_MESSAGE_BYTES,
    PATIENCE_SECONDS,
    TIMEOUT_SECONDS,
    Access,
    Fields,
    Wanted,
    read,
    refuse_unknown,
    with_access,
)
from .publication_stream import PublicationStream
from .requests import forget_headers, list_headers, publication_headers
from .responses import receipt
from .resumable import ResumableStream
from .retry import Retry
from .stream_publisher import Answered, StreamPublisher
from .subscription import Callback, Subscription
from .tls import tls_options
from .url import DEFAULT_URL, BusURL

__all__ = ["Client", "Closed"]


class Client:
    """
    Publishes to a bus, and subscribes there.

    Args:
        reactor: Where it runs.
        url: The URL of the bus, such as `https://alice:secret@bus.example/msgbus/`, or
            `http+unix://%2Frun%2Fmsgbus.sock/msgbus/`.
        patience: Seconds for which a publication is tried again while the bus cannot be
            reached.
        max_message: The largest message that is taken from the bus, in bytes.
        access: `user`, `password`, `ca`, `certificate` and `timeout`; see
            `msgbus.client.options.Access`.

    Attributes:
        patience: As given.

    Raises:
        Invalid: The URL is not that of a bus, or one of the files cannot be used.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        url: str | BusURL = DEFAULT_URL,
        *,
        patience: float = PATIENCE_SECONDS,
        max_message: int = MAX_MESSAGE_BYTES,
        **access: Unpack[Access],
    ) -> None:
        refuse_unknown("Client", access, Access)
        self._reactor = reactor
        self._url = with_access(url, access)
        self._timeout = access.get("timeout", TIMEOUT_SECONDS)
        self.patience = patience
        self._max_message = max_message
        tls = None
        if self._url.scheme == "https":
            tls = tls_options(self._url.host, access.get("ca"), access.get("certificate"))
        self._endpoint = BusEndpoint(reactor, self._url, tls)
        # Publications share one connection, with one request at a time on it.
        self._kept = HTTPConnectionPool(reactor)
        self._kept.maxPersistentPerHost = 1
        # `_publish` repeats a publication that has failed, so the pool must not.
        self._kept.retryAutomatically = False
        self._agent = BusAgent(reactor, self._endpoint, self._timeout, self._kept)
        self._turn = DeferredLock()
        self._subscriptions: set[Subscription] = set()
        self._streams: set[StreamPublisher] = set()
        self._closed = False

    def publish(
        self,
        channel: str,
        body: bytes,
        content_type: str,
        *,
        keep: bool = True,
        require: bool = False,
        **fields: Unpack[Fields],
    ) -> Deferred[Receipt]:
        """
        Publish one message.

        Messages arrive in the order of the calls: each is sent after the response to the
        one before has come.  So wait for the Deferred before the next call, or the messages
        pile up in memory.

        Args:
            body: At most the limit of the server, 1 MiB unless it was configured otherwise.
            keep: Whether history may keep the message.
            require: Whether the message is refused if nobody is subscribed to get it.
            fields: `headers` and `max_age`; see `msgbus.client.options.Fields`.

        Returns:
            A Deferred that fires once the server has put the message in order for every
            subscriber it had.  It fails with `Refused` if the server says no, with
            `Untrusted` if one end did not prove its identity by TLS, with `Unreachable` if
            there was no response for `patience` seconds, and with `Closed`.  Until then the
            message is sent again, and delivered once.  Cancelling the Deferred closes the
            connection; the message may have been delivered all the same.

        Raises:
            Invalid: The channel, the content type, the body, the user or one of the fields
                cannot be sent.
        """
        refuse_unknown("publish", fields, Fields)
        message = Message(channel, body, content_type, self._url.user, **read(fields))
        url = self._url.channel(channel).with_parameters(
            {"require": "1" if require else ""}
        )
        headers = publication_headers(url, message, keep=keep)
        return self._in_turn(url, partial(self._agent.post, url, headers, body))

    def forget(self, channel: str) -> Deferred[None]:
        """
        Have the bus forget all messages that it keeps of a channel, behind the publications
        that were called for before.

        Returns:
            A Deferred that fires once none of them can come back.  It fails, and may be
            cancelled, as that of `publish`.

        Raises:
            Invalid: The channel is not valid.
        """
        url = self._url.channel(channel)
        ask = partial(self._agent.delete, url, forget_headers(url))
        return self._in_turn(url, ask).addCallback(lambda _: None)

    def stream(
        self,
        name: str,
        answered: Answered | None = None,
        *,
        require: bool = False,
        notify: Callable[[Notice], object] | None = None,
    ) -> StreamPublisher:
        """
        Publish many messages to a channel, or below a folder, by one request that stays
        open: many times as fast as `publish`, and with a connection of its own.

        Messages arrive in the order of the calls.  What the bus has not answered when the
        connection is lost is sent again on the next, and delivered once.

        Args:
            name: The channel or folder; see `message.check_name`.
            answered: Called with the number of each message, from 1, and with its
                `Receipt`, or with the `Refused` that concerns this message alone, in the
                order of the messages.  If it raises that `Refused`, the stream ends with
                it.  Without it, the first `Refused` ends the stream.
            require: Whether messages are refused if nobody is subscribed to get them.
            notify: Called with `Lost` before the stream is continued on another connection.
                If it is not given, that is logged.

        Raises:
            Invalid: The name is not valid.
            Closed: The client was closed.
        """
        if self._closed:
            raise Closed("The client was closed.")
        url = self._url.channel(name).with_parameters({"require": "1" if require else ""})
        stream = StreamPublisher(
            self._reactor,
            self._endpoint.another(),
            PublicationStream(url, name),
            self._timeout,
            self.patience,
            answered,
            notify,
        )
        self._streams.add(stream)
        stream.ended().addBoth(lambda _: self._streams.discard(stream))
        return stream

    def subscribe(
        self,
        name: str,
        callback: Callback,
        *,
        notify: Callable[[Notice], object] | None = None,
        **wanted: Unpack[Wanted],
    ) -> Subscription:
        """
        Subscribe to a channel or folder, until the subscription is cancelled.  When the
        stream is lost, the client asks for another that begins behind the last message.

        Args:
            name: See `message.check_name`; the empty name is the root.
            callback: Called with each message.  If it returns a Deferred, or is a
                coroutine function, the next message comes once that has fired, and the
                server is paused meanwhile.  If it fails, that is logged.
            notify: Called with `Subscribed`, `Lost`, `Gap` and `Live`.  If it is not given,
                they are logged.
            wanted: `type`, `sender`, `channel`, `header`, `since`, `last`, `last_of_each`,
                `overflow`, `heartbeat`, `until`, `interval` and `decode`; see
                `msgbus.client.options.Wanted`.

        Raises:
            Invalid: The name or one of the options is not valid.
            Closed: The client was closed.
        """
        refuse_unknown("subscribe", wanted, Wanted)
        if self._closed:
            raise Closed("The client was closed.")
        url = self._url.channel(name)
        streams = ResumableStream(name, url, wanted, self._max_message)
        agent = BusAgent(self._reactor, self._endpoint.another(), self._timeout)
        subscription = Subscription(self._reactor, agent, streams, callback, notify)
        self._subscriptions.add(subscription)
        subscription.start(self._subscriptions.discard)
        return subscription

    def channels(self, folder: str = "", channel: str = "") -> Deferred[list[Channel]]:
        """
        List the channels below a folder that one may read, in the order of their names.

        Args:
            folder: Its name, which ends in a slash; the empty name is the root.
            channel: A list of patterns for the names.

        Returns:
            A Deferred of all of them.  It fails with `Refused` if the server says no, with
            `Untrusted` if one end did not prove its identity by TLS, and with `Unreachable`
            if there was no response; no other try is made.  Cancelling it closes the
            connection.

        Raises:
            Invalid: The name or the pattern is not valid.
            Closed: The client was closed.
        """
        if self._closed:
            raise Closed("The client was closed.")
        pages = ChannelPages(self._url.channel(folder), channel)
        agent = BusAgent(self._reactor, self._endpoint.another(), self._timeout)
        return Deferred.fromCoroutine(_list(agent, pages))

    def close(self) -> Deferred[None]:
        """
        Cancel all subscriptions, close all streams, and take no more publications.

        Returns:
            A Deferred that fires once the publications that were called for before have
            been answered or given up, and the connections are closed.
        """
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.cancel()
        ended: list[Deferred[None]] = [stream.close() for stream in tuple(self._streams)]
        ended.append(self._turn.run(self._kept.closeCachedConnections))
        # The callers of a stream were told its errors.
        return DeferredList(ended, consumeErrors=True).addCallback(lambda _: None)

    def _in_turn(
        self, url: BusURL, ask: Callable[[], Deferred[IResponse]]
    ) -> Deferred[Receipt]:
        """
        Send a request behind those before it, again and again for `patience` seconds.
        """
        if self._closed:
            return fail(Closed("The client was closed."))
        # The wait for the requests before this one counts too.
        retry = Retry(self.patience, self._reactor.seconds())
        return self._turn.run(
            lambda: Deferred.fromCoroutine(self._receipt(url, ask, retry))
        )

    async def _receipt(
        self, url: BusURL, ask: Callable[[], Deferred[IResponse]], retry: Retry
    ) -> Receipt:
        while True:
            try:
                response = await ask()
                text = await self._agent.text(response)
                return receipt(response.code, headers_of(response), text)
            except Unreachable as error:
                lost = retry.after(error, self._reactor.seconds())
                self._log.warn("{url}: {lost}", url=url, lost=lost)
                await deferLater(self._reactor, lost.seconds)


async def _list(agent: BusAgent, pages: ChannelPages) -> list[Channel]:
    """
    The channels of all pages.
    """
    channels: list[Channel] = []
    while pages.url is not None:
        response = await agent.get(pages.url, list_headers(pages.url))
        text = await agent.text(response, PAGE_BYTES)
        channels += pages.read(response.code, headers_of(response), text)
    return channels
