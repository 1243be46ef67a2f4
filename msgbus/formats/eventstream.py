"""
Server-sent events (HTML standard, section 9.2): what a browser's `EventSource` reads.

No I/O.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..message import Message
from .envelope import envelope, gap, is_text, line
from .framing import HEARTBEAT_SECONDS, Framing

__all__ = ["EventStreamFraming"]

# After how many milliseconds one who is cut off comes back: not all at once.
RETRY = range(1000, 4000)


@dataclass(frozen=True, slots=True)
class EventStreamFraming(Framing):
    """
    An event a message.

    Attributes:
        envelope: Whether each is in one, or only those that are neither text nor JSON.
    """

    envelope: bool = False

    @property
    def heartbeat_seconds(self) -> int:
        """
        Every how many seconds one who does not say gets a comment.
        """
        return HEARTBEAT_SECONDS

    def opening(self, begins: str | None) -> bytes:
        """
        When to come back, and behind which id: in an event of the type `begin`, because
        Firefox and WebKit remember an id only with data.
        """
        retry = b"retry: %d\n" % random.choice(RETRY)
        if begins is None:
            return retry
        since = _data(line({"since": begins}))
        return b"%sevent: begin\nid: %s\n%s\n" % (retry, begins.encode("ascii"), since)

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        An event, with the id of the message.  The line ends of text become LF.
        """
        if self.envelope or not is_text(message):
            data = envelope(message)
        else:
            data = message.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        id = message.id.encode("ascii")
        return (b"id: %s\n%s\n" % (id, _data(data)),)

    def gap(self, count: int | None) -> bytes:
        """
        An event of the type `gap`.
        """
        return b"event: gap\n%s\n" % _data(gap(count))

    @property
    def heartbeat(self) -> bytes:
        """
        A comment.  No empty line follows, which some readers take for an event.
        """
        return b":\n"


def _data(text: bytes) -> bytes:
    return b"data: %s\n" % text.replace(b"\n", b"\ndata: ")
