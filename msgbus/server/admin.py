"""
The operator's address: a site of its own, beside that of the bus.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint

from ..admin import Metrics, Readiness, pages
from ..admin.events import Events
from ..admin.numbers import NumbersLoop
from ..admin.rates import GroupRates
from ..admin.reactor_delay import ReactorDelay
from ..web.auth import portal_for
from ..web.connections import Connections
from ..web.origins import Origins
from ..web.resource import BusResource
from ..web.root import Root
from ..web.shortage import Shortage
from ..web.site import Site
from .listen import open_ports
from .out_of_files import watch_port

__all__ = ["AdminService"]

# How many connections there may be to the operator's address.  The open files of more would
# be missing to the bus, and strangers can connect, although they have no password.
MOST_CONNECTIONS = 100


class AdminService(Service):
    """
    Serves what an operator wants to see of a bus.

    Args:
        reactor: Twisted's own.
        endpoint: Where to listen, with its endpoint string.
        secret: The password that is asked for; None asks for none.
        bus: The bus.
        site: The connections of the bus.
        origins: Those of the bus, of which only the names of hosts count here.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: tuple[str, IStreamServerEndpoint],
        secret: bytes | None,
        bus: BusResource,
        site: Site,
        origins: Origins,
    ) -> None:
        self._endpoint = endpoint
        self._ports: list[IListeningPort] = []
        self._loops: list[ReactorDelay | Events | NumbersLoop]
        self._delay = ReactorDelay(reactor)
        # Pages that may use the bus may not see what its operator sees.  And where any name
        # of a host passed, any page could be one of this host's, by DNS rebinding.
        origins = Origins(hosts=sorted(origins.hosts - {"*"}))
        root = Root(origins, portal=portal_for(secret) if secret else None)
        metrics = Metrics(bus.mount, site, self._delay)
        readiness = Readiness(bus.mount, site, reactor)
        rates = GroupRates(bus.mount.fanout)
        events = Events(bus.mount, reactor)
        own = BusResource(events.bus, reactor, prefix="/events/", origins=origins)
        self._loops = [
            self._delay,
            events,
            NumbersLoop(bus.mount, site, self._delay, rates, events.bus, reactor),
        ]
        for path, page in pages(bus.mount, metrics, readiness, rates, own).items():
            root.putChild(path, page)
        connections = Connections(MOST_CONNECTIONS)
        connections.shortage = Shortage("The operator's address has too many connections")
        self._site = Site(root, reactor=reactor, connections=connections)
        self._reactor = reactor

    def privilegedStartService(self) -> None:
        """
        Listen, while the process may still be root.

        Raises:
            CannotStart: It is impossible to listen.
        """
        text, endpoint = self._endpoint
        self._ports += open_ports({text: endpoint}, self._site).values()
        for port in self._ports:
            watch_port(port, self._site, self._reactor)

    def startService(self) -> None:
        """
        Serve.  Listen first if there was no privileged start.
        """
        super().startService()  # type: ignore[no-untyped-call]  # Twisted
        if not self._ports:
            self.privilegedStartService()
        for loop in self._loops:
            loop.start()

    def stopService(self) -> Deferred[None]:
        """
        Stop at once.

        Returns:
            A Deferred that fires when all connections have ended.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for loop in self._loops:
            loop.stop()
        ports, self._ports = self._ports, []
        await DeferredList([maybeDeferred(port.stopListening) for port in ports])
        self._site.abort()
        await self._site.closed()
