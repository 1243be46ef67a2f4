"""
Lines of JSON (NDJSON): `curl -N ... | jq`.

No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..message import Message
from .envelope import LIVE, envelope, gap
from .framing import Framing

__all__ = ["NdjsonFraming"]


@dataclass(frozen=True, slots=True)
class NdjsonFraming(Framing):
    """
    One message is one line, an object.
    """

    @property
    def form(self) -> str:
        """
        See `Framing.form`.
        """
        return "ndjson"

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        The envelope of a message, and a line end.
        """
        return envelope(message), b"\n"

    def gap(self, count: int | None) -> bytes:
        """
        An object with a `gap`, and nothing else.
        """
        return gap(count) + b"\n"

    def live(self, last: bool = False) -> bytes:
        """
        An object with `live`, and nothing else.
        """
        return LIVE + b"\n"

    @property
    def heartbeat(self) -> bytes:
        """
        An empty line, which is white space to readers of JSON.
        """
        return b"\n"
