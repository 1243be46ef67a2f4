"""
All subscriptions of a bus, and which of them get a message.

No I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Callable

from ..headers import Headers
from ..match import Filter
from ..message import Message, names_of

__all__ = ["Subscription", "Subscriptions"]

# How many combinations of channel, type and sender, and subscriptions that get such
# messages, `matching` remembers together.
MAX_REMEMBERED = 10_000


class Subscription:
    """
    One subscriber's interest in a channel or folder.  Made by `Bus.subscribe`.

    Attributes:
        name: The name of the channel or folder.
        filter: Which of the messages there are delivered.
        deliver: Called with each of them.
        count: Returns how many subscribers the subscription stands for at the moment.
        missed: Called if messages may be missing, and nobody knows which.
        active: False once the subscription was cancelled.
    """

    __slots__ = ("name", "filter", "deliver", "count", "missed", "active", "_remove")

    def __init__(
        self,
        name: str,
        filter: Filter,
        deliver: Callable[[Message], object],
        count: Callable[[], int],
        missed: Callable[[], object],
        remove: Callable[[Subscription], None],
    ) -> None:
        self.name = name
        self.filter = filter
        self.deliver = deliver
        self.count = count
        self.missed = missed
        self.active = True
        self._remove = remove

    def cancel(self) -> None:
        """
        End the subscription: from this moment on, nothing is delivered to it.  Cancelling
        twice is no error.
        """
        if self.active:
            self.active = False
            self._remove(self)


class Subscriptions:
    """
    All subscriptions of a bus.

    Attributes:
        by_name: The subscriptions by the name of their channel or folder.  Each value is a
            dict that is used as a set, because it keeps the order in which they were added.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, dict[Subscription, None]] = {}
        # The results of `matching`, by channel, type and sender of the message, and by its
        # headers if any filter looks at those.
        self._remembered: dict[
            tuple[str, str, str, Headers | None], list[Subscription]
        ] = {}
        self._remembered_size = 0
        # How many filters look at headers.
        self._reading_headers = 0

    def add(
        self,
        name: str,
        filter: Filter,
        deliver: Callable[[Message], object],
        count: Callable[[], int],
        missed: Callable[[], object],
    ) -> Subscription:
        """
        Make a subscription; see `Bus.subscribe` for the arguments.
        """
        subscription = Subscription(name, filter, deliver, count, missed, self._remove)
        self.by_name.setdefault(name, {})[subscription] = None
        self._reading_headers += filter.reads_headers
        self._forget()
        return subscription

    def matching(self, message: Message) -> list[Subscription]:
        """
        The subscriptions that get this message, each once: those of its channel first, then
        those of the folders above it.

        The answer is remembered for the next message with the same channel, type and
        sender, since messages come more often than subscriptions change.
        """
        headers = message.headers if self._reading_headers else None
        key = (message.channel, message.content_type, message.sender, headers)
        matching = self._remembered.get(key)
        if matching is None:
            matching = [
                subscription
                for name in names_of(message.channel)
                for subscription in self.by_name.get(name, ())
                if subscription.filter.matches(message)
            ]
            self._remembered_size += 1 + len(matching)
            if headers is not None:
                self._remembered_size += headers.size // 64
            if self._remembered_size > MAX_REMEMBERED:
                self._forget()
            self._remembered[key] = matching
        return matching

    def _forget(self) -> None:
        self._remembered.clear()
        self._remembered_size = 0

    def _remove(self, subscription: Subscription) -> None:
        same_name = self.by_name[subscription.name]
        del same_name[subscription]
        self._reading_headers -= subscription.filter.reads_headers
        if not same_name:
            del self.by_name[subscription.name]
        self._forget()
