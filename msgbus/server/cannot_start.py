"""
A start that fails: the process ends with one sentence for the operator, and without a
traceback.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

from twisted.logger import Logger

__all__ = ["CannotStart", "cannot_start"]


class CannotStart(Exception):
    """
    The service cannot be started.  The text is one sentence for the operator; a process
    that ends because of this error prints it instead of a traceback.
    """


def cannot_start(sentence: str) -> CannotStart:
    """
    The error to raise with this sentence.  The process prints it when it ends.
    """
    sys.excepthook = _plain_excepthook
    # The error output of a daemon goes to /dev/null, so the sentence goes to the log.
    if os.path.samestat(os.fstat(2), os.stat(os.devnull)):
        Logger().error("Cannot start: {sentence}", sentence=sentence)
    return CannotStart(sentence)


def _plain_excepthook(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if isinstance(error, CannotStart):
        # By now, `sys.stderr` writes to the log.
        print(f"Cannot start: {error}", file=sys.__stderr__)
    else:
        sys.__excepthook__(kind, error, traceback)
