"""
A replay: kept messages on their way to one response, how much of them its reader has
taken, and what it gets next.

No I/O and no clock.  Which messages are kept is up to `bus.history`.
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
    The messages that replays have read and not yet sent whole, as bytes of their framings.
    The history may drop a message meanwhile, so it is held here, once for all replays that
    need it in the same framing.

    Args:
        counters: The bytes that are held count as `waiting`.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        # By the id of the message and the identity of its framing, which `Fanout` sees to:
        # how many replays hold it, and its bytes.
        self._held: dict[tuple[str, int], tuple[int, tuple[bytes, ...]]] = {}

    def hold(self, message: Message, framing: Framing) -> tuple[bytes, ...]:
        """
        Hold this message for one more replay.

        Returns:
            The pieces of bytes of which its frame is made.
        """
        key = message.id, id(framing)
        holders, pieces = self._held.get(key) or (0, framing.pieces(message))
        self._held[key] = holders + 1, pieces
        if not holders:
            self._counters.waiting += sum(map(len, pieces))
        return pieces

    def release(self, message: Message, framing: Framing) -> None:
        """
        Hold this message for one replay less, and forget it after the last.
        """
        key = message.id, id(framing)
        holders, pieces = self._held.pop(key)
        if holders > 1:
            self._held[key] = holders - 1, pieces
        else:
            self._counters.waiting -= sum(map(len, pieces))


class Source(Protocol):
    """
    Where a replay reads its messages: a cursor of the history, or a single message.
    """

    def read(self, milliseconds: int) -> list[Message | Gap] | None:
        """
        The next messages, with gaps between them; an empty list if they have not been
        found yet; or None at the end.

        Args:
            milliseconds: The time, in milliseconds since 1970.
        """

    def close(self) -> None:
        """
        Read no more.
        """


class Alone:
    """
    A source that has one message, and does not need the history.
    """

    def __init__(self, message: Message) -> None:
        self._messages: list[Message | Gap] | None = [message]

    def read(self, _: int) -> list[Message | Gap] | None:
        """
        The message at the first call, and None from then on.
        """
        messages, self._messages = self._messages, None
        return messages

    def close(self) -> None:
        """
        Nothing to do.
        """


class Replay:
    """
    The kept messages that one response is sent.  It reads on in its source only when the
    response has taken all that was read before.

    Args:
        source: Where it reads; closed with the replay.
        framing: The framing of the response.
        milliseconds: Returns the time, in milliseconds since 1970.
        held: The messages that all replays of the bus hold.

    Attributes:
        queued: Whether the replay waits for its turn; kept for the caller.
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
        # What has been read and not yet taken whole, each item with its bytes.  Gaps, and
        # what was inserted, are items without a message.
        self._items: deque[tuple[Message | None, tuple[bytes, ...]]] = deque()
        # How many bytes of the first item have been taken.
        self._offset = 0

    def owed(self) -> list[bytes | memoryview] | None:
        """
        The bytes that the reader gets next, at most about a slice; an empty list if the
        source has to look further in another turn; or None when all has been taken, and
        live messages follow.
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
        The bytes that a reader who is sent no more messages is still owed: the rest of the
        message that it has a part of, and what stands before the next message.
        """
        rest = b"".join(self._items[0][1])[self._offset :] if self._offset else b""
        for message, pieces in islice(self._items, 1 if self._offset else 0, None):
            if message is not None:
                break
            rest += b"".join(pieces)
        return rest

    def insert(self, data: bytes) -> bool:
        """
        Insert bytes between two messages, as early as may be.

        Returns:
            False if something that is no message still stands at that place; then nothing
            is inserted, because the other has to go first.
        """
        place = 1 if self._offset else 0
        if place < len(self._items) and self._items[place][0] is None:
            return False
        self._items.insert(place, (None, (data,)))
        return True

    def close(self) -> None:
        """
        Close the source, and hold nothing any more.
        """
        self._source.close()
        while self._items:
            self._drop()

    def advance(self, taken: int) -> None:
        """
        Note that the reader has taken so many of the bytes that `owed` returned.
        """
        self._offset += taken
        while self._items and self._offset >= (size := sum(map(len, self._items[0][1]))):
            self._offset -= size
            self._drop()

    def _drop(self) -> None:
        message, _ = self._items.popleft()
        if message is not None:
            self._held.release(message, self._framing)
