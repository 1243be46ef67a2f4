"""
The signals that a process takes: SIGTERM and SIGINT stop it, SIGHUP has it read its files
again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

__all__ = ["handle_signals"]


def handle_signals(
    reactor: Any, stop: Callable[[str], object], reload: Callable[[], object]
) -> None:
    """
    Take the signals from now on, in place of Twisted's handlers.  Those would let the
    process die of the signal after the stop, and would not tell a second signal from the
    first.

    Args:
        reactor: In a turn of which the functions are called.
        stop: Called with the name of the signal at each SIGTERM and SIGINT.
        reload: Called at each SIGHUP.
    """

    def stop_soon(number: int, frame: object) -> None:
        reactor.callFromThread(stop, signal.Signals(number).name)

    def reload_soon(number: int, frame: object) -> None:
        reactor.callFromThread(reload)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_soon)
    signal.signal(signal.SIGHUP, reload_soon)
