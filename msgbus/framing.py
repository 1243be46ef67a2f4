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
        return self._chunk(self.encoder.encode(message))

    def gap(self, count: int) -> bytes:
        """
        Tell that this many messages were not delivered: a header line of the
        part to come, whose delimiter is already out.
        """
        return self._chunk(b"Msgbus-Gap: %d\r\n" % count)

    @property
    def heartbeat(self) -> bytes:
        """
        Tell that the stream is alive: another such line.
        """
        return self._chunk(b"Msgbus-Heartbeat: 1\r\n")

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data
