"""
The transport of a connection over TLS.

Twisted's hands what is written to OpenSSL in the next turn of the reactor, and gives what
OpenSSL makes of it to the transport of the socket, which sends it in one turn more, when
the reactor has found out that the socket has room.  The transport of this module can also
do all that at once.  It does so only while nothing waits anywhere on the way, so that all
bytes stay in order: records, alerts, and what a handshake or an update of keys needs.  In
any other state, and if anything goes wrong, everything goes Twisted's way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from .connection import FastConnection, quicken
from .openssl import (
    BUFFER,
    BUFFER_BYTES,
    LIB,
    RECORD_BYTES,
    VIEW,
    BIO_read,
    SSL_get_error,
    SSL_read,
    SSL_write,
)

__all__ = ["TlsTransport", "hasten"]


class TlsTransport(BufferingTLSTransport):
    """
    A connection over TLS.
    """

    transport: Any
    _tlsConnection: Any
    # From the end of the handshake until the connection is lost, if it is a fast one: how
    # OpenSSL knows it, where OpenSSL writes, and the method of the socket that sends.
    _ssl: Any = None
    _out: Any
    _send: Callable[[memoryview], int]

    def _checkHandshakeStatus(self) -> None:
        super()._checkHandshakeStatus()  # type: ignore[no-untyped-call]  # Twisted
        connection = self._tlsConnection
        if (
            self._handshakeDone
            and type(connection) is FastConnection
            # Not another wrapper, which has to see what is sent.
            and type(self.transport) is tcp.Server
        ):
            self._ssl, self._out = connection._ssl, connection._from_ssl
            self._send = self.transport.socket.send

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection has ended.
        """
        self._ssl = None
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """
        Bytes have come from the client.
        """
        ssl = self._ssl
        if ssl is None or self._appSendBuffer:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted
            return
        self._tlsConnection.bio_write(data)
        while not self._lostTLSConnection:
            got = SSL_read(ssl, BUFFER, BUFFER_BYTES)
            if got <= 0:
                if SSL_get_error(ssl, got) == LIB.SSL_ERROR_WANT_READ:
                    break
                # This ends the connection, or tells why it has ended.
                self._tlsConnection.failed = got
                self._flushReceiveBIO()  # type: ignore[no-untyped-call]  # Twisted
                return
            if not self._aborted:
                self.wrappedProtocol.dataReceived(bytes(VIEW[:got]))
        # What OpenSSL answers itself.
        got = BIO_read(self._out, BUFFER, BUFFER_BYTES)
        if got > 0:
            self.transport.write(bytes(VIEW[:got]))

    @property
    def is_idle(self) -> bool:
        """
        Does nothing wait for being sent?
        """
        below = self.transport
        return not (
            below.dataBuffer
            or below._tempDataLen
            or self._appSendBuffer
            or self._aggregator._buffer  # type: ignore[union-attr]  # Twisted's
        )

    def send_at_once(self, data: bytes | memoryview) -> int:
        """
        Send as many of these bytes, from the first, as there is room for now.

        Returns:
            How many were taken.  The socket may not have room for the last of them, which
            go out as soon as it has.

        Raises:
            BlockingIOError: None were taken, because others wait for room.
            OSError: None were taken, because the connection has ended.
        """
        # All in one function, because for a small message, a call of another one takes as
        # long as to encrypt it.
        below = self.transport
        size = len(data)
        if (
            self._ssl is None
            or below.dataBuffer
            or below._tempDataLen
            or self._appSendBuffer
            or self._aggregator._buffer  # type: ignore[union-attr]  # Twisted's
            or not 0 < size <= RECORD_BYTES
            or type(data) is not bytes
        ):
            return self._send_records(data)
        taken = SSL_write(self._ssl, data, size)
        if taken <= 0:
            # A handshake is going on, or TLS has ended.
            self._tlsConnection.forget(taken)
            self._write(data)  # type: ignore[no-untyped-call]  # Twisted
            return size
        got = BIO_read(self._out, BUFFER, BUFFER_BYTES)
        try:
            taken = self._send(VIEW[:got])
            if taken == got:
                return size
        except OSError:
            # There is no room, or the client has gone.  Only a write through the transport
            # tells the reactor of the latter.
            taken = 0
        below.write(bytes(VIEW[taken:got]))
        return size

    def _send_records(self, data: bytes | memoryview) -> int:
        """
        The same for any number of bytes.
        """
        if self._ssl is None:
            raise OSError("The connection has ended.")
        if not self.is_idle:
            # Or what was written would be encrypted one turn later.
            self._aggregator.flush()
            raise BlockingIOError
        taken = 0
        while taken < len(data) and self.is_idle:
            taken += self.send_at_once(bytes(data[taken : taken + RECORD_BYTES]))
        return taken

    def shrink(self) -> None:
        """
        Take as little memory as possible from now on.
        """
        if self._ssl is not None:
            self._tlsConnection.shrink()
            self._out = self._tlsConnection._from_ssl

    def ask(self) -> None:
        """
        Have the producer resumed as soon as nothing waits for being sent.
        """
        # Whatever resumes it does so only if it believes to have paused it.
        if self._producer is not None:
            self._producer._producerPaused = True
        if not self._appSendBuffer:
            self.transport.producerPaused = True
            self.transport.startWriting()


def hasten(factory: TLSMemoryBIOFactory) -> TLSMemoryBIOFactory:
    """
    Have the connections of a factory of Twisted's be a `TlsTransport` each.
    """
    create = factory._creatorCallable
    factory._creatorCallable = lambda transport: quicken(create(transport))
    factory.protocol = TlsTransport
    return factory
