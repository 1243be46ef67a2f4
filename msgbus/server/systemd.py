"""
What a service and systemd tell each other: the service its state, and systemd how often it
expects a sign of life.
"""

from __future__ import annotations

import os
import re
import socket

from twisted.logger import Logger

__all__ = ["notify", "watchdog_seconds"]


def notify(state: str) -> None:
    """
    Tell systemd the state of the service (sd_notify(3)), if it has asked for that by
    `NOTIFY_SOCKET`.  If it cannot be told, that is logged, and systemd's own time-outs deal
    with it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    try:
        # There may be no file left for the socket.
        with socket.socket(socket.AF_UNIX, kind) as sender:
            sender.sendto(state.encode("ascii"), address)
    except OSError as error:
        Logger().warn("Cannot notify systemd: {error}", error=error)


def watchdog_seconds() -> float | None:
    """
    For how many seconds systemd waits for a sign of life of this process
    (sd_watchdog_enabled(3)), or None if it does not.
    """
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not re.fullmatch(r"0*[1-9][0-9]*", microseconds):
        return None
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000
