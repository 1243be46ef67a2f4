"""
What systemd does for a service, done to it.
"""

import os
import socket
import subprocess
import sys

from .daemon import BIN


class Notified(socket.socket):
    """
    The socket at which systemd is told the state of a service.

    Attributes:
        lines: The status lines that came, which `recv` passes over.
    """

    lines = ()

    def recv(self, size):
        """
        The next state that is no status line.
        """
        while (state := super().recv(1000)).startswith(b"STATUS="):
            self.lines += (state.decode().removeprefix("STATUS="),)
        return state[:size]


def spawn(listener, folder, *more):
    """
    Start a bus as systemd would: with the listening socket as its third file, and a socket
    to tell its state to.

    Args:
        more: More options of the bus.
    """
    name = f"msgbus-systemd-{os.getpid()}"
    notified = Notified(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(f"\0{name}")
    notified.settimeout(30)
    arguments = ["-n", "--pidfile=", "msgbus", "--listen"]
    arguments += ["systemd:domain=INET:name=msgbus", *more]
    program = (
        "import os, sys; _, fd, *command = sys.argv; os.dup2(int(fd), 3);"
        " os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(command[0], command)"
    )
    python = [sys.executable, "-c", program, str(listener.fileno()), sys.executable]
    process = subprocess.Popen(
        [*python, BIN / "twistd", *arguments],
        pass_fds=[listener.fileno()],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env={
            **os.environ,
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "msgbus",
            "NOTIFY_SOCKET": f"@{name}",
            "WATCHDOG_USEC": "400000",
        },
    )
    return process, notified
