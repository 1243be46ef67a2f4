"""
Replaces a file in one step: whoever opens it sees either the old content or the new one,
never a part.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["locked_folder", "replace_file"]


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """
    Hold a lock on a folder, so that only one process at a time changes a file in it.  Waits
    until no other process holds the lock.

    Raises:
        OSError: The folder cannot be opened.
    """
    # A lock on the file itself would not do, because the file is replaced by another one.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """
    Replace the file at `path` by one with these bytes, and with the same mode and owner.
    If there is none yet, the new file can be read and written by its owner only.  The bytes
    are on the disk before the file is replaced.

    Args:
        path: Not a symbolic link.

    Raises:
        OSError: The file cannot be written, or cannot be given the same owner.  The old
            file is unchanged.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            with suppress(FileNotFoundError):
                _keep_mode(descriptor, path)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _keep_mode(descriptor: int, path: Path) -> None:
    old = path.stat()
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except PermissionError as error:
            raise PermissionError(
                error.errno, "only root can write it and keep its owner", str(path)
            ) from None
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
