"""
WebSocket frames, as a server sends them (RFC 6455, section 5).

No I/O.  Frames that clients send are read by `wsproto`; see `web.websocket`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from wsproto.frame_protocol import Opcode

from ..message import Message
from .envelope import LIVE, envelope, gap, is_text
from .framing import HEARTBEAT_SECONDS, Framing

__all__ = ["WebSocketFraming", "close", "frame", "head"]

# The largest payload of a control frame (RFC 6455, section 5.5).
MAX_CONTROL_BYTES = 125


@dataclass(frozen=True, slots=True)
class WebSocketFraming(Framing):
    """
    One message is one frame.

    Attributes:
        raw: Whether the payload is the body alone, in a text frame if it is text or JSON,
            and in a binary frame otherwise.  If not raw, the payload is the envelope, in
            a text frame.
    """

    raw: bool = False

    @property
    def form(self) -> str:
        """
        See `Framing.form`.
        """
        return "websocket"

    @property
    def heartbeat_seconds(self) -> int:
        """
        The default: a ping every 25 seconds.
        """
        return HEARTBEAT_SECONDS

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        The frame of one message.
        """
        if not self.raw:
            payload, opcode = envelope(message), Opcode.TEXT
        else:
            payload = message.body
            opcode = Opcode.TEXT if is_text(message) else Opcode.BINARY
        return head(opcode, len(payload)), payload

    def gap(self, count: int | None) -> bytes:
        """
        An object in a text frame.  In a raw stream, where that could be a body, the
        object is the payload of a ping.
        """
        return frame(Opcode.PING if self.raw else Opcode.TEXT, gap(count))

    def live(self, last: bool = False) -> bytes:
        """
        The same way as a gap.  What ends the stream is a close frame.
        """
        return frame(Opcode.PING if self.raw else Opcode.TEXT, LIVE)

    @property
    def heartbeat(self) -> bytes:
        """
        A ping.
        """
        return frame(Opcode.PING, b"")


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """
    A frame that is a whole message, or a control frame.
    """
    return head(opcode, len(payload)) + payload


def head(opcode: Opcode, size: int) -> bytes:
    """
    The header of a frame with so many bytes of payload.  The frame is final: its message
    does not continue in another frame.
    """
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, size)
    if size < 2**16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size)
    return struct.pack("!BBQ", 0x80 | opcode, 127, size)


def close(code: int, reason: str) -> bytes:
    """
    A close frame, with as much of the reason as fits in 125 bytes.
    """
    fits = reason.encode("utf-8")[: MAX_CONTROL_BYTES - 2].decode("utf-8", "ignore")
    return frame(Opcode.CLOSE, struct.pack("!H", code) + fits.encode("utf-8"))
