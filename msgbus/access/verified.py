"""
Remembers which passwords were found right in the last minutes, so that they need not be
hashed for each request.

No I/O and no clock: the time is a parameter.  No password is kept, only an HMAC of it under
a random key, which is useless without that key.
"""

from __future__ import annotations

import hmac
import secrets
from typing import NamedTuple

from .users import Users

__all__ = ["Verified"]

MAX_REMEMBERED = 10_000


class _Right(NamedTuple):
    """
    Attributes:
        until: When it is forgotten, in seconds of the caller's clock.
    """

    until: float
    name: str
    hashed: str


class Verified:
    """
    The names and passwords that were right, each for some time.

    Args:
        seconds: How long each is remembered.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._key = secrets.token_bytes(32)
        # In the order in which they will be forgotten.
        self._right: dict[bytes, _Right] = {}

    def digest(self, name: str, password: bytes, hashed: str) -> bytes:
        """
        The HMAC by which a user's password is remembered.  It includes the user's hash, so
        a password is not found any more once the hash is another.
        """
        user, known = name.encode("utf-8", "surrogatepass"), hashed.encode()
        # The lengths come first, so that no two different triples become the same bytes.
        lengths = len(user).to_bytes(8) + len(known).to_bytes(8)
        return hmac.digest(self._key, lengths + user + known + password, "sha256")

    def number(self, name: str) -> int:
        """
        A number that is always the same for a name, and that nobody outside can predict.
        """
        return int.from_bytes(self.digest(name, b"", "")[:8])

    def add(self, digest: bytes, name: str, hashed: str, now: float) -> None:
        """
        Remember that this password was right.
        """
        self._right.pop(digest, None)
        if len(self._right) >= MAX_REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[digest] = _Right(now + self._seconds, name, hashed)

    def knows(self, digest: bytes, now: float) -> bool:
        """
        Was this password right, and not too long ago?
        """
        right = self._right.get(digest)
        if right is None:
            return False
        if right.until <= now:
            del self._right[digest]
            return False
        return True

    def keep_only(self, users: Users) -> None:
        """
        Forget the passwords of users who are not among these, or whose hash has changed.
        """
        self._right = {
            digest: right
            for digest, right in self._right.items()
            if users.hash_of(right.name) == right.hashed
        }

    def __len__(self) -> int:
        return len(self._right)
