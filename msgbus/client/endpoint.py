"""
The way to an address, for Twisted clients: TCP, Unix sockets, and TLS, which verifies who
is at the other end (RFC 9110, section 4.3.4).
"""

from __future__ import annotations

import re
from copy import copy
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from service_identity import VerificationError
from twisted.internet import error as network
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from ..message import Invalid
from .exchange import BusError, Unreachable, Untrusted, printable
from .url import BusURL

__all__ = ["Route", "explained"]

_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class Route:
    """
    Leads to one address, whatever URL an `Agent` asks for, by one connection at a time.

    Args:
        reactor: Has TCP, TLS, Unix sockets and names, as far as they are used.
        ca: A file of certificates (PEM) to trust, in place of the system's.
        certificate: A file with a private key and a certificate (PEM), with which to
            prove who this end is, followed by those between it and a root.

    Raises:
        Invalid: One of the files is none such, or cannot be read.
    """

    def __init__(
        self,
        reactor: object,
        address: BusURL,
        ca: Path | str | None = None,
        certificate: Path | str | None = None,
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._connection: Any = None  # an `Agent`'s own protocol
        self._options = None
        if address.scheme == "https":
            self._options = _tls(address.host, ca, certificate)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """
        The way, for `Agent`.
        """
        return self

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Go it.
        """
        first, *others = (self._endpoint(host) for host in self._address.hosts)
        connected = first.connect(factory)
        for other in others:
            connected.addErrback(self._try, other, factory)
        return connected.addCallback(self._connected)

    def another(self) -> Route:
        """
        The same way, for another connection.
        """
        return copy(self)

    def abort(self) -> None:
        """
        Close the connection that was made last, whether the other end listens or not: an
        `Agent` only asks it to, and by TLS waits for the answer.
        """
        # Its own `abort` is as polite.
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abortConnection()

    def _endpoint(self, host: str) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint
        if self._address.socket:
            endpoint = UNIXClientEndpoint(self._reactor, self._address.socket)
        else:
            endpoint = HostnameEndpoint(self._reactor, host, self._address.port)
        if self._options is not None:
            endpoint = wrapClientTLS(self._options, endpoint)
        return endpoint

    def _try(
        self, failure: Failure, other: IStreamClientEndpoint, factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        """
        Go another way where the first is none; what is wrong with the first is told if
        the other is none either.
        """
        if failure.check(CancelledError, network.ConnectingCancelledError):
            failure.raiseException()
        return other.connect(factory).addErrback(lambda _: failure)

    def _connected(self, connection: IProtocol) -> IProtocol:
        self._connection = connection
        return connection


def explained(failure: Failure) -> BusError | CancelledError:
    """
    What Twisted has against a request, in one sentence, and whether another try may
    change it; or that it was cancelled.
    """
    error = failure.value
    while reasons := getattr(error, "reasons", None):
        # `ResponseFailed` and its like hold the causes, the first of which is the first.
        error = reasons[0].value
    if isinstance(error, BusError | CancelledError):
        return error
    if isinstance(error, VerificationError):
        return Untrusted("The certificate of the server is not for this host.")
    if isinstance(error, SSL.Error) and not isinstance(
        error, SSL.SysCallError | SSL.ZeroReturnError
    ):
        told = ", ".join(reason[-1] for reason in error.args[0]) if error.args else ""
        # A server that is killed in the midst of it proves nothing.
        kind = Unreachable if "eof" in told else Untrusted
        return kind(f"TLS failed: {told or 'no reason given'}.")
    if isinstance(error, network.ConnectionRefusedError):
        return Unreachable("Connection refused; does a bus run there?")
    if isinstance(error, network.ConnectionDone):
        return Unreachable("The server closed the connection; does it ask for TLS?")
    if isinstance(error, network.DNSLookupError):
        return Unreachable("The host is not known.")
    return Unreachable(printable(str(error)) or type(error).__name__)


def _tls(
    host: str, ca: Path | str | None, certificate: Path | str | None
) -> IOpenSSLClientConnectionCreator:
    roots = platformTrust()
    if ca is not None:
        roots = trustRootFromCertificates(_certificates(ca, _read(ca)))
    own: dict[str, object] = {}
    if certificate is not None:
        pem = _read(certificate)
        first, *chain = (c.original for c in _certificates(certificate, pem))
        try:
            key = KeyPair.load(pem, crypto.FILETYPE_PEM)
        except (SSL.Error, crypto.Error):
            raise Invalid(f"{str(certificate)!r} holds no private key (PEM).") from None
        own = {
            "privateKey": key.original,
            "certificate": first,
            "extraCertChain": chain,
        }
    # HTTP/1.1 is all that `Agent` speaks.
    return optionsForClientTLS(
        host,
        trustRoot=roots,
        acceptableProtocols=[b"http/1.1"],
        extraCertificateOptions=own,
    )


def _read(file: Path | str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise Invalid(f"{str(file)!r} cannot be read: {error.strerror}.") from None


def _certificates(file: Path | str, pem: bytes) -> list[Certificate]:
    try:
        found = [Certificate.loadPEM(block) for block in _CERTIFICATE.findall(pem)]
    except (SSL.Error, crypto.Error):
        found = []
    if not found:
        raise Invalid(f"{str(file)!r} holds no certificate (PEM).")
    return found
