"""
What waits for those who are behind: numbered messages, and positions among them.

No I/O and no clock.  One who is behind holds a position, not a queue, so what it
does not read costs nothing more for each message, however many they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import Enum

__all__ = ["Backlog", "Counters", "Overflow", "Position"]

# How much is taken out at once, in bytes, because a transport copies what it cannot
# send, and in pieces, because a system call takes no more than 1,024.
SLICE_BYTES = 64 * 1024
SLICE_PIECES = 512


class Overflow(Enum):
    """
    What becomes of one for whom more waits than the backlog allows.
    """

    DROP_NEWEST = "drop-newest"
    """
    It gets what it has waited for, and then jumps to what is newest.
    """
    DROP_OLDEST = "drop-oldest"
    """
    It gets the last of what it has waited for.
    """
    LATEST = "latest"
    """
    It gets the newest of each channel only, as soon as anything waits for it.
    """
    CLOSE = "close"
    """
    Its connection is closed.
    """


class Counters:
    """
    What the backlogs of one bus have in common.

    Attributes:
        waiting: Bytes that they keep, together.
        dropped: Messages that were not delivered, counted for each who did not
            get them, once that is told.
        closed: Those who were past their backlog, and were closed.
    """

    __slots__ = ("waiting", "dropped", "closed")

    def __init__(self) -> None:
        self.waiting = 0
        self.dropped = 0
        self.closed = 0


class Position:
    """
    Where one stands who is behind.

    Attributes:
        overflow: What becomes of it past the backlog.
        number: Of the message that it gets next, or has got a part of.
        start: How many bytes there were before that message.
        offset: How many bytes it has got of it.
        limit: The number of the first message that it does not get, once it
            is past the backlog.
        line: The rest of a line that it gets before the message.
    """

    __slots__ = ("overflow", "number", "start", "offset", "limit", "line")

    def __init__(self, overflow: Overflow, number: int, start: int) -> None:
        self.overflow = overflow
        self.number = number
        self.start = start
        self.offset = 0
        self.limit: int | None = None
        self.line = b""


class Backlog:
    """
    Numbers messages, and keeps those that somebody who is behind still gets.

    Args:
        limit: Bytes that may wait for one before it is past its backlog;
            looked at before a message is added, so one message always fits.
        gap: Makes the line that tells how many messages were dropped.
        counters: Of all backlogs of the bus.

    Attributes:
        counters: As given.
        kept: Bytes of the messages that are kept.
        late: Those to be closed, for the caller to do so and to clear.
    """

    def __init__(self, limit: int, gap: Callable[[int], bytes], counters: Counters) -> None:
        self.kept = 0
        self.late: set[Position] = set()
        self._limit = limit
        self._gap = gap
        self.counters = counters
        # How many messages and bytes there were.
        self._next = 0
        self._bytes = 0
        # What is kept, by number, in order; some are missing between others.
        self._frames: dict[int, bytes] = {}
        # How many bytes may be kept before it pays to look what is needed.
        self._enough = limit
        self._behind: dict[Overflow, set[Position]] = {kind: set() for kind in Overflow}
        # Those that get all that comes, so far, and how many bytes there may be
        # before one of them could be past its backlog.
        self._open: set[Position] = set()
        self._patience = 0
        # For `DROP_OLDEST`: the first message within the backlog.
        self._oldest = 0
        self._oldest_start = 0
        # For `LATEST`: the newest message of each channel, and the channel of each such
        # message; their order, with some that are not the newest any more.
        self._newest: dict[str, int] = {}
        self._latest: dict[int, str] = {}
        self._order: list[int] = []
        self._newest_bytes = 0

    def fall_behind(
        self, overflow: Overflow, frames: Sequence[bytes] = (), taken: int = 0
    ) -> Position:
        """
        Let one more be behind.

        Args:
            frames: Messages that are about to be added.
            taken: How many bytes of them it has got already.

        Returns:
            Its position, to be given to `discard` in the end.
        """
        position = Position(overflow, self._next, self._bytes)
        for frame in frames:
            if taken < len(frame):
                position.offset = taken
                break
            taken -= len(frame)
            position.number += 1
            position.start += len(frame)
        if overflow is Overflow.DROP_OLDEST and not self._behind[overflow]:
            self._oldest, self._oldest_start = self._next, self._bytes
        self._behind[overflow].add(position)
        if overflow in (Overflow.DROP_NEWEST, Overflow.CLOSE):
            self._keep_all_for(position)
        return position

    def add(self, channel: str, frame: bytes) -> None:
        """
        Number a message that is published to this channel, and keep it if
        somebody who is behind gets it.
        """
        number = self._next
        if self._open and self._bytes > self._patience:
            self._limit_the_late()
        rolling = self._behind[Overflow.DROP_OLDEST]
        latest = self._behind[Overflow.LATEST]
        if rolling:
            self._roll()
        if latest:
            self._replace(channel, number, len(frame))
        if self._open or rolling or latest:
            self._frames[number] = frame
            self._count(len(frame))
        self._next += 1
        self._bytes += len(frame)
        if self.kept > self._enough:
            self.prune()

    def owed(self, position: Position) -> list[bytes | memoryview]:
        """
        What one gets next, in pieces that are not copied: about 64 KiB of it,
        or nothing if it has all.
        """
        if not position.line and not position.offset:
            self._jump(position)
        if position.line:
            return [position.line]
        pieces: list[bytes | memoryview] = []
        size = -position.offset
        end = self._next if position.limit is None else position.limit
        # What comes behind a message in hand may have been dropped meanwhile.
        if position.offset or position.overflow is Overflow.LATEST:
            end = min(end, position.number + 1)
        for number in range(position.number, end):
            frame = self._frames[number]
            pieces.append(frame)
            size += len(frame)
            if size >= SLICE_BYTES or len(pieces) == SLICE_PIECES:
                break
        if position.offset:
            pieces[0] = memoryview(pieces[0])[position.offset :]
        return pieces

    def advance(self, position: Position, taken: int) -> None:
        """
        It has got so many bytes of what it was owed.
        """
        if position.line:
            position.line = position.line[taken:]
            return
        while taken > 0:
            size = len(self._frames[position.number])
            if position.offset + taken < size:
                position.offset += taken
                return
            taken -= size - position.offset
            position.number += 1
            position.start += size
            position.offset = 0

    def rest(self, position: Position) -> bytes | memoryview:
        """
        What one still gets of what it has a part of.
        """
        if position.line or not position.offset:
            return position.line
        return memoryview(self._frames[position.number])[position.offset :]

    def discard(self, position: Position) -> None:
        """
        It is level, or has left.
        """
        same = self._behind[position.overflow]
        same.discard(position)
        self._open.discard(position)
        if not same and position.overflow is Overflow.LATEST:
            self._newest.clear()
            self._latest.clear()
            self._order.clear()
            self._newest_bytes = 0
        if not any(self._behind.values()):
            self._keep_only({})

    def prune(self) -> None:
        """
        Keep no message that nobody gets.
        """
        spans = [(position.number, self._next) for position in self._open]
        for positions in self._behind.values():
            for position in positions:
                if position.limit is not None:
                    spans.append((position.number, position.limit))
                elif position.offset:
                    # Who has a part of it must get the rest.
                    spans.append((position.number, position.number + 1))
        if self._behind[Overflow.DROP_OLDEST]:
            spans.append((self._oldest, self._next))
        spans.sort(reverse=True)
        needed, end = {}, 0
        for number, frame in self._frames.items():
            while spans and spans[-1][0] <= number:
                end = max(end, spans.pop()[1])
            if number < end or number in self._latest:
                needed[number] = frame
        self._keep_only(needed)

    def shed(self) -> None:
        """
        Drop the older half of what is kept: who still had to get some of it is
        treated as past its backlog.  Who has a part of a message must be
        closed, if what such messages take is too much.
        """
        half, cut = self.kept / 2, self._next
        for number, frame in self._frames.items():
            half -= len(frame)
            if half < 0:
                cut = number + 1
                break
        pinned = set()
        for position in [p for positions in self._behind.values() for p in positions]:
            if position.number >= cut:
                continue
            if position.offset:
                pinned.add(position)
            if position.overflow is Overflow.CLOSE:
                self.late.add(position)
            if position.overflow in (Overflow.CLOSE, Overflow.DROP_NEWEST):
                self._open.discard(position)
                position.limit = position.number + bool(position.offset)
        while self._oldest < cut and self._behind[Overflow.DROP_OLDEST]:
            self._roll_one()
        for channel in [c for c, number in self._newest.items() if number < cut]:
            self._forget_newest(channel)
        before = self.kept
        self.prune()
        if self.kept > before * 3 / 4:
            self.late |= pinned

    def _jump(self, position: Position) -> None:
        """
        Go to the next message that one gets, and tell of those between.
        """
        number = position.number
        if position.overflow is Overflow.LATEST:
            place = self._live(bisect_left(self._order, number))
            number = self._order[place] if place < len(self._order) else self._next
        elif position.overflow is Overflow.DROP_OLDEST:
            number = max(position.number, self._oldest)
        elif position.limit is not None and position.number >= position.limit:
            number = self._next
            position.start = self._bytes
            position.limit = None
            self._keep_all_for(position)
        missed = number - position.number
        if missed > 0:
            position.number = number
            position.line = self._gap(missed)
            self.counters.dropped += missed

    def _keep_all_for(self, position: Position) -> None:
        patience = position.start + self._limit
        self._patience = min(self._patience, patience) if self._open else patience
        self._open.add(position)

    def _limit_the_late(self) -> None:
        for position in tuple(self._open):
            if self._bytes - position.start > self._limit:
                self._open.discard(position)
                position.limit = self._next
                if position.overflow is Overflow.CLOSE:
                    self.late.add(position)
        starts = [position.start for position in self._open]
        self._patience = min(starts, default=0) + self._limit

    def _roll(self) -> None:
        while self._bytes - self._oldest_start > self._limit:
            self._roll_one()

    def _roll_one(self) -> None:
        self._oldest_start += len(self._frames[self._oldest])
        self._oldest += 1

    def _replace(self, channel: str, number: int, size: int) -> None:
        self._forget_newest(channel)
        # Strangers may make up any number of channels.
        while self._newest_bytes > self._limit:
            oldest = self._live(0)
            self._forget_newest(self._latest[self._order[oldest]])
            del self._order[: oldest + 1]
        if len(self._order) > 2 * len(self._latest) + 16:
            self._order = list(self._latest)
        self._newest[channel] = number
        self._latest[number] = channel
        self._order.append(number)
        self._newest_bytes += size

    def _live(self, place: int) -> int:
        """
        The first place from this one on, in their order, of one that is the newest.
        """
        while place < len(self._order) and self._order[place] not in self._latest:
            place += 1
        return place

    def _forget_newest(self, channel: str) -> None:
        number = self._newest.pop(channel, None)
        if number is not None:
            del self._latest[number]
            self._newest_bytes -= len(self._frames[number])

    def _keep_only(self, frames: dict[int, bytes]) -> None:
        self._frames = frames
        self._count(sum(map(len, frames.values())) - self.kept)
        self._enough = 2 * self.kept + self._limit

    def _count(self, size: int) -> None:
        self.kept += size
        self.counters.waiting += size
