"""
Where a log in Redis is: the URL of `--log`.

No I/O and no clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from ..message import Invalid

__all__ = ["RedisAddress"]

DEFAULT_PORT = 6379
DEFAULT_STREAM = "msgbus"

_SCHEMES = {"redis", "rediss", "redis+unix"}
_FORM = (
    "give redis://[user:password@]host[:port]/[db]?stream=msgbus, or rediss:// for TLS, or"
    " redis+unix:///path/of/socket?db=0"
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """
    A stream in a database of a Redis server.

    Attributes:
        host: Its name or address; empty if it is reached by a Unix socket.
        port: Its TCP port.
        path: The path of its Unix socket; empty if it is reached by TCP.
        tls: Whether it is reached by TLS; its certificate must be one of the host.
        user: Who to authenticate as; empty for Redis's default user.
        password: Empty for no authentication.
        database: The number of the database.
        stream: The key of the stream.  All other keys of the log begin with it and a colon.
    """

    host: str
    port: int
    path: str
    tls: bool
    user: str
    password: str = field(repr=False)
    database: int
    stream: str

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """
        Read a URL.

        Raises:
            Invalid: It is none of Redis.  The text does not repeat the password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
            options = dict(parse_qsl(parts.query, True, bool(parts.query)))
        except ValueError as error:
            raise Invalid(f"The URL of the log is not valid ({error}): {_FORM}.") from None
        unix = parts.scheme == "redis+unix"
        path = unquote(parts.path)
        database = options.pop("db", "0") if unix else path.removeprefix("/") or "0"
        stream = options.pop("stream", DEFAULT_STREAM)
        if (
            parts.scheme not in _SCHEMES
            or options
            or not stream
            or not re.fullmatch(r"[0-9]{1,6}", database)
            or bool(parts.hostname) == unix
            or (unix and len(path) < 2)
        ):
            raise Invalid(f"The URL of the log is none of Redis: {_FORM}.")
        return cls(
            host=parts.hostname or "",
            port=port or DEFAULT_PORT,
            path=path if unix else "",
            tls=parts.scheme == "rediss",
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=int(database),
            stream=stream,
        )

    def __str__(self) -> str:
        """
        For logs and errors: without user and password.
        """
        where = self.path or f"{self.host}:{self.port}"
        return f"the stream {self.stream!r} of Redis at {where}, database {self.database}"

    def greeting(self) -> list[tuple[str, ...]]:
        """
        The commands that come first on each connection.
        """
        commands: list[tuple[str, ...]] = []
        if self.password:
            user = (self.user,) if self.user else ()
            commands.append(("AUTH", *user, self.password))
        commands.append(("SELECT", str(self.database)))
        return commands
