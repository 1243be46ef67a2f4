"""
The forms in which a subscriber may have its stream.

No I/O.  Each is a line here, and a framing in a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .eventstream import EventStreamFraming
from .framing import Framing
from .multipart import MultipartFraming
from .ndjson import NdjsonFraming

__all__ = ["STREAM_FORMATS", "StreamFormat", "FramingOptions"]


@dataclass(frozen=True, slots=True)
class FramingOptions:
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
class StreamFormat:
    """
    One form.

    Attributes:
        media_type: By which it is asked for, and which its stream has.
        framing: Makes what writes it.
    """

    media_type: str
    framing: Callable[[FramingOptions], Framing]


def _multipart(options: FramingOptions) -> Framing:
    return MultipartFraming(options.boundary, options.prefix)


# By what `?format=` may name, the default first.
STREAM_FORMATS = {
    "multipart": StreamFormat("multipart/x-mixed-replace", _multipart),
    "mixed": StreamFormat("multipart/mixed", _multipart),
    "event-stream": StreamFormat(
        "text/event-stream", lambda options: EventStreamFraming(options.envelope)
    ),
    "ndjson": StreamFormat("application/x-ndjson", lambda _: NdjsonFraming()),
}
