"""
Server-sent events (HTML standard, section 9.2): what a browser's `EventSource` reads.

No I/O.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..message import Message
from .envelope import LIVE, envelope, gap, is_text, line
from .framing import HEARTBEAT_SECONDS, Framing

__all__ = ["EventStreamFraming"]

# Milliseconds after which a browser reconnects.  Each stream gets a random one, so that not
# all subscribers come back at once when the bus was restarted.
RETRY = range(1000, 4000)


@dataclass(frozen=True, slots=True)
class EventStreamFraming(Framing):
    """
    One message is one event.

    Attributes:
        envelope: Whether the data of every event is an envelope.  If not, the data is the
            body, and only messages that are neither text nor JSON get an envelope.
    """

    envelope: bool = False

    @property
    def form(self) -> str:
        """
        See `Framing.form`.
        """
        return "event-stream"

    @property
    def heartbeat_seconds(self) -> int:
        """
        The default: a comment every 25 seconds.
        """
        return HEARTBEAT_SECONDS

    def opening(self, begins: str | None) -> bytes:
        """
        When to reconnect, and, in an event of the type `begin`, the id behind which the
        stream begins.  It has data because Firefox and WebKit remember the id of an event
        only if it has data.
        """
        retry = b"retry: %d\n" % random.choice(RETRY)
        if begins is None:
            return retry
        since = _data(line({"since": begins}))
        return b"%sevent: begin\nid: %s\n%s\n" % (retry, begins.encode("ascii"), since)

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        An event with the id of the message.  All line ends of a body become LF.
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

    def live(self, last: bool = False) -> bytes:
        """
        An event of the type `live`.
        """
        return b"event: live\n%s\n" % _data(LIVE)

    def retry(self, seconds: float) -> bytes:
        """
        The time after which `EventSource` reconnects, in place of that of the opening.
        """
        return b"retry: %d\n" % (seconds * 1000)

    @property
    def heartbeat(self) -> bytes:
        """
        A comment.  No empty line follows it, because some readers take that for the end
        of an event.
        """
        return b":\n"


def _data(text: bytes) -> bytes:
    return b"data: %s\n" % text.replace(b"\n", b"\ndata: ")
