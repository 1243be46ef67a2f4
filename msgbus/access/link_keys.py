"""
The file of keys with which links are signed.

Each line is `ID:SECRET`: an id of letters, digits, `-` and `_`, and at least 32 random
bytes as base64.  The first key signs; all verify.  To remove a line is to revoke every link
that its key has signed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["BadKeys", "Keys", "format_key"]

MIN_SECRET_BYTES = 32
MAX_SECRET_BYTES = 1024
MAX_KEYS = 100

_LINE = re.compile(r"([A-Za-z0-9_-]{1,32}):([A-Za-z0-9+/]+={0,2})")


class BadKeys(Exception):
    """
    A file of keys that cannot be used.  The text names the file and the line, and says what
    is wrong in one sentence; it shows nothing of the line, which may be secret.
    """


@dataclass(frozen=True, slots=True)
class Keys:
    """
    The keys of a file.

    Attributes:
        secrets: The secret of each id, in the order of the file.
        signing: The id of the key that signs: the first.
    """

    secrets: Mapping[str, bytes] = field(repr=False)
    signing: str

    @classmethod
    def parse(cls, text: bytes, file: str) -> Keys:
        """
        Read a file of keys.  Empty lines, and those that begin with `#`, are skipped; lines
        may end in CRLF.

        Args:
            file: Its name, for errors.

        Raises:
            BadKeys: A line is no key, an id or a secret is there twice, or there is no key.
        """
        secrets: dict[str, bytes] = {}
        for number, line in enumerate(_lines(text, file), 1):
            if not line or line.startswith("#"):
                continue
            try:
                id, secret = _key(line)
                if id in secrets or secret in secrets.values():
                    # If a leaked secret had a second id, removing the first would not help.
                    raise ValueError("An id and a secret stand on one line only.")
            except ValueError as error:
                raise BadKeys(f"{file}, line {number}: {error}") from None
            secrets[id] = secret
        if not secrets:
            raise BadKeys(f"{file}: There is no key; msgbus-sign --new-key makes one.")
        if len(secrets) > MAX_KEYS:
            raise BadKeys(f"{file}: There are more than {MAX_KEYS} keys.")
        return cls(secrets, next(iter(secrets)))


def format_key(id: str, secret: bytes) -> str:
    """
    The line for a key, with its line end.

    Raises:
        ValueError: The id holds other characters or is too long, or the secret too short.
    """
    line = f"{id}:{base64.b64encode(secret).decode('ascii')}"
    _key(line)
    return f"{line}\n"


def _lines(text: bytes, file: str) -> list[str]:
    if text.startswith(b"\xef\xbb\xbf"):
        raise BadKeys(f"{file}, line 1: It begins with a byte order mark; save it without.")
    try:
        lines = text.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        number = text.count(b"\n", 0, error.start) + 1
        raise BadKeys(f"{file}, line {number}: It is not ASCII.") from None
    return [line.removesuffix("\r").strip(" \t") for line in lines]


def _key(line: str) -> tuple[str, bytes]:
    found = _LINE.fullmatch(line)
    if not found:
        raise ValueError(
            "It is not ID:SECRET, with letters, digits, '-' and '_' in the id."
        )
    try:
        secret = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        raise ValueError("The secret is not base64; the line may be cut off.") from None
    if base64.b64encode(secret).decode("ascii") != found[2]:
        raise ValueError("The secret is not base64; the line may be cut off.")
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"The secret has {len(secret)} bytes, not {MIN_SECRET_BYTES} to"
            f" {MAX_SECRET_BYTES}."
        )
    return found[1], secret
