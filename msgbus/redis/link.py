"""
A connection to Redis that is opened again whenever it has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
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


class RedisLink:
    """
    Keeps one connection open.

    Args:
        address: Where Redis is.
        reactor: Twisted's.
        connected: Called with each connection once it can be used.

    Attributes:
        connection: The connection that can be used; None while there is none.
    """

    _log = Logger()

    def __init__(
        self,
        address: RedisAddress,
        reactor: Any,
        connected: Callable[[RedisConnection], object],
    ) -> None:
        self.connection: RedisConnection | None = None
        self._address = address
        self._connected = connected
        self._failing = False
        self._service = ClientService(
            endpoint_of(address, reactor),
            Factory.forProtocol(lambda: RedisConnection(reactor)),
            backoffPolicy(FIRST_SECONDS, MOST_SECONDS, 1.5),
            clock=reactor,
            prepareConnection=self._prepare,
        )

    def start(self) -> None:
        """
        Connect, and from now on connect again.
        """
        self._service.startService()
        self._watch()

    def stop(self) -> Deferred[None]:
        """
        End the connection.

        Returns:
            A Deferred that fires when it has ended.
        """
        if self.connection is not None:
            self.connection.cut()
        stopped: Deferred[None] = self._service.stopService()
        return stopped

    def _watch(self) -> None:
        """
        Log it if Redis cannot be reached.
        """
        self._service.whenConnected(failAfterFailures=3).addErrback(self._fail)

    def _prepare(self, protocol: IProtocol) -> Deferred[None]:
        return Deferred.fromCoroutine(self._greet(cast(RedisConnection, protocol)))

    async def _greet(self, connection: RedisConnection) -> None:
        try:
            for command in self._address.greeting():
                await connection.call(*command, seconds=GREETING_SECONDS)
        except (RedisError, ConnectionLost) as error:
            self._warn(error)
            connection.cut()
            # `ClientService` takes only this as a reason to try again.
            raise ConnectError(string=str(error)) from None
        if self._failing:
            self._failing = False
            self._log.info("Connected to {address} again", address=self._address)
        connection.lost = self._lost
        self.connection = connection
        self._connected(connection)

    def _lost(self) -> None:
        self.connection = None
        self._watch()

    def _fail(self, failure: Failure) -> None:
        if self._service.running:
            self._warn(failure.value)
            self._watch()

    def _warn(self, error: object) -> None:
        if not self._failing:
            self._failing = True
            self._log.warn(
                "Cannot use {address}: {error}. Trying again until it works",
                address=self._address,
                error=error,
            )


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
