"""
WebSocket frames, as a server sends them (RFC 6455, section 5).

No I/O.  What a client sends is `wsproto`'s to read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from wsproto.frame_protocol import Opcode

from ..message import Message
from .envelope import envelope, gap, is_text
from .framing import HEARTBEAT_SECONDS, Framing

__all__ = ["WebSocketFraming", "close", "frame", "head"]

MAX_CONTROL_BYTES = 125


@dataclass(frozen=True, slots=True)
class WebSocketFraming(Framing):
    """
    A frame a message.

    Attributes:
        raw: Whether it is the body alone: a text frame, if it is text or JSON, else a
            binary one.  If not, it is the envelope.
    """

    raw: bool = False

    @property
    def heartbeat_seconds(self) -> int:
        """
        Every how many seconds one who does not say gets a ping.
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
        An object in a text frame; among bodies, where it could be one, in a ping.
        """
        return frame(Opcode.PING if self.raw else Opcode.TEXT, gap(count))

    @property
    def heartbeat(self) -> bytes:
        """
        A ping.
        """
        return frame(Opcode.PING, b"")


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """
    A whole message, or a control frame.
    """
    return head(opcode, len(payload)) + payload


def head(opcode: Opcode, size: int) -> bytes:
    """
    What stands before so many bytes of payload, of which no frame follows.
    """
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, size)
    if size < 2**16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size)
    return struct.pack("!BBQ", 0x80 | opcode, 127, size)


def close(code: int, reason: str) -> bytes:
    """
    A close frame, with as much of the reason as fits.
    """
    fits = reason.encode("utf-8")[: MAX_CONTROL_BYTES - 2].decode("utf-8", "ignore")
    return frame(Opcode.CLOSE, struct.pack("!H", code) + fits.encode("utf-8"))
