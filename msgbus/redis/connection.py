"""
A connection to Redis, in the reactor or blocking: commands, and the replies to them, in
order.

The protocol (RESP 2) is read and written by hiredis, the parser of Redis's own tools.
Replies are bytes, numbers, None and lists of these, and nothing else is made of them: a
body `21.5` stays the bytes that it is.  Nothing is sent again by itself: a command whose
reply is lost fails, and its caller knows whether it may be repeated.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from typing import Any

import hiredis
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from .address import Server

__all__ = ["BlockingConnection", "RedisConnection", "RedisError", "endpoint_of"]

# How long connecting may take, and each reply to a blocking connection.
CONNECT_SECONDS = 5.0

RedisError = hiredis.ReplyError
"""
Redis has answered a command with an error.  Its text begins with a word in capitals, such
as NOSCRIPT, that tells its kind.
"""

Argument = str | bytes | int
"""
What a command consists of.
"""


def endpoint_of(server: Server, reactor: Any, seconds: float) -> IStreamClientEndpoint:
    """
    What connects to this server.

    Args:
        reactor: Twisted's.
        seconds: How long connecting may take.
    """
    if server.path:
        return UNIXClientEndpoint(reactor, server.path, seconds)
    endpoint = HostnameEndpoint(reactor, server.host, server.port, seconds)
    if not server.tls:
        return endpoint
    return wrapClientTLS(optionsForClientTLS(server.host), endpoint)


class RedisConnection(Protocol):
    """
    A connection in the reactor.

    Args:
        reactor: Its clock tells when a reply takes too long.
        server: The server that it is connected to.

    Attributes:
        server: As given.
        ended: Fires when the connection has ended, after all commands without a reply have
            failed.
    """

    def __init__(self, reactor: Any, server: Server) -> None:
        self.server = server
        self.ended: Deferred[None] = Deferred()
        self._reactor = reactor
        self._transport: Any = None
        self._reader = hiredis.Reader()
        self._waiting: deque[Deferred[Any]] = deque()

    def call(self, *command: Argument, seconds: float) -> Deferred[Any]:
        """
        Send a command.

        Args:
            seconds: How long its reply may take.  After that, the connection is cut.

        Returns:
            A Deferred that fires with the reply.  It fails with `RedisError` if that is an
            error, and with `ConnectionLost` if the connection ends before; then it is not
            known whether the command was executed.
        """
        done: Deferred[Any] = Deferred()
        if self.ended.called:
            done.errback(ConnectionLost())
            return done
        self._waiting.append(done)
        self._transport.write(_packed(command))
        late = self._reactor.callLater(seconds, self.cut)

        def stop(result: Any) -> Any:
            if late.active():
                late.cancel()
            return result

        return done.addBoth(stop)

    def cut(self) -> None:
        """
        End the connection at once.
        """
        self._transport.abortConnection()

    def connectionMade(self) -> None:
        """
        Have the kernel send keep-alive probes, so that a peer that is gone is noticed.
        """
        # Of TCP, TLS or a Unix socket: no interface has all that is used of them.
        self._transport = self.transport
        if hasattr(self._transport, "setTcpKeepAlive"):
            self._transport.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes) -> None:
        """
        Give the replies that are complete to those that wait for them.
        """
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if not self._waiting:
                self.cut()
                return
            done = self._waiting.popleft()
            if isinstance(reply, RedisError):
                done.errback(reply)
            else:
                done.callback(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Fail all commands that have no reply.
        """
        while self._waiting:
            self._waiting.popleft().errback(ConnectionLost(reason.getErrorMessage()))
        self.ended.callback(None)


class BlockingConnection:
    """
    A connection that blocks, for the time before the reactor runs.

    Args:
        seconds: How long connecting may take, and each reply.

    Raises:
        OSError: It is impossible to connect; also, in `call`, if there is no reply in time.
        RedisError: Redis refuses the password or the database.
    """

    def __init__(self, server: Server, seconds: float = CONNECT_SECONDS) -> None:
        self._reader = hiredis.Reader()
        self._socket = _connect(server, seconds)
        try:
            for command in server.greeting():
                self.call(*command)
        except BaseException:
            self.close()
            raise

    def call(self, *command: Argument) -> Any:
        """
        Send a command, and wait for its reply.

        Raises:
            RedisError: The reply is an error.
        """
        self._socket.sendall(_packed(command))
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("Redis has closed the connection")
            self._reader.feed(data)
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def close(self) -> None:
        """
        End the connection.
        """
        self._socket.close()


def _packed(command: tuple[Argument, ...]) -> bytes:
    # hiredis declares the parameter as a tuple of exactly one item, by mistake.
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return packed


def _connect(server: Server, seconds: float) -> socket.socket:
    if server.path:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(seconds)
        connection.connect(server.path)
        return connection
    connection = socket.create_connection((server.host, server.port), seconds)
    if not server.tls:
        return connection
    context = ssl.create_default_context()
    return context.wrap_socket(connection, server_hostname=server.host)
