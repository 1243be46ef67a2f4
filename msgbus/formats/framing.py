"""
How messages become bytes for one kind of subscriber: what stands for a message, and
what is said between two.

No I/O.  Each kind is a module of its own; `formats` has them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..message import Message

__all__ = ["HEARTBEAT_SECONDS", "ChunkedFraming", "Framing"]

# Of forms whose readers do not see it: proxies cut what is silent for long.
HEARTBEAT_SECONDS = 25


class Framing(ABC):
    """
    One kind of stream.  Equal ones write the same bytes, once for all who get them.
    """

    __slots__ = ()

    @property
    def heartbeat_seconds(self) -> int | None:
        """
        Every how many seconds one who does not say gets a heartbeat, or None for never.
        """
        return None

    @property
    def parameters(self) -> str:
        """
        Of the media type, each with its semicolon.
        """
        return ""

    def opening(self, begins: str | None) -> bytes:
        """
        What a stream begins with.

        Args:
            begins: The id behind which it does, if one is known.
        """
        return b""

    def frame(self, message: Message) -> bytes:
        """
        The bytes of one message.
        """
        return b"".join(self.pieces(message))

    @abstractmethod
    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        The same in pieces, so that a body that goes as it is is not copied.
        """

    @abstractmethod
    def gap(self, count: int | None) -> bytes:
        """
        Tell that this many messages were not delivered, or that nobody knows how many.
        """

    @property
    @abstractmethod
    def heartbeat(self) -> bytes:
        """
        Tell that the stream is alive.
        """


@dataclass(frozen=True, slots=True)
class ChunkedFraming(Framing):
    """
    Another framing, of which each message, and all that is said between two, is an
    HTTP/1.1 chunk of its own (RFC 9112, section 7.1).
    """

    framing: Framing

    def opening(self, begins: str | None) -> bytes:
        """
        What a stream begins with.
        """
        opening = self.framing.opening(begins)
        # An empty chunk would be the last.
        return self._chunk(opening) if opening else b""

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        The bytes of one message.
        """
        pieces = self.framing.pieces(message)
        return b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n"

    @property
    def heartbeat_seconds(self) -> int | None:
        """
        Every how many seconds one who does not say gets a heartbeat.
        """
        return self.framing.heartbeat_seconds

    def gap(self, count: int | None) -> bytes:
        """
        Tell that messages were not delivered.
        """
        return self._chunk(self.framing.gap(count))

    @property
    def heartbeat(self) -> bytes:
        """
        Tell that the stream is alive.
        """
        return self._chunk(self.framing.heartbeat)

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)
