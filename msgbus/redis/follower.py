"""
Reads the stream of a log in Redis as it grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..ids import Id, format_id
from .address import RedisAddress, Server
from .connection import RedisConnection, RedisError
from .link import RedisLink

__all__ = ["Entry", "RedisFollower"]

# Redis answers a read after BLOCK_SECONDS even if there is nothing new.  If it has not
# answered LATE_SECONDS after that, it hangs, and the connection is cut.
BLOCK_SECONDS = 2.0
LATE_SECONDS = 3.0

# How many entries are read at once: as many as have about READ_BYTES in their bodies,
# judged by the size of those read before, but at most READ_ENTRIES, so that other work is
# not delayed for long.
READ_BYTES = 512 * 1024
READ_ENTRIES = 128

# How long to wait after an error of Redis before reading again.
RETRY_SECONDS = 1.0

Entry = tuple[bytes, list[bytes]]
"""
The id of an entry, and its fields: names and values in turn.
"""


class RedisFollower:
    """
    Follows one stream, by a connection of its own.

    Args:
        address: Where the stream is.
        reactor: Twisted's.
        take: Called with each entry, in order.
    """

    _log = Logger()

    def __init__(
        self, address: RedisAddress, reactor: Any, take: Callable[[Entry], object]
    ) -> None:
        self._address = address
        self._reactor = reactor
        self._take = take
        self._server: Server | None = None
        self._link: RedisLink | None = None
        # The id of the last entry that was read.
        self._last: bytes = b"0-0"
        self._entries = READ_ENTRIES

    def start(self, after: Id) -> None:
        """
        Read the entries with larger ids than this one, and those that are added, as soon
        as there is a server to read from.
        """
        self._last = format_id(after).encode("ascii")
        if self._server is not None:
            self.connect(self._server)

    def restart(self, after: Id) -> None:
        """
        Read again from behind this id.
        """
        self._last = format_id(after).encode("ascii")
        if self._link is not None and self._link.connection is not None:
            self._link.connection.cut()

    def connect(self, server: Server) -> None:
        """
        Read from this server from now on, and from no other that sentinels may name.
        """
        self.stop()
        self._server = server
        address = replace(self._address, server=server, sentinels=())
        self._link = RedisLink(address, self._reactor, self._read, quiet=True)
        self._link.start()

    def stop(self) -> None:
        """
        Read no more.
        """
        link, self._link = self._link, None
        if link is not None:
            link.stop()

    def _read(self, connection: RedisConnection) -> None:
        if self._link is None or connection is not self._link.connection:
            return
        block, stream = int(BLOCK_SECONDS * 1000), self._address.stream
        command = ("XREAD", "COUNT", self._entries, "BLOCK", block, "STREAMS", stream)
        last = self._last
        read = connection.call(*command, last, seconds=BLOCK_SECONDS + LATE_SECONDS)
        read.addCallback(self._got, connection, last)
        read.addErrback(self._failed, connection)

    def _got(self, reply: Any, connection: RedisConnection, last: bytes) -> None:
        if last != self._last:
            # It has been restarted meanwhile.
            return
        entries: list[Entry] = reply[0][1] if reply else []
        if entries:
            self._last = entries[-1][0]
            size = sum(len(fields[-1]) for _, fields in entries)
            fit = READ_BYTES * len(entries) // (size + 1)
            self._entries = max(1, min(READ_ENTRIES, fit))
        # While the entries are delivered, the next ones are on their way.
        self._read(connection)
        for entry in entries:
            try:
                self._take(entry)
            except Exception:
                self._log.failure("Cannot take the entry {id!r} of Redis", id=entry[0])

    def _failed(self, failure: Failure, connection: RedisConnection) -> None:
        if failure.check(ConnectionLost):
            return
        failure.trap(RedisError)
        self._log.warn("Redis does not give messages: {error}", error=failure.value)
        self._reactor.callLater(RETRY_SECONDS, self._read, connection)
