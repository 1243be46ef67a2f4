"""
Reads the frames of a WebSocket client, a few in each turn of the reactor, and none while
the client leaves its answers unread.

What the frames mean, and how they are answered, is up to `websocket`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from wsproto import events
from wsproto.connection import Connection, ConnectionState, ConnectionType

__all__ = ["WebSocketReader"]

# How many events of one client are taken in one turn of the reactor.
EVENTS_A_TURN = 64

# While more bytes of answers than this wait for a client, none of its frames are taken;
# after so many seconds it is looked again whether the client has read some.
ANSWER_BYTES = 64 * 1024
PAUSE_SECONDS = 0.1


class WebSocketReader:
    """
    Turns the bytes of one client into events of wsproto, and hands them on at a bounded
    pace.  While events are left to be handed on, the transport is paused.

    Args:
        transport: What the client's bytes come from.
        take: Called with each event, in order.
        fail: Called with a close code and a reason when the client breaks the protocol.
        waiting: How many bytes of answers wait for the client.
    """

    __slots__ = (
        "_connection",
        "_events",
        "_fail",
        "_reactor",
        "_resuming",
        "_take",
        "_transport",
        "_waiting",
    )

    def __init__(
        self,
        reactor: IReactorTime,
        transport: IPushProducer,
        take: Callable[[events.Event], object],
        fail: Callable[[int, str], object],
        waiting: Callable[[], int],
    ) -> None:
        self._reactor = reactor
        self._transport = transport
        self._take = take
        self._fail = fail
        self._waiting = waiting
        self._connection = Connection(ConnectionType.SERVER)
        self._events: Iterator[events.Event] = iter(())
        # The next turn's work, for which the transport is paused.
        self._resuming: IDelayedCall | None = None

    def receive(self, data: bytes) -> None:
        """
        Take bytes of the client.
        """
        self._connection.receive_data(data)
        # Over TLS, bytes that were read before the pause may come during it.  The events
        # of the pause include theirs.
        if self._resuming is None:
            self._events = self._connection.events()
            self._work()

    def stop(self) -> None:
        """
        Hand on nothing more, because the connection has gone.
        """
        if self._resuming is not None and self._resuming.active():
            self._resuming.cancel()

    def _work(self) -> None:
        """
        Hand on the events of this turn.  If more are left, pause the transport until a
        later turn has handed on the last.
        """
        for _ in range(EVENTS_A_TURN):
            if self._is_unread():
                break
            event = next(self._events, None)
            if event is None:
                if self._resuming is not None:
                    self._resuming = None
                    self._transport.resumeProducing()
                return
            self._hand_on(event)
        if self._resuming is None:
            self._transport.pauseProducing()
        pause = PAUSE_SECONDS if self._is_unread() else 0
        self._resuming = self._reactor.callLater(pause, self._work)

    def _is_unread(self) -> bool:
        return self._waiting() > ANSWER_BYTES

    def _hand_on(self, event: events.Event) -> None:
        if (
            isinstance(event, events.CloseConnection)
            and self._connection.state is ConnectionState.OPEN
        ):
            # wsproto reports a breach of the protocol by the same event as a close frame,
            # but only a close frame changes the state.
            self._fail(event.code, event.reason or "")
        else:
            self._take(event)
