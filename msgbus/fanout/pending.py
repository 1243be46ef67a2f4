"""
The messages that wait for the next moment at which a group is sent any: of each channel,
the newest.

No I/O and no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Pending"]

M = TypeVar("M")

_NOTHING: tuple[bytes, int | None] = (b"", None)


class Pending(Generic[M]):
    """
    Messages in the order in which they were published, each the only one of its channel.
    Between them are marks, the members that have joined there: to them, only what stands
    behind their marks is to be sent.

    Attributes:
        size: Bytes of the messages.
    """

    __slots__ = ("size", "_dropped", "_entries")

    def __init__(self) -> None:
        self.size = 0
        # By the channel, the bytes of a message and when it expires; by a member, its mark,
        # which has neither.
        self._entries: OrderedDict[str | M, tuple[bytes, int | None]] = OrderedDict()
        # What stood before those: marks, and the numbers of messages that were dropped.
        self._dropped: list[M | int] = []

    def put(
        self, channel: str, frame: bytes, limit: int, expires: int | None = None
    ) -> None:
        """
        Put a message at the end, in place of the one of its channel.

        Args:
            limit: Bytes of all together; past it the oldest are dropped.  That is checked
                before the message is added, so one message always fits.
            expires: When it is not to be sent any more, in milliseconds since 1970; None
                for never.
        """
        self.size -= len(self._entries.pop(channel, _NOTHING)[0])
        self.drop_to(limit)
        self._entries[channel] = frame, expires
        self.size += len(frame)

    def mark(self, member: M) -> None:
        """
        This member has joined here.
        """
        if self._entries or self._dropped:
            self._entries[member] = _NOTHING

    def forget(self, member: M) -> None:
        """
        This member, which may have a mark, has left.
        """
        self._entries.pop(member, None)
        if member in self._dropped:
            self._dropped.remove(member)

    def drop_to(self, size: int) -> None:
        """
        Drop the oldest messages until there are no more bytes than this.
        """
        while self.size > size and self._entries:
            key, (frame, _) = self._entries.popitem(last=False)
            self.size -= len(frame)
            if not isinstance(key, str):
                self._dropped.append(key)
            elif self._dropped and isinstance(last := self._dropped[-1], int):
                self._dropped[-1] = last + 1
            else:
                self._dropped.append(1)

    def take(self, milliseconds: int) -> list[tuple[str, bytes] | M | int]:
        """
        Take everything: messages, as the channel and the bytes; marks; and how many were
        dropped, or have expired at this time, before the others that stand between the same
        two marks.
        """
        taken: list[tuple[str, bytes] | M | int] = [*self._dropped]
        # Where the messages begin behind the last mark.
        begin = len(taken) - bool(taken and isinstance(taken[-1], int))
        for key, (frame, expires) in self._entries.items():
            if not isinstance(key, str):
                taken.append(key)
                begin = len(taken)
            elif expires is None or expires > milliseconds:
                taken.append((key, frame))
            elif begin < len(taken) and isinstance(count := taken[begin], int):
                taken[begin] = count + 1
            else:
                taken.insert(begin, 1)
        self._dropped.clear()
        self._entries.clear()
        self.size = 0
        return taken
