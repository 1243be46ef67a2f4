"""
The parent of several workers: it opens the ports, has the workers serve them, and starts a
worker again that has ended.  It serves nothing itself.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .listen import open_ports
from .signals import handle_signals
from .status import STATUS_SECONDS, STOPPING_SECONDS, StatusLine, Totals
from .systemd import notify, watchdog_seconds
from .worker_process import WorkerProcess

__all__ = ["Workers"]

# After how many seconds a worker that has ended is started again.  They double with each
# start, up to the most, until one of its processes has lived for STEADY_SECONDS.
RESTART_SECONDS = 0.1
MOST_RESTART_SECONDS = 30.0
STEADY_SECONDS = 10.0

# How much longer than its drain a worker may take to end, before it is killed.
PATIENCE_SECONDS = 3.0


class Workers(Service):
    """
    Has several processes serve one bus at the same ports.

    Args:
        reactor: Twisted's own.
        endpoints: Where to listen, by the endpoint strings.
        arguments: The options of `twistd msgbus`, for the workers.
        count: How many workers there are.
        drain: Seconds that a stop may take before a worker cuts its connections.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoints: dict[str, IStreamServerEndpoint],
        arguments: Sequence[str],
        count: int,
        drain: float,
    ) -> None:
        self._reactor = reactor
        self._endpoints = endpoints
        self._arguments = arguments
        self._numbers = range(1, count + 1)
        self._drain = drain
        self._ports: list[IListeningPort] = []
        # A daemon changes its folder, to which paths in the arguments are not relative.
        self._folder = os.getcwd()
        self._watchdog: float | None = None
        # The processes that run, and those that are to be started again, by number.
        self._processes: dict[int, WorkerProcess] = {}
        self._restarts: dict[int, Any] = {}
        self._delays = dict.fromkeys(self._numbers, RESTART_SECONDS)
        # The workers who have yet to say that they serve before systemd is told that the
        # bus does, and those who have said that they live since systemd was last told.
        self._awaited = set(self._numbers)
        self._alive: set[int] = set()
        self._started = False
        self._stopping = False
        # What each worker has last told of itself, and what systemd is told of all.
        self._totals: dict[int, Totals] = {}
        self._status = LoopingCall(self._tell_status)
        self._status.clock = reactor
        self._line = StatusLine()
        # In a stop, the first fires when no worker accepts connections any more, the second
        # when all have ended.
        self._ports_unused: Deferred[None] = Deferred()
        self._ended: Deferred[None] = Deferred()

    def privilegedStartService(self) -> None:
        """
        Open the ports, while the process may still be root, as low ports require.

        Raises:
            CannotStart: It is impossible to listen at one of the endpoints.
        """
        served = Factory()
        served.noisy = False
        for port in open_ports(self._endpoints, served).values():
            port.stopReading()  # type: ignore[attr-defined]  # The workers accept.
            self._ports.append(port)

    def startService(self) -> None:
        """
        Start the workers as soon as the reactor runs.  Listen first if there was no
        privileged start, as under `twist`.
        """
        super().startService()  # type: ignore[no-untyped-call]  # Twisted
        if not self._ports:
            self.privilegedStartService()
        self._reactor.callWhenRunning(self._start_all)

    def stopService(self) -> Deferred[None]:
        """
        Have all workers stop in order.

        Returns:
            A Deferred that fires when they have ended.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        notify("STOPPING=1")
        self._stopping = True
        if self._status.running:
            self._status.stop()
        self._status.start(STOPPING_SECONDS)
        for restart in self._restarts.values():
            restart.cancel()
        self._tell_all(b"stop")
        end = self._reactor.callLater(self._drain + PATIENCE_SECONDS, self._kill_all)
        self._go_on_stopping()
        # Closing a port shuts down its socket for the workers, too, so they have to be done
        # with accepting first.
        await self._ports_unused
        ports, self._ports = self._ports, []
        await DeferredList([maybeDeferred(port.stopListening) for port in ports])
        await self._ended
        if end.active():
            end.cancel()
        self._status.stop()
        # systemd goes on showing the last line.
        notify("STATUS=Stopped")

    def _go_on_stopping(self) -> None:
        """
        Let the stop go on if the workers have come far enough with theirs.
        """
        if not self._ports_unused.called and not any(
            p.accepts for p in self._processes.values()
        ):
            self._ports_unused.callback(None)
        if not self._ended.called and not self._processes:
            self._ended.callback(None)

    def _start_all(self) -> None:
        handle_signals(self._reactor, self._signalled, self._reload)
        self._watchdog = watchdog_seconds()
        for number in self._numbers:
            self._start(number)

    def _start(self, number: int) -> None:
        self._restarts.pop(number, None)
        if self._stopping:
            return
        process = WorkerProcess(number, self._told, self._lost)
        self._processes[number] = process
        sockets = [port.fileno() for port in self._ports]  # type: ignore[attr-defined]
        # Workers report twice as often as systemd asks, because the parent reports only
        # when the last of them has.
        watchdog = None if self._watchdog is None else self._watchdog / 2
        try:
            process.start(self._reactor, self._arguments, sockets, self._folder, watchdog)
        except OSError as error:
            process.reason = f"could not be started ({error.strerror})"
            self._lost(process)

    def _told(self, process: WorkerProcess, state: str) -> None:
        if state == "READY=1" and process.number in self._awaited:
            self._awaited.remove(process.number)
            if not self._awaited and not self._stopping:
                self._tell_ready()
        elif state == "STOPPING=1" and self._stopping:
            self._go_on_stopping()
        elif state == "WATCHDOG=1":
            self._alive.add(process.number)
            self._tell_alive()
        elif state.startswith("TOTALS="):
            self._totals[process.number] = Totals.parse(state.removeprefix("TOTALS="))

    def _tell_ready(self) -> None:
        if not self._started:
            self._started = True
            self._log.info("Serving, until SIGTERM or SIGINT")
        notify("READY=1")
        if not self._status.running:
            self._status.start(STATUS_SECONDS)

    def _tell_status(self) -> None:
        totals = Totals.sum([Totals(), *self._totals.values()])
        if self._stopping:
            notify(f"STATUS={self._line.stopping(totals)}")
        else:
            notify(f"STATUS={self._line.serving(totals, self._reactor.seconds())}")

    def _tell_alive(self) -> None:
        """
        Tell systemd that the bus lives, once each of the workers that serve has said so.
        """
        serving = {n for n, process in self._processes.items() if process.ready}
        if serving and serving <= self._alive:
            self._alive.clear()
            notify("WATCHDOG=1")

    def _lost(self, process: WorkerProcess) -> None:
        del self._processes[process.number]
        self._totals.pop(process.number, None)
        self._alive.discard(process.number)
        self._tell_alive()
        if self._stopping:
            self._go_on_stopping()
        elif not self._started:
            self._fail(process)
        else:
            self._start_again(process)

    def _start_again(self, process: WorkerProcess) -> None:
        number = process.number
        if process.ready and self._reactor.seconds() - process.began > STEADY_SECONDS:
            self._delays[number] = RESTART_SECONDS
        delay = self._delays[number]
        self._delays[number] = min(2 * delay, MOST_RESTART_SECONDS)
        self._log.warn(
            "Worker {number} {reason}; it is started again in {delay} seconds",
            number=number,
            reason=process.reason,
            delay=delay,
        )
        self._restarts[number] = self._reactor.callLater(delay, self._start, number)

    def _fail(self, process: WorkerProcess) -> None:
        """
        End, because a worker could not start.
        """
        self._stopping = True
        sentence = process.sentence or f"Worker {process.number} {process.reason}"
        # Twistd would end with code 0.
        atexit.register(_exit, f"Cannot start: {sentence.removeprefix('Cannot start: ')}")
        self._reactor.stop()

    def _signalled(self, name: str) -> None:
        if self._stopping:
            self._log.warn("{name} again: cutting all connections", name=name)
            self._tell_all(b"cut")
            return
        self._stopping = True
        self._log.info(
            "{name}: stopping within {seconds} seconds, or at once if it comes again",
            name=name,
            seconds=self._drain,
        )
        self._reactor.stop()

    def _reload(self) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._awaited.update(self._numbers)
        self._tell_all(b"reload")

    def reopen_logs(self) -> None:
        """
        Have all workers open the files again to which they log.
        """
        self._tell_all(b"reopen")

    def _tell_all(self, command: bytes) -> None:
        for process in self._processes.values():
            process.command(command)

    def _kill_all(self) -> None:
        for process in self._processes.values():
            self._log.warn("Killing worker {number}", number=process.number)
            process.kill()


def _exit(sentence: str) -> None:
    print(sentence, file=sys.__stderr__, flush=True)
    os._exit(1)
