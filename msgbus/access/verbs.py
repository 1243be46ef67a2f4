"""
What one can do with a channel.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Verb"]


class Verb(StrEnum):
    """
    What somebody may do, under the name that access files, links and tokens have for it.
    """

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    # Publish what somebody else has sent, with their name and the origin that it has.
    RELAY = "relay"
