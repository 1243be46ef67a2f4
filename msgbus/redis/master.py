"""
Finds and connects to the Redis that takes messages: the server that the URL names, or the
master that sentinels name.

Sentinels watch a master and its replicas.  When the master does not answer any more, they
elect a replica to take its place, under a larger number, the *epoch*.  So an answer with a
smaller epoch than one before is outdated: that sentinel has been cut off from the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory

from .address import RedisAddress, Server
from .connection import BlockingConnection, RedisConnection, RedisError, endpoint_of

__all__ = ["CANCELLED", "MasterFinder", "connect_blocking"]

# How long Redis may take for each answer when a connection is opened, and how long a
# sentinel may take to connect and for each answer.
GREETING_SECONDS = 3.0
SENTINEL_SECONDS = 2.0

CANCELLED = (CancelledError, ConnectingCancelledError)
"""
The errors of a Deferred that was cancelled; the second one if it was connecting.
"""


def connect_blocking(address: RedisAddress) -> BlockingConnection:
    """
    Connect to the master, before the reactor runs.  This blocks.

    Raises:
        OSError: It cannot be reached, or takes no messages.
        RedisError: It, or a sentinel, refuses the password, or the sentinel knows no master
            of that name.
    """
    if not address.sentinels:
        return _connect_blocking(address.server)
    for sentinel in address.sentinels:
        try:
            asked = BlockingConnection(sentinel, SENTINEL_SECONDS)
            try:
                _, server = _read_master(asked.call(*_question(address)), address)
            finally:
                asked.close()
            return _connect_blocking(server)
        except (OSError, RedisError) as failed:
            error = failed
    raise error


class MasterFinder:
    """
    Connects to the master.

    Args:
        address: Where it is, or which sentinels know that.
        reactor: Twisted's.
    """

    def __init__(self, address: RedisAddress, reactor: Any) -> None:
        self._address = address
        self._reactor = reactor
        # The epoch of the master to which a connection was opened last.
        self._epoch = 0
        # The place of the sentinel that is asked first next time.
        self._first = 0

    async def connect(self) -> RedisConnection:
        """
        Open a connection to the master.  Sentinels are asked in turn, until one of them
        names a server that says itself that it is a master.

        Raises:
            Exception: That is impossible, whatever the reason.
        """
        if not self._address.sentinels:
            return await self._open_master(self._address.server)
        is_outdated = True
        for sentinel in self._in_turn():
            try:
                epoch, server = await self._ask(sentinel)
                if epoch < self._epoch:
                    raise OSError(f"The sentinel at {sentinel} names an earlier master")
                is_outdated = False
                connection = await self._open_master(server)
            except CANCELLED:
                raise
            except Exception as failed:
                error = failed
            else:
                self._epoch = epoch
                return connection
        if is_outdated:
            # No sentinel has named a later master.  If they were set up anew, they count
            # from the beginning, and are believed next time.
            self._epoch = 0
        raise error

    async def has_moved(self) -> bool:
        """
        Ask one sentinel, each time the next one, whether another master was elected since
        the last connection was opened.  If it does not answer, this returns False.
        """
        sentinel = next(self._in_turn())
        try:
            epoch, _ = await self._ask(sentinel)
        except CANCELLED:
            raise
        except Exception:
            return False
        return epoch > self._epoch

    def _in_turn(self) -> Iterator[Server]:
        sentinels = self._address.sentinels
        first = self._first
        self._first = (first + 1) % len(sentinels)
        return iter(sentinels[first:] + sentinels[:first])

    async def _ask(self, sentinel: Server) -> tuple[int, Server]:
        connection = await self._open(sentinel, SENTINEL_SECONDS)
        try:
            question = _question(self._address)
            reply = await connection.call(*question, seconds=SENTINEL_SECONDS)
            return _read_master(reply, self._address)
        finally:
            connection.cut()

    async def _open_master(self, server: Server) -> RedisConnection:
        connection = await self._open(server, GREETING_SECONDS)
        try:
            _check_master(await connection.call("ROLE", seconds=GREETING_SECONDS), server)
        except BaseException:
            connection.cut()
            raise
        return connection

    async def _open(self, server: Server, seconds: float) -> RedisConnection:
        endpoint = endpoint_of(server, self._reactor, seconds)
        factory = Factory.forProtocol(lambda: RedisConnection(self._reactor, server))
        factory.noisy = False
        connection = cast(RedisConnection, await endpoint.connect(factory))
        try:
            for command in server.greeting():
                await connection.call(*command, seconds=seconds)
        except BaseException:
            connection.cut()
            raise
        return connection


def _connect_blocking(server: Server) -> BlockingConnection:
    connection = BlockingConnection(server)
    try:
        _check_master(connection.call("ROLE"), server)
    except BaseException:
        connection.close()
        raise
    return connection


def _question(address: RedisAddress) -> tuple[str, str, str]:
    return "SENTINEL", "MASTER", address.master


def _read_master(reply: list[bytes], address: RedisAddress) -> tuple[int, Server]:
    """
    What a sentinel has answered: the epoch of the master, and where it is.
    """
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    host, port = fields[b"ip"].decode(), int(fields[b"port"])
    epoch = int(fields[b"config-epoch"])
    return epoch, replace(address.server, host=host, port=port)


def _check_master(role: list[bytes], server: Server) -> None:
    """
    Raises:
        OSError: The server is a replica, which takes no messages.
    """
    if role[0] != b"master":
        raise OSError(f"The Redis at {server} is a replica and takes no messages")
