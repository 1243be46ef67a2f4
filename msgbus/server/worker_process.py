"""
The tie of a parent to one of its workers, in the parent: it starts the process, gives it
commands, reads its state, and makes the log of the worker a part of the parent's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel, eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

from .worker import COMMANDS, ERRORS, FIRST_SOCKET, LOG, STATES, Worker

__all__ = ["WorkerProcess"]

# What systemd has said to the parent is not for its workers.
_OF_SYSTEMD = (
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
    *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
)


class WorkerProcess(ProcessProtocol):
    """
    One process, from its start to its end.

    Args:
        number: Which of the workers it is.
        says: Called with this object and each state that it tells.
        ended: Called with this object when the process has ended, and all that it has said
            is read.

    Attributes:
        began: When it was started, by the reactor's clock.
        ready: Whether it serves, or has served.
        accepts: Whether it may still accept connections.
        reason: How it has ended, as the end of a sentence.
        sentence: The last line of its error output, which says why a start has failed.
    """

    _log = Logger()
    transport: Any

    def __init__(
        self,
        number: int,
        says: Callable[[WorkerProcess, str], object],
        ended: Callable[[WorkerProcess], object],
    ) -> None:
        self.number = number
        self._says = says
        self._ended = ended
        self.ready = False
        self.accepts = True
        self.reason = ""
        self.sentence = ""
        self._rests = {LOG: b"", ERRORS: b"", STATES: b""}
        self._take = {LOG: self._logged, ERRORS: self._complained, STATES: self._told}

    def start(
        self,
        reactor: Any,
        arguments: Sequence[str],
        sockets: Sequence[int],
        folder: str,
        watchdog: float | None,
    ) -> None:
        """
        Start the process.

        Args:
            arguments: The options of `twistd msgbus`.
            sockets: The listening sockets, in the order of the endpoints.
            folder: Where the process runs; paths in the arguments are relative to it.
            watchdog: Seconds within which it has to say that it lives, or None.
        """
        self.began = reactor.seconds()
        inherited = range(FIRST_SOCKET, FIRST_SOCKET + len(sockets))
        environment = {k: v for k, v in os.environ.items() if k not in _OF_SYSTEMD}
        environment.update(Worker(self.number, inherited).to_environment())
        # The modules of this process, wherever it has found them.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        if watchdog is not None:
            environment["WATCHDOG_USEC"] = str(int(watchdog * 1_000_000))
        pipes: dict[int, str | int] = {COMMANDS: "w", LOG: "r", ERRORS: "r", STATES: "r"}
        command = [sys.executable, "-P", "-m", "twisted"]
        command += ["--log-format=json", "--log-file=-", "msgbus", *arguments]
        reactor.spawnProcess(
            self,
            sys.executable,
            [os.fsencode(word) for word in command],
            environment,
            None if os.getcwd() == folder else folder,
            childFDs={**pipes, **dict(zip(inherited, sockets, strict=True))},
        )

    def command(self, name: bytes) -> None:
        """
        Have the process do something, as soon as it serves.
        """
        if COMMANDS in self.transport.pipes:
            self.transport.writeToChild(COMMANDS, name + b"\n")

    def kill(self) -> None:
        """
        End the process at once.
        """
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            return

    def connectionMade(self) -> None:
        """
        The process runs.
        """
        self._log.info(
            "Worker {number} is process {pid}",
            number=self.number,
            pid=self.transport.pid,
        )

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        Take what the process has written, line by line.
        """
        *lines, self._rests[childFD] = (self._rests[childFD] + data).split(b"\n")
        for line in lines:
            self._take[childFD](line.decode("utf-8", "backslashreplace"))

    def processEnded(self, reason: Failure) -> None:
        """
        The process has ended, and all that it has said is read.
        """
        for descriptor, rest in self._rests.items():
            if rest:
                self.childDataReceived(descriptor, b"\n")
        error = reason.value
        number = getattr(error, "signal", None)
        if number is not None:
            self.reason = f"was ended by {signal.Signals(number).name}"
        else:
            self.reason = f"has ended with code {getattr(error, 'exitCode', None)}"
        self._ended(self)

    def _logged(self, line: str) -> None:
        try:
            event = eventFromJSON(line.lstrip("\x1e"))
            level = event["log_level"].name
        except (ValueError, KeyError, AttributeError):
            event, level = {"log_format": "{line}", "line": line}, "info"
            event["log_level"] = LogLevel.info
        event["log_system"] = f"worker {self.number}#{level}"
        event["worker"] = self.number
        globalLogPublisher(event)

    def _complained(self, line: str) -> None:
        if line.strip():
            self.sentence = line.strip()
            self._log.warn("Worker {number}: {line}", number=self.number, line=line)

    def _told(self, line: str) -> None:
        if line == "READY=1" and not self.ready:
            self.ready = True
            self._log.info("Worker {number} serves", number=self.number)
        elif line == "STOPPING=1":
            self.accepts = False
        self._says(self, line)
