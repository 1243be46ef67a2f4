"""
A reactor that opens no port of its own, but adopts a listening socket that this process has
inherited, and at which other processes accept connections, too.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import unix
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

__all__ = ["Adopting"]

# After it has accepted at most so many connections, a process leaves those that come within
# so many seconds to the others.  Otherwise one process often gets most of them.
MOST_AT_ONCE = 16
PAUSE_SECONDS = 0.001


class Adopting:
    """
    A reactor for one endpoint, whose socket listens already.  Whatever address the endpoint
    asks for, its port has this socket.

    Args:
        reactor: Watches the socket.
        descriptor: The number of the socket as an open file of this process.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """
        Accept connections at the socket; see `IReactorTCP`.
        """
        return self._adopt(factory, backlog)

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """
        Accept connections at the socket; see `IReactorUNIX`.
        """
        return self._adopt(factory, backlog)

    def _adopt(self, factory: IProtocolFactory, backlog: int) -> IListeningPort:
        port: Any
        # The port has a descriptor of its own.
        with socket.socket(fileno=self._descriptor) as inherited:
            # All processes share this mode.  If the socket blocked, those that find no
            # connection to accept would hang.
            inherited.setblocking(False)
            if inherited.family == socket.AF_UNIX:
                port = _SharedUnixPort(self._reactor, inherited, factory, backlog)
                port.startListening()
            else:
                port = self._reactor.adoptStreamPort(
                    self._descriptor, inherited.family, factory
                )
        _take_turns(self._reactor, port)
        listening: IListeningPort = port
        return listening


class _SharedUnixPort(unix.Port):
    """
    A port at a Unix socket at which others listen, too.  The socket file is theirs: the
    port that Twisted would make of such a socket changes the mode of the file, and at its
    end shuts the socket for all and removes the file.
    """

    _shouldShutdown = False

    def __init__(
        self,
        reactor: Any,
        inherited: socket.socket,
        factory: IProtocolFactory,
        backlog: int,
    ) -> None:
        # For Twisted, a name that begins with a zero byte has no file.
        name = b"\0" + os.fsencode(inherited.getsockname())
        super().__init__(name, factory, backlog, reactor=reactor)
        self._preexistingSocket = inherited.dup()

    def _logConnectionLostMsg(self) -> None:
        pass  # The parent logs it; here the line would contain the zero byte.


def _take_turns(reactor: Any, port: Any) -> None:
    """
    Have a port of Twisted pause each time that it has accepted connections.
    """
    accept = port.doRead

    def accept_some() -> None:
        before = port.sessionno
        port.numberAccepts = MOST_AT_ONCE
        accept()
        if port.sessionno != before:
            port.stopReading()
            reactor.callLater(PAUSE_SECONDS, go_on)

    def go_on() -> None:
        if port.connected and not port.disconnecting:
            port.startReading()

    port.doRead = accept_some
