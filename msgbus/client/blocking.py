"""
The client for plain programs, which may wait: on the standard library alone.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Unpack

from ..message import Message, Receipt
from .blocking_http import Connection, explained, headers_of, tls_context
from .blocking_stream import StreamPublisher
from .channel_pages import PAGE_BYTES, Channel, ChannelPages
from .errors import Unreachable
from .notices import Live, Notice, Subscribed
from .options import (
    MAX_MESSAGE_BYTES,
    PATIENCE_SECONDS,
    TIMEOUT_SECONDS,
    Access,
    Fields,
    FieldsAndAccess,
    WantedAndAccess,
    read,
    refuse_unknown,
    split_fields,
    with_access,
)
from .publication_stream import PublicationStream
from .requests import forget_headers, list_headers, publication_headers
from .responses import Answer, receipt, refusal
from .resumable import ResumableStream
from .retry import Retry
from .stream import Item, Stream
from .url import BusURL

__all__ = ["Publisher", "channels", "forget", "publish", "stream", "subscribe"]

_log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024


class Publisher:
    """
    Publishes to one channel, by one connection that is kept.

    Args:
        url: The URL of the channel, such as
            `https://alice:secret@bus.example/msgbus/foo`, or
            `http+unix://%2Frun%2Fmsgbus.sock/msgbus/foo`.
        patience: Seconds for which a message is sent again while the bus cannot be
            reached.
        notify: Called with `Lost` before a message is sent again.  If it is not given, that
            is logged.
        access: `user`, `password`, `ca`, `certificate` and `timeout`; see
            `msgbus.client.options.Access`.

    Attributes:
        patience: As given.

    Raises:
        Invalid: The URL is not that of a bus, or one of the files cannot be used.
    """

    def __init__(
        self,
        url: str | BusURL,
        *,
        patience: float = PATIENCE_SECONDS,
        notify: Callable[[Notice], object] | None = None,
        **access: Unpack[Access],
    ) -> None:
        refuse_unknown("Publisher", access, Access)
        self._url = with_access(url, access)
        self._context = tls_context(self._url, access.get("ca"), access.get("certificate"))
        self._timeout = access.get("timeout", TIMEOUT_SECONDS)
        self.patience = patience
        self._notify = notify or _logged
        self._connection: Connection | None = None

    def publish(
        self,
        body: bytes,
        content_type: str,
        *,
        keep: bool = True,
        **fields: Unpack[Fields],
    ) -> Receipt:
        """
        Publish one message, and wait until it is in order for every subscriber.

        Args:
            body: At most the limit of the server, 1 MiB unless it was configured otherwise.
            keep: Whether history may keep the message.
            fields: `headers` and `max_age`; see `msgbus.client.options.Fields`.

        Raises:
            Invalid: The content type, the body, the user or one of the fields cannot be
                sent.
            Refused: The server says no.
            Untrusted: One end did not prove its identity by TLS.
            Unreachable: There was no response for `patience` seconds.  Until then the
                message is sent again, and delivered once.
        """
        refuse_unknown("publish", fields, Fields)
        message = Message("", body, content_type, self._url.user, **read(fields))
        headers = publication_headers(self._url, message, keep=keep)
        return self._receipt("POST", headers, body)

    def forget(self) -> None:
        """
        Have the bus forget all messages that it keeps of the channel, and wait until none
        of them can come back.

        Raises:
            Refused: The server says no.
            Untrusted: One end did not prove its identity by TLS.
            Unreachable: There was no response for `patience` seconds.
        """
        self._receipt("DELETE", forget_headers(self._url), None)

    def _receipt(self, method: str, headers: dict[str, str], body: bytes | None) -> Receipt:
        retry = Retry(self.patience, time.monotonic())
        while True:
            kept = self._connection is not None
            try:
                return self._ask(method, headers, body)
            except Unreachable as error:
                self.close()
                # The server may have closed a connection that was kept for long.  That says
                # nothing about the bus, so a new connection is tried without delay.
                lost = retry.after(error, time.monotonic(), at_once=kept)
                if lost.seconds:
                    self._notify(lost)
                    time.sleep(lost.seconds)

    def close(self) -> None:
        """
        Close the connection.  The next message opens another.
        """
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, method: str, headers: dict[str, str], body: bytes | None) -> Receipt:
        if self._connection is None:
            self._connection = Connection(self._url, self._context, self._timeout)
        response = self._connection.ask(method, headers, body)
        text = self._connection.text(response)
        if not response.isclosed():
            # The rest of the body would be in the way of the next response.
            self.close()
        return receipt(response.status, headers_of(response), text)


def publish(
    url: str | BusURL,
    body: bytes,
    content_type: str,
    *,
    keep: bool = True,
    patience: float = PATIENCE_SECONDS,
    **options: Unpack[FieldsAndAccess],
) -> Receipt:
    """
    Publish one message.  The parameters and errors are those of `Publisher` and of
    `Publisher.publish`.
    """
    refuse_unknown("publish", options, FieldsAndAccess)
    fields, access = split_fields(options)
    with Publisher(url, patience=patience, **access) as publisher:
        return publisher.publish(body, content_type, keep=keep, **fields)


def forget(
    url: str | BusURL, *, patience: float = PATIENCE_SECONDS, **access: Unpack[Access]
) -> None:
    """
    Have the bus forget all messages that it keeps of a channel.  The parameters and errors
    are those of `Publisher` and of `Publisher.forget`.
    """
    refuse_unknown("forget", access, Access)
    with Publisher(url, patience=patience, **access) as publisher:
        publisher.forget()


def stream(
    url: str | BusURL,
    answered: Callable[[int, Answer], object] | None = None,
    *,
    require: bool = False,
    patience: float = PATIENCE_SECONDS,
    notify: Callable[[Notice], object] | None = None,
    **access: Unpack[Access],
) -> StreamPublisher:
    """
    Publish many messages to a channel, or below a folder, by one request that stays open:
    many times as fast as `Publisher`.  The result is a context manager; at its end,
    everything is answered, or an error is raised.

    Messages arrive in the order of the calls.  What the bus has not answered when the
    connection is lost is sent again on the next, and delivered once.

    Args:
        url: The URL of the channel or folder; see `Publisher`.
        answered: Called with the number of each message, from 1, and with its `Receipt`, or
            with the `Refused` that concerns this message alone, in the order of the
            messages.  If it raises that `Refused`, the stream ends with it, as with any
            exception.  Without it, the first `Refused` ends the stream.
        require: Whether messages are refused if nobody is subscribed to get them.
        patience: Seconds for which it tries to reconnect, from the first failure behind the
            last answer.
        notify: Called with `Lost` before the stream is continued on another connection.  If
            it is not given, that is logged.
        access: See `Publisher`.

    Raises:
        Invalid: The URL is not that of a bus, or one of the files cannot be used.
    """
    refuse_unknown("stream", access, Access)
    where = with_access(url, access).with_parameters({"require": "1" if require else ""})
    return StreamPublisher(
        PublicationStream(where, where.path.rpartition("/")[2]),
        tls_context(where, access.get("ca"), access.get("certificate")),
        access.get("timeout", TIMEOUT_SECONDS),
        patience,
        answered,
        notify or _logged,
    )


def subscribe(
    url: str | BusURL,
    *,
    max_message: int = MAX_MESSAGE_BYTES,
    notify: Callable[[Notice], object] | None = None,
    **options: Unpack[WantedAndAccess],
) -> Generator[Message, None, None]:
    """
    The messages of a channel or folder, as they come, for ever, or until history ends if
    `until` is `now`.  When the stream is lost, the client asks for another that begins
    behind the last message.  To stop, leave the loop and close the generator.  Another
    thread cannot close it while this one waits for a message.

    Args:
        url: The URL of the channel or folder; see `Publisher`.
        max_message: The largest message that is taken, in bytes.
        notify: Called with `Subscribed`, `Lost`, `Gap` and `Live`, by the thread that asks
            for the next message.  If it is not given, they are logged.
        options: `type`, `sender`, `channel`, `header`, `since`, `last`,
            `last_of_each`, `overflow`, `heartbeat`, `until`, `interval` and `decode`; see
            `msgbus.client.options.Wanted`.  `user`, `password`, `ca`, `certificate` and
            `timeout`; see `msgbus.client.options.Access`.

    Raises:
        Invalid: The URL, one of the options, or one of the files is not valid.
        Refused: While messages are asked for: the server says no.
        Untrusted: While messages are asked for: one end did not prove its identity by TLS.
        Malformed: While messages are asked for: the server sends no stream of messages.
    """
    refuse_unknown("subscribe", options, WantedAndAccess)
    where = with_access(url, options)
    streams = ResumableStream(where.channel_name, where, options, max_message)
    context = tls_context(where, options.get("ca"), options.get("certificate"))
    timeout = options.get("timeout", TIMEOUT_SECONDS)
    # Not a generator itself, so that what is wrong is raised by this call.
    return _messages(streams, context, timeout, notify or _logged)


def _messages(
    streams: ResumableStream,
    context: ssl.SSLContext | None,
    timeout: float,
    notify: Callable[[Notice], object],
) -> Generator[Message, None, None]:
    while True:
        connection = Connection(streams.url, context, timeout)
        response = None
        try:
            response = connection.ask("GET", streams.headers())
            head = headers_of(response)
            if response.status != 200:
                raise refusal(response.status, head, connection.text(response))
            stream, subscribed = streams.begin(response.status, head)
            notify(subscribed)
            connection.wait_for(streams.silence_seconds or None)
            for item in _items(response, stream, streams.silence_seconds):
                if isinstance(item, Message):
                    yield item
                    continue
                notify(item)
                if isinstance(item, Live) and streams.ends:
                    return
            reason, asked = stream.end(), streams.retry_seconds
        except Unreachable as error:
            reason, asked = str(error), error.seconds
        finally:
            if response is not None:
                response.close()
            connection.close()
        lost = streams.lost(reason, asked)
        notify(lost)
        time.sleep(lost.seconds)


def channels(
    url: str | BusURL, *, channel: str = "", **access: Unpack[Access]
) -> Iterator[Channel]:
    """
    The channels below a folder that one may read, in the order of their names.  They come
    in pages of 100, each of which is asked for when the one before was iterated over.

    Args:
        url: The URL of the folder, which ends in a slash; see `Publisher`.
        channel: A list of patterns for the names.
        access: See `Publisher`.

    Raises:
        Invalid: The URL, the pattern or one of the files is not valid.
        Refused: While channels are asked for: the server says no.
        Untrusted: While channels are asked for: one end did not prove its identity by TLS.
        Unreachable: While channels are asked for: there is no response.  No other try is
            made.
    """
    refuse_unknown("channels", access, Access)
    where = with_access(url, access)
    context = tls_context(where, access.get("ca"), access.get("certificate"))
    timeout = access.get("timeout", TIMEOUT_SECONDS)
    return _channels(ChannelPages(where, channel), context, timeout)


def _channels(
    pages: ChannelPages, context: ssl.SSLContext | None, timeout: float
) -> Iterator[Channel]:
    while pages.url is not None:
        connection = Connection(pages.url, context, timeout)
        try:
            response = connection.ask("GET", list_headers(pages.url))
            text = connection.text(response, PAGE_BYTES)
            page = pages.read(response.status, headers_of(response), text)
            response.close()
        finally:
            connection.close()
        yield from page


def _items(
    response: http.client.HTTPResponse, stream: Stream, silence_seconds: float
) -> Iterator[Item]:
    """
    The messages and notices that come until the stream ends.

    Raises:
        Unreachable: The connection is cut, or the server is silent for too long.
    """
    while True:
        with explained(silence_seconds):
            data = response.read1(READ_BYTES)
        if not data:
            return
        yield from stream.feed(data)


def _logged(notice: Notice) -> None:
    level = logging.INFO if isinstance(notice, Subscribed | Live) else logging.WARNING
    _log.log(level, "%s", notice)
