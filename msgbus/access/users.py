"""
The users of a bus: a file of names and hashes of passwords, as `htpasswd -B` writes it.

No I/O.  What the hashes are is up to `passwords`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from ..message import Invalid
from .file_lines import BadFile, file_lines
from .passwords import check_hash

__all__ = ["BadUsers", "Entry", "Users", "check_user", "entries"]

# As Apache's htpasswd.
MAX_NAME_BYTES = 255


class BadUsers(BadFile):
    """
    A file of users that cannot be used.
    """


class Entry(NamedTuple):
    """
    The line of one user.
    """

    line: int
    name: str
    hashed: str


class Users:
    """
    Names, and the hash of each one's password.  They never change; a reload makes new ones.
    """

    def __init__(self, hashes: dict[str, str]) -> None:
        self._hashes = hashes
        self._all = tuple(hashes.values())

    @classmethod
    def parse(cls, text: bytes, file: str) -> Users:
        """
        Read the users of a file.

        Args:
            file: Its name, for errors.

        Raises:
            BadUsers: The file cannot be used: a line is not understood, a name is doubled,
                a hash is weak, or nobody is in it.
        """
        hashes = {}
        for line, name, hashed in entries(text, file):
            try:
                check_hash(hashed)
            except Invalid as error:
                anew = shlex.join(["msgbus-passwd", file, name])
                raise BadUsers(file, line, f"{error} Set it anew: {anew}") from None
            hashes[name] = hashed
        if not hashes:
            add = shlex.join(["msgbus-passwd", file, "NAME"])
            raise BadUsers(file, None, f"There is no user in the file. Add one: {add}")
        return cls(hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, name: str) -> bool:
        return name in self._hashes

    def hash_of(self, name: str) -> str | None:
        """
        The hash of a user's password, or None if there is no such user.
        """
        return self._hashes.get(name)

    def decoy(self, number: int) -> str:
        """
        The hash of some user.  If a name does not exist, the password is compared with this
        hash instead, so that the answer takes as long as for a name that exists.

        Args:
            number: Chooses the user.  It has to be the same each time for the same name,
                and must not be predictable by whoever gave the name.
        """
        return self._all[number % len(self._all)]


def entries(text: bytes, file: str) -> Iterator[Entry]:
    """
    The users of a file, whose hashes may be weak or malformed.

    Raises:
        BadUsers: The file is damaged, or a line is not NAME:HASH with a good name that is
            not in an earlier line.
    """
    seen: dict[str, int] = {}
    for number, line in file_lines(text, file, BadUsers):
        name, colon, hashed = line.partition(":")
        # The line is not shown, since a password may be in it.
        if not colon or not hashed:
            raise BadUsers(
                file,
                number,
                "The line is not NAME:HASH, as msgbus-passwd and htpasswd -B write it.",
            )
        try:
            check_user(name)
        except Invalid as error:
            raise BadUsers(file, number, str(error)) from None
        if name in seen:
            raise BadUsers(file, number, f"The user {name!r} is also in line {seen[name]}.")
        seen[name] = number
        yield Entry(number, name, hashed)


def check_user(name: str) -> None:
    """
    Check the name of a user.

    Raises:
        Invalid: It is empty or longer than 255 bytes of UTF-8; begins with `@`, as groups
            do in rules, or with `#`, as comments do; begins or ends with a space; or holds
            a colon, a slash, or a character that is a control character or cannot be seen.
    """
    if not name:
        raise Invalid("The name of the user is empty.")
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise Invalid(f"The name {name!r} cannot be UTF-8.") from None
    if length > MAX_NAME_BYTES:
        raise Invalid(f"The name of the user is longer than {MAX_NAME_BYTES} bytes.")
    if name[0] in "@#":
        raise Invalid(f"The name {name!r} begins with {name[0]!r}.")
    if name != name.strip(" "):
        raise Invalid(f"The name {name!r} begins or ends with a space.")
    if ":" in name or "/" in name:
        raise Invalid(f"The name {name!r} holds a colon or a slash.")
    if not name.isprintable():
        raise Invalid(
            f"The name {name!r} holds a control character or one that cannot be seen."
        )
