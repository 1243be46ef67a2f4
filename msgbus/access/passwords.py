"""
Hashes of passwords: which are good enough, how they are made, and how they are verified.

No I/O and no clock.  bcrypt is accepted as Apache's `htpasswd -B` writes it, and Argon2 if
argon2-cffi is installed.  Hashing is slow on purpose, so `checker` calls it in threads.
"""

from __future__ import annotations

import re

import bcrypt

from ..message import Invalid

try:
    import argon2
except ImportError:
    # It is only installed with the extra `argon2`.
    argon2 = None  # type: ignore[assignment]  # a module otherwise

__all__ = ["check_hash", "hash_password", "verify"]

# The longest password of which bcrypt looks at each byte.
MAX_BCRYPT_BYTES = 72

# The binary logarithm of the number of bcrypt's rounds.  With 10, each guess costs an
# attacker about a tenth of a second, and so does each new login cost the bus.
COST = 10

# Hashes that are more expensive are refused: each login would take some seconds, for which
# all other logins would have to wait.
_MAX_COST = 14
_MAX_ARGON2_KIB = 1024 * 1024
_MAX_ARGON2_PASSES = 100

# `$2x$` marks hashes of an implementation that was wrong.
# The last characters of the salt and of the digest have unused bits, which have to be 0.
_BCRYPT = re.compile(
    r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"
)
_ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)\$v=19\$m=([0-9]{1,9}),t=([0-9]{1,9}),p=[0-9]{1,3}"
    r"\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{22,}"
)

# How other hashes begin, of those that `htpasswd` writes or has written.
_WEAK = {
    "$apr1$": "MD5",
    "$1$": "MD5",
    "{SHA}": "SHA-1",
    "{SSHA}": "SHA-1",
    "$5$": "SHA-256 by crypt",
    "$6$": "SHA-512 by crypt",
    "$2x$": "a faulty bcrypt",
}


def hash_password(password: bytes) -> str:
    """
    A bcrypt hash of a new password, in the form that Apache and nginx take too.

    Raises:
        Invalid: The password is empty, longer than 72 bytes, or holds a NUL, behind which
            programs in C would see nothing.
    """
    if not password:
        raise Invalid("The password is empty.")
    if len(password) > MAX_BCRYPT_BYTES:
        raise Invalid(
            f"The password is longer than the {MAX_BCRYPT_BYTES} bytes at which"
            " bcrypt looks. Choose a shorter one."
        )
    if b"\0" in password:
        raise Invalid("The password holds a NUL.")
    hashed = bcrypt.hashpw(password, bcrypt.gensalt(COST)).decode("ascii")
    # The same algorithm under the name that they have for it.
    return "$2y$" + hashed.removeprefix("$2b$")


def check_hash(hashed: str) -> None:
    """
    Check that a hash in a file is one that can be verified, and is good enough.

    Raises:
        Invalid: It is not; the sentence says what it is.
    """
    if found := _BCRYPT.fullmatch(hashed):
        if not 4 <= int(found[1]) <= _MAX_COST:
            raise Invalid(f"The cost of the bcrypt hash is not between 4 and {_MAX_COST}.")
    elif found := _ARGON2.fullmatch(hashed):
        if argon2 is None:
            raise Invalid(
                "The hash is Argon2, for which argon2-cffi has to be installed:"
                " pip install 'msgbus[argon2]'."
            )
        memory, passes = int(found[1]), int(found[2])
        if memory > _MAX_ARGON2_KIB or not 1 <= passes <= _MAX_ARGON2_PASSES:
            raise Invalid(
                f"The Argon2 hash takes more than {_MAX_ARGON2_KIB} KiB, or more than"
                f" {_MAX_ARGON2_PASSES} passes."
            )
    else:
        raise Invalid(
            f"The password is {_kind(hashed)}, and only bcrypt and Argon2 are taken."
        )


def _kind(hashed: str) -> str:
    """
    What a text is that is no acceptable hash.  The text itself is not shown, since it may
    be a password.
    """
    if hashed.startswith(("$2", "$argon2")) and not hashed.startswith("$2x$"):
        return "hashed by a bcrypt or Argon2 that is cut off or not understood"
    for start, kind in _WEAK.items():
        if hashed.startswith(start):
            return f"hashed by {kind}"
    return "plain text, hashed by crypt, or not understood"


def verify(password: bytes, hashed: str) -> bool:
    """
    Is this the password?  Takes as long as the hash says.

    Args:
        hashed: A hash that `check_hash` takes.
    """
    if hashed.startswith("$argon2"):
        try:
            return argon2.PasswordHasher().verify(hashed, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
    # The tool that set the password may have cut it off at this length, so that all longer
    # passwords with the same beginning would be right.
    if len(password) > MAX_BCRYPT_BYTES:
        return False
    return bcrypt.checkpw(password, hashed.encode("ascii"))
