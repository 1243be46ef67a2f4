"""
How a stream is written for one kind of subscriber: what stands for a message,
and what is said between two.

No I/O.  The parts themselves are `multipart`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from .message import Message
from .multipart import Encoder

__all__ = ["Framing"]


@dataclass(frozen=True, slots=True)
class Framing:
    """
    A multipart stream.

    Attributes:
        encoder: Writes the parts.
        chunked: Whether each part, and each line ahead of one, is an HTTP/1.1
            chunk (RFC 9112, section 7.1) of its own.
    """

    encoder: Encoder
    chunked: bool

    def frame(self, message: Message) -> bytes:
        """
        The bytes of one message.
        """
        return b"".join(self.pieces(message))

    def pieces(self, message: Message) -> tuple[bytes, bytes, bytes]:
        """
        The same in three, of which the second is the body, uncopied.
        """
        head, body, tail = self.encoder.pieces(message)
        if not self.chunked:
            return head, body, tail
        size = len(head) + len(body) + len(tail)
        return b"%x\r\n%s" % (size, head), body, tail + b"\r\n"

    def gap(self, count: int | None) -> bytes:
        """
        Tell that this many messages were not delivered, or that nobody knows
        how many: a header line of the part to come, whose delimiter is already
        out.
        """
        told = b"unknown" if count is None else b"%d" % count
        return self._chunk(b"Msgbus-Gap: %s\r\n" % told)

    @property
    def heartbeat(self) -> bytes:
        """
        Tell that the stream is alive: another such line.
        """
        return self._chunk(b"Msgbus-Heartbeat: 1\r\n")

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data
