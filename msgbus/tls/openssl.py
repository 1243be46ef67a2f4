"""
The functions of OpenSSL that are called for each message, as they are, and the buffer into
which they write.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.bindings.openssl.binding import Binding

__all__ = [
    "BUFFER",
    "BUFFER_BYTES",
    "FFI",
    "LIB",
    "RECORD_BYTES",
    "VIEW",
    "SSL_get_error",
    "SSL_read",
    "SSL_write",
]

LIB: Any = Binding().lib
FFI: Any = Binding().ffi

SSL_read, SSL_write, SSL_get_error = LIB.SSL_read, LIB.SSL_write, LIB.SSL_get_error

# The most bytes of a record (RFC 8446, section 5.1).
RECORD_BYTES = 16 * 1024

# One buffer does for all connections, because what OpenSSL writes there is copied at once,
# and always by the thread of the reactor.  It takes several records, because what is read
# in one turn of the reactor is received together.
BUFFER_BYTES = 4 * RECORD_BYTES
BUFFER: Any = FFI.new("unsigned char[]", BUFFER_BYTES)
VIEW = memoryview(FFI.buffer(BUFFER))
