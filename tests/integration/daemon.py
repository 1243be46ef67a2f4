"""
A real `twistd msgbus`, for one test.
"""

import os
import re
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

BIN = Path(sys.executable).parent
START_SECONDS = 30
_numbers = count()


class Daemon:
    """
    `twistd -n msgbus` with these arguments, listening on a port of its own, unless they say
    where.

    Args:
        python: The interpreter into which msgbus is installed, with `twistd` beside it.
    """

    def __init__(
        self,
        folder,
        *arguments,
        command=("twistd", "-n", "--pidfile="),
        python=sys.executable,
        **popen,
    ):
        # A test may have several.
        self._log = folder / f"twistd{next(_numbers)}.log"
        self._killed = False
        program, *flags = command
        listen = ["--listen", "tcp:0:interface=127.0.0.1"]
        if {"--listen", "--config"} & set(arguments):
            listen = []
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    python,
                    Path(python).parent / program,
                    *flags,
                    "msgbus",
                    *listen,
                    *arguments,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                **popen,
            )
        started = self.wait_for(r"\S+(?: \(.*\))? starting on (\d+|'.*')")[1]
        # From here on it stops in order.
        self.wait_for("Serving, until SIGTERM")
        # A socket file has a name instead.
        self.port = int(started) if started.isdigit() else None

    @property
    def url(self):
        """
        Of the bus, with its slash.
        """
        return f"http://localhost:{self.port}/msgbus/"

    @property
    def log(self):
        """
        What it has logged so far.
        """
        return self._log.read_text()

    def wait_for(self, pattern, count=1):
        """
        The last of so many matches in its log, once they are there.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if len(found := list(re.finditer(pattern, self.log))) >= count:
                return found[-1]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"No {pattern!r} in:\n{self.log}")

    def open_files(self):
        """
        How many files it has open.
        """
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self):
        """
        Bytes of memory that it has of its own.
        """
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def wait_for_files(self, count):
        """
        Wait until it has so many files open, and no more.
        """
        deadline = time.monotonic() + START_SECONDS
        while self.open_files() != count:
            assert time.monotonic() < deadline, (self.open_files(), self.log)
            time.sleep(0.02)

    def kill(self):
        """
        Kill it, as a power cut would.
        """
        self.process.kill()
        self.process.wait(START_SECONDS)
        self._killed = True

    def stop(self, number=signal.SIGTERM):
        """
        Stop it as an operator does, and see that it has nothing to complain
        of.
        """
        if self._killed:
            return
        if self.process.poll() is None and "stopping within" not in self.log:
            self.process.send_signal(number)
        assert self.process.wait(START_SECONDS) == 0, self.log
        for complaint in ("Traceback", "Unhandled", "CRITICAL", "#error", "Exception"):
            assert complaint not in self.log, self.log
