"""
HTTP by the standard library, for the blocking client: one request, its response, and TLS.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..message import Invalid
from .errors import NOTHING_LISTENS, Unreachable, Untrusted, printable, silent
from .responses import SENTENCE_BYTES
from .url import BusURL

__all__ = ["Connection", "explained", "headers_of", "tls_context"]

T = TypeVar("T")


class _Head:
    """
    A file that reads the head of a response for the standard library, which by itself takes
    a head that was cut off for a complete one, and allows the full timeout for each byte.

    Args:
        deadline: The time at which the head has to be complete, by the monotonic clock.
    """

    def __init__(self, file: io.BufferedReader, deadline: float) -> None:
        self._file = file
        self._deadline = deadline
        self._begun = False

    def readline(self, limit: int) -> bytes:
        """
        One line, or its first `limit` bytes if it is longer; nothing if the server closed
        the connection before the first line.

        Raises:
            TimeoutError: The deadline has passed.
            http.client.IncompleteRead: The server closed the connection within the head.
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
        Close the file.
        """
        self._file.close()


class _Response(http.client.HTTPResponse):
    """
    A response whose head is complete, and comes within the timeout as a whole.
    """

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
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


class Connection(http.client.HTTPConnection):
    """
    A connection to a bus, by TCP or a Unix socket, with TLS if there is a context for it.

    Args:
        context: See `tls_context`.
        timeout: Seconds that connecting may take, and so may each response.
    """

    response_class = _Response

    def __init__(self, url: BusURL, context: ssl.SSLContext | None, timeout: float) -> None:
        super().__init__(url.host, url.port or None, timeout)
        self._seconds = timeout
        self._url = url
        self._context = context
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """
        Connect; called by the standard library.
        """
        if self._url.socket:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._url.socket)
        else:
            self._connect_to_any(self._url.hosts)
        if self._context is not None:
            try:
                self.sock = self._context.wrap_socket(
                    self.sock, server_hostname=self._url.host
                )
            except TimeoutError:
                raise Unreachable("The server is silent; does it speak TLS?") from None
        # The standard library drops `sock` when the response is the one to close it.
        self._socket = self.sock

    def _connect_to_any(self, hosts: tuple[str, ...]) -> None:
        problem: OSError | None = None
        for host in hosts:
            try:
                self.sock = socket.create_connection((host, self.port), self.timeout)
            except OSError as error:
                # The error of the first host says most.
                problem = problem or error
            else:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return
        if problem is not None:
            raise problem

    def ask(
        self, method: str, headers: dict[str, str], body: bytes | None = None
    ) -> http.client.HTTPResponse:
        """
        Send a request to the URL, and wait for the head of the response.

        Raises:
            BusError: There is none.
        """
        encoded = {name: value.encode() for name, value in headers.items()}
        with explained(self._seconds):
            try:
                self.request(method, self._url.target, body, encoded)
            except (BrokenPipeError, ConnectionResetError):
                # A server may refuse a message before it has read all of it.  Without a
                # connection, though, there is no response to look for.
                if self._socket is None:
                    raise
            return self.getresponse()

    def text(
        self, response: http.client.HTTPResponse, limit: int = SENTENCE_BYTES
    ) -> bytes:
        """
        The first bytes of the body of a response, or as much of it as comes within the
        timeout.

        Args:
            limit: How many bytes.
        """
        text = b""
        deadline = time.monotonic() + self._seconds
        with suppress(OSError, http.client.HTTPException):
            while len(text) < limit and time.monotonic() < deadline:
                piece = response.read1(limit - len(text))
                if not piece:
                    break
                text += piece
        return text

    def wait_for(self, seconds: float | None) -> None:
        """
        From now on, wait for so long in each read, or for any time.
        """
        if self._socket is not None:
            self._socket.settimeout(seconds)


def headers_of(response: http.client.HTTPResponse) -> dict[str, str]:
    """
    The headers of a response, with names in lower case.
    """
    return {name.lower(): value for name, value in response.getheaders()}


@contextmanager
def explained(seconds: float) -> Iterator[None]:
    """
    Turn the exceptions of the standard library into errors of ours.

    Args:
        seconds: The timeout, to be named if it has passed.
    """
    try:
        yield
    except TimeoutError:
        raise Unreachable(silent(seconds)) from None
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(f"TLS failed: {error.verify_message}.") from None
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError) as error:
        raise Unreachable(f"TLS was cut: {error.reason}.") from None
    except ssl.SSLError as error:
        # If a server cuts a connection while something is sent, that is not always an
        # `SSLEOFError`.
        kind = Unreachable if "EOF" in (error.reason or "") else Untrusted
        raise kind(f"TLS failed: {error.reason}.") from None
    except ConnectionRefusedError:
        raise Unreachable(NOTHING_LISTENS) from None
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


def tls_context(
    url: BusURL, ca: Path | str | None, certificate: Path | str | None
) -> ssl.SSLContext | None:
    """
    How to set up TLS, or None if the URL is not `https:`.

    Args:
        ca: A file of certificates (PEM) to trust, in place of those of the system.
        certificate: A file with a private key and its certificate (PEM).

    Raises:
        Invalid: A file cannot be read, or does not hold what it should.
    """
    if url.scheme != "https":
        return None
    context = _loaded(ca, lambda: ssl.create_default_context(cafile=ca), "certificate")
    if certificate is not None:
        load = partial(context.load_cert_chain, certificate)
        _loaded(certificate, load, "private key with its certificate")
    return context


def _loaded(file: Path | str | None, load: Callable[[], T], what: str) -> T:
    """
    The result of a function that loads this file.

    Raises:
        Invalid: It fails; `what` names what the file should hold.
    """
    try:
        return load()
    except ssl.SSLError:
        raise Invalid(f"{str(file)!r} holds no {what} (PEM).") from None
    except OSError as error:
        raise Invalid(f"{str(file)!r} cannot be read: {error.strerror}.") from None
