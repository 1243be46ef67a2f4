"""
A file to which lines are appended, such as a log.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import Logger

__all__ = ["LineFile"]

MODE = 0o640


class LineFile:
    """
    An open file.  While it cannot be written, as on a full disk, lines are lost, and
    nothing else: once it can be written again, the log says how many.

    Args:
        path: Where the file is, or None for one that is open already.
        descriptor: That one.

    Raises:
        OSError: It cannot be opened.
    """

    _log = Logger()

    def __init__(self, path: str | None, descriptor: int = 1) -> None:
        # A daemon changes its folder.
        self._path = None if path is None else Path(path).absolute()
        self._descriptor = descriptor if self._path is None else _open(self._path)
        self._lost = 0
        self._reason = ""
        # Whether the last line was written in part.
        self._cut = False

    def write(self, line: str) -> None:
        """
        Append a line, which has its line end.
        """
        data = line.encode("utf-8", "backslashreplace")
        if self._cut:
            data = b"\n" + data
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
                self._cut = bool(data)
        except OSError as error:
            self._lost += 1
            self._reason = error.strerror or ""
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self._log.warn(
                "{count} lines could not be written to {file}: {reason}",
                count=lost,
                file=str(self._path or "the standard output"),
                reason=self._reason,
            )

    def reopen(self) -> None:
        """
        Write to the file that is at the path now, in place of one that was moved away.
        """
        if self._path is None:
            return
        try:
            descriptor = _open(self._path)
        except OSError as error:
            self._log.error(
                "Cannot open {file}, and go on with the old one: {reason}",
                file=str(self._path),
                reason=error.strerror,
            )
            return
        os.close(self._descriptor)
        self._descriptor, self._cut = descriptor, False


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
