"""
Reading a stream by Twisted: no faster than its messages are taken, and not longer than the
server shows signs of life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from ..formats.multipart import Malformed
from .errors import silent
from .failures import explained
from .stream import Item, Stream

__all__ = ["SilenceAlarm", "StreamReader"]


class SilenceAlarm:
    """
    Calls a function when nothing was heard for a while.

    Args:
        seconds: How long that is; zero for no alarm at all.
        ring: The function.
    """

    def __init__(
        self, reactor: IReactorTime, seconds: float, ring: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._ring = ring
        self._call: IDelayedCall | None = None

    def heard(self) -> None:
        """
        Count the seconds from now on.
        """
        if self._call is not None and self._call.active():
            self._call.reset(self._seconds)
        elif self._seconds:
            self._call = self._reactor.callLater(self._seconds, self._ring)

    def stop(self) -> None:
        """
        Never call the function from now on.
        """
        self._seconds = 0
        if self._call is not None and self._call.active():
            self._call.cancel()


class StreamReader(Protocol):
    """
    Takes the bytes of a response, and hands over the messages and notices in them.

    Args:
        stream: Decodes the bytes.
        deliver: Called with each message and notice.  If it returns a Deferred, the next
            one is handed over after that has fired, and the server is paused meanwhile.
        reactor: Where time passes.
        silence_seconds: How long the server may send nothing; zero for any time.
        abort: Closes the connection.

    Attributes:
        ended: A Deferred that fires once the stream has ended and all of it is delivered,
            with a sentence that says why it has ended.  It fails with `Malformed`.
            Cancelling it closes the connection.
    """

    def __init__(
        self,
        stream: Stream,
        deliver: Callable[[Item], Deferred[object] | None],
        reactor: IReactorTime,
        silence_seconds: float,
        abort: Callable[[], object],
    ) -> None:
        self._stream = stream
        self._deliver = deliver
        self._abort = abort
        self._items: Iterator[Item] = iter(())
        # Busy: a delivered message is not yet taken.  Handing over: `_go_on` is still about
        # to find out whether it was taken at once.
        self._busy = self._handing_over = False
        # Why the stream has ended, once it has.
        self._end: str | None = None
        self._silence_seconds = silence_seconds
        self._alarm = SilenceAlarm(reactor, silence_seconds, self._silent)
        self._alarm.heard()
        self.ended: Deferred[str] = Deferred(self._cancelled)

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes of the body; called by Twisted.
        """
        self._alarm.heard()
        self._items = self._stream.feed(data)
        self._go_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Take the end of the body; called by Twisted.
        """
        self._alarm.stop()
        if self._end is None:
            clean = reason.check(ResponseDone, PotentialDataLoss)
            self._end = self._stream.end() if clean else str(explained(reason))
        self._go_on()

    def _go_on(self) -> None:
        """
        Deliver what has come, until a message is not taken at once.
        """
        transport = cast(IPushProducer, self.transport)
        if self._busy:
            # It was paused before, but `Agent` resumes a response when it hands that out.
            transport.pauseProducing()
            return
        try:
            for item in self._items:
                taken = self._deliver(item)
                if taken is None:
                    continue
                self._busy = self._handing_over = True
                taken.addCallback(self._taken)
                self._handing_over = False
                if self._busy:
                    transport.pauseProducing()
                    return
        except Malformed as error:
            self._finish(error)
            return
        if self._end is not None:
            self._finish(self._end)

    def _taken(self, result: object) -> object:
        self._busy = False
        if not self._handing_over:
            self._alarm.heard()
            cast(IPushProducer, self.transport).resumeProducing()
            self._go_on()
        return result

    def _silent(self) -> None:
        if self._busy:
            # The server is paused, so its silence says nothing.
            self._alarm.heard()
            return
        self._end = silent(self._silence_seconds)
        self._abort()

    def _finish(self, result: str | Malformed) -> None:
        if self.ended.called:
            return
        if isinstance(result, Malformed):
            self._abort()
            self.ended.errback(result)
        else:
            self.ended.callback(result)

    def _cancelled(self, _: Deferred[str]) -> None:
        self._items = iter(())
        self._alarm.stop()
        self._abort()
