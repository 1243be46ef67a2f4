"""
The forms in which a subscriber may have its stream.

No I/O.  Each is a line here, and a framing in a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .eventstream import EventStream
from .framing import Framing
from .multipart import Encoder
from .ndjson import Lines

__all__ = ["FORMATS", "Format", "Asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """
    Of what a framing may be made.

    Attributes:
        boundary: Of the bus.
        prefix: The path at which the bus is mounted, percent-encoded, with a slash at
            both ends.
        envelope: Whether the subscriber wants each message in one.
    """

    boundary: str
    prefix: str
    envelope: bool


@dataclass(frozen=True, slots=True)
class Format:
    """
    One form.

    Attributes:
        media_type: By which it is asked for, and which its stream has.
        framing: Makes what writes it.
    """

    media_type: str
    framing: Callable[[Asked], Framing]


def _parts(asked: Asked) -> Framing:
    return Encoder(asked.boundary, asked.prefix)


# By what `?format=` may name, the default first.
FORMATS = {
    "multipart": Format("multipart/x-mixed-replace", _parts),
    "mixed": Format("multipart/mixed", _parts),
    "event-stream": Format("text/event-stream", lambda asked: EventStream(asked.envelope)),
    "ndjson": Format("application/x-ndjson", lambda _: Lines()),
}
