"""
A subscription that outlives its streams: when one is lost, the next one begins behind the
last message.

No I/O.  The clients send requests, read streams, and wait; this module decides what they
ask for, and for how long they wait.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from urllib.parse import parse_qs

from ..message import Invalid
from .notices import Lost, Subscribed
from .options import HEARTBEAT_SECONDS, Wanted
from .requests import subscription_headers
from .retry import delay
from .stream import Stream
from .url import DEFAULT_PATH, BusURL

__all__ = ["ResumableStream"]


class ResumableStream:
    """
    The streams of one subscription, one after the other.

    Args:
        name: The channel or folder; see `Stream`.
        url: Its URL.
        wanted: Which messages to ask for.
        max_message: The largest body that is taken, in bytes.

    Attributes:
        name: As given.
        url: The URL with the query that asks for those messages.
        ends: Whether the subscription ends where history does.

    Raises:
        Invalid: A value of `wanted` cannot be sent, or the heartbeat is out of range.
    """

    def __init__(self, name: str, url: BusURL, wanted: Wanted, max_message: int) -> None:
        heartbeat = wanted.get("heartbeat", HEARTBEAT_SECONDS)
        keys = Wanted.__annotations__.keys() - {"header", "decode"}
        asked = {
            key.replace("_", "-"): int(value) if isinstance(value, bool) else value
            for key, value in wanted.items()
            if key in keys
        }
        self._decodes = wanted.get("decode", True)
        self.name = name
        self.url = url.with_parameters({**asked, "heartbeat": heartbeat})
        for header, patterns in (wanted.get("header") or {}).items():
            self.url = self.url.with_parameters({"header": f"{header}:{patterns}"})
        self.ends = "until" in parse_qs(self.url.query)
        self._silence_seconds = _longest_silence(heartbeat)
        self._max_message = max_message
        self._stream: Stream | None = None
        self._failures = 0

    @property
    def last_id(self) -> str:
        """
        The id of the last message, behind which the next stream begins; before the first
        message, the id that the bus gave for that purpose, or the empty string.
        """
        return "" if self._stream is None else self._stream.last_id

    @property
    def prefix(self) -> str:
        """
        The path of the bus, as the server of the present stream tells it, percent-encoded.
        """
        return DEFAULT_PATH if self._stream is None else self._stream.prefix

    @property
    def silence_seconds(self) -> int:
        """
        How long the server of the present stream may be silent before it is taken for lost,
        or zero for any time.
        """
        beats = self._stream is not None and self._stream.beats
        return self._silence_seconds if beats else 0

    @property
    def retry_seconds(self) -> float:
        """
        See `Stream.retry_seconds`, of the present stream.
        """
        return 0 if self._stream is None else self._stream.retry_seconds

    def headers(self) -> dict[str, str]:
        """
        The headers of the request for the next stream.
        """
        return subscription_headers(self.url, self.last_id)

    def begin(self, status: int, head: Mapping[str, str]) -> tuple[Stream, Subscribed]:
        """
        Take the head of a response: the next stream, and the notice that it has begun.

        Raises:
            Refused: The response is not that of a bus.
            Unreachable: The server may give a stream at another time.
        """
        again = self._stream is not None
        self._stream = Stream(
            self.name, status, head, self._max_message, self.last_id, self._decodes
        )
        self._failures = 0
        return self._stream, Subscribed(again=again)

    def lost(self, reason: str, asked: float = 0) -> Lost:
        """
        Take note that a stream could not begin, or has ended: the notice that says when to
        ask for the next one.

        Args:
            asked: How many seconds the server has asked to wait.
        """
        seconds = delay(self._failures, random.random(), asked)
        self._failures += 1
        return Lost(reason, seconds)


def _longest_silence(heartbeat: int) -> int:
    """
    For how many seconds a server may be silent, if it was asked for a heartbeat at this
    interval in seconds; zero for any time.

    Raises:
        Invalid: The heartbeat is neither 0 nor from 5 to 300.
    """
    if heartbeat and not 5 <= heartbeat <= 300:
        raise Invalid(f"A heartbeat comes every 5 to 300 seconds, not {heartbeat!r}.")
    return 2 * heartbeat
