"""
Where requests come from: the address at the other end of a connection, or the one for which
a trusted proxy sends them.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.web import server

from ..access.addresses import TrustedProxies, network_of

__all__ = ["NO_PROXIES", "Peer", "forwarded", "is_loopback"]

NO_PROXIES = TrustedProxies()


def is_loopback(address: IAddress) -> bool:
    """
    Can only this machine connect to this address?
    """
    if isinstance(address, IPv6Address):
        return address.host == "::1" or address.host.startswith("::ffff:127.")
    return isinstance(address, IPv4Address) and address.host.startswith("127.")


class Peer:
    """
    A client, as far as its address tells who it is.

    Attributes:
        address: Its address; None on a Unix socket, or if a proxy does not name it.
        network: The key under which limits count the address; see `network_of`.
        is_local: Whether it is a program on this machine that is not a trusted proxy.
            Limits of addresses do not hold for it.
        is_trusted: Whether it is a trusted proxy: one that is believed when it names the
            client for which it sends a request.
    """

    __slots__ = ("address", "is_local", "is_trusted", "network", "_port")

    def __init__(
        self,
        address: str | None,
        *,
        port: int | None = None,
        is_local: bool = False,
        is_trusted: bool = False,
    ) -> None:
        self.address = address
        self.network = "local" if is_local else network_of(address)
        self.is_local = is_local
        self.is_trusted = is_trusted
        self._port = port

    @classmethod
    def at(cls, address: IAddress, proxies: TrustedProxies = NO_PROXIES) -> Peer:
        """
        The peer with this address, at the other end of a connection.
        """
        if isinstance(address, IPv4Address | IPv6Address):
            trusted = proxies.trusts(address.host)
            local = not trusted and is_loopback(address)
            return cls(address.host, port=address.port, is_local=local, is_trusted=trusted)
        return cls(None, is_local=not proxies.unix, is_trusted=proxies.unix)

    @property
    def is_private(self) -> bool:
        """
        Is its address one that a proxy in the operator's own network could have?
        """
        return self.address is None or ip_address(self.address).is_private

    def __str__(self) -> str:
        """
        As logs name it.
        """
        if self.address is None:
            return "a local client"
        return self.address if self._port is None else f"{self.address}:{self._port}"


def forwarded(peer: Peer, request: server.Request, proxies: TrustedProxies) -> Peer:
    """
    The client for which a trusted proxy has sent a request; the proxy itself if it names
    no client.
    """
    values: Any = request.requestHeaders.getRawHeaders(proxies.header, [])
    if not values:
        return peer
    return Peer(proxies.client(peer.address, values))
