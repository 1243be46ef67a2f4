"""
How messages become bytes for one kind of subscriber: the bytes of a message, and what is
sent between two messages.

No I/O.  Each framing has a module of its own; `stream_formats` lists those that a
subscriber can ask for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..message import Message

__all__ = ["HEARTBEAT_SECONDS", "ChunkedFraming", "Framing"]

# Proxies cut connections that are silent for long.  This is the default of framings whose
# heartbeats the readers' programs do not notice.
HEARTBEAT_SECONDS = 25


class Framing(ABC):
    """
    Writes one kind of stream.  Framings that are equal write the same bytes, so a message
    is framed once for all subscribers with equal framings.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def form(self) -> str:
        """
        What the stream is called in statistics.
        """

    @property
    def heartbeat_seconds(self) -> int | None:
        """
        The seconds between two heartbeats for subscribers that ask for no interval of
        their own; None for no heartbeats.
        """
        return None

    @property
    def parameters(self) -> str:
        """
        The parameters of the stream's media type, each with its semicolon.
        """
        return ""

    def opening(self, begins: str | None) -> bytes:
        """
        The first bytes of a stream.

        Args:
            begins: The id behind which the stream begins, or None if no id is known.
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
        The bytes of one message in several pieces, so that a body that is sent unchanged
        is a piece and need not be copied.
        """

    @abstractmethod
    def gap(self, count: int | None) -> bytes:
        """
        Tell a subscriber that so many messages were not delivered to it; None if nobody
        knows how many.
        """

    def live(self, last: bool = False) -> bytes:
        """
        Tell a subscriber that it has been sent all that is kept, and is sent what is
        published from now on.  Empty if the format cannot.

        Args:
            last: Whether the stream ends here instead.
        """
        return b""

    def retry(self, seconds: float) -> bytes:
        """
        Tell a subscriber, at the end of the stream, after how many seconds to ask for the
        next one; nothing where readers would not understand it.
        """
        return b""

    @property
    @abstractmethod
    def heartbeat(self) -> bytes:
        """
        Tell a subscriber that the stream is alive.
        """


@dataclass(frozen=True, slots=True)
class ChunkedFraming(Framing):
    """
    Another framing, of which each message, and all that is said between two, is an
    HTTP/1.1 chunk of its own (RFC 9112, section 7.1).
    """

    framing: Framing

    @property
    def form(self) -> str:
        """
        That of the other framing.
        """
        return self.framing.form

    def opening(self, begins: str | None) -> bytes:
        """
        What a stream begins with.
        """
        opening = self.framing.opening(begins)
        # An empty chunk would be the last.
        return self._chunk(opening) if opening else b""

    def frame(self, message: Message) -> bytes:
        """
        The bytes of one message, as one chunk.
        """
        return self._chunk(self.framing.frame(message))

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        The same in pieces.
        """
        pieces = self.framing.pieces(message)
        return b"%x\r\n" % sum([len(piece) for piece in pieces]), *pieces, b"\r\n"

    @property
    def heartbeat_seconds(self) -> int | None:
        """
        The default of the other framing.
        """
        return self.framing.heartbeat_seconds

    def gap(self, count: int | None) -> bytes:
        """
        A gap, as one chunk.
        """
        return self._chunk(self.framing.gap(count))

    def live(self, last: bool = False) -> bytes:
        """
        What the other framing tells, as one chunk.
        """
        told = self.framing.live(last)
        # An empty chunk would be the last.
        return self._chunk(told) if told else b""

    def retry(self, seconds: float) -> bytes:
        """
        What the other framing tells, as one chunk.
        """
        told = self.framing.retry(seconds)
        # An empty chunk would be the last.
        return self._chunk(told) if told else b""

    @property
    def heartbeat(self) -> bytes:
        """
        A heartbeat, as one chunk.
        """
        return self._chunk(self.framing.heartbeat)

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)
