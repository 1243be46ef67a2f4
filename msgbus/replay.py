"""
A replay on its way to one response: what its reader has taken, and what it gets next.

No I/O and no clock.  What there is to read is `history`'s business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .backlog import SLICE_PIECES
from .framing import Framing
from .history import Cursor, Gap
from .message import Message

__all__ = ["Replay"]


class Replay:
    """
    Paced by its reader, and never more than a slice ahead of it.  It holds messages,
    not bytes, so that many readers of one message share its body.

    Args:
        cursor: Is closed with the replay.
        framing: Of the response.
        milliseconds: The time.
    """

    def __init__(
        self, cursor: Cursor, framing: Framing, milliseconds: Callable[[], int]
    ) -> None:
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
            self._items.extend(read)
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

    def rest(self) -> bytes:
        """
        The rest of the message that its reader has taken a part of.
        """
        if not self._offset:
            return b""
        return b"".join(self._pieces(self._items[0]))[self._offset :]

    def close(self) -> None:
        """
        Read no more.
        """
        self._cursor.close()

    def advance(self, taken: int) -> None:
        """
        Its reader has taken so many bytes of what it was owed.
        """
        self._offset += taken
        for size in self._sizes:
            if self._offset < size:
                break
            self._offset -= size
            self._items.popleft()
        self._sizes.clear()

    def _pieces(self, item: Message | Gap) -> tuple[bytes, ...]:
        if isinstance(item, Gap):
            return (self._framing.gap(item.count),)
        return self._framing.pieces(item)
