"""
Which web pages may use the bus: the rules for `Host`, `Origin` and `Sec-Fetch-Site`.

No I/O.  Any web page can make the browser that shows it send requests to a bus on the
same machine.  If the name of the page's site is then made to resolve to the loopback (DNS
rebinding), the page may read the answers too.  These rules refuse both.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..message import Invalid

__all__ = ["Origins"]

_AUTHORITY = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]*)(?::(?P<port>[0-9]*))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True, init=False)
class Origins:
    """
    The web pages that an operator lets use the bus, and the names that it is known by.

    Attributes:
        allowed: Origins, such as `https://app.example`, whose pages may
            publish and read; `*` is any.
        hosts: Names, each with a port or without, by which the bus is known in addition
            to `localhost` and its addresses; `*` is any.

    Raises:
        Invalid: An element of `allowed` is no origin, or one of `hosts` is no name.
    """

    allowed: frozenset[str]
    hosts: frozenset[str]

    def __init__(self, allowed: Sequence[str] = (), hosts: Sequence[str] = ()) -> None:
        for origin in allowed:
            if origin != "*" and _canonical(origin) is None:
                raise Invalid(
                    f"{origin!r} is no origin: give a scheme and a host,"
                    " such as https://app.example."
                )
        for host in hosts:
            if host != "*" and not _split(host)[0]:
                raise Invalid(f"{host!r} is no host name, such as bus.example.")
        canonical = frozenset(_canonical(origin) or "*" for origin in allowed)
        object.__setattr__(self, "allowed", canonical)
        object.__setattr__(self, "hosts", frozenset(hosts))

    def allows(self, origin: str | None) -> bool:
        """
        May a page of this origin do what the bus's own pages may?
        """
        if "*" in self.allowed:
            return True
        return origin is not None and _canonical(origin) in self.allowed

    def grants(self, origin: str) -> list[tuple[bytes, bytes]]:
        """
        The headers that let a page of this origin read a response (Fetch standard, section
        3.3).  Ask `allows` first.  Where any origin is allowed, a page cannot use the
        password that the browser has stored for the bus.
        """
        exposed = (
            b"Access-Control-Expose-Headers",
            b"Content-Location, ETag, From, Msgbus-Gap, Msgbus-Id, Msgbus-Origin,"
            b" Msgbus-Prefix, Msgbus-Subscribers, Retry-After",
        )
        if "*" in self.allowed:
            return [(b"Access-Control-Allow-Origin", b"*"), exposed]
        return [
            (b"Access-Control-Allow-Origin", origin.encode("utf-8")),
            (b"Access-Control-Allow-Credentials", b"true"),
            exposed,
        ]

    def may_publish(
        self, origin: str | None, fetch_site: str | None, host: str | None
    ) -> bool:
        """
        May a request with these headers publish?  A request that no browser sent may.

        Args:
            origin: Its `Origin`, if it has one.
            fetch_site: Its `Sec-Fetch-Site`, if it has one.
            host: Its `Host`, if it has one.
        """
        if self.allows(origin):
            return True
        if fetch_site is not None:
            return fetch_site in ("same-origin", "none")
        if origin is None:
            return True
        # The scheme is not compared, because TLS may end at a proxy in front of the bus.
        scheme = origin.partition(":")[0].lower()
        names = self.hosts - {"*"} | ({host} if host else set())
        return _canonical(origin) in {
            f"{scheme}://{_authority(scheme, name)}" for name in names
        }

    def knows_host(self, host: str) -> bool:
        """
        May a request that arrived on a loopback address have this `Host`?  An address
        always passes, because DNS rebinding needs a name.
        """
        if "*" in self.hosts:
            return True
        name, _ = _split(host)
        if name == "localhost" or name.endswith(".localhost"):
            return True
        if any(name == _split(known)[0] for known in self.hosts):
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def _split(authority: str) -> tuple[str, str]:
    """
    Host and port of an authority (RFC 3986, section 3.2): the host in lower case, without
    a dot at its end.  Two empty strings for what is no authority.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return "", ""
    return match["name"].lower().removesuffix("."), match["port"] or ""


def _authority(scheme: str, authority: str) -> str:
    """
    Host and port of an authority, without the port if it is the default of the scheme.
    """
    name, port = _split(authority)
    return f"{name}:{port}" if port and port != _DEFAULT_PORTS.get(scheme) else name


def _canonical(origin: str) -> str | None:
    """
    The canonical spelling of an origin (RFC 6454, section 6.2), or None for what is no
    origin, such as `null`.
    """
    scheme, separator, netloc = origin.lower().partition("://")
    if not separator or not scheme.isalnum() or not _split(netloc)[0]:
        return None
    return f"{scheme}://{_authority(scheme, netloc)}"
