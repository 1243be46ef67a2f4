"""
The tie of a worker to its parent, in the worker.  A worker is one of several processes that
serve one bus, and its parent is the process that has started it.

A worker inherits the listening sockets.  It reads commands from its standard input, one a
line; when the parent is gone, this input ends.  It writes its state to a pipe, in the words
that systemd understands, and its log as JSON to its standard output.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Worker"]

# Names the number of the worker and its inherited sockets, such as 2:4,5.
_VARIABLE = "MSGBUS_WORKER"

COMMANDS = 0
LOG = 1
ERRORS = 2
STATES = 3
FIRST_SOCKET = 4


class Worker:
    """
    This process, as a worker.

    Attributes:
        number: Which of the workers it is, from 1.
        sockets: The listening sockets that it has inherited, as numbers of open files, in
            the order of the endpoints.
    """

    def __init__(self, number: int, sockets: Sequence[int]) -> None:
        self.number = number
        self.sockets = sockets

    @classmethod
    def from_environment(cls) -> Worker | None:
        """
        Read what the parent has put into the environment, and remove it from there.

        Returns:
            None if this process is no worker.
        """
        said = os.environ.pop(_VARIABLE, "")
        if not said:
            return None
        number, _, sockets = said.partition(":")
        # A Ctrl-C in the terminal is for the parent, which then stops its workers.
        os.setpgid(0, 0)
        return cls(int(number), [int(each) for each in sockets.split(",")])

    def to_environment(self) -> dict[str, str]:
        """
        The environment by which a process knows that it is this worker.
        """
        return {_VARIABLE: f"{self.number}:{','.join(map(str, self.sockets))}"}

    def notify(self, state: str) -> None:
        """
        Tell the parent the state of this process, in the words of sd_notify(3).
        """
        try:
            os.write(STATES, f"{state}\n".encode("ascii"))
        except BrokenPipeError:
            return  # The parent is gone; `_Commands` notices that, too, and calls `stop`.

    def obey(self, reactor: Any, commands: Mapping[bytes, Callable[[], object]]) -> None:
        """
        Do what the parent says from now on.

        Args:
            commands: What is called for each of the commands.  `stop` is also called when
                the parent is gone.
        """
        reactor.addReader(_Commands(commands))


@implementer(IReadDescriptor)
class _Commands:
    """
    The commands of the parent.
    """

    def __init__(self, commands: Mapping[bytes, Callable[[], object]]) -> None:
        self._commands = commands
        self._rest = b""

    def fileno(self) -> int:
        return COMMANDS

    def logPrefix(self) -> str:
        return "commands"

    def doRead(self) -> Any:
        data = os.read(COMMANDS, 4096)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._commands[line]()
        return None if data else CONNECTION_DONE

    def connectionLost(self, reason: Failure) -> None:
        self._commands[b"stop"]()
