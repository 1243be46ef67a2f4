"""
What the `notify` callback of a subscription is told, beside the messages: that a stream has
begun, that it was lost, that messages are missing, and where history ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ids import Gap

__all__ = ["Live", "Lost", "Notice", "Subscribed"]


@dataclass(frozen=True, slots=True)
class Subscribed:
    """
    A stream has begun.

    Attributes:
        again: Whether the subscription had a stream before.
    """

    again: bool

    def __str__(self) -> str:
        return "Subscribed again." if self.again else "Subscribed."


@dataclass(frozen=True, slots=True)
class Lost:
    """
    A request failed, or a stream has ended, and the client will try again.

    Attributes:
        reason: One sentence that says why.
        seconds: The time until the next try.
    """

    reason: str
    seconds: float

    def __str__(self) -> str:
        end = "" if self.reason.endswith((".", "?")) else "."
        return f"{self.reason}{end} Trying again in {self.seconds:.1f} s."


@dataclass(frozen=True, slots=True)
class Live:
    """
    All messages that the bus had kept have come; what comes from now on is new.
    """

    def __str__(self) -> str:
        return "History ends here."


Notice = Subscribed | Lost | Gap | Live
