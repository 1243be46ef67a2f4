"""
A grant: what the bearer of a link or of a token may do, and until when.

How a grant is proven is up to `links` and `tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..match import EVERYTHING, Filter
from ..message import Invalid, Message
from .channels import NO_CHANNELS, Channels
from .verbs import Verb

__all__ = [
    "INSUFFICIENT_SCOPE",
    "INVALID_REQUEST",
    "INVALID_TOKEN",
    "BadGrant",
    "Grant",
]

# The codes of RFC 6750, section 3.1, which `WWW-Authenticate` names.
INVALID_REQUEST = "invalid_request"
INVALID_TOKEN = "invalid_token"  # noqa: S105 # the name of an error
INSUFFICIENT_SCOPE = "insufficient_scope"


class BadGrant(Exception):
    """
    A link or token that gives no right, or not this one.  The text is one sentence that
    says why, can be shown to whoever sent it, and holds nothing secret.

    Attributes:
        code: The error code of RFC 6750, section 3.1.
    """

    def __init__(self, sentence: str, code: str = INVALID_TOKEN) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True)
class Grant:
    """
    What the bearer of a link or token may do.

    Attributes:
        publish: The channels to which it may publish.
        subscribe: The channels that it may read.
        expires: The time at which the right, and every stream opened with it, ends: in
            seconds since 1970.
        name: The sender of what it publishes, or the empty string.
        filter: Its subscriptions get only messages that pass this, by type and sender, and
            it publishes only messages whose type passes.
        max_message: The largest body that it may publish, in bytes; None for the bus's own
            limit.
        key: The id of the key that signed it.

    Raises:
        Invalid: The name can be no sender, or a number is negative.
    """

    publish: Channels = NO_CHANNELS
    subscribe: Channels = NO_CHANNELS
    expires: float = 0
    name: str = ""
    filter: Filter = EVERYTHING
    max_message: int | None = None
    key: str = ""

    def __post_init__(self) -> None:
        # Making a message checks that the name can be a sender.
        Message("", b"", sender=self.name)
        if self.expires < 0 or (self.max_message or 0) < 0:
            raise Invalid("A time and a size are not negative.")

    def channels(self, verb: Verb) -> Channels:
        """
        The channels with which it may do this.
        """
        channels = {Verb.PUBLISH: self.publish, Verb.SUBSCRIBE: self.subscribe}
        return channels.get(verb, NO_CHANNELS)

    def check(self, verb: Verb, channel: str) -> None:
        """
        Check that the grant holds for a channel.  For a subscription to a folder, ask
        `channels` about each message instead.

        Raises:
            BadGrant: It does not; the code is `INSUFFICIENT_SCOPE`.
        """
        channels = self.channels(verb)
        if not channels.allows(channel):
            allowed = ", ".join(map(repr, channels.patterns)) or "nothing"
            raise BadGrant(
                f"This link or token does not let you {verb} to {channel!r}; it lets you"
                f" {verb} to {allowed}.",
                INSUFFICIENT_SCOPE,
            )
