"""
Reactors through which Twisted opens TLS ports, so that a port can ask its clients for
certificates, or be made without being opened.

Twisted reads the files of keys and certificates when it parses an endpoint string, and
hands what it made of them to the reactor.  That is where it is caught here, so nothing of
Twisted's parser is repeated.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..access.certificates import Authorities
from ..tls.transport import hasten

__all__ = ["Asking", "Nowhere"]


class Asking:
    """
    A reactor whose ports at `ssl:` ask their clients for certificates.

    Args:
        reactor: Opens the ports.
        authorities: Those who may have issued the certificates; None asks for none.
    """

    def __init__(self, reactor: Any, authorities: Authorities | None) -> None:
        self._reactor = reactor
        self._authorities = authorities

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: Any,  # of several of Twisted's interfaces, old and new
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort | None:
        """
        Open a port; see `IReactorSSL`.

        Raises:
            Exception: The key and the certificate cannot be used.  Twisted's reactors would
                notice that only at the first connection.
        """
        if self._authorities is None and isinstance(contextFactory, CertificateOptions):
            # A client that comes back need not verify a certificate again, and the bus need
            # not sign: by a ticket (RFC 8446, section 4.6.1), whose keys live as long as
            # the context, until the next start or SIGHUP.  Twisted has no public way.  The
            # certificates of clients, however, are verified each time.
            contextFactory._options &= ~SSL.OP_NO_TICKET
        context = contextFactory.getContext()
        if self._authorities is not None:
            self._authorities.have_clients_asked(context)
        around = TLSMemoryBIOFactory(contextFactory, False, factory)
        return self.listenTCP(port, around, backlog, interface)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort | None:
        """
        Open a port; see `IReactorTCP`.  For `tls:`, Twisted has put TLS around the
        connections already.
        """
        if type(factory) is TLSMemoryBIOFactory:
            hasten(factory)
        listening: IListeningPort | None = self._reactor.listenTCP(
            port, factory, backlog, interface
        )
        return listening


class Nowhere:
    """
    A reactor that opens no port, and keeps the factory for the connections that the port
    would have.

    Attributes:
        factory: The factory for the port that was asked for last.
    """

    def __init__(self) -> None:
        self.factory: IProtocolFactory | None = None

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> None:
        """
        Keep the factory; see `IReactorTCP`.
        """
        self.factory = factory
