"""
Who has subscribed to what, and so who gets a message.

No I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Callable

from ..match import Filter
from ..message import Message, names_of

__all__ = ["Subscription", "Subscriptions"]

# For how many kinds of messages it is remembered who gets them.
MAX_REMEMBERED = 1000


class Subscription:
    """
    One subscriber's interest in a channel or folder.  Made by `Bus.subscribe`.

    Attributes:
        name: The name of the channel or folder.
        filter: Which of the messages there are delivered.
        deliver: Called with each of them.
        count: Tells how many subscribers it stands for.
        active: Whether it is not yet cancelled.
    """

    __slots__ = ("name", "filter", "deliver", "count", "active", "_remove")

    def __init__(
        self,
        name: str,
        filter: Filter,
        deliver: Callable[[Message], object],
        count: Callable[[], int],
        remove: Callable[[Subscription], None],
    ) -> None:
        self.name = name
        self.filter = filter
        self.deliver = deliver
        self.count = count
        self.active = True
        self._remove = remove

    def cancel(self) -> None:
        """
        End it: from this moment on, nothing is delivered.  Cancelling twice is no error.
        """
        if self.active:
            self.active = False
            self._remove(self)


class Subscriptions:
    """
    All subscriptions of a bus.

    Attributes:
        by_name: By the name of the channel or folder; a dict each, as a set that keeps the
            order in which they subscribed.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, dict[Subscription, None]] = {}
        # Who gets messages with this channel, type and sender.
        self._remembered: dict[tuple[str, str, str], list[Subscription]] = {}

    def add(
        self,
        name: str,
        filter: Filter,
        deliver: Callable[[Message], object],
        count: Callable[[], int],
    ) -> Subscription:
        """
        One more; see `Bus.subscribe`.
        """
        subscription = Subscription(name, filter, deliver, count, self._remove)
        self.by_name.setdefault(name, {})[subscription] = None
        self._remembered.clear()
        return subscription

    def matching(self, message: Message) -> list[Subscription]:
        """
        The subscriptions that get this message, each once: those of its channel first, then
        those of the folders above it.

        The answer is remembered for the next message with the same channel, type and
        sender, since messages come more often than subscriptions change.
        """
        key = (message.channel, message.content_type, message.sender)
        matching = self._remembered.get(key)
        if matching is None:
            matching = [
                subscription
                for name in names_of(message.channel)
                for subscription in self.by_name.get(name, ())
                if subscription.filter.matches(message)
            ]
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = matching
        return matching

    def _remove(self, subscription: Subscription) -> None:
        same_name = self.by_name[subscription.name]
        del same_name[subscription]
        if not same_name:
            del self.by_name[subscription.name]
        self._remembered.clear()
