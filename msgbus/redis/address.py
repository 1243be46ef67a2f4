"""
Where a log in Redis is: the URL of `--log`.

No I/O and no clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from ..message import Invalid

__all__ = ["RedisAddress", "Server"]

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
DEFAULT_STREAM = "msgbus"

_SCHEMES = {"redis", "rediss", "redis+unix", "redis+sentinel", "rediss+sentinel"}
_FORM = (
    "give redis://[user:password@]host[:port]/[db]?stream=msgbus, or rediss:// for TLS, or"
    " redis+unix:///path/of/socket?db=0, or"
    " redis+sentinel://host[:port],host[:port]/[db]?master=NAME"
)

_URL = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)"
    r"(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>\d{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class Server:
    """
    One server: a Redis, or a sentinel, which knows where a Redis is.

    Attributes:
        host: Its name or address; empty if it is reached by a Unix socket.
        port: Its TCP port.
        path: The path of its Unix socket; empty if it is reached by TCP.
        tls: Whether it is reached by TLS; its certificate must be one of the host.
        user: Who to authenticate as; empty for Redis's default user.
        password: Empty for no authentication.
        database: The number of the database; None for a sentinel, which has none.
    """

    host: str
    port: int
    path: str = ""
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    database: int | None = 0

    def __str__(self) -> str:
        """
        For logs and errors: without user and password.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"

    def greeting(self) -> list[tuple[str, ...]]:
        """
        The commands that come first on each connection.
        """
        commands: list[tuple[str, ...]] = []
        if self.password:
            user = (self.user,) if self.user else ()
            commands.append(("AUTH", *user, self.password))
        if self.database is not None:
            commands.append(("SELECT", str(self.database)))
        return commands


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """
    A stream in a database of Redis.

    Attributes:
        server: The Redis server.  If there are sentinels, they name its host and port, and
            here is the rest.
        stream: The key of the stream.  All other keys of the log begin with it and a colon.
        sentinels: The servers that are asked which Redis is the master; empty if `server`
            is always the one.
        master: The name by which the sentinels know the master and its replicas.
        replicas: How many replicas must have a message before it is acknowledged.
    """

    server: Server
    stream: str
    sentinels: tuple[Server, ...] = ()
    master: str = ""
    replicas: int = 0

    @classmethod
    def parse(
        cls, url: str, read_password: Callable[[str], str] | None = None
    ) -> RedisAddress:
        """
        Read a URL.

        Args:
            read_password: Reads the password in a file that the URL names.  Without this
                function, the URL may not name a file.

        Raises:
            Invalid: It is not the URL of a log in Redis.  The text does not repeat the
                password.
        """
        split = _URL.fullmatch(url)
        if split is None or split["scheme"] not in _SCHEMES:
            raise Invalid(f"The URL of the log is none of Redis: {_FORM}.")
        try:
            query = split["query"] or ""
            options = dict(parse_qsl(query, True, bool(query)))
            address = _address(split, options, read_password)
        except ValueError as error:
            raise Invalid(f"The URL of the log is not valid ({error}): {_FORM}.") from None
        if options:
            name = next(iter(options))
            raise Invalid(f"The URL of the log has no option {name!r}: {_FORM}.")
        return address

    def __str__(self) -> str:
        """
        For logs and errors: without user and password.
        """
        where = str(self.server)
        if self.sentinels:
            sentinels = ",".join(map(str, self.sentinels))
            where = f"the master {self.master!r} of the sentinels {sentinels}"
        database = self.server.database
        return f"the stream {self.stream!r} of Redis at {where}, database {database}"


_ReadPassword = Callable[[str], str] | None


def _address(
    split: re.Match[str], options: dict[str, str], read_password: _ReadPassword
) -> RedisAddress:
    """
    The address of a URL; takes the options that it understands out of `options`.

    Raises:
        ValueError: Something in the URL is wrong.
    """
    server = _server(split, options, read_password)
    stream = options.pop("stream", DEFAULT_STREAM)
    if not stream:
        raise ValueError("the stream has no name")
    wait = options.pop("wait", "0")
    if not re.fullmatch(r"[0-9]{1,2}", wait):
        raise ValueError("wait is no number of replicas")
    sentinels: tuple[Server, ...] = ()
    master = ""
    if split["scheme"].endswith("+sentinel"):
        master = options.pop("master", "")
        if not master:
            raise ValueError("the master has no name")
        sentinels = _sentinels(split, options, read_password)
    return RedisAddress(server, stream, sentinels, master, int(wait))


def _server(
    split: re.Match[str], options: dict[str, str], read_password: _ReadPassword
) -> Server:
    """
    The server of Redis; without host and port if sentinels name them.
    """
    scheme, path = split["scheme"], unquote(split["path"] or "")
    unix = scheme == "redis+unix"
    database = options.pop("db", "0") if unix else path.removeprefix("/") or "0"
    if not re.fullmatch(r"[0-9]{1,6}", database):
        raise ValueError("the database is no number")
    if bool(split["hosts"]) == unix or (unix and len(path) < 2):
        raise ValueError("there is no host, or no path of a socket")
    host, port = "", 0
    if not unix and not scheme.endswith("+sentinel"):
        host, port = _host_of(split["hosts"], DEFAULT_PORT)
    user, _, password = (unquote(part) for part in (split["user"] or "").partition(":"))
    file = options.pop("password-file", None)
    if file is not None:
        if password:
            raise ValueError("it has two passwords")
        password = _password_in(file, read_password)
    return Server(
        host,
        port,
        path if unix else "",
        _is_tls(split),
        user,
        password,
        database=int(database),
    )


def _sentinels(
    split: re.Match[str], options: dict[str, str], read_password: _ReadPassword
) -> tuple[Server, ...]:
    """
    The sentinels, which have a password of their own, if any.
    """
    file = options.pop("sentinel-password-file", None)
    password = "" if file is None else _password_in(file, read_password)
    hosts = [_host_of(text, DEFAULT_SENTINEL_PORT) for text in split["hosts"].split(",")]
    return tuple(
        Server(host, port, tls=_is_tls(split), password=password, database=None)
        for host, port in hosts
    )


def _is_tls(split: re.Match[str]) -> bool:
    scheme: str = split["scheme"]
    return scheme.startswith("rediss")


def _password_in(file: str, read_password: _ReadPassword) -> str:
    if read_password is None:
        raise ValueError("files with passwords are not read here")
    return read_password(file)


def _host_of(text: str, default_port: int) -> tuple[str, int]:
    """
    Read `host`, `host:port` or `[IPv6 address]:port`.

    Raises:
        ValueError: It is none of these.
    """
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError("a host or port is wrong")
    port = int(found["port"] or default_port)
    if not 0 < port < 65536:
        raise ValueError("there is no such port")
    return unquote(found["v6"] or found["name"]), port
