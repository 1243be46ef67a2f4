"""
A replay: kept messages that are sent to one response, how much of them it has taken, and
what it gets next.

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
from ..meters import Traffic
from .backlog import SLICE_BYTES, SLICE_PIECES
from .choices import Live
from .counters import Counters

__all__ = ["HeldFrames", "Nothing", "Replay", "SingleMessage", "Source"]


class HeldFrames:
    """
    The messages that replays have read and not yet sent completely, as bytes.  The history
    may drop a message meanwhile, so it is held here, once for all replays that send it in
    the same framing.

    Args:
        counters: Its `waiting` includes the bytes that are held.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        # By the id of the message and the identity of its framing (equal framings are one
        # object; see `Fanout.subscribe`): how many replays hold the message, and its bytes.
        self._held: dict[tuple[str, int], tuple[int, tuple[bytes, ...]]] = {}

    def hold(self, message: Message, framing: Framing) -> tuple[bytes, ...]:
        """
        Hold this message for one more replay.

        Returns:
            The bytes of the message in its framing, in pieces.
        """
        key = message.id, id(framing)
        holders, pieces = self._held.get(key) or (0, framing.pieces(message))
        self._held[key] = holders + 1, pieces
        if not holders:
            self._counters.waiting += sum(map(len, pieces))
        return pieces

    def release(self, message: Message, framing: Framing) -> None:
        """
        Hold this message for one replay less; after the last, it is not held any more.
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

    Attributes:
        effort: What the last call of `read` has looked at, whether or not it was found to
            match, as so many bytes of work; see `Turns`.
        waits: Whether the last call of `read` has found nothing because it waits for a
            message that has not come to this process yet.
    """

    effort: int
    waits: bool

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


class SingleMessage:
    """
    A source with a single message, which need not be in the history.
    """

    effort = 0
    waits = False

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


class Nothing:
    """
    A source without a message.
    """

    effort = 0
    waits = False

    def read(self, _: int) -> list[Message | Gap] | None:
        """
        It has come to its end.
        """
        return None

    def close(self) -> None:
        """
        Nothing to do.
        """


class Replay:
    """
    The messages of a source, for one response.  It reads more of the source only when
    the response has taken all that was read before.

    Args:
        source: Gives the messages; closed with the replay.
        framing: The framing of the response.
        milliseconds: Returns the time, in milliseconds since 1970.
        held: The messages that all replays of the bus hold.
        delivered: Counts what the response gets.
        live: The response gets what tells it so at the end of the source; and whether it
            gets anything after that.

    Attributes:
        ends: Whether the response ends with the replay.
        queued: Whether the replay waits in `Turns`; set and read by `Group` only.
        effort: The sum of the source's.
    """

    def __init__(
        self,
        source: Source,
        framing: Framing,
        milliseconds: Callable[[], int],
        held: HeldFrames,
        delivered: Traffic,
        live: Live = Live.UNTOLD,
    ) -> None:
        self.ends = live is Live.END
        self.queued = False
        self.effort = 0
        self._held = held
        self._delivered = delivered
        self._source = source
        self._framing = framing
        self._milliseconds = milliseconds
        # The items that have been read and not yet taken completely: messages, each with
        # its bytes; gaps and inserted bytes, with None in place of the message.
        self._items: deque[tuple[Message | None, tuple[bytes, ...]]] = deque()
        # How many bytes of the first item have been taken.
        self._offset = 0
        # May one of the messages expire?
        self._perishes = False
        # What is told at the end of the source, until it is among the items.
        self._live = b"" if live is Live.UNTOLD else framing.live(last=self.ends)

    def owed(self) -> list[bytes | memoryview] | None:
        """
        The bytes that the response gets next, in pieces; an empty list if the source has to
        look further in another turn; or None when everything has been taken, and live
        messages follow.
        """
        if not self._items:
            if not self._read():
                return None
            if self._live and self._items and self.waiting[1] < SLICE_BYTES:
                # Most sources end here, and one system call is enough for all.
                self._read()
        elif self._perishes:
            self._drop_expired()
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

    def _read(self) -> bool:
        """
        Read more of the source; is there anything left?
        """
        if self.ends and not self._live:
            # What is published after this was told is for others.
            return False
        read = self._source.read(self._milliseconds())
        self.effort += self._source.effort
        if read is None and not self._live:
            return False
        if read is None:
            self._items.append((None, (self._live,)))
            self._live = b""
            return True
        for item in read:
            if isinstance(item, Gap):
                self._items.append((None, (self._framing.gap(item.count),)))
            else:
                self._items.append((item, self._held.hold(item, self._framing)))
                self._perishes |= item.max_age is not None
        return True

    @property
    def waits(self) -> bool:
        """
        See `Source.waits`.
        """
        return self._source.waits

    @property
    def waiting(self) -> tuple[int, int]:
        """
        How many messages have been read and not been taken, and how many bytes of them.
        """
        messages = sum(message is not None for message, _ in self._items)
        size = sum(len(piece) for _, pieces in self._items for piece in pieces)
        return messages, size - self._offset

    @property
    def rest(self) -> bytes:
        """
        The bytes that must still be sent if the response gets no further message: the rest
        of the message that was sent in part, and the gaps and inserted bytes after it.
        """
        rest = b"".join(self._items[0][1])[self._offset :] if self._offset else b""
        for message, pieces in islice(self._items, 1 if self._offset else 0, None):
            if message is not None:
                break
            rest += b"".join(pieces)
        return rest

    def insert(self, data: bytes) -> bool:
        """
        Insert bytes at the first place that is between two messages.

        Returns:
            False if a gap or other inserted bytes still wait at that place.  Then nothing
            is inserted, because they have to be sent first.
        """
        place = 1 if self._offset else 0
        if place < len(self._items) and self._items[place][0] is None:
            return False
        self._items.insert(place, (None, (data,)))
        return True

    def close(self) -> None:
        """
        Close the source, and release the messages that are held.
        """
        self._source.close()
        while self._items:
            self._drop()

    def advance(self, taken: int) -> None:
        """
        Note that the response has taken so many of the bytes that `owed` returned.
        """
        self._offset += taken
        while self._items and self._offset >= (size := sum(map(len, self._items[0][1]))):
            self._offset -= size
            if self._items[0][0] is not None:
                self._delivered.add(1, size)
            self._drop()

    def _drop_expired(self) -> None:
        """
        Put a gap in the place of each message that has expired since it was read.
        """
        now = self._milliseconds()
        for place in range(1 if self._offset else 0, len(self._items)):
            message = self._items[place][0]
            if message is not None and (message.expires() or now + 1) <= now:
                self._held.release(message, self._framing)
                self._items[place] = (None, (self._framing.gap(1),))

    def _drop(self) -> None:
        message, _ = self._items.popleft()
        if message is not None:
            self._held.release(message, self._framing)
