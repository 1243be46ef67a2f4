"""
How much is logged of what clients do, and of whom.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self

from .peer import Peer

__all__ = ["PUBLICATIONS", "SUBSCRIPTIONS", "Verbosity"]

# From this level on, subscriptions and refusals are logged; from that one on, publications
# too, and each refusal, however many are alike.
SUBSCRIPTIONS = 1
PUBLICATIONS = 2


@dataclass(frozen=True, slots=True)
class Verbosity:
    """
    How much is logged.

    Attributes:
        level: How much of everybody: nothing at 0; see also `SUBSCRIPTIONS` and
            `PUBLICATIONS`.
        names: The names of users of whom all is logged.
        networks: The networks of clients of whom all is logged.
    """

    level: int = 0
    names: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of_all(cls, level: int, exceptions: Iterable[str]) -> Self:
        """
        So much of everybody, and all of these, each of whom is the name of a user, an
        address, or a network such as `192.0.2.0/24`.
        """
        names, networks = set(), []
        for text in exceptions:
            try:
                networks.append(ip_network(text, strict=False))
            except ValueError:
                names.add(text)
        return cls(level, frozenset(names), tuple(networks))

    @property
    def most(self) -> int:
        """
        How much is logged of anybody at most.
        """
        return PUBLICATIONS if self.names or self.networks else self.level

    def of(self, user: str, peer: Peer) -> int:
        """
        How much is logged of a client.

        Args:
            user: The name that the client has given; empty for none.
        """
        if self.level >= PUBLICATIONS or user in self.names:
            return max(self.level, PUBLICATIONS)
        if self.networks and peer.address is not None:
            address = ip_address(peer.address.partition("%")[0])
            mapped = getattr(address, "ipv4_mapped", None)
            if any((mapped or address) in network for network in self.networks):
                return PUBLICATIONS
        return self.level
