"""
A connection to Redis that is opened again whenever it has ended, or whenever sentinels have
elected another master.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .address import RedisAddress
from .connection import Argument, RedisConnection, RedisError
from .master import CANCELLED, MasterFinder
from .scripts import Script

__all__ = ["RedisLink", "run"]

# How long it waits before it connects again, at first and at most.
FIRST_SECONDS = 0.05
MOST_SECONDS = 2.0

# How often a sentinel is asked whether another master was elected.  The connection does not
# show it if the old master hangs, or if this node can still reach it.
WATCH_SECONDS = 2.0

# After how many failures in a row it is logged that Redis cannot be used.
PATIENCE = 3


class RedisLink:
    """
    Keeps one connection open.

    Args:
        address: Where Redis is.
        reactor: Twisted's.
        connected: Called with each connection once it can be used.
        quiet: Whether to log nothing, because another link to the same Redis does.

    Attributes:
        connection: The connection that can be used; None while there is none.
        failures: How often connecting has failed since the start.
    """

    _log = Logger()

    def __init__(
        self,
        address: RedisAddress,
        reactor: Any,
        connected: Callable[[RedisConnection], object],
        quiet: bool = False,
    ) -> None:
        self.connection: RedisConnection | None = None
        self.failures = 0
        self._address = address
        self._reactor = reactor
        self._connected = connected
        self._finder = MasterFinder(address, reactor)
        self._quiet = quiet
        # How many of them were the last attempts.
        self._failures_in_a_row = 0
        self._task: Deferred[None] | None = None

    def start(self) -> None:
        """
        Connect, and from now on connect again.
        """
        self._task = Deferred.fromCoroutine(self._stay_connected())
        self._task.addErrback(lambda failure: failure.trap(*CANCELLED))
        self._task.addErrback(lambda f: self._log.failure("Redis is given up", f))

    def stop(self) -> None:
        """
        End the connection, and do not connect again.
        """
        task, self._task = self._task, None
        connection, self.connection = self.connection, None
        if task is not None:
            task.cancel()
        if connection is not None:
            connection.cut()

    async def _stay_connected(self) -> None:
        delay = FIRST_SECONDS
        while True:
            try:
                connection = await self._finder.connect()
            except CANCELLED:
                raise
            except Exception as error:
                self._fail(error)
                delay = min(delay * 1.5, MOST_SECONDS)
            else:
                delay = FIRST_SECONDS
                self._succeed()
                self.connection = connection
                self._connected(connection)
                await self._until_ended(connection)
                self.connection = None
            await deferLater(self._reactor, delay)

    async def _until_ended(self, connection: RedisConnection) -> None:
        watching = None
        if self._address.sentinels:
            watching = Deferred.fromCoroutine(self._watch(connection))
            watching.addErrback(lambda failure: failure.trap(*CANCELLED))
        try:
            await connection.ended
        finally:
            if watching is not None:
                watching.cancel()

    async def _watch(self, connection: RedisConnection) -> None:
        while True:
            await deferLater(self._reactor, WATCH_SECONDS)
            if await self._finder.has_moved():
                connection.cut()

    def _fail(self, error: Exception) -> None:
        self.failures += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row == PATIENCE and not self._quiet:
            self._log.warn(
                "Cannot use {address}: {error}. Trying again until it works",
                address=self._address,
                error=error,
            )

    def _succeed(self) -> None:
        if self._failures_in_a_row >= PATIENCE and not self._quiet:
            self._log.info("Connected to {address} again", address=self._address)
        self._failures_in_a_row = 0


def run(
    connection: RedisConnection,
    script: Script,
    keys: tuple[str, ...],
    arguments: tuple[Argument, ...],
    seconds: float,
) -> Deferred[Any]:
    """
    Have Redis execute a script, which it is given if it does not know it.

    Returns:
        A Deferred that fires with the reply; see `RedisConnection.call`.
    """
    rest = (len(keys), *keys, *arguments)

    def give(failure: Failure) -> Failure | Deferred[Any]:
        if failure.check(RedisError) and str(failure.value).startswith("NOSCRIPT"):
            return connection.call("EVAL", script.text, *rest, seconds=seconds)
        return failure

    known = connection.call("EVALSHA", script.digest, *rest, seconds=seconds)
    return known.addErrback(give)
