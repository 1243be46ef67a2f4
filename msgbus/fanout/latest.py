"""
The newest message of each channel, for those who want no other (`?overflow=latest`).

No I/O and no clock.
"""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["Latest"]


class Latest:
    """
    Numbers of messages, of which each is the newest of its channel.

    Args:
        limit: Bytes of the messages together; past it the oldest go, because strangers
            may make up any number of channels.

    Attributes:
        channels: The channel of each of these messages, by its number.
    """

    __slots__ = ("channels", "limit", "_numbers", "_order", "_size", "_sizes")

    def __init__(self, limit: int) -> None:
        self.channels: dict[int, str] = {}
        self.limit = limit
        self._numbers: dict[str, int] = {}
        self._sizes: dict[int, int] = {}
        # All numbers in order, among them some that are not the newest any more.
        self._order: list[int] = []
        self._size = 0

    def add(self, channel: str, number: int, size: int) -> None:
        """
        This is the newest message of its channel now.

        Args:
            number: Larger than all before.
            size: Bytes of it.
        """
        self._forget(channel)
        while self._size > self.limit:
            place = self._live(0)
            self._forget(self.channels[self._order[place]])
            del self._order[: place + 1]
        if len(self._order) > 2 * len(self.channels) + 16:
            self._order = list(self.channels)
        self._numbers[channel] = number
        self.channels[number] = channel
        self._sizes[number] = size
        self._order.append(number)
        self._size += size

    def next(self, number: int) -> int | None:
        """
        The first number from this one on that is the newest of its channel, if there is
        one.
        """
        place = self._live(bisect_left(self._order, number))
        return self._order[place] if place < len(self._order) else None

    def drop(self, end: int) -> None:
        """
        Forget the numbers before this one.
        """
        for channel in [c for c, number in self._numbers.items() if number < end]:
            self._forget(channel)

    def clear(self) -> None:
        """
        Forget all.
        """
        self.channels.clear()
        self._numbers.clear()
        self._sizes.clear()
        self._order.clear()
        self._size = 0

    def _live(self, place: int) -> int:
        """
        The first place in the order, from this one on, of a number that is the newest of
        its channel; the end of the order if there is none.
        """
        while place < len(self._order) and self._order[place] not in self.channels:
            place += 1
        return place

    def _forget(self, channel: str) -> None:
        number = self._numbers.pop(channel, None)
        if number is not None:
            del self.channels[number]
            self._size -= self._sizes.pop(number)
