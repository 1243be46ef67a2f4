"""
The formats of a stream that a subscriber can ask for.

No I/O.  Each is an entry of `STREAM_FORMATS`; its framing has a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .eventstream import EventStreamFraming
from .framing import Framing
from .multipart_framing import MultipartFraming
from .ndjson import NdjsonFraming

__all__ = ["STREAM_FORMATS", "StreamFormat", "FramingOptions"]


@dataclass(frozen=True, slots=True)
class FramingOptions:
    """
    What the bus and the subscriber give to make a framing; each framing takes what it
    needs.

    Attributes:
        boundary: The boundary of the bus; see `Bus`.
        prefix: The path at which the bus is mounted, percent-encoded, with a slash at
            both ends.
        envelope: Whether the subscriber wants each message in an envelope.
    """

    boundary: str
    prefix: str
    envelope: bool


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """
    One format.

    Attributes:
        media_type: The type that `Accept` asks for, and that the response has.
        framing: Makes the framing that writes the stream.
    """

    media_type: str
    framing: Callable[[FramingOptions], Framing]


def _multipart(options: FramingOptions) -> Framing:
    return MultipartFraming(options.boundary, options.prefix)


# The keys are the values of `?format=`; the first one is the default.
STREAM_FORMATS = {
    "multipart": StreamFormat("multipart/x-mixed-replace", _multipart),
    "mixed": StreamFormat("multipart/mixed", _multipart),
    "event-stream": StreamFormat(
        "text/event-stream", lambda options: EventStreamFraming(options.envelope)
    ),
    "ndjson": StreamFormat("application/x-ndjson", lambda _: NdjsonFraming()),
}
