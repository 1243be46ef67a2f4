"""
The forms in which a subscriber may have its stream.

No I/O.  Each is a line here, and a framing in a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .framing import Framing
from .multipart import Encoder

__all__ = ["FORMATS", "Format", "Mount"]


@dataclass(frozen=True, slots=True)
class Mount:
    """
    Of what a framing may be made.

    Attributes:
        boundary: Of the bus.
        prefix: The path at which the bus is mounted, percent-encoded, with a slash at
            both ends.
    """

    boundary: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Format:
    """
    One form.

    Attributes:
        media_type: By which it is asked for, and which its stream has.
        framing: Makes what writes it.
    """

    media_type: str
    framing: Callable[[Mount], Framing]


def _parts(mount: Mount) -> Framing:
    return Encoder(mount.boundary, mount.prefix)


# By what `?format=` may name, the default first.
FORMATS = {
    "multipart": Format("multipart/x-mixed-replace", _parts),
    "mixed": Format("multipart/mixed", _parts),
}
