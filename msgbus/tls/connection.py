"""
A TLS connection of pyOpenSSL's whose most frequent calls are little more than those of
OpenSSL.

For small messages, pyOpenSSL's own take several times as long as OpenSSL: each call that
reads allocates 32 KiB, and each one looks for errors also where there are none.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from OpenSSL import SSL

from .openssl import (
    BUFFER,
    BUFFER_BYTES,
    FFI,
    LIB,
    VIEW,
    BIO_read,
    BIO_write,
    SSL_read,
    SSL_write,
)

__all__ = ["FastConnection", "quicken"]


class FastConnection(SSL.Connection):
    """
    A connection that reads and writes buffers in memory in place of a socket.  It raises
    what its base class raises.  Made by `quicken`.

    Attributes:
        failed: What `SSL_read` has returned, if it was called by somebody else and found an
            error, which `recv` has to raise; otherwise 0.
    """

    failed = 0

    def send(self, data: Any, flags: int = 0) -> int:
        """
        See `SSL.Connection.send`.
        """
        taken: int = SSL_write(self._ssl, FFI.from_buffer(data), len(data))
        if taken <= 0:
            self._raise_ssl_error(self._ssl, taken)
        return taken

    def recv(self, size: int, flags: int | None = None) -> bytes:
        """
        See `SSL.Connection.recv`, but for the flags.
        """
        got, self.failed = self.failed, 0
        if not got:
            got = SSL_read(self._ssl, BUFFER, min(size, BUFFER_BYTES))
        if got <= 0:
            self._raise_ssl_error(self._ssl, got)
        return bytes(VIEW[:got])

    def bio_read(self, size: int) -> bytes:
        """
        See `SSL.Connection.bio_read`.
        """
        got = BIO_read(self._from_ssl, BUFFER, min(size, BUFFER_BYTES))
        if got <= 0:
            self._handle_bio_errors(self._from_ssl, got)
        return bytes(VIEW[:got])

    def bio_write(self, data: Any) -> int:
        """
        See `SSL.Connection.bio_write`.
        """
        taken: int = BIO_write(self._into_ssl, FFI.from_buffer(data), len(data))
        if taken <= 0:
            self._handle_bio_errors(self._into_ssl, taken)
        return taken

    def forget(self, result: int) -> None:
        """
        Forget the error of a call that is going to be repeated.  OpenSSL would take it for
        one of the next connection.

        Args:
            result: What the call has returned.
        """
        with suppress(SSL.Error):
            self._raise_ssl_error(self._ssl, result)

    def shrink(self) -> None:
        """
        Free the memory that the handshake has left in the buffers, if they are empty.
        """
        start = FFI.new("char **")
        buffers = (self._into_ssl, self._from_ssl)
        if any(LIB.BIO_get_mem_data(buffer, start) for buffer in buffers):
            return
        kind = LIB.BIO_s_mem()
        into, out = LIB.BIO_new(kind), LIB.BIO_new(kind)
        # It frees those that were there.
        LIB.SSL_set_bio(self._ssl, into, out)
        self._into_ssl, self._from_ssl = into, out


def quicken(connection: SSL.Connection) -> SSL.Connection:
    """
    Make a connection fast that has buffers in memory in place of a socket.  It stays as it
    is if it is of another kind.
    """
    if type(connection) is SSL.Connection and connection._socket is None:
        connection.__class__ = FastConnection
        # What is encrypted is always taken as a whole, also where the client wants records
        # that are smaller (RFC 6066, section 4).
        LIB.SSL_clear_mode(connection._ssl, LIB.SSL_MODE_ENABLE_PARTIAL_WRITE)
    return connection
