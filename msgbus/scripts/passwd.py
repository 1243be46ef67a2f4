"""
msgbus-passwd: add, change and remove the users of a bus.
"""

from __future__ import annotations

import argparse
import getpass
import os
import stat
import sys
from pathlib import Path

from ..access.passwords import check_hash, hash_password, verify
from ..access.users import Entry, check_user, entries
from ..message import Invalid
from .command import FAILED, OK, complain, main, new_local_parser
from .replace_file import locked_folder, replace_file
from .terminal import clean

__all__ = ["run"]

NAME = "msgbus-passwd"

# More than any password that is taken, in bytes.
MAX_INPUT = 4096

EXAMPLES = """\
  msgbus-passwd users alice                     # asks for the password, twice
  printf '%s\\n' "$PASSWORD" | msgbus-passwd users alice
  msgbus-passwd --verify users alice
  msgbus-passwd --delete users alice
  msgbus-passwd --list users

The file is the one of `twistd msgbus --users FILE`.  Its lines are those of Apache's
`htpasswd -B`, which may write it too.  A password has at most 72 bytes.
"""


def run() -> int:
    """
    The console script.
    """
    return main(NAME, _run)


def _run() -> int:
    parser = new_local_parser(
        NAME, "Add a user to a file of users, or change a user's password.", EXAMPLES
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="made if there is none")
    parser.add_argument("user", nargs="?", metavar="NAME", help="the user")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--delete", action="store_true", help="remove the user")
    instead.add_argument(
        "--verify",
        action="store_true",
        help="tell whether a password is the user's: exit code 0 or 1",
    )
    instead.add_argument("--list", action="store_true", help="print the names of all users")
    arguments = parser.parse_intermixed_args()
    # If FILE is a symbolic link, the file to which it leads is replaced, not the link.
    path = arguments.file.resolve()
    if arguments.list:
        if arguments.user is not None:
            parser.error("--list takes no NAME")
        return _list(path)
    if arguments.user is None:
        parser.error("the following arguments are required: NAME")
    check_user(arguments.user)
    return _of_user(arguments, path)


def _of_user(arguments: argparse.Namespace, path: Path) -> int:
    user = arguments.user
    if arguments.verify:
        return _verify(path, user)
    if arguments.delete:
        with locked_folder(path.parent):
            return _delete(path, user)
    # Complain about a damaged file before a password is typed in vain.
    _read(path, may_lack=True)
    hashed = hash_password(_ask(twice=True))
    with locked_folder(path.parent):
        return _set(path, user, hashed)


def _list(path: Path) -> int:
    """
    Print the names of all users, and complain about each whose hash the bus would refuse.
    """
    code = OK
    for entry in entries(_read(path), str(path)):
        print(clean(entry.name))
        try:
            check_hash(entry.hashed)
        except Invalid as error:
            complain(NAME, f"{entry.name}: {error}")
            code = FAILED
    return code


def _verify(path: Path, user: str) -> int:
    entry = _find(path, _read(path), user)
    if entry is None:
        return _unknown(path, user)
    check_hash(entry.hashed)
    if verify(_ask(twice=False), entry.hashed):
        print(f"The password of {clean(user)} is right.")
        return OK
    complain(NAME, f"the password of {user} is wrong")
    return FAILED


def _delete(path: Path, user: str) -> int:
    data = _read(path)
    entry = _find(path, data, user)
    if entry is None:
        return _unknown(path, user)
    lines = data.split(b"\n")
    del lines[entry.line - 1]
    replace_file(path, b"\n".join(lines))
    print(f"Removed {clean(user)} from {clean(str(path))}.")
    return OK


def _set(path: Path, user: str, hashed: str) -> int:
    data = _read(path, may_lack=True)
    entry = _find(path, data, user)
    lines = data.split(b"\n")
    line = f"{user}:{hashed}".encode()
    if entry is None:
        # The last item is what follows the last line end, which is nothing.
        lines.insert(-1, line)
    else:
        lines[entry.line - 1] = line
    replace_file(path, b"\n".join(lines))
    done = "Added" if entry is None else "Changed the password of"
    print(f"{done} {clean(user)} in {clean(str(path))}.")
    return OK


def _unknown(path: Path, user: str) -> int:
    complain(NAME, f"there is no user {user} in {path}")
    return FAILED


def _find(path: Path, data: bytes, user: str) -> Entry | None:
    """
    The line of a user, if there is one; all lines are checked.
    """
    found = [entry for entry in entries(data, str(path)) if entry.name == user]
    return found[0] if found else None


def _read(path: Path, *, may_lack: bool = False) -> bytes:
    """
    What is in a file of users, which must not be damaged.

    Args:
        may_lack: Whether a file that does not exist counts as an empty one.
    """
    if may_lack and not path.exists():
        return b""
    # Reading a pipe might never end, and a folder cannot be read.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Invalid(f"{path} is not a file.")
    data = path.read_bytes()
    for _ in entries(data, str(path)):
        pass
    return data


def _ask(*, twice: bool) -> bytes:
    """
    Get a password: by a prompt if standard input is a terminal, otherwise from standard
    input, which has to be one line.
    """
    if sys.stdin.isatty():
        password = _typed("Password: ")
        if twice and _typed("Again: ") != password:
            raise Invalid("The passwords differ. Nothing was changed.")
        return password
    data = sys.stdin.buffer.read(MAX_INPUT)
    password = data.removesuffix(b"\n").removesuffix(b"\r")
    if b"\n" in password:
        raise Invalid("A password is one line, and standard input has several.")
    return password


def _typed(prompt: str) -> bytes:
    try:
        return getpass.getpass(prompt).encode("utf-8", "surrogateescape")
    except EOFError:
        raise Invalid("No password was given.") from None
