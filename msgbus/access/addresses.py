"""
The address of a client: its own, or the one that trusted proxies report; and which
addresses count as one for limits.

Nothing that a client says itself is believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from ..message import Invalid

__all__ = ["FORWARDED", "PROXY_HEADERS", "X_FORWARDED_FOR", "TrustedProxies", "network_of"]

Address = IPv4Address | IPv6Address

FORWARDED = "forwarded"
X_FORWARDED_FOR = "x-forwarded-for"
PROXY_HEADERS = (X_FORWARDED_FOR, FORWARDED)

# What stands for a peer on a Unix socket, in the list of trusted ones.
UNIX = "unix"

MAX_NETWORKS = 1000
# How much of the headers is read, from their end.
MAX_CHARACTERS = 4096
MAX_HOPS = 32
# How many commas the quoted strings of one element may have.
MAX_COMMAS = 16

IPV6_PREFIX = 64

# An address as it stands in both headers, perhaps with a port (RFC 7239, section 6).
_PORT = r"(?::[0-9]{1,5})?"
_NODE = re.compile(
    rf"\[([0-9A-Fa-f:.]{{2,45}})\]{_PORT}|([0-9.]{{7,15}}){_PORT}|([0-9A-Fa-f:.]{{2,45}})"
)

# A token, a pair, and an element (RFC 7239, section 4).
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PAIR = rf'{_WORD}=(?:{_WORD}|"(?:[^"\\]|\\.)*")'
_ELEMENT = re.compile(rf"[ \t]*{_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*[ \t]*")
# Each pair of an element in turn, so that what stands in a quoted string is no pair.
_NAMED = re.compile(rf'({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*)")[ \t]*;?')


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """
    The proxies that are believed, and the header in which they name their clients.

    Proxies that write one header pass the other on as the client sent it.  So only the one
    that was configured is looked at.

    Attributes:
        networks: Their addresses.
        unix: Whether whoever connects to a Unix socket is one.
        header: `X_FORWARDED_FOR`, which most proxies write, or `FORWARDED` (RFC 7239).
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False
    header: str = X_FORWARDED_FOR

    @classmethod
    def parse(cls, text: str, header: str = X_FORWARDED_FOR) -> TrustedProxies:
        """
        Read a list of addresses and networks, with commas between them, such as
        `127.0.0.1,10.0.0.0/8,2001:db8::/48`; `unix` is whoever uses a Unix socket.

        Raises:
            Invalid: An item is neither, or the header is another one.
        """
        items = [item.strip() for item in text.split(",") if item.strip()]
        if not items or len(items) > MAX_NETWORKS:
            raise Invalid("Give the address of a proxy, or a network such as 10.0.0.0/8.")
        if header.lower() not in PROXY_HEADERS:
            raise Invalid(f"Proxies are believed by {' or '.join(PROXY_HEADERS)} only.")
        networks = []
        for item in items:
            if item == UNIX:
                continue
            try:
                networks.append(ip_network(item))
            except ValueError as error:
                # Such as that an address has bits beyond its prefix.
                raise Invalid(f"{item[:100]!r} is no network: {error}.") from None
        return cls(tuple(networks), UNIX in items, header.lower())

    def trusts(self, peer: str | None) -> bool:
        """
        Is this a trusted proxy?

        Args:
            peer: The address of the other end of a connection, or None for a Unix socket.
        """
        if peer is None:
            return self.unix
        if not self.networks:
            # Asked for each connection; most buses trust no proxy.
            return False
        address = _address(peer)
        return address is not None and self._has(address)

    def client(self, peer: str | None, values: Sequence[str]) -> str | None:
        """
        The address of a client: the rightmost in the header that is no trusted proxy's, if
        the peer itself is trusted.  If all are, it is the leftmost.

        Args:
            peer: See `trusts`.
            values: All values of the header, in the order of the request.

        Returns:
            The address in its shortest form; or None if it is not known: because a proxy
            hides it (`unknown`, `_name`), names more than 32 hops or something that is no
            address, or because the peer is on a Unix socket and nothing names its client.
            A client without a known address must never count as one on this machine.
        """
        own = None if peer is None else _address(peer)
        found = None if own is None else str(own)
        if not self.trusts(peer):
            return found
        text = ",".join(values)
        rest = text
        if len(text) > MAX_CHARACTERS:
            # The first piece may be the end of another address.
            rest = text[-MAX_CHARACTERS:].partition(",")[2]
        for _ in range(MAX_HOPS):
            if not rest.strip(" \t,"):
                # What was cut off may have named another one.
                return found if len(text) <= MAX_CHARACTERS else None
            node, rest = self._last(rest)
            address = None if node is None else _node(node)
            if address is None:
                return None
            found = str(address)
            if not self._has(address):
                return found
        return None

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    def _last(self, text: str) -> tuple[str | None, str]:
        """
        The node that the last element names, or None if it is malformed or names none; and
        what stands before that element.
        """
        text = text.rstrip(" \t,")
        if self.header == X_FORWARDED_FOR:
            rest, _, node = text.rpartition(",")
            return node.strip(" \t"), rest
        # Quoted strings may hold commas.  They are read from the end, which a trusted proxy
        # has written: what stands before it may have an open quotation mark.
        comma = len(text)
        for _ in range(MAX_COMMAS + 1):
            comma = text.rfind(",", 0, comma)
            if _ELEMENT.fullmatch(text, comma + 1):
                return _for(text[comma + 1 :]), text[: max(comma, 0)]
            if comma < 0:
                break
        return None, ""


def network_of(address: str | None) -> str:
    """
    What stands for an address where limits are counted: an IPv4 address itself; for IPv6,
    its network with 64 bits, since a household has at least that many.  All clients without
    a known address count as one.
    """
    parsed = None if address is None else _address(address)
    if parsed is None:
        return "unknown"
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(IPv6Network((int(parsed), IPV6_PREFIX), strict=False))


def _address(text: str) -> Address | None:
    """
    The address, without the zone of a link-local one; an IPv4 address that is written as
    an IPv6 address (RFC 4291, section 2.5.5.2) is one of IPv4.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _for(element: str) -> str | None:
    """
    The value of `for` in an element of `Forwarded`; None if it is not there once.
    """
    values = [
        token or re.sub(r"\\(.)", r"\1", quoted)
        for name, token, quoted in _NAMED.findall(element)
        if name.lower() == "for"
    ]
    return values[0] if len(values) == 1 else None


def _node(text: str) -> Address | None:
    """
    The address in one item of a header, with or without brackets and port.
    """
    found = _NODE.fullmatch(text)
    return _address(found[1] or found[2] or found[3]) if found else None
