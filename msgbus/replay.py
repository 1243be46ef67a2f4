"""
A replay on its way to one response: what its reader has taken, and what it gets next.

No I/O and no clock.  What there is to read is `history`'s business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .backlog import SLICE_PIECES, Counters
from .framing import Framing
from .history import Cursor, Gap
from .message import Message

__all__ = ["Held", "Replay"]


class Held:
    """
    Counts the messages that replays hold, each once: history may have dropped them.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._holders: dict[str, int] = {}

    def hold(self, message: Message) -> None:
        """
        One more replay holds this message.
        """
        holders = self._holders.get(message.id, 0)
        self._holders[message.id] = holders + 1
        if not holders:
            self._counters.waiting += len(message.body)

    def release(self, message: Message) -> None:
        """
        One of them does not any more.
        """
        holders = self._holders.pop(message.id) - 1
        if holders:
            self._holders[message.id] = holders
        else:
            self._counters.waiting -= len(message.body)


class Replay:
    """
    Paced by its reader, and never more than a slice ahead of it.  It holds messages,
    not bytes, so that many readers of one message share its body.

    Args:
        cursor: Is closed with the replay.
        framing: Of the response.
        milliseconds: The time.
        held: Of all replays of the bus.

    Attributes:
        queued: Does it wait for its turn?
    """

    def __init__(
        self,
        cursor: Cursor,
        framing: Framing,
        milliseconds: Callable[[], int],
        held: Held,
    ) -> None:
        self.queued = False
        self._held = held
        self._cursor = cursor
        self._framing = framing
        self._milliseconds = milliseconds
        # What was read and not yet taken whole, and how much of the first was.
        self._items: deque[Message | Gap] = deque()
        self._offset = 0
        # Of those that it is owed, framed.
        self._sizes: list[int] = []

    def owed(self) -> list[bytes | memoryview] | None:
        """
        What its reader gets next; nothing if that is still looked for, and None at
        the present.
        """
        if not self._items:
            read = self._cursor.read(self._milliseconds())
            if read is None:
                return None
            for item in read:
                self._items.append(item)
                if isinstance(item, Message):
                    self._held.hold(item)
        pieces: list[bytes | memoryview] = []
        self._sizes.clear()
        for item in self._items:
            framed = self._pieces(item)
            pieces += framed
            self._sizes.append(sum(map(len, framed)))
            if len(pieces) > SLICE_PIECES:
                break
        skipped = self._offset
        while pieces and skipped >= len(pieces[0]):
            skipped -= len(pieces.pop(0))
        if skipped:
            pieces[0] = memoryview(pieces[0])[skipped:]
        return pieces

    def close(self) -> None:
        """
        Read no more.
        """
        self._cursor.close()
        while self._items:
            self._drop()

    def advance(self, taken: int) -> None:
        """
        Its reader has taken so many bytes of what it was owed.
        """
        self._offset += taken
        for size in self._sizes:
            if self._offset < size:
                break
            self._offset -= size
            self._drop()
        self._sizes.clear()

    def _drop(self) -> None:
        item = self._items.popleft()
        if isinstance(item, Message):
            self._held.release(item)

    def _pieces(self, item: Message | Gap) -> tuple[bytes, ...]:
        if isinstance(item, Gap):
            return (self._framing.gap(item.count),)
        return self._framing.pieces(item)
