"""
Undoes content codings (RFC 9110, section 8.4.1): a message that was published with a
`Content-Encoding` arrives with it.

No I/O.  A few bytes can stand for billions, so no more is made of them than the caller
allows.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

from ..message import Invalid, Message

__all__ = ["CODING", "decoded"]

CODING = "content-encoding"

# The formats that `zlib` reads by these window sizes: gzip, and zlib, which HTTP calls
# deflate.
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_MAX_CODINGS = 3

# A body may be several streams, one behind the other (RFC 1952, section 2.2).  An empty one
# has 8 bytes, so there could be millions of them.  A stream copies what it is given behind
# its end, so it is given so many bytes at once.
_MAX_STREAMS = 10_000
_STEP = 4096


def decoded(message: Message, limit: int) -> Message:
    """
    The same message without its content codings.

    Args:
        limit: The most bytes of its body without them.

    Raises:
        Invalid: A coding is not gzip or deflate, the body has another one than it says, or
            it would be larger than the limit.
    """
    codings = [name.strip().lower() for name in message.headers.get(CODING, "").split(",")]
    body = message.body
    if len(codings) > _MAX_CODINGS:
        raise Invalid(f"A body has {len(codings)} codings.")
    for name in reversed(codings):
        if name not in ("", "identity"):
            body = _undone(name, body, limit)
    return replace(message, body=body, headers=message.headers.without(CODING))


def _undone(coding: str, body: bytes, limit: int) -> bytes:
    if coding not in _WINDOWS:
        raise Invalid(f"The coding {coding[:100]!r} is not known here.")
    pieces, size, place, streams = [], 0, 0, 0
    while place < len(body):
        streams += 1
        if streams > _MAX_STREAMS:
            raise Invalid(f"The body has more than {_MAX_STREAMS} streams of {coding}.")
        stream = zlib.decompressobj(_WINDOWS[coding])
        while place < len(body) and not stream.eof:
            step = body[place : place + _STEP]
            try:
                piece = stream.decompress(step, limit - size + 1)
            except zlib.error:
                raise Invalid(f"The body is not coded by {coding}.") from None
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise Invalid(f"Without its coding, the body has more than {limit} bytes.")
            place += len(step) - len(stream.unused_data)
        if not stream.eof:
            raise Invalid(f"The body, coded by {coding}, is cut off.")
    return b"".join(pieces)
