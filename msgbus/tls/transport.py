"""
The transport of a connection over TLS, whose records OpenSSL itself reads from the socket
and writes to it.

Twisted's own keeps OpenSSL away from the socket: what is written is encrypted in the next
turn of the reactor, copied out of OpenSSL, and sent in one turn more.  Here, a message is
one call of OpenSSL's.  For the rest, the transport is a socket of Twisted's like any other:
what cannot be sent now waits in its buffer, and its producer is paused and resumed.
"""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL, crypto
from twisted.internet import main, tcp
from twisted.internet.interfaces import (
    IHandshakeListener,
    INegotiated,
    IProtocol,
    ISSLTransport,
)
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    _representsEOF,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from .openssl import (
    BUFFER,
    BUFFER_BYTES,
    FFI,
    LIB,
    RECORD_BYTES,
    VIEW,
    SSL_get_error,
    SSL_read,
    SSL_write,
)

__all__ = ["TlsTransport", "hasten"]

# What OpenSSL answers if nothing is wrong.
_NO_FAILURES = (
    LIB.SSL_ERROR_WANT_READ,
    LIB.SSL_ERROR_WANT_WRITE,
    LIB.SSL_ERROR_ZERO_RETURN,
)


@implementer(ISSLTransport, INegotiated)
class TlsTransport(tcp.Server):
    """
    A connection over TLS.  Made of a transport without TLS by `begin`.
    """

    # Twisted's are not typed.
    startWriting: Any
    stopWriting: Any

    # Until the connection is lost: as pyOpenSSL knows it, and as OpenSSL does.
    _connection: Any = None
    _ssl: Any = None
    # The same, while messages may be written: after the handshake, and before the end.
    _writable: Any = None
    # Does reading wait until something can be written?  And is it wanted?
    _read_waits = False
    _is_reading = True
    # Has the client been told that this is the end of TLS?  Need it not agree?
    _is_notified = False
    _ends_alone = False
    # Why the connection has ended, if the reactor does not know it yet.
    _lost: Exception | None = None

    @staticmethod
    def begin(
        transport: tcp.Server, connection: SSL.Connection, protocol: IProtocol
    ) -> None:
        """
        Make a transport a `TlsTransport`, and connect a protocol to it.

        Args:
            transport: A new one, whose class is `tcp.Server` itself.
            connection: Is not connected to anything yet.
            protocol: What is spoken over TLS.
        """
        ssl = connection._ssl
        LIB.SSL_set_fd(ssl, transport.fileno())
        # The buffers that it had in place of a socket are gone.
        connection._into_ssl = connection._from_ssl = None
        # A piece is written as a whole, also where the client wants records that are
        # smaller (RFC 6066, section 4).  And reading comes back after each record with no
        # data, of which a client could send one after the other (RFC 8446, section 4.6.3).
        LIB.SSL_clear_mode(ssl, LIB.SSL_MODE_ENABLE_PARTIAL_WRITE | LIB.SSL_MODE_AUTO_RETRY)
        transport.__class__ = TlsTransport
        begun = cast("TlsTransport", transport)
        begun._connection, begun._ssl = connection, ssl
        begun.protocol = protocol
        protocol.makeConnection(transport)

    def getHandle(self) -> Any:
        """
        The connection as pyOpenSSL knows it; None once it is lost.
        """
        return self._connection

    def getPeerCertificate(self) -> crypto.X509 | None:
        """
        The certificate that the client has shown, if any.
        """
        if self._connection is None:
            return None
        certificate: crypto.X509 | None = self._connection.get_peer_certificate()
        return certificate

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """
        What was agreed on by ALPN (RFC 7301), if anything.
        """
        if self._connection is None:
            return None
        return self._connection.get_alpn_proto_negotiated() or None

    @property
    def is_idle(self) -> bool:
        """
        Does nothing wait for being sent?
        """
        return not (self.dataBuffer or self._tempDataLen)

    def startReading(self) -> None:
        """
        Read from now on, or once something could be written if that is waited for.
        """
        self._is_reading = True
        if not self._read_waits:
            super().startReading()  # type: ignore[no-untyped-call]  # Twisted

    def stopReading(self) -> None:
        """
        Do not read from now on.
        """
        self._is_reading = False
        super().stopReading()  # type: ignore[no-untyped-call]  # Twisted

    def doRead(self) -> Any:
        """
        Something has come from the client, or it has gone.
        """
        if self._lost is not None:
            return self._lost
        if self._writable is None and not self._is_notified:
            got = LIB.SSL_do_handshake(self._ssl)
            if got <= 0:
                error = SSL_get_error(self._ssl, got)
                return self._unread(error) if error in _NO_FAILURES else self._failed(got)
            self._writable = self._ssl
            # Only the handshake needs to know what began it.
            self._connection.set_app_data(None)
            if IHandshakeListener.providedBy(self.protocol):
                self.protocol.handshakeCompleted()
            if self._ssl is None or self._aborting:
                return None
        # Behind a record that is full, there is mostly another one.  Behind another, there
        # may be the end of the connection, and what came before is to be answered first.
        count, got, error = 0, RECORD_BYTES, LIB.SSL_ERROR_WANT_READ
        while got == RECORD_BYTES and count < BUFFER_BYTES:
            got = SSL_read(self._ssl, BUFFER + count, BUFFER_BYTES - count)
            if got > 0:
                count += got
            else:
                error = SSL_get_error(self._ssl, got)
        # Before anything else is asked of OpenSSL, which keeps errors for all connections.
        failure = None if error in _NO_FAILURES else self._failed(got)
        if count:
            self.protocol.dataReceived(bytes(VIEW[:count]))
            if self._ssl is None or self._aborting:
                return None
        return failure or self._unread(error)

    def _unread(self, error: int) -> Exception | None:
        """
        No more could be read.

        Args:
            error: Why, by OpenSSL; none for which the connection has failed.

        Returns:
            Why the connection has ended, if it has.
        """
        if error == LIB.SSL_ERROR_ZERO_RETURN:
            # The client has ended TLS.
            self._ends_alone = True
            if self.is_idle:
                return self._postLoseConnection()
            self.stopReading()
            self.disconnecting = True
        elif error == LIB.SSL_ERROR_WANT_WRITE:
            # An answer of TLS itself has no room.  Without it, nothing can be read, so that
            # the reactor would call for nothing, again and again.
            self._read_waits = True
            super().stopReading()  # type: ignore[no-untyped-call]  # Twisted
            self.startWriting()
        elif not self.is_idle:
            # It may have waited for what was read.
            self.startWriting()
        return None

    def doWrite(self) -> Any:
        """
        The socket has room.
        """
        if self._lost is not None:
            return self._lost
        if self._read_waits:
            self._read_waits = False
            if self._is_reading:
                self.startReading()
                ended = self.doRead()
                if ended is not None or self._read_waits or self._ssl is None:
                    return ended
        return super().doWrite()  # type: ignore[no-untyped-call]  # Twisted

    def writeSomeData(self, data: bytes) -> Any:
        """
        See `tcp.Server.writeSomeData`.
        """
        view = memoryview(data)[: self.SEND_LIMIT]
        if self._writable is None and view:
            # Until the handshake is done.
            self.stopWriting()
            return 0
        taken = 0
        while taken < len(view):
            piece = view[taken : taken + RECORD_BYTES]
            result = SSL_write(self._ssl, FFI.from_buffer(piece), len(piece))
            if result <= 0:
                error = SSL_get_error(self._ssl, result)
                if error == LIB.SSL_ERROR_WANT_READ:
                    self.stopWriting()
                elif error != LIB.SSL_ERROR_WANT_WRITE:
                    return self._failed(result)
                # OpenSSL may have sent a part of the record, and wants the same piece, or a
                # longer one that begins with it, next time.
                break
            taken += result
        return taken

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
        ssl = self._writable
        if ssl is None or self.dataBuffer or self._tempDataLen:
            if self._ssl is None or self._is_notified:
                raise OSError("The connection has ended.")
            raise BlockingIOError
        size = len(data)
        if type(data) is not bytes or not 0 < size <= RECORD_BYTES:
            return self._send_records(data)
        result = SSL_write(ssl, data, size)
        if result != size:
            error = SSL_get_error(ssl, result)
            if error not in (LIB.SSL_ERROR_WANT_WRITE, LIB.SSL_ERROR_WANT_READ):
                # The reactor finds out.
                self._lost = self._failed(result)
            self.write(data)  # type: ignore[no-untyped-call]  # Twisted
        return size

    def _send_records(self, data: bytes | memoryview) -> int:
        """
        The same for any number of bytes.
        """
        taken = 0
        while taken < len(data) and self.is_idle:
            taken += self.send_at_once(bytes(data[taken : taken + RECORD_BYTES]))
        return taken

    def _failed(self, result: int) -> Exception:
        """
        Why a function of OpenSSL has failed for good.  OpenSSL forgets it, so that it does
        not take it for an error of the next connection.
        """
        self._writable = None
        try:
            self._connection._raise_ssl_error(self._ssl, result)
        except SSL.SysCallError:
            return main.CONNECTION_LOST
        except SSL.Error as error:
            return main.CONNECTION_LOST if _representsEOF(error) else error
        return main.CONNECTION_LOST

    def loseConnection(self) -> None:
        """
        End TLS once all that was written has been sent, and the connection once the client
        has ended TLS, too.  Until then, what it sends is still received.  The second time,
        the client need not do so.
        """
        if not self.connected:
            return
        if self.disconnecting:
            self._ends_alone = True
            if self._writable is None and not self._is_notified:
                # The handshake was not done meanwhile, so that nothing can be sent.
                self.abortConnection()  # type: ignore[no-untyped-call]  # Twisted
                return
        self.disconnecting = True
        self.startReading()
        self.startWriting()

    def _postLoseConnection(self) -> Exception | None:
        """
        Everything was sent before the end of the connection.
        """
        if self._writable is not None:
            result = LIB.SSL_shutdown(self._ssl)
            if result < 0:
                if SSL_get_error(self._ssl, result) == LIB.SSL_ERROR_WANT_WRITE:
                    self.startWriting()
                    return None
                return self._failed(result)
            self._is_notified, self._writable = True, None
            # What is written from now on, Twisted ignores.
            self._writeDisconnected = True
            if result == 0 and not self._ends_alone:
                return None
        elif self._is_notified and not self._ends_alone:
            return None
        return main.CONNECTION_DONE

    def connectionLost(self, reason: Failure) -> None:
        """
        The connection has ended.
        """
        self._ssl = self._writable = None
        super().connectionLost(reason)
        self._connection = None


class _Beginning(BufferingTLSTransport):
    """
    Begins TLS on a new transport: by a `TlsTransport`, if it is a socket of the kind that
    this knows, and otherwise, for example around another wrapper, Twisted's way.
    """

    # Twisted's base is made only if it is needed.
    def __init__(self, factory: TLSMemoryBIOFactory, wrappedProtocol: IProtocol) -> None:
        self.factory = factory
        self.wrappedProtocol = wrappedProtocol

    def makeConnection(self, transport: Any) -> None:
        """
        There is a new transport.
        """
        if type(transport) is tcp.Server and not transport.TLS:
            connection = self.factory._creatorCallable(self)
            TlsTransport.begin(transport, connection, self.wrappedProtocol)
        else:
            super().__init__(self.factory, self.wrappedProtocol)
            super().makeConnection(transport)  # type: ignore[no-untyped-call]  # Twisted


def hasten(factory: TLSMemoryBIOFactory) -> TLSMemoryBIOFactory:
    """
    Have the connections of a factory of Twisted's be a `TlsTransport` each.
    """
    factory.protocol = _Beginning
    return factory
