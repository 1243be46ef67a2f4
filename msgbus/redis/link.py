"""
A connection to Redis that is opened again whenever it has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .address import RedisAddress
from .connection import Argument, RedisConnection, RedisError, endpoint_of
from .scripts import Script

__all__ = ["RedisLink", "run"]

# How long it waits before it connects again, at first and at most.
FIRST_SECONDS = 0.05
MOST_SECONDS = 2.0

# How long Redis may take to answer when the connection is opened.
GREETING_SECONDS = 3.0

# It is logged that Redis cannot be used when it was tried so often in vain.
PATIENCE = 3

# What comes of a task that is cancelled; the second, if it was connecting.
STOPPED = CancelledError, ConnectingCancelledError


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
        self._address = address
        self._reactor = reactor
        self._connected = connected
        self._endpoint = endpoint_of(address, reactor)
        self._factory = Factory.forProtocol(lambda: RedisConnection(reactor))
        self._factory.noisy = False
        self._quiet = quiet
        self._failures = 0
        self._task: Deferred[None] | None = None

    def start(self) -> None:
        """
        Connect, and from now on connect again.
        """
        self._task = Deferred.fromCoroutine(self._stay_connected())
        self._task.addErrback(lambda failure: failure.trap(*STOPPED))
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
                connection = await self._connect()
            except STOPPED:
                raise
            except Exception as error:
                self._fail(error)
                delay = min(delay * 1.5, MOST_SECONDS)
            else:
                delay = FIRST_SECONDS
                self._succeed()
                self.connection = connection
                self._connected(connection)
                await connection.ended
                self.connection = None
            await deferLater(self._reactor, delay)

    async def _connect(self) -> RedisConnection:
        connection = cast(RedisConnection, await self._endpoint.connect(self._factory))
        try:
            for command in self._address.greeting():
                await connection.call(*command, seconds=GREETING_SECONDS)
        except BaseException:
            connection.cut()
            raise
        return connection

    def _fail(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == PATIENCE and not self._quiet:
            self._log.warn(
                "Cannot use {address}: {error}. Trying again until it works",
                address=self._address,
                error=error,
            )

    def _succeed(self) -> None:
        if self._failures >= PATIENCE and not self._quiet:
            self._log.info("Connected to {address} again", address=self._address)
        self._failures = 0


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
