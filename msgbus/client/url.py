"""
The URL of a bus, or of a channel of it, with the name and password to use there.

No I/O.  What is sent to that URL is up to `requests`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ..message import Invalid, check_name

__all__ = ["BusURL", "DEFAULT_URL", "locate"]

DEFAULT_PATH = "/msgbus/"
DEFAULT_URL = f"http://localhost:8888{DEFAULT_PATH}"

# Characters that a path and a query may hold as they are (RFC 3986, sections 3.3 and 3.4).
# The percent sign is among them, so that what is percent-encoded already stays so.
_PATH_SAFE = "/!$&'()*+,;=:@%"
_QUERY_SAFE = _PATH_SAFE + "?"

_PORTS = {"http": 80, "https": 443, "http+unix": 0}
# The beginnings of URLs that lack `http://`: a host with a port, an IPv6 address, a scheme
# with too few slashes, a name with a password.
_LOOKS_LIKE_A_HOST = re.compile(r"[\w.-]+:[0-9]+/|\[[0-9a-fA-F:]+\]|[a-z+]+:/|[^@]*:[^@]*@")
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class BusURL:
    """
    The URL of a bus or of a channel, taken apart.  `str()` gives the URL without what is
    secret in it: the name and the password, and the link that its query may have, which is
    shown as `link=...`.

    Attributes:
        scheme: "http" or "https".
        host: A name or an address, without brackets; "localhost" for a Unix socket.
        port: 0 for a Unix socket.
        socket: The path of a Unix socket, or the empty string for TCP.
        path: Percent-encoded.
        query: Percent-encoded, without the question mark.
        user: The name under which messages are published, or the empty string.
        password: The password of the bus, or the empty string.
    """

    scheme: str
    host: str
    port: int
    socket: str
    path: str
    query: str = ""
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> BusURL:
        """
        Read a URL (RFC 3986): `http:`, `https:`, or `http+unix:` with the socket's path,
        percent-encoded, in place of the host, such as
        `http+unix://%2Frun%2Fmsgbus.sock/msgbus/foo`.  Characters that a path may not hold
        are percent-encoded.  A URL without a path gets `DEFAULT_PATH`.

        Raises:
            Invalid: The text is no URL of a bus.  The error does not show the password.
        """
        try:
            if _no_utf8(url):
                raise ValueError
            parts = urlsplit(url)
            unix = parts.scheme == "http+unix"
            port = parts.port
            host = parts.hostname or ""
            if not unix and not _CONTROL.search(host):
                host = host.encode("idna").decode("ascii")
            socket, user, password = (
                unquote(text or "", errors="strict")
                for text in (_host(parts) if unix else "", parts.username, parts.password)
            )
        except ValueError:
            # Python's own error may quote the password.
            raise Invalid(f"{_public(url)!r} is no URL, by its host or port.") from None
        if parts.scheme not in _PORTS:
            raise Invalid(
                f"{_public(url)!r} is no URL of a bus: it begins with http://, https:// or"
                " http+unix://."
            )
        nowhere = port is not None if unix else port == 0
        if not host or nowhere or _CONTROL.search(parts.netloc) or "\0" in socket:
            raise Invalid(f"{_public(url)!r} names no host.")
        return cls(
            scheme="https" if parts.scheme == "https" else "http",
            host="localhost" if unix else host,
            port=port or _PORTS[parts.scheme],
            socket=socket,
            path=DEFAULT_PATH if parts.path in ("", "/") else quote(parts.path, _PATH_SAFE),
            query=quote(parts.query, _QUERY_SAFE),
            user=user,
            password=password,
        )

    def __post_init__(self) -> None:
        # Arguments of a command line that are no UTF-8 hold lone surrogates.
        if _no_utf8(self.user) or _no_utf8(self.password):
            raise Invalid("The name or the password is no UTF-8.")
        if ":" in self.user:
            raise Invalid(f"The name {self.user!r} holds a colon (RFC 7617, section 2).")

    def channel(self, name: str) -> BusURL:
        """
        The URL of a channel or folder of the bus at this URL.

        Raises:
            Invalid: The name is not valid; see `message.check_name`.
        """
        check_name(name)
        path = self.path.removesuffix("/") + "/" + quote(name, safe="/!$&'()*+,;=:@")
        return replace(self, path=path)

    def split(self) -> tuple[BusURL, str]:
        """
        Split off the last segment: the URL of the folder that holds this channel, and the
        channel's name in that folder.  For a folder, its own URL and the empty string.
        """
        folder, _, name = self.path.rpartition("/")
        return replace(self, path=f"{folder}/"), unquote(name)

    def with_parameters(self, parameters: Mapping[str, object]) -> BusURL:
        """
        The same URL with these parameters added at the end of its query.  Parameters that
        are empty or zero are left out.

        Raises:
            Invalid: A value is neither text nor a whole number, or is no UTF-8.
        """
        for name, value in parameters.items():
            if not isinstance(value, str | int) or _no_utf8(str(value)):
                raise Invalid(f"The {name} {value!r} is no text, or no UTF-8.")
        items = [
            f"{name}={quote(str(value), safe='/*!,?')}"
            for name, value in parameters.items()
            if value
        ]
        return replace(self, query="&".join([self.query, *items]).strip("&"))

    def with_credentials(self, user: str = "", password: str = "") -> BusURL:
        """
        The same URL with this name and this password.  An empty one does not replace the
        one that the URL has.
        """
        return replace(self, user=user or self.user, password=password or self.password)

    @property
    def hosts(self) -> tuple[str, ...]:
        """
        The hosts to try, in this order.  `localhost` is always this machine, by IPv4 or
        IPv6, without a look at the hosts file (RFC 6761, section 6.3).
        """
        return ("127.0.0.1", "::1") if self.host == "localhost" else (self.host,)

    @property
    def target(self) -> str:
        """
        Path and query, as a request line has them (RFC 9112, section 3.2.1).
        """
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def authority(self) -> str:
        """
        Host and port, as a `Host` header has them (RFC 9110, section 7.2).
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port in (0, _PORTS[self.scheme])
        return host if usual else f"{host}:{self.port}"

    @property
    def base(self) -> str:
        """
        The beginning of the URL, before the path.
        """
        if self.socket:
            return f"http+unix://{quote(self.socket, safe='')}"
        return f"{self.scheme}://{self.authority}"

    @property
    def channel_name(self) -> str:
        """
        The decoded name of the channel, if the bus is at `DEFAULT_PATH`; elsewhere a guess,
        since a URL does not show where the path of the bus ends.
        """
        return unquote(self.path.rpartition(DEFAULT_PATH)[2].lstrip("/"))

    def __str__(self) -> str:
        items = self.query.split("&")
        query = "&".join("link=..." if _is_link(item) else item for item in items)
        return f"{self.base}{replace(self, query=query).target}"


def locate(text: str, environment: Mapping[str, str]) -> BusURL:
    """
    Read what the user of a tool gave: a URL, or the name of a channel or folder of the
    bus at `MSGBUS_URL` in the environment, or else at `DEFAULT_URL`.  If the URL has no
    password, it is taken from `MSGBUS_PASSWORD`.

    Raises:
        Invalid: The text is neither a URL nor a name.
    """
    if "://" in text:
        url = BusURL.parse(text)
    elif _LOOKS_LIKE_A_HOST.match(text):
        raise Invalid(
            f"{_public(text)!r} is no name of a channel; write http:// before a host."
        )
    elif text.startswith("/"):
        raise Invalid(f"{text!r} is no name of a channel, for it begins with a slash.")
    elif "?" in text:
        raise Invalid(f"{text!r} has a query, which needs a URL; tools have options.")
    else:
        url = BusURL.parse(environment.get("MSGBUS_URL") or DEFAULT_URL).channel(text)
    password = url.password or environment.get("MSGBUS_PASSWORD", "")
    return url.with_credentials(password=password)


def _host(parts: SplitResult) -> str:
    """
    The host with its upper-case letters, which `SplitResult.hostname` does not keep: here
    it is the path of a socket.
    """
    return parts.netloc.rpartition("@")[2]


def _is_link(item: str) -> bool:
    """
    Is this item of a query a link, which is a right to whoever sees it?
    """
    return unquote(item.partition("=")[0]) == "link"


def _no_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _public(url: str) -> str:
    """
    The URL without everything before its last `@`, which may be a password.
    """
    credentials, at, rest = url.rpartition("@")
    scheme, separator, _ = credentials.partition("://")
    known = separator and scheme in _PORTS
    return f"{scheme}://{rest}" if at and known else rest
