"""
The life of the process that serves a bus: it listens, says that it is ready, and stops in
order.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..bus.log import CannotLoad, StoredLog
from ..web.peer import is_loopback
from ..web.resource import BusResource
from ..web.root import Root
from ..web.site import Site
from .cannot_start import cannot_start
from .certificates import CertificateService
from .grant_files import GrantService
from .listen import is_tls, open_ports
from .memory import MemoryWatch
from .out_of_files import watch_port
from .settings import SettingsService
from .signals import handle_signals
from .status import STATUS_SECONDS, STOPPING_SECONDS, StatusLine, Totals
from .systemd import notify, watchdog_seconds
from .users import UserService
from .worker import Worker

__all__ = ["BusService"]


# How many open files are left for what is no connection: documents, the history, the log.
SPARE_FILES = 64


class BusService(Service):
    """
    Listens, serves a site with a bus, and stops in order.

    Args:
        reactor: Twisted's own, which provides more interfaces than any type names.
        endpoints: Where to listen, by the endpoint strings.  If it is impossible at one of
            them, the start fails.
        site: What to serve there.
        bus: The resource of the bus, whose streams are ended at the stop.
        log: The log of the bus, if it survives the process.  It is loaded before the first
            request is served, after the process has changed to the user it is to run as,
            and closed after the last.
        drain: Seconds that a stop may take before connections are cut.
        warnings: Sentences that are logged at the start.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoints: dict[str, IStreamServerEndpoint],
        site: Site,
        bus: BusResource,
        log: StoredLog | None = None,
        drain: float = 10,
        warnings: Sequence[str] = (),
    ) -> None:
        self._reactor = reactor
        self._endpoints = endpoints
        self._site = site
        self._bus = bus
        self._drain = drain
        self._warnings = warnings
        self._stored = log
        self._ports: list[IListeningPort] = []
        # Whether a stop was asked for, and whether it has begun.
        self._stopping = self._stop_began = False
        # The limit of open files.
        self._files = resource.RLIM_INFINITY
        # Set by whoever gives the bus users.
        self.users: UserService | None = None
        # Set by whoever has the bus take links or tokens.
        self.grants: GrantService | None = None
        # Set by whoever has the bus listen at a TLS port.
        self.certificates: CertificateService | None = None
        # Set by whoever has given the options by a file.
        self.settings: SettingsService | None = None
        # Set by whoever makes this process one of several that serve the bus.
        self.worker: Worker | None = None
        # Set by whoever limits the memory.
        self.memory: MemoryWatch | None = None
        # Called when the files to which the process logs have been moved away.
        self.reopen_logs: Sequence[Callable[[], object]] = ()
        self._watchdog = LoopingCall(self._notify, "WATCHDOG=1")
        self._status = LoopingCall(self._tell_status)
        self._watchdog.clock = self._status.clock = reactor
        self._line = StatusLine()

    def privilegedStartService(self) -> None:
        """
        Listen, while the process may still be root, as low ports require.

        Raises:
            CannotStart: It is impossible to listen at one of the endpoints.
        """
        for text, port in open_ports(self._endpoints, self._site).items():
            self._ports.append(port)
            watch_port(port, self._site, self._reactor)
            if is_tls(text) and self.certificates is not None:
                self.certificates.listens(text, port)

    def startService(self) -> None:
        """
        Serve.  Listen first if there was no privileged start, as under `twist`.

        Raises:
            CannotStart: The log cannot be loaded.
        """
        super().startService()  # type: ignore[no-untyped-call]  # Twisted
        if not self._ports:
            self.privilegedStartService()
        if self._stored is not None:
            self._notify("STATUS=Loading the history")
            try:
                self._stored.load()
            except CannotLoad as error:
                raise cannot_start(str(error)) from error
        if self.users is not None:
            self.users.start()
        if self.memory is not None:
            self.memory.start()
        self._raise_file_limit()
        # One of several workers is enough to say this.
        if self.worker is None or self.worker.number == 1:
            for warning in self._warnings:
                self._log.warn("{warning}", warning=warning)
            self._warn_of_strangers()
        self._reactor.callWhenRunning(self._ready)

    def stopService(self) -> Deferred[None]:
        """
        Stop in order: accept no new connections, answer the requests that have come, send
        each subscriber what it is owed, and end its stream between two messages.  After
        `drain` seconds, cut the connections that are left.

        Returns:
            A Deferred that fires when all connections have ended and the log is closed.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._notify("STOPPING=1")
        self._stop_began = True
        if self._status.running:
            self._status.stop()
        self._status.start(STOPPING_SECONDS)
        deadline = self._reactor.seconds() + self._drain
        ports, self._ports = self._ports, []
        await DeferredList([maybeDeferred(port.stopListening) for port in ports])
        self._bus.stop_waiting()
        # Let the requests that have begun end before the streams do: a message whose
        # publisher is told that it was published has to reach the subscribers.
        await self._at_most(self._drain / 2, self._site.drain())
        self._bus.close()
        await self._at_most(deadline - self._reactor.seconds(), self._site.closed())
        if self._site.channels:
            self._log.warn("Cutting {count} connections", count=len(self._site.channels))
        self._site.abort()
        await self._site.closed()
        if self._stored is not None:
            await self._at_most(
                max(1.0, deadline - self._reactor.seconds()), self._stored.close()
            )
        for telling in self._watchdog, self._status:
            if telling.running:
                telling.stop()
        if self.memory is not None:
            self.memory.stop()
        if self.users is not None:
            self.users.stop()
        # systemd goes on showing the last line.
        self._notify("STATUS=Stopped")

    async def _at_most(self, seconds: float, awaited: Deferred[None]) -> None:
        try:
            await awaited.addTimeout(max(0, seconds), self._reactor)
        except defer.TimeoutError:
            return

    def _ready(self) -> None:
        if self.worker is None:
            handle_signals(self._reactor, self._signalled, self._reload)
            self._log.info("Serving, until SIGTERM or SIGINT")
        else:
            # systemd sends its signals to the parent and to all workers, so here they are
            # no reason to cut connections.
            handle_signals(self._reactor, lambda name: self._stop_once(), self._reload)
            commands = {
                b"stop": self._stop_once,
                b"cut": self._site.abort,
                b"reload": self._reload,
                b"reopen": lambda: [reopen() for reopen in self.reopen_logs],
            }
            self.worker.obey(self._reactor, commands)
        self._notify("READY=1")
        self._status.start(STATUS_SECONDS)
        if (seconds := watchdog_seconds()) is not None:
            self._watchdog.start(seconds / 2)

    def _reload(self) -> None:
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        all_files = self.users, self.grants, self.certificates, self.settings
        read_again = [files for files in all_files if files is not None]
        for files in read_again:
            files.reload()
        if not read_again:
            self._log.info("SIGHUP: there are no files to read again")
        self._notify("READY=1")

    def _signalled(self, name: str) -> None:
        if self._stopping:
            self._log.warn("{name} again: cutting all connections", name=name)
            self._site.abort()
            return
        self._log.info(
            "{name}: stopping within {seconds} seconds, or at once if it comes again",
            name=name,
            seconds=self._drain,
        )
        self._stop_once()

    def _stop_once(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def _tell_status(self) -> None:
        totals = Totals.of(self._bus.mount, self._site)
        if self.worker is not None:
            self._notify(f"TOTALS={totals}")
        elif self._stop_began:
            self._notify(f"STATUS={self._line.stopping(totals)}")
        else:
            line = self._line.serving(totals, self._reactor.seconds())
            self._notify(f"STATUS={line}")

    def _notify(self, state: str) -> None:
        """
        Tell the state of this process to whoever has started it: systemd, or the parent of
        the workers.
        """
        if self.worker is None:
            notify(state)
        else:
            self.worker.notify(state)

    def _raise_file_limit(self) -> None:
        """
        Raise the limit of open files as far as it may be, because each connection is one.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            self._log.warn(
                "The limit of open files stays at {soft}: {error}", soft=soft, error=error
            )
            self._files = soft
        else:
            self._files = hard
            self._log.info(
                "Up to {limit} open files, each connection being one", limit=hard
            )
        self.limit_connections()

    def limit_connections(self) -> None:
        """
        Take no more connections than so many open files have room for, unless the operator
        has given a number: if files ran out, nobody would be told why.
        """
        connections = self._site.connections
        connections.shortage.advice = (
            f"Each is an open file, of which there may be {self._files}: raise the limit by"
            " LimitNOFILE= in the unit of systemd, or by ulimit -Hn before the start"
        )
        if connections.most is None and self._files != resource.RLIM_INFINITY:
            connections.most = max(1, self._files - SPARE_FILES)

    def _warn_of_strangers(self) -> None:
        root = self._site.resource
        if isinstance(root, Root) and root.guarded:
            return
        hosts = [port.getHost() for port in self._ports]
        exposed = [
            f"{host.host}:{host.port}"
            for host in hosts
            if isinstance(host, IPv4Address | IPv6Address) and not is_loopback(host)
        ]
        if exposed:
            self._log.warn(
                "There is no password: everybody who can reach {exposed} can read and"
                " publish all messages. Ask for one by --secret-file, or listen to this"
                " machine only by interface=127.0.0.1 in the string of the endpoint",
                exposed=", ".join(exposed),
            )
