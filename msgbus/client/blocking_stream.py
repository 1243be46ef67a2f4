"""
Publishing by one stream, for plain programs, which may wait: on the standard library alone.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Unpack

from .blocking_http import Connection, explained
from .errors import BusError, Closed, Refused, Unreachable, silent
from .notices import Notice
from .options import StreamMessage
from .publication_stream import HEARTBEAT_SECONDS, PublicationStream
from .responses import Answer

__all__ = ["StreamPublisher"]

SEND_BYTES = 64 * 1024
READ_BYTES = 64 * 1024


class _File(Protocol):
    def fileno(self) -> int: ...


class StreamPublisher:
    """
    Publishes to one channel or folder by one request that stays open.  Made by
    `msgbus.blocking.stream`.  It is used by one thread only.  As a context manager, it is
    closed at the end, as by `close`; if the end is an exception, it waits for no answer.

    Args:
        context: See `blocking_http.tls_context`.
        answered: Called with the number of each message and its answer.

    Attributes:
        patience: Seconds for which it tries to reconnect, from the first failure behind the
            last answer.
    """

    def __init__(
        self,
        stream: PublicationStream,
        context: ssl.SSLContext | None,
        timeout: float,
        patience: float,
        answered: Callable[[int, Answer], object] | None,
        notify: Callable[[Notice], object],
    ) -> None:
        self._stream = stream
        self._context = context
        self._timeout = timeout
        self.patience = patience
        self._answered = answered
        self._notify = notify
        self._connection: Connection | None = None
        self._socket: socket.socket | None = None
        # What was taken from the stream and is not sent yet.
        self._unsent = memoryview(b"")
        # When the server last took or sent anything, and when anything was last sent.
        self._alive = self._wrote = 0.0
        # Whether TLS has to read before it can write, or to write before it can read.
        self._crossed = False
        self._error: BusError | None = None
        self._closed = False

    def publish(
        self, body: bytes, content_type: str, **given: Unpack[StreamMessage]
    ) -> int:
        """
        Publish one message, and return its number, from 1.  Waits until it is sent, and
        while too many have no answer yet; but not for the answer, which comes to `answered`
        in a later call.

        Args:
            body: At most the limit of the server, 1 MiB unless it was configured otherwise.
            given: `channel`, `keep`, `sender`, `id`, `origin`, `headers` and `max_age`; see
                `msgbus.client.options.StreamMessage`.

        Raises:
            Invalid: The message cannot be sent.
            Refused: The bus refuses the stream, or an earlier message without an
            `answered`. Untrusted: One end did not prove its identity by TLS.
            Unreachable: The bus could not be reached for `patience` seconds.
            Closed: The stream was closed.
        """
        self._check()
        was_idle = not self._stream.unanswered
        number = self._stream.add(body, content_type, given)
        if was_idle:
            self._alive = time.monotonic()
        self._step(wait=False)
        while self._stream.unsent or self._unsent or not self._stream.has_room:
            self._step()
        return number

    def wait_for(self, file: _File) -> None:
        """
        Wait until a file, such as standard input, has something to read.  Meanwhile the
        connection is kept, and answers are taken.  A program that waits for its messages in
        another way learns of answers and errors only when it publishes the next one.

        Raises:
            BusError: See `publish`.
        """
        self._check()
        while not select.select([file], [], [], 0)[0]:
            if self._stream.unanswered or self._socket is not None:
                self._step(file)
            else:
                select.select([file], [], [])

    def close(self) -> None:
        """
        Take no more messages, and wait until everything is answered.

        Raises:
            BusError: See `publish`.
        """
        if self._closed and self._error is None:
            return
        self._check()
        self._closed = True
        self._stream.close()
        while self._socket is not None or self._stream.unanswered:
            self._step()

    def __enter__(self) -> StreamPublisher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._disconnect()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise Closed("The stream was closed.")

    def _step(self, file: _File | None = None, *, wait: bool = True) -> None:
        """
        Send and receive what is possible.  If nothing is, wait for the server or for a
        file. After a failure, wait until the time of the next try.
        """
        try:
            if self._socket is None:
                if not self._stream.unanswered:
                    return
                self._connect()
            with self._explained():
                self._exchange(file, wait)
        except Unreachable as error:
            self._disconnect()
            if self._stream.unanswered:
                self._wait(error)
        except BusError as error:
            self._error = error
            self._disconnect()
            raise

    def _wait(self, error: Unreachable) -> None:
        try:
            lost = self._stream.lost(error, time.monotonic(), self.patience)
        except Unreachable:
            self._error = error
            raise
        self._notify(lost)
        time.sleep(lost.seconds)

    def _connect(self) -> None:
        self._connection = Connection(self._stream.url, self._context, self._timeout)
        with explained(self._timeout):
            self._connection.connect()
        self._socket = self._connection.sock
        self._socket.setblocking(False)
        self._unsent = memoryview(self._stream.begin())
        self._alive = self._wrote = time.monotonic()

    def _disconnect(self) -> None:
        self._socket = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """
        Turn errors of the socket into errors of ours, but prefer what the server has said
        before it closed the connection.
        """
        try:
            with explained(self._timeout):
                yield
        except Unreachable:
            # A server may refuse a stream before it has read what was sent.
            with explained(self._timeout):
                self._receive()
            raise

    def _exchange(self, file: _File | None, wait: bool) -> None:
        sent = self._send()
        connection = self._socket
        if self._receive() or sent or not wait or connection is None:
            return
        now = time.monotonic()
        # While anything is unsent, the server does not read, and needs no heartbeat.
        seconds = self._timeout if self._unsent else self._wrote + HEARTBEAT_SECONDS - now
        if seconds <= 0:
            self._unsent = memoryview(self._stream.heartbeat())
            self._wrote = now
            return
        if self._stream.owed:
            seconds = min(seconds, self._alive + self._timeout - now)
            if seconds <= 0:
                raise Unreachable(silent(self._timeout))
        readers: list[_File] = [connection] if file is None else [connection, file]
        writers = [connection] if self._unsent or self._crossed else []
        select.select(readers, writers, [], seconds)

    def _send(self) -> bool:
        """
        Send as much as the server takes; whether that was anything.
        """
        sent = False
        while self._socket is not None:
            if not self._unsent:
                self._unsent = memoryview(self._stream.to_send(SEND_BYTES))
                if not self._unsent:
                    break
            try:
                count = self._socket.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            self._unsent = self._unsent[count:]
            sent = True
        if sent:
            self._alive = self._wrote = time.monotonic()
        return sent

    def _receive(self) -> bool:
        """
        Take what the server has sent; whether that was anything.
        """
        received = self._crossed = False
        while self._socket is not None:
            try:
                data = self._socket.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            except ssl.SSLWantWriteError:
                self._crossed = True
                break
            self._alive = time.monotonic()
            received = True
            for number, answer in self._stream.feed(data) if data else self._stream.end():
                self._take(number, answer)
            if self._stream.finished or not data:
                self._disconnect()
        return received

    def _take(self, number: int, answer: Answer) -> None:
        if self._answered is not None:
            self._answered(number, answer)
        elif isinstance(answer, Refused):
            raise answer
