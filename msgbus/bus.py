"""
The bus: who gets what, in which order.

No I/O and no clock.  A subscriber here is any callable that takes a message;
`fanout` is the one that stands for many open HTTP responses.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from .match import Filter
from .message import Invalid, Message, check_name

__all__ = ["Bus", "Subscription", "TooLarge"]

EVERYTHING = Filter()


class TooLarge(Invalid):
    """
    A message's body is larger than the bus takes.
    """


class Subscription:
    """
    One subscriber's interest in a channel or folder.  Made by
    `Bus.subscribe`.

    Attributes:
        name: Of the channel or folder.
        filter: What it wants of the messages there.
    """

    __slots__ = ("name", "filter", "_deliver", "_bus")

    def __init__(
        self, bus: Bus, name: str, deliver: Callable[[Message], object], filter: Filter
    ) -> None:
        self.name = name
        self.filter = filter
        self._deliver = deliver
        self._bus: Bus | None = bus

    @property
    def active(self) -> bool:
        """
        Not yet cancelled?
        """
        return self._bus is not None

    def cancel(self) -> None:
        """
        End it: nothing is delivered any more, from this moment.  Cancelling
        twice is no error.
        """
        bus, self._bus = self._bus, None
        if bus is not None:
            bus._forget(self)


class Bus:
    """
    Takes messages from publishers and delivers each to every subscription
    whose channel or folder and filter it matches.

    All subscribers get the messages in one order, the order in which
    `publish` was called.

    Args:
        max_message: Bytes of the largest body that may be published.

    Attributes:
        boundary: Random, and held by no message that was published here, so
            that it can part the messages of a multipart stream (RFC 2046,
            section 5.1.1) and nobody can forge one.
    """

    _log = Logger()

    def __init__(self, max_message: int = 1024 * 1024) -> None:
        self.max_message = max_message
        self.boundary = "msgbus" + secrets.token_hex(16)
        # By name, in the order in which they subscribed.
        self._subscriptions: dict[str, dict[Subscription, None]] = {}
        # Published, but not yet delivered to everybody.
        self._pending: deque[tuple[Message, Deferred[None]]] = deque()

    def subscribe(
        self,
        name: str,
        deliver: Callable[[Message], object],
        filter: Filter = EVERYTHING,
    ) -> Subscription:
        """
        Deliver the messages that are published from now on.

        Args:
            name: A channel, or a folder for everything below it; the empty
                name is the folder of all.  See `message.check_name`.
            deliver: Called with each message, while it is published.  If it
                raises, that is logged, and costs nobody else anything.

        Raises:
            Invalid: The name is none.
        """
        check_name(name)
        subscription = Subscription(self, name, deliver, filter)
        self._subscriptions.setdefault(name, {})[subscription] = None
        return subscription

    def publish(self, message: Message) -> Deferred[None]:
        """
        Publish one message.

        Returns:
            A Deferred that fires once the message is in order for every
            subscriber: before `publish` returns, unless a subscriber called
            it while a message was delivered to it.

        Raises:
            TooLarge: The body is larger than `max_message` bytes.
            Invalid: The message holds the bus's boundary.
        """
        if len(message.body) > self.max_message:
            raise TooLarge(
                f"A message has at most {self.max_message} bytes here;"
                " publish less, or raise --max-message."
            )
        self._refuse_boundary(message)
        done: Deferred[None] = Deferred()
        self._pending.append((message, done))
        # Whoever publishes in the midst of a delivery waits for its end, or
        # others would get the two messages in another order.
        if len(self._pending) == 1:
            self._deliver_pending()
        return done

    def _refuse_boundary(self, message: Message) -> None:
        fields = (message.channel, message.content_type, message.sender)
        if self.boundary.encode("ascii") in message.body or any(
            self.boundary in field for field in fields
        ):
            raise Invalid(
                "The message holds the boundary of this bus's multipart streams,"
                " which nobody may publish; change a byte of it."
            )

    def _deliver_pending(self) -> None:
        while self._pending:
            message, done = self._pending[0]
            for subscription in self._interested(message):
                # An earlier subscriber may have cancelled a later one.
                if not subscription.active:
                    continue
                try:
                    subscription._deliver(message)
                except Exception:
                    self._log.failure(
                        "A subscriber of {name!r} failed", name=subscription.name
                    )
            self._pending.popleft()
            done.callback(None)

    def _interested(self, message: Message) -> list[Subscription]:
        return [
            subscription
            for name in _names(message.channel)
            for subscription in self._subscriptions.get(name, ())
            if subscription.filter.matches(message)
        ]

    def _forget(self, subscription: Subscription) -> None:
        namesakes = self._subscriptions[subscription.name]
        del namesakes[subscription]
        if not namesakes:
            del self._subscriptions[subscription.name]


def _names(channel: str) -> Iterator[str]:
    """
    The channel's own name and every folder above it, each once: all names
    under which a subscription gets its messages.
    """
    if channel:
        yield channel
    end = len(channel.removesuffix("/"))
    while (end := channel.rfind("/", 0, end)) >= 0:
        yield channel[: end + 1]
    yield ""
