"""
A bus over HTTP, for plain programs that may wait; on the standard library alone.

What is said to it, and what the answers mean, is `exchange`'s business.
"""

from __future__ import annotations

import http.client
import io
import logging
import random
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import unquote

from ..ids import Gap
from ..message import Invalid, Message, Receipt
from .exchange import (
    SENTENCE_BYTES,
    Lost,
    Notice,
    Stream,
    Subscribed,
    Unreachable,
    Untrusted,
    delay,
    printable,
    publication,
    receipt,
    refusal,
    silence_of,
    subscription,
)
from .url import DEFAULT_PATH, BusURL

__all__ = ["Publisher", "publish", "subscribe"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

READ_BYTES = 64 * 1024


class Publisher:
    """
    Publishes to one channel, by one connection that is kept.

    Args:
        url: Of the channel, such as `https://alice:secret@bus.example/msgbus/foo`, or
            `http+unix://%2Frun%2Fmsgbus.sock/msgbus/foo`.
        ca: A file of certificates (PEM) to trust, in place of the system's.
        certificate: A file with a private key and a certificate (PEM), for a server that
            asks for one.
        timeout: Seconds that connecting may take, and the answer.
        patience: Seconds for which a message is sent again, while the bus cannot be
            reached.
        notify: Called with `Lost` before a message is sent again.  If there is none, that
            is logged.

    Attributes:
        patience: As given.

    Raises:
        Invalid: The URL, or one of the files, is none.
    """

    def __init__(
        self,
        url: str | BusURL,
        *,
        user: str = "",
        password: str = "",
        ca: Path | str | None = None,
        certificate: Path | str | None = None,
        timeout: float = 30,
        patience: float = 60,
        notify: Callable[[Notice], object] | None = None,
    ) -> None:
        self._address = _address(url, user, password)
        self._context = _context(self._address, ca, certificate)
        self._timeout = timeout
        self.patience = patience
        self._notify = notify or _logged
        self._connection: _Connection | None = None

    def publish(self, body: bytes, content_type: str, *, keep: bool = True) -> Receipt:
        """
        Publish one message, and wait until it is in order for every subscriber.

        Args:
            body: At most the server's limit, 1 MiB unless it was told otherwise.
            keep: Whether history may keep it.

        Raises:
            Invalid: The type or user is none.
            Refused: The server says no.
            Untrusted: One end did not prove who it is.
            Unreachable: There was no answer for `patience` seconds, until when it is sent
                again, and delivered once.
        """
        message = Message("", body, content_type, self._address.user)
        headers = publication(self._address, message, keep=keep)
        give_up = time.monotonic() + self.patience
        for failures in count(0):
            # One that was kept may have been closed meanwhile, which says nothing of the
            # bus.
            kept = self._connection is not None
            try:
                return self._post(headers, body)
            except Unreachable as error:
                self.close()
                seconds = 0.0
                if failures or not kept:
                    seconds = delay(failures, random.random())
                if time.monotonic() + seconds > give_up:
                    raise
                if seconds:
                    self._notify(Lost(str(error), seconds))
                    time.sleep(seconds)
        raise AssertionError("`count` does not end")

    def close(self) -> None:
        """
        Close the connection.  The next message has another.
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

    def _post(self, headers: dict[str, str], body: bytes) -> Receipt:
        if self._connection is None:
            self._connection = _Connection(self._address, self._context, self._timeout)
        response = _ask(self._connection, "POST", self._address, headers, body)
        text = _text(response, self._timeout)
        if not response.isclosed():
            # There is more, which nobody wants to read.
            self.close()
        return receipt(response.status, _head(response), text)


def publish(
    url: str | BusURL,
    body: bytes,
    content_type: str,
    *,
    keep: bool = True,
    user: str = "",
    password: str = "",
    ca: Path | str | None = None,
    certificate: Path | str | None = None,
    timeout: float = 30,
    patience: float = 60,
) -> Receipt:
    """
    Publish one message.  Takes what `Publisher` and `Publisher.publish` take, and raises
    what they raise.
    """
    with Publisher(
        url,
        user=user,
        password=password,
        ca=ca,
        certificate=certificate,
        timeout=timeout,
        patience=patience,
    ) as publisher:
        return publisher.publish(body, content_type, keep=keep)


def subscribe(
    url: str | BusURL,
    *,
    type: str = "",
    sender: str = "",
    channel: str = "",
    since: str = "",
    last: int = 0,
    overflow: str = "",
    heartbeat: int = 25,
    user: str = "",
    password: str = "",
    ca: Path | str | None = None,
    certificate: Path | str | None = None,
    timeout: float = 30,
    max_message: int = 64 * 1024 * 1024,
    notify: Callable[[Notice], object] | None = None,
) -> Generator[Message, None, None]:
    """
    The messages of a channel or folder, as they come, for ever.  When the stream is lost,
    it is asked for again, behind the last message that came.  To stop, leave the loop and
    close the generator; another thread cannot, while this one waits for a message.

    Args:
        url: Of the channel or folder; see `Publisher`, also for the rest.
        type: A list of patterns, such as `text/*,!text/html`.
        sender: Another, for the names of senders.
        channel: Another, for the channels below a folder.
        since: Where history begins: the id of a message, a time such as `10m`, or `all`.
        last: How many messages history begins with; not together with `since`.
        overflow: What becomes of it when it is slow: `drop-newest`, `drop-oldest`,
            `latest` or `close`.
        heartbeat: Seconds, 5 to 300.  A server that was silent for twice as long is taken
            for lost; with 0, none is.
        timeout: Seconds that the answer may take.
        max_message: Bytes of the largest message that is taken.
        notify: Called with `Subscribed`, `Lost` and `Gap`, when the next message is asked
            for.  If there is none, they are logged.

    Raises:
        Invalid: The URL, the heartbeat, or one of the files, is none.
        Refused: While messages are asked for: the server says no.
        Untrusted: So too: one end did not prove who it is.
        Malformed: So too: what comes is no stream of messages.
    """
    parameters: dict[str, str | int] = {
        "type": type,
        "sender": sender,
        "channel": channel,
        "since": since,
        "last": last,
        "overflow": overflow,
        "heartbeat": heartbeat,
    }
    address = _address(url, user, password).with_parameters(parameters)
    context = _context(address, ca, certificate)
    return _messages(
        address, context, timeout, silence_of(heartbeat), max_message, notify or _logged
    )


def _messages(
    address: BusURL,
    context: ssl.SSLContext | None,
    timeout: float,
    silence: float,
    max_message: int,
    notify: Callable[[Notice], object],
) -> Generator[Message, None, None]:
    stream = None
    failures = 0
    while True:
        last_id = "" if stream is None else stream.last_id
        connection = _Connection(address, context, timeout)
        response = None
        try:
            response = _ask(connection, "GET", address, subscription(address, last_id))
            head = _head(response)
            if response.status != 200:
                raise refusal(response.status, head, _text(response, timeout))
            again = stream is not None
            stream = Stream(_name(address), response.status, head, max_message, last_id)
            failures = 0
            notify(Subscribed(again=again))
            for item in _items(connection, response, stream, silence):
                if isinstance(item, Gap):
                    notify(item)
                else:
                    yield item
            reason = stream.end()
        except Unreachable as error:
            reason = str(error)
        finally:
            if response is not None:
                response.close()
            connection.close()
        seconds = delay(failures, random.random())
        failures += 1
        notify(Lost(reason, seconds))
        time.sleep(seconds)


def _items(
    connection: _Connection,
    response: http.client.HTTPResponse,
    stream: Stream,
    silence: float,
) -> Iterator[Message | Gap]:
    """
    What comes until the stream ends.

    Raises:
        Unreachable: It is cut.
    """
    connection.wait_for((stream.beats and silence) or None)
    while True:
        with _explained(silence):
            data = response.read1(READ_BYTES)
        if not data:
            return
        yield from stream.feed(data)


class _Head:
    """
    Reads the head of a response, which may be cut anywhere, or come a byte at a time.
    The standard library takes a head that is cut for a whole one, and waits for each byte.

    Args:
        deadline: When it has to be there, by the monotonic clock.
    """

    def __init__(self, file: io.BufferedReader, deadline: float) -> None:
        self._file = file
        self._deadline = deadline
        self._begun = False

    def readline(self, limit: int) -> bytes:
        """
        One line, or the first bytes of one that is longer.
        """
        line = b""
        while len(line) < limit and not line.endswith(b"\n"):
            if time.monotonic() > self._deadline:
                raise TimeoutError
            ready = self._file.peek()[: limit - len(line)]
            if not ready:
                break
            line += self._file.read(ready.find(b"\n") + 1 or len(ready))
        if self._begun and not line.endswith(b"\n") and len(line) < limit:
            raise http.client.IncompleteRead(line)
        self._begun = True
        return line

    def close(self) -> None:
        """
        Read no more.
        """
        self._file.close()


class _Response(http.client.HTTPResponse):
    """
    One whose head is whole, and in time.
    """

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)  # as the standard library has them
        self._deadline = time.monotonic() + (sock.gettimeout() or 0)

    def begin(self) -> None:
        """
        Read the head.
        """
        file = self.fp
        self.fp = _Head(file, self._deadline)  # type: ignore[assignment]  # reads lines only
        try:
            super().begin()
        finally:
            if self.fp is not None:
                self.fp = file


class _Connection(http.client.HTTPConnection):
    """
    To any address.
    """

    response_class = _Response

    def __init__(
        self, address: BusURL, context: ssl.SSLContext | None, timeout: float
    ) -> None:
        super().__init__(address.host, address.port or None, timeout)
        self.seconds = timeout
        self._address = address
        self._context = context
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """
        Connect.
        """
        if self._address.socket:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._address.socket)
        else:
            self._connect_to_any(self._address.hosts)
        if self._context is not None:
            try:
                self.sock = self._context.wrap_socket(
                    self.sock, server_hostname=self._address.host
                )
            except TimeoutError:
                raise Unreachable("The server is silent; does it speak TLS?") from None
        # `sock` is gone where the response is to close it.
        self._socket = self.sock

    @property
    def connected(self) -> bool:
        """
        Was it, at any time?
        """
        return self._socket is not None

    def _connect_to_any(self, hosts: tuple[str, ...]) -> None:
        problem: OSError | None = None
        for host in hosts:
            try:
                self.sock = socket.create_connection((host, self.port), self.timeout)
            except OSError as error:
                # That of the first says most.
                problem = problem or error
            else:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return
        if problem is not None:
            raise problem

    def wait_for(self, seconds: float | None) -> None:
        """
        Wait for so long whenever it reads.
        """
        if self._socket is not None:
            self._socket.settimeout(seconds)


def _ask(
    connection: _Connection,
    method: str,
    address: BusURL,
    headers: dict[str, str],
    body: bytes | None = None,
) -> http.client.HTTPResponse:
    encoded = {name: value.encode() for name, value in headers.items()}
    with _explained(connection.seconds):
        try:
            connection.request(method, address.target, body, encoded)
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered before it had read all.
            if not connection.connected:
                raise
        return connection.getresponse()


def _text(response: http.client.HTTPResponse, timeout: float) -> bytes:
    """
    As much of a response as is looked at, and comes in time.
    """
    text = b""
    deadline = time.monotonic() + timeout
    with suppress(OSError, http.client.HTTPException):
        while len(text) < SENTENCE_BYTES and time.monotonic() < deadline:
            piece = response.read1(SENTENCE_BYTES - len(text))
            if not piece:
                break
            text += piece
    return text


def _head(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


@contextmanager
def _explained(seconds: float) -> Iterator[None]:
    """
    Say what the standard library has against what is done here, in one sentence, and
    whether another try may change it.
    """
    try:
        yield
    except TimeoutError:
        raise Unreachable(f"The server was silent for {seconds:g} seconds.") from None
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(f"TLS failed: {error.verify_message}.") from None
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError) as error:
        raise Unreachable(f"TLS was cut: {error.reason}.") from None
    except ssl.SSLError as error:
        raise Untrusted(f"TLS failed: {error.reason}.") from None
    except ConnectionRefusedError:
        raise Unreachable("Connection refused; does a bus run there?") from None
    except socket.gaierror as error:
        raise Unreachable(f"The host is not known: {error.strerror}.") from None
    except http.client.RemoteDisconnected:
        raise Unreachable(
            "The server closed the connection without an answer; does it ask for TLS?"
        ) from None
    except OSError as error:
        raise Unreachable(f"{error.strerror or error}.") from None
    except http.client.IncompleteRead:
        raise Unreachable("The connection was cut.") from None
    except http.client.HTTPException as error:
        raise Unreachable(f"This is no HTTP: {printable(str(error))}.") from None


def _address(url: str | BusURL, user: str, password: str) -> BusURL:
    address = url if isinstance(url, BusURL) else BusURL.parse(url)
    return address.with_credentials(address.user or user, address.password or password)


def _context(
    address: BusURL, ca: Path | str | None, certificate: Path | str | None
) -> ssl.SSLContext | None:
    if address.scheme != "https":
        return None
    context = _loaded(ca, lambda: ssl.create_default_context(cafile=ca), "certificate")
    if certificate is not None:
        load = partial(context.load_cert_chain, certificate)
        _loaded(certificate, load, "private key with its certificate")
    return context


def _loaded(file: Path | str | None, load: Callable[[], T], what: str) -> T:
    """
    What this makes of a file.
    """
    try:
        return load()
    except ssl.SSLError:
        raise Invalid(f"{str(file)!r} holds no {what} (PEM).") from None
    except OSError as error:
        raise Invalid(f"{str(file)!r} cannot be read: {error.strerror}.") from None


def _name(address: BusURL) -> str:
    """
    Of the channel, for servers that do not tell.
    """
    return unquote(address.path.rpartition(DEFAULT_PATH)[2].lstrip("/"))


def _logged(notice: Notice) -> None:
    _log.log(
        logging.INFO if isinstance(notice, Subscribed) else logging.WARNING, "%s", notice
    )
