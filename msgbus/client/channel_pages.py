"""
Lists of channels, as a bus sends them: in pages, each of which is asked for by a request of
its own.

No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .responses import refusal
from .url import BusURL

__all__ = ["PAGE_BYTES", "Channel", "ChannelPages", "LastMessage"]

# How much of one page is read.  Names and types are at most 1,000 bytes long, and JSON may
# take six times as much for them.
PAGE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LastMessage:
    """
    What a list tells of the newest message of a channel.

    Attributes:
        id: Its id.
        time: When it was published (RFC 3339).
        type: Its content type.
    """

    id: str
    time: str
    type: str


@dataclass(frozen=True, slots=True)
class Channel:
    """
    A channel, as it was when it was listed.

    Attributes:
        name: The full name.
        subscribers: How many are subscribed to exactly this channel.
        last: The newest message that is kept; None if there is none, or one may not read
            it.
    """

    name: str
    subscribers: int
    last: LastMessage | None = None


class ChannelPages:
    """
    The pages of one list.

    Args:
        url: The URL of the folder.
        channel: A list of patterns for the names, or the empty string for all.

    Attributes:
        url: The URL of the next page; None if there is none.

    Raises:
        Invalid: The pattern cannot be sent.
    """

    def __init__(self, url: BusURL, channel: str) -> None:
        self._list = url.with_parameters({"list": 1, "channel": channel})
        self._after = ""
        self.url: BusURL | None = self._list

    def read(self, status: int, head: Mapping[str, str], text: bytes) -> list[Channel]:
        """
        The channels of a page; see `responses.receipt` for the arguments.

        Raises:
            Refused: The server refuses to list them, or is no bus.
            Unreachable: It may list them at another time.
        """
        if status != 200 or not head.get("content-type", "").startswith("application/json"):
            raise refusal(status, head, text)
        try:
            page = json.loads(text)
            channels = list(map(_channel, page["channels"]))
            after = page["next"]
            # From name to name, or the list would have no end.
            if after is not None and after <= self._after:
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise refusal(200, head, text) from None
        self.url = None
        if after is not None:
            self._after = after
            self.url = self._list.with_parameters({"after": after})
        return channels


def _channel(told: dict[str, object]) -> Channel:
    last = told["last"]
    message = None
    if isinstance(last, dict):
        message = LastMessage(*(str(last[name]) for name in ("id", "time", "type")))
    return Channel(str(told["name"]), int(str(told["subscribers"])), message)
