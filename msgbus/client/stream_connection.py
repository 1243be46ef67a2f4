"""
The connection of a stream of publications, by Twisted: sends while it reads the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .errors import BusError, Unreachable, silent
from .failures import explained
from .publication_stream import HEARTBEAT_SECONDS, PublicationStream
from .responses import Answer
from .stream_reader import SilenceAlarm

__all__ = ["StreamConnection"]

WRITE_BYTES = 64 * 1024


@implementer(IPushProducer)
class StreamConnection(Protocol):
    """
    One connection of a stream of publications.

    Twisted's `Agent` hands out a response only when the whole request is sent, which here
    is never.

    Args:
        take: Called with the number of each message and its answer.

    Attributes:
        ended: A Deferred that fires when the connection has ended and everything is
            answered.  It fails with a `BusError` otherwise.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        stream: PublicationStream,
        timeout: float,
        take: Callable[[int, Answer], None],
    ) -> None:
        self._stream = stream
        self._timeout = timeout
        self._take = take
        self._paused = False
        self._over = False
        self._alarm = SilenceAlarm(reactor, timeout, self._silent)
        self._idle = SilenceAlarm(reactor, HEARTBEAT_SECONDS, self._beat)
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """
        Send the head of the request; called by Twisted.
        """
        transport = self._transport
        transport.registerProducer(self, True)
        transport.write(self._stream.begin())

    def more(self, was_idle: bool) -> None:
        """
        Send what was added to the stream.

        Args:
            was_idle: Whether the server had nothing to answer, so that its silence counts
                from now on.
        """
        if was_idle:
            self._alarm.heard()
        self._send()

    def resumeProducing(self) -> None:
        """
        Send more; called by Twisted.
        """
        self._paused = False
        self._alarm.heard()
        self._send()

    def pauseProducing(self) -> None:
        """
        Send no more for now; called by Twisted.
        """
        self._paused = True

    def stopProducing(self) -> None:
        """
        Send no more; called by Twisted.
        """
        self._paused = True

    def dataReceived(self, data: bytes) -> None:
        """
        Take what the server answers; called by Twisted.
        """
        if self._over:
            return
        self._alarm.heard()
        try:
            for number, answer in self._stream.feed(data):
                self._take(number, answer)
        except BusError as error:
            self._end(error)
            return
        if self._stream.finished:
            self._end(None)
        # After answers, more may be sent.
        self._send()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Take the end of the connection; called by Twisted.
        """
        if self._over:
            return
        try:
            for number, answer in self._stream.end():
                self._take(number, answer)
        except BusError as error:
            clean = reason.check(type(connectionDone.value))
            told = clean or not isinstance(error, Unreachable)
            self._end(error if told else cast(BusError, explained(reason)))
            return
        self._end(None)

    @property
    def _transport(self) -> Any:
        # It is that of TCP, of a Unix socket, or of TLS, each with an interface of its own.
        return self.transport

    def _send(self) -> None:
        while not self._paused and not self._over:
            data = self._stream.to_send(WRITE_BYTES)
            if not data:
                return
            self._idle.heard()
            self._transport.write(data)

    def _beat(self) -> None:
        if not self._paused and not self._over:
            self._transport.write(self._stream.heartbeat())
        self._idle.heard()

    def _silent(self) -> None:
        if self._stream.owed:
            self._end(Unreachable(silent(self._timeout)))
        else:
            self._alarm.heard()

    def _end(self, error: BusError | None) -> None:
        self._over = True
        self._alarm.stop()
        self._idle.stop()
        self._transport.abortConnection()
        if error is None:
            self.ended.callback(None)
        else:
            self.ended.errback(error)
