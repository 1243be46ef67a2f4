"""
What the ways in count, for whoever operates the bus.
"""

from __future__ import annotations

from collections import Counter

from ..meters import Histogram, Traffic

__all__ = ["WebCounters"]

# Bounds in seconds.
WAIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class WebCounters:
    """
    What is counted for all requests to one bus.

    Attributes:
        requests: What was published by requests with one message each.
        streams: What was published by streams of messages.
        websockets: What was published by WebSockets.
        waited: For how many seconds publications waited for a disk or for Redis.
        refused: What was refused, by reason; see `responses.REASONS`.
        resumed: How subscribers that named the last id that they have went on: `complete`
            if everything behind it is there, `gap` if some is missing, and `unknown` if it
            is no id of this bus.
    """

    __slots__ = (
        "requests",
        "streams",
        "websockets",
        "waited",
        "refused",
        "resumed",
    )

    def __init__(self) -> None:
        self.requests = Traffic()
        self.streams = Traffic()
        self.websockets = Traffic()
        self.waited = Histogram(WAIT_SECONDS)
        self.refused: Counter[str] = Counter()
        self.resumed: Counter[str] = Counter()
