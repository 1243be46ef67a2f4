"""
The site: serves a tree of resources within limits, and closes its connections in an
orderly way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web import server
from twisted.web.resource import IResource

from ..access.addresses import TrustedProxies
from .channel import AccessLog, Channel
from .connections import Connections
from .heads import Heads
from .journal import Journal
from .peer import NO_PROXIES, Peer
from .request import Request

__all__ = ["Site"]


class Site(server.Site):
    """
    Serves a resource over HTTP/1.0 and 1.1, within limits.

    Args:
        resource: The root of the tree.
        max_body: Bytes of the largest request body; a larger one is answered with 413.
        reactor: By its clock, idle connections time out.
        proxies: Those that are believed whose requests they pass on.
        connections: How many connections there may be; any number for None.
        journal: Counts and logs what is refused; that of the bus, or one of its own.

    Attributes:
        max_body: As given.
        proxies: As given.
        connections: Counts all connections.
        journal: As given.
        access_log: Has a line for each request; None if none is kept, as at first.
        draining: Whether each connection is closed once its request is answered.
        channels: All connections.
        streams: The connections whose answers have no end.
        heads: The heads of requests that are remembered.  Whatever changes how requests are
            judged has to call its `forget`.
    """

    noisy = False
    # Twisted's default is a wrapper that chooses between HTTP/1.1 and HTTP/2.
    protocol = Channel  # type: ignore[assignment]
    requestFactory = Request

    def __init__(
        self,
        resource: IResource,
        max_body: int = 1024 * 1024,
        reactor: IReactorTime | None = None,
        proxies: TrustedProxies = NO_PROXIES,
        connections: Connections | None = None,
        journal: Journal | None = None,
    ) -> None:
        super().__init__(resource, parsePOSTFormSubmission=False, reactor=reactor)  # type: ignore[no-untyped-call]  # Twisted
        self.max_body = max_body
        self.proxies = proxies
        self.connections = connections or Connections()
        self.journal = journal or Journal()
        self.access_log: AccessLog | None = None
        self.draining = False
        self.channels: set[Channel] = set()
        self.streams: set[Channel] = set()
        self.heads: Heads[Channel] = Heads(max_body)
        self._awaited: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def drain(self) -> Deferred[None]:
        """
        Close every connection once its request is answered.  Idle connections are closed
        at once; those that have had no request yet, after a second.

        Returns:
            A Deferred that fires when only streams are left, whose answers have no end.
        """
        self.draining = True
        self.heads.close()
        for channel in tuple(self.channels):
            channel.drain()
        return self._when(lambda: len(self.channels) == len(self.streams))

    def closed(self) -> Deferred[None]:
        """
        A Deferred that fires when no connection is left.
        """
        return self._when(lambda: not self.channels)

    def abort(self) -> None:
        """
        Cut every connection.
        """
        for channel in tuple(self.channels):
            channel.transport.abortConnection()

    def seconds(self) -> float:
        """
        The time, by the clock by which idle connections time out.
        """
        return float(self.reactor.seconds())

    def suspects(self, peer: Peer) -> bool:
        """
        May no request from here be answered without asking for its password again?  See
        `SignIn.suspects`.
        """
        sign_in = getattr(self.resource, "sign_in", None)
        return sign_in is not None and sign_in.suspects(peer)

    def lost(self, channel: Channel) -> None:
        """
        A connection has ended.
        """
        self.channels.discard(channel)
        self.streams.discard(channel)
        self._look()

    def _when(self, condition: Callable[[], bool]) -> Deferred[None]:
        awaited: Deferred[None] = Deferred()
        self._awaited.append((condition, awaited))
        self._look()
        return awaited

    def _look(self) -> None:
        for condition, awaited in tuple(self._awaited):
            if condition():
                self._awaited.remove((condition, awaited))
                awaited.callback(None)

    def acceptableProtocols(self) -> list[bytes]:
        """
        The protocols that are offered over TLS: not HTTP/2, because streams over it are not
        tested.
        """
        return [b"http/1.1", b"http/1.0"]

    def keep_access_log(self, access_log: AccessLog) -> None:
        """
        Log all requests from now on.  Then no heads are remembered, because requests whose
        heads are remembered are answered without becoming a `Request`.
        """
        self.access_log = access_log
        self.heads.close()

    def log(self, request: Any) -> None:
        """
        A request is answered.  Twisted's own log would have its query, which may hold what
        its sender wants to keep private.
        """
        if self.access_log is not None:
            self.access_log.answered(request)
