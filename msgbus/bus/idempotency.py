"""
How repetitions are recognized: a publication that is repeated with the same idempotency key
is published once, and so is a message that comes twice with the same origin.

No I/O and no clock.  Keys follow draft-ietf-httpapi-idempotency-key-header, except that a
key is any text, quotes included.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..ids import Id
from ..message import Invalid, Message

__all__ = ["REUSED", "Answered", "Answers", "Fingerprint", "Reused"]

# How long, and how many, answers are remembered.
SECONDS = 600
MAX_ANSWERS = 100_000
MAX_KEY_CHARACTERS = 1000

REUSED = (
    "The Idempotency-Key was given with another body less than ten minutes ago; give each"
    " message one of its own."
)

T = TypeVar("T")


class Reused(Invalid):
    """
    The key was used before, with another body.
    """


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """
    Tells whether a publication is a repetition of another.  It consists of digests, so that
    long keys and bodies take no more memory than short ones.

    Attributes:
        name: The digest of channel, sender and key, or that of the origin.
        body: The digest of the body.  Empty for an origin, which belongs to one message
            for ever, so that nothing has to be compared.
    """

    name: bytes
    body: bytes

    @classmethod
    def of(cls, key: str, message: Message) -> Fingerprint:
        """
        The fingerprint of a message that is published with this key.

        Raises:
            Invalid: The key is empty, or has more than 1,000 characters.
        """
        if not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise Invalid(f"An Idempotency-Key has 1 to {MAX_KEY_CHARACTERS} characters.")
        # Channels and senders contain no control character, so no other three texts, and
        # no origin, make the same name.
        name = "\0".join((message.channel, message.sender, key))
        return cls(_digest(name.encode("utf-8")), _digest(message.body))

    @classmethod
    def of_origin(cls, origin: str) -> Fingerprint:
        """
        The fingerprint of every message with this origin, whatever its channel and sender.
        """
        return cls(_digest(origin.encode("ascii")), b"")

    @property
    def is_of_origin(self) -> bool:
        """
        Was it made by `of_origin`?
        """
        return not self.body


class Answers(Generic[T]):
    """
    Remembers what was answered to publications with a key or an origin, for ten minutes.
    If there are more than 100,000 answers, the oldest are forgotten first.
    """

    def __init__(self) -> None:
        # By `Fingerprint.name`: `Fingerprint.body`, when it was answered, and the answer.
        self._answers: OrderedDict[bytes, tuple[bytes, float, T]] = OrderedDict()

    def find(self, fingerprint: Fingerprint, seconds: float) -> T | None:
        """
        What was answered to the same publication before, or None.

        Args:
            seconds: The time, in seconds.

        Raises:
            Reused: The publication with the same key had another body.
        """
        self._forget(seconds)
        known = self._answers.get(fingerprint.name)
        if known is None:
            return None
        if known[0] != fingerprint.body:
            raise Reused(REUSED)
        return known[2]

    def remember(self, fingerprint: Fingerprint, seconds: float, answer: T) -> None:
        """
        Remember what was answered to a publication at this time, in seconds.
        """
        self._answers[fingerprint.name] = (fingerprint.body, seconds, answer)
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)

    def _forget(self, seconds: float) -> None:
        while self._answers:
            name, (_, then, _) = next(iter(self._answers.items()))
            if seconds - then < SECONDS:
                return
            del self._answers[name]


Answered = tuple[Fingerprint, Id, int]
"""
An answer to a publication with a key or an origin: the id of the message, and the number of
subscribers for which it was put in order.
"""


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
