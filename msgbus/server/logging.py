"""
Where the log goes: to the place that the options of `twistd` or `twist` name, folded, as
text or as JSON.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from twisted.logger import ILogObserver, LogEvent, jsonFileLogObserver
from zope.interface import implementer

from .line_file import LineFile
from .log_folding import LogFolding
from .log_lines import json_line, text_line

__all__ = ["CannotLog", "chosen", "log_to", "reopen_at_signal"]

# What `log_to` has chosen.  A process has one log.
_chosen: list[ILogObserver] = []


class CannotLog(Exception):
    """
    The log cannot go where it should.  The text is one sentence that says why.
    """


def log_to(runner: Any, reactor: Any, as_json: bool, is_worker: bool) -> LineFile | None:
    """
    Have the log go where the options say, once it begins.

    Args:
        runner: The options of `twistd` or `twist`; None if it is another program that reads
            our options, and logs by itself.
        as_json: Whether it is JSON.
        is_worker: Whether this process is a worker, whose parent reads its log.

    Returns:
        The file to which it goes; None if that is not ours.

    Raises:
        CannotLog: The file cannot be opened, or somebody else makes the lines.
    """
    line = json_line if as_json else text_line
    if runner is None:
        return None
    if "nodaemon" not in runner:
        # It is `twist`, which opens the file.

        def to_file(file: Any) -> LogFolding:
            if is_worker:
                return _folded(jsonFileLogObserver(file), reactor)
            return _folded(_Output(line, file.write, file.flush), reactor)

        if as_json or is_worker or runner.get("logFormat") == "text":
            runner["fileLogObserverFactory"] = to_file
        return None
    if runner["syslog"] or runner["logger"]:
        if as_json:
            raise CannotLog("With --log-json, leave out --syslog and --logger of twistd.")
        return None
    path = runner["logfile"] or ("-" if runner["nodaemon"] else "twistd.log")
    if path == "-" and not runner["nodaemon"]:
        # It says so itself.
        return None
    try:
        file = LineFile(None if path == "-" else path)
    except OSError as error:
        raise CannotLog(f"Cannot write the log to {path}: {error.strerror}.") from None
    sys.stdout.flush()
    _chosen[:] = [_folded(_Output(line, file.write), reactor)]
    # Twistd finds it by its name.
    runner["logger"] = f"{__name__}.{chosen.__name__}"
    return file


def chosen() -> ILogObserver:
    """
    The observer of this process, to which `twistd` gives all events.
    """
    return _chosen[0]


def reopen_at_signal(reactor: Any, reopen: Iterable[Callable[[], object]]) -> None:
    """
    Have these functions called at SIGUSR1, by which `logrotate` says that it has moved the
    files away.
    """

    def soon(number: int, frame: object) -> None:
        for call in reopen:
            reactor.callFromThread(call)

    signal.signal(signal.SIGUSR1, soon)


@implementer(ILogObserver)
class _Output:
    """
    Writes each event as one line.
    """

    def __init__(
        self,
        line: Callable[[LogEvent], str],
        write: Callable[[str], object],
        flush: Callable[[], object] = bool,
    ) -> None:
        self._line = line
        self._write = write
        self._flush = flush

    def __call__(self, event: LogEvent) -> None:
        self._write(self._line(event))
        self._flush()


def _folded(observer: Callable[[LogEvent], object], reactor: Any) -> LogFolding:
    def later(seconds: float, call: Callable[[], object]) -> None:
        # Some events come from threads.
        reactor.callFromThread(reactor.callLater, seconds, call)

    folding = LogFolding(observer, later)
    reactor.addSystemEventTrigger("after", "shutdown", folding.tell)
    return folding
