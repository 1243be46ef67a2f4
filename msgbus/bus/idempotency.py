"""
Publications that are repeated with the same key, and are published once.

No I/O and no clock.  After draft-ietf-httpapi-idempotency-key-header; the key is taken
as it is.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..message import Invalid, Message

__all__ = ["Answers", "Fingerprint", "Reused"]

SECONDS = 600
MAX_ANSWERS = 100_000
MAX_KEY_CHARACTERS = 1000

T = TypeVar("T")


class Reused(Invalid):
    """
    The key was given before, with another body.
    """


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """
    Digests of what makes a publication the same as another, so that strangers' keys take
    no more room than others.

    Attributes:
        name: Of its channel, sender and key.
        body: Of its body.
    """

    name: bytes
    body: bytes

    @classmethod
    def of(cls, key: str, message: Message) -> Fingerprint:
        """
        That of a message that is published with a key.

        Raises:
            Invalid: The key is empty, or has more than 1,000 characters.
        """
        if not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise Invalid(f"An Idempotency-Key has 1 to {MAX_KEY_CHARACTERS} characters.")
        # No name holds a control character, so nothing else makes the same text.
        name = "\0".join((message.channel, message.sender, key))
        return cls(_digest(name.encode("utf-8")), _digest(message.body))


class Answers(Generic[T]):
    """
    Remembers what was answered, by channel, sender and key: for ten minutes, and 100,000
    at most, of which the oldest go first.
    """

    def __init__(self) -> None:
        # By name: of the body, the time, and the answer.
        self._answers: OrderedDict[bytes, tuple[bytes, float, T]] = OrderedDict()

    def find(self, fingerprint: Fingerprint, seconds: float) -> T | None:
        """
        What was answered to the same publication before, or None.

        Args:
            seconds: The time.

        Raises:
            Reused: It came with another body.
        """
        self._forget(seconds)
        known = self._answers.get(fingerprint.name)
        if known is None:
            return None
        if known[0] != fingerprint.body:
            raise Reused(
                "The Idempotency-Key was given with another body less than ten minutes"
                " ago; give each message one of its own."
            )
        return known[2]

    def remember(self, fingerprint: Fingerprint, seconds: float, answer: T) -> None:
        """
        Remember what was answered to a publication, at this time.
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


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
