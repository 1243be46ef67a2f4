"""
Reads the files of users and rules, at the start and again when the operator asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..access.rules import Rules
from ..access.users import Users
from ..message import Invalid

__all__ = ["AccessFiles", "CannotRead", "read"]


class CannotRead(Invalid):
    """
    A file cannot be read.
    """


class AccessFiles(NamedTuple):
    """
    Attributes:
        users: The file of users; None if there are only users with client certificates.
        rules: The file of rules; None if users may do everything.
    """

    users: Path | None
    rules: Path | None

    def load(self) -> tuple[Users, Rules | None]:
        """
        What the files say now.

        Raises:
            Invalid: One of them cannot be read or used.  The text names the file.
        """
        users = Users({})
        if self.users is not None:
            users = Users.parse(read(self.users), str(self.users))
        if self.rules is None:
            return users, None
        return users, Rules.parse(read(self.rules), str(self.rules))


def read(file: Path) -> bytes:
    """
    What is in a file.

    Raises:
        CannotRead: It cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise CannotRead(f"{file}: {error.strerror}.") from None
