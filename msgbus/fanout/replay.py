"""
A replay on its way to one response: what its reader has taken, and what it gets next.

No I/O and no clock.  What there is to read is `history`'s business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from ..formats.framing import Framing
from ..ids import Gap
from ..message import Message
from .backlog import SLICE_PIECES, Counters

__all__ = ["Alone", "Held", "Replay", "Source"]


class Held:
    """
    The messages that replays hold, as bytes of their framings, each once however many
    hold it: history may have dropped them.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        # With how many hold them.
        self._held: dict[tuple[str, Framing], tuple[int, tuple[bytes, ...]]] = {}

    def hold(self, message: Message, framing: Framing) -> tuple[bytes, ...]:
        """
        One more replay holds this message: its pieces.
        """
        key = message.id, framing
        holders, pieces = self._held.get(key) or (0, framing.pieces(message))
        self._held[key] = holders + 1, pieces
        if not holders:
            self._counters.waiting += sum(map(len, pieces))
        return pieces

    def release(self, message: Message, framing: Framing) -> None:
        """
        One of them does not any more.
        """
        key = message.id, framing
        holders, pieces = self._held.pop(key)
        if holders > 1:
            self._held[key] = holders - 1, pieces
        else:
            self._counters.waiting -= sum(map(len, pieces))


class Source(Protocol):
    """
    Where a replay reads: a cursor of `history`, or another.
    """

    def read(self, milliseconds: int) -> list[Message | Gap] | None:
        """
        What comes next, or None at the end.
        """

    def close(self) -> None:
        """
        Read no more.
        """


class Alone:
    """
    A source with one message.
    """

    def __init__(self, message: Message) -> None:
        self._messages: list[Message | Gap] | None = [message]

    def read(self, _: int) -> list[Message | Gap] | None:
        """
        The message, once.
        """
        messages, self._messages = self._messages, None
        return messages

    def close(self) -> None:
        """
        Nothing to do.
        """


class Replay:
    """
    Paced by its reader, and never more than a slice ahead of it.  Many readers of one
    message share its bytes.

    Args:
        source: Is closed with the replay.
        framing: Of the response.
        milliseconds: The time.
        held: Of all replays of the bus.

    Attributes:
        queued: Does it wait for its turn?
    """

    def __init__(
        self,
        source: Source,
        framing: Framing,
        milliseconds: Callable[[], int],
        held: Held,
    ) -> None:
        self.queued = False
        self._held = held
        self._source = source
        self._framing = framing
        self._milliseconds = milliseconds
        # What was read and not yet taken whole, and how much of the first was.
        # Each with its pieces, and what is no message with nothing else.
        self._items: deque[tuple[Message | None, tuple[bytes, ...]]] = deque()
        self._offset = 0

    def owed(self) -> list[bytes | memoryview] | None:
        """
        What its reader gets next; nothing if that is still looked for, and None at
        the present.
        """
        if not self._items:
            read = self._source.read(self._milliseconds())
            if read is None:
                return None
            for item in read:
                if isinstance(item, Gap):
                    self._items.append((None, (self._framing.gap(item.count),)))
                else:
                    self._items.append((item, self._held.hold(item, self._framing)))
        pieces: list[bytes | memoryview] = []
        for _, framed in self._items:
            pieces += framed
            if len(pieces) > SLICE_PIECES:
                break
        skipped = self._offset
        while pieces and skipped >= len(pieces[0]):
            skipped -= len(pieces.pop(0))
        if skipped:
            pieces[0] = memoryview(pieces[0])[skipped:]
        return pieces

    @property
    def rest(self) -> bytes:
        """
        What its reader still gets of what it has a part of, and what was inserted
        behind that.
        """
        rest = b"".join(self._items[0][1])[self._offset :] if self._offset else b""
        for message, pieces in islice(self._items, 1 if self._offset else 0, None):
            if message is not None:
                break
            rest += b"".join(pieces)
        return rest

    def insert(self, data: bytes) -> bool:
        """
        Let its reader have this too, behind what it has a part of; False if what was
        inserted before is still there, which goes first.
        """
        place = 1 if self._offset else 0
        if place < len(self._items) and self._items[place][0] is None:
            return False
        self._items.insert(place, (None, (data,)))
        return True

    def close(self) -> None:
        """
        Read no more.
        """
        self._source.close()
        while self._items:
            self._drop()

    def advance(self, taken: int) -> None:
        """
        Its reader has taken so many bytes of what it was owed.
        """
        self._offset += taken
        while self._items and self._offset >= (size := sum(map(len, self._items[0][1]))):
            self._offset -= size
            self._drop()

    def _drop(self) -> None:
        message, _ = self._items.popleft()
        if message is not None:
            self._held.release(message, self._framing)
