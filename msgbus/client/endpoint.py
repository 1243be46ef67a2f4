"""
Connections of Twisted clients to a bus: by TCP or a Unix socket, with or without TLS.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from .url import BusURL

__all__ = ["BusEndpoint"]


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class BusEndpoint:
    """
    Connects to one bus, whatever URL an `Agent` asks for.  It makes one connection at a
    time, and can abort that.

    Args:
        reactor: Provides what the URL needs: TCP and name resolution, or Unix sockets.
        url: Where the bus is.
        tls: How to set up TLS, or None for a connection without it; see `tls_options`.
    """

    def __init__(
        self,
        reactor: object,
        url: BusURL,
        tls: IOpenSSLClientConnectionCreator | None,
    ) -> None:
        self._reactor = reactor
        self._url = url
        self._tls = tls
        self._connection: Any = None  # a protocol that `Agent` does not export

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """
        This endpoint; called by `Agent`.
        """
        return self

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect to the first host of the URL that accepts.
        """
        first, *others = (self._endpoint(host) for host in self._url.hosts)
        connected = first.connect(factory)
        for other in others:
            connected.addErrback(self._fall_back, other, factory)
        return connected.addCallback(self._connected)

    def another(self) -> BusEndpoint:
        """
        An endpoint to the same bus, for a connection of its own.  `abort` of one does not
        touch the connection of the other.
        """
        return BusEndpoint(self._reactor, self._url, self._tls)

    def abort(self) -> None:
        """
        Close the latest connection, if there is one, without waiting for the server.
        """
        # The protocol of `Agent` has an `abort` too, but that one waits until the other end
        # has closed its side of TLS.
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abortConnection()

    def _endpoint(self, host: str) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint
        if self._url.socket:
            endpoint = UNIXClientEndpoint(self._reactor, self._url.socket)
        else:
            endpoint = HostnameEndpoint(self._reactor, host, self._url.port)
        if self._tls is not None:
            endpoint = wrapClientTLS(self._tls, endpoint)
        return endpoint

    def _fall_back(
        self, failure: Failure, other: IStreamClientEndpoint, factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        """
        Connect to another host after a failure.  If that fails too, the result is the first
        failure.
        """
        if failure.check(CancelledError, ConnectingCancelledError):
            failure.raiseException()
        return other.connect(factory).addErrback(lambda _: failure)

    def _connected(self, connection: IProtocol) -> IProtocol:
        self._connection = connection
        return connection
