"""
Runs a tool that is a Twisted program.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogBeginner,
)
from zope.interface import provider

from .command import FAILED, OK, complain, main

__all__ = ["run_in_reactor"]


def run_in_reactor(name: str, work: Callable[[Any], Coroutine[Any, Any, int]]) -> int:
    """
    Run a tool that is a coroutine function, called with the reactor, and return its exit
    code.  Ctrl-C cancels the coroutine, and counts as success.  Warnings that are logged go
    to standard error.
    """

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event["log_level"] >= LogLevel.warn:
            complain(name, formatEvent(event))

    globalLogBeginner.beginLoggingTo(
        [observe], discardBuffer=True, redirectStandardIO=False
    )
    # The exit code if `worked` never ends.
    code = FAILED
    problem: Exception | None = None

    async def worked(reactor: Any) -> None:  # it has every interface
        nonlocal code, problem
        try:
            done = Deferred.fromCoroutine(work(reactor))
            reactor.addSystemEventTrigger("before", "shutdown", done.cancel)
            code = await done
        except CancelledError:
            code = OK
        except Exception as error:
            problem = error

    def run() -> int:
        # `react` exits by itself, with a code of its own: 0 after Ctrl-C too.
        with suppress(SystemExit):
            react(lambda reactor: Deferred.fromCoroutine(worked(reactor)))
        if problem is not None:
            raise problem
        return code

    return main(name, run)
