"""
How the bytes of one response get into its socket.

The fast way gives them to the kernel at once, without Twisted's buffers; it is for plain
sockets, and for TLS on them.  The other way is the `write` of Twisted's transports.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Protocol

from twisted.internet import tcp, unix

from ..tls.transport import TlsTransport
from .backlog import SLICE_BYTES

__all__ = [
    "BufferedOutlet",
    "CountedOutlet",
    "DirectOutlet",
    "Outlet",
    "is_plain",
    "outlet_for",
    "tune",
    "write_at_once",
]


# How many bytes the kernel takes for a peer that does not read, beyond those that were sent
# and not acknowledged.  Without a limit it takes megabytes, which nobody can drop any more.
UNSENT_BYTES = 128 * 1024
UNSENT_BYTES_LATEST = 16 * 1024


class Outlet(Protocol):
    """
    Takes bytes for one response.
    """

    paused: bool
    """
    Has the transport paused the producer of the response?
    """

    @property
    def send(self) -> Callable[[bytes | memoryview], int]:
        """
        Take as many of these bytes, from the first, as there is room for now.

        Returns:
            How many were taken.  If that is not all, `ask` for more room.

        Raises:
            BlockingIOError: None were taken.
            OSError: None were taken, and the peer may be gone; `write` them.
        """

    @property
    def sendmsg(self) -> Callable[[Sequence[bytes | memoryview]], int]:
        """
        The same for several pieces, which are not joined first.
        """

    def ask(self) -> bool:
        """
        Have the producer of the response resumed once there is room.

        Returns:
            Whether there is room already, so that it will not be resumed.
        """

    def write(self, data: bytes | memoryview) -> None:
        """
        Take all of these bytes, however many; they go out in order.
        """

    @property
    def abort(self) -> Callable[[], object]:
        """
        Cut the connection, without sending what waits.
        """


def outlet_for(transport: Any, stall_seconds: float, latest: bool) -> Outlet:
    """
    Tune the socket of this transport, and return the fastest outlet for a response on it.

    Args:
        stall_seconds: See `tune`.
        latest: Whether the subscriber wants only the newest messages, so that little may
            wait in the socket.
    """
    tune(transport, stall_seconds, UNSENT_BYTES_LATEST if latest else UNSENT_BYTES)
    if is_plain(transport):
        return DirectOutlet(transport)
    if type(transport) is TlsTransport:
        return TlsOutlet(transport)
    return BufferedOutlet(transport.write, transport.abortConnection)


def is_plain(transport: object) -> bool:
    """
    Is this transport a plain socket of Twisted's, without a wrapper?

    The class is compared because every wrapper, such as TLS, forwards attributes to the
    transport below it.  So a wrapper seems to have a `socket`, too, and what is sent there
    would be plaintext past TLS.
    """
    kind = type(transport)
    return kind in (tcp.Server, unix.Server) and not transport.TLS  # type: ignore[attr-defined]


def write_at_once(transport: Any, data: bytes) -> bool:
    """
    Write these bytes; directly to the socket if the transport is a plain one, and nothing
    waits in its buffers.

    Returns:
        Whether the socket has taken all of them, so that nothing waits in the transport.
    """
    if not data:
        return False
    taken = 0
    if type(transport) is TlsTransport:
        with suppress(OSError):
            taken = transport.send_at_once(data)
        if taken == len(data):
            return transport.is_idle
        transport.write(data[taken:])  # type: ignore[no-untyped-call]  # Twisted
        return False
    if (
        is_plain(transport)
        and transport.connected
        and not transport.disconnecting
        # Nothing waits in its buffers.
        and not transport._tempDataLen
        and transport.offset == len(transport.dataBuffer)
    ):
        try:
            taken = transport.socket.send(data)
        except OSError:
            # The socket is full, or the peer has gone.  Only a write through the transport
            # tells the reactor of the latter.
            taken = 0
        if taken == len(data):
            return True
    transport.write(data[taken:])
    return False


class _TransportOutlet:
    """
    What the outlets that write to a socket below a transport have in common.

    Args:
        transport: Resumes its producer when its buffer is empty.
    """

    __slots__ = ("_transport", "paused")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.paused = False

    def ask(self) -> bool:
        """
        Have the producer resumed when the buffer of the transport is empty, and the socket
        can be written to.
        """
        # Once its buffer is empty, Twisted resumes a producer that it believes to have
        # paused.  If the buffer is empty now, that is as soon as the socket has room.
        self._transport.producerPaused = True
        self._transport.startWriting()
        return False

    def write(self, data: bytes | memoryview) -> None:
        """
        Take all of these bytes.
        """
        self._transport.write(bytes(data))

    def abort(self) -> None:
        """
        Cut the connection.
        """
        self._transport.abortConnection()


class DirectOutlet(_TransportOutlet):
    """
    Writes to the socket of a transport directly.

    Args:
        transport: A transport that `is_plain`.
    """

    __slots__ = ("send", "sendmsg")

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        # The methods of the socket itself, so that a delivery is nothing but a system call.
        self.send: Callable[[bytes | memoryview], int] = transport.socket.send
        self.sendmsg: Callable[[Sequence[bytes | memoryview]], int] = (
            transport.socket.sendmsg
        )


class TlsOutlet(_TransportOutlet):
    """
    Encrypts, and writes to the socket below TLS directly.
    """

    __slots__ = ("send",)

    def __init__(self, transport: TlsTransport) -> None:
        super().__init__(transport)
        self.send: Callable[[bytes | memoryview], int] = transport.send_at_once

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        """
        Take these bytes, in as few records as possible.
        """
        return self.send(b"".join(pieces))


class BufferedOutlet:
    """
    Writes through the `write` of a transport, a channel or a request, which pauses the
    producer when its buffer is full, and resumes it when the buffer is empty.
    """

    __slots__ = ("abort", "_write", "paused")

    def __init__(
        self, write: Callable[[bytes], object], abort: Callable[[], object]
    ) -> None:
        self._write = write
        self.abort = abort
        self.paused = False

    def send(self, data: bytes | memoryview) -> int:
        """
        Take these bytes, in slices, until paused.
        """
        taken = 0
        while taken < len(data) and not self.paused:
            piece = data[taken : taken + SLICE_BYTES]
            self._write(bytes(piece))
            taken += len(piece)
        return taken

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        """
        Take these bytes, in slices, until paused.
        """
        taken = 0
        for piece in pieces:
            taken += self.send(piece)
            if self.paused:
                break
        return taken

    def ask(self) -> bool:
        """
        Do nothing: the transport that has paused the producer resumes it.
        """
        return not self.paused

    def write(self, data: bytes | memoryview) -> None:
        """
        Take all of these bytes.
        """
        self._write(bytes(data))


class CountedOutlet:
    """
    Counts the bytes that another outlet takes.

    Attributes:
        count: How many there were.
    """

    __slots__ = ("_outlet", "abort", "count")

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.abort = outlet.abort
        self.count = 0

    @property
    def paused(self) -> bool:
        """
        See `Outlet.paused`.
        """
        return self._outlet.paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._outlet.paused = paused

    def send(self, data: bytes | memoryview) -> int:
        """
        See `Outlet.send`.
        """
        taken = self._outlet.send(data)
        self.count += taken
        return taken

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        """
        See `Outlet.sendmsg`.
        """
        taken = self._outlet.sendmsg(pieces)
        self.count += taken
        return taken

    def ask(self) -> bool:
        """
        See `Outlet.ask`.
        """
        return self._outlet.ask()

    def write(self, data: bytes | memoryview) -> None:
        """
        See `Outlet.write`.
        """
        self.count += len(data)
        self._outlet.write(data)


def tune(transport: object, stall_seconds: float, unsent_bytes: int) -> None:
    """
    Have the kernel find out whether a silent peer is still there, and keep few bytes for a
    peer that does not read.  Not every system can do all of this.

    Args:
        transport: The transport of the response, which may be wrapped.
        stall_seconds: How long a peer may take nothing.  Sent bytes may go
            unacknowledged, and a peer that is asked for a sign of life may be silent, for
            half as long again.
        unsent_bytes: How many bytes the kernel takes beyond those that were sent and not
            acknowledged.
    """
    # Every wrapper of a socket forwards to it.
    below = getattr(transport, "socket", None)
    if below is None or below.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for level, option, value in _socket_options(stall_seconds, unsent_bytes):
        below.setsockopt(level, option, value)


@lru_cache
def _socket_options(
    stall_seconds: float, unsent_bytes: int
) -> tuple[tuple[int, int, int], ...]:
    """
    What `tune` sets, as far as this system knows it: levels, options and values.
    """
    wanted = (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", stall_seconds / 5),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", stall_seconds / 20),
        # If both are set, this also decides when keep-alive gives up: tcp(7).
        # It also ends a connection whose peer does not read, but later than the fan-out,
        # which counts and logs that.
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", stall_seconds * 1500),
        (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", unsent_bytes),
    )
    return tuple(
        (
            level,
            getattr(socket, name),
            min(max(1, int(value)), 32767 if name.startswith("TCP_KEEP") else 2**31 - 1),
        )
        for level, name, value in wanted
        if hasattr(socket, name)
    )
