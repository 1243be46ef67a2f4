"""
The messages that wait for the members of a group that are behind: they are numbered, and
each such member has a position among them.

No I/O and no clock.  A member that is behind holds a position and no queue, so a message is
kept only once, and costs the same however many such members there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..meters import Traffic
from .counters import Counters
from .latest import Latest
from .overflow import Overflow

__all__ = ["Backlog", "Position"]

# How much a member is given at once: in bytes, because a transport copies what it cannot
# send, and in pieces, because one `sendmsg` takes no more than 1,024.
SLICE_BYTES = 64 * 1024
SLICE_PIECES = 512


class Position:
    """
    Where a member that is behind stands among the messages.

    Attributes:
        overflow: What happens when too much waits for the member.
        number: Number of the message that the member gets next, or has got a part of.
        start: Bytes of all messages of the group before that one.
        offset: Bytes of that message that the member has got.
        limit: The number of the first message that is dropped for the member, because too
            much waits for it; None if nothing is dropped.
        end: Bytes of all messages of the group before that one.
        line: Bytes that the member gets before the message: the rest of a gap, or of bytes
            for this member alone.
        missed: How many messages were dropped for the member since it is behind.
    """

    __slots__ = ("overflow", "number", "start", "offset", "limit", "end", "line", "missed")

    def __init__(self, overflow: Overflow, number: int, start: int) -> None:
        self.overflow = overflow
        self.number = number
        self.start = start
        self.offset = 0
        self.limit: int | None = None
        self.end = 0
        self.line = b""
        self.missed = 0


class Backlog:
    """
    Numbers the messages of a group, and keeps those that a member still has to get.

    Args:
        limit: Bytes that may wait for one member.  The limit is checked before a message is
            added, so one message always fits.
        gap: Makes the bytes that tell a member how many messages were dropped for it.
        counters: What is counted for all backlogs of the bus together.
        delivered: Counts what the members of the group get.
        milliseconds: Tells the time, in milliseconds since 1970.

    Attributes:
        counters: As given.
        delivered, limit, milliseconds: As given.
        kept: Bytes of the messages that are kept.
        late: Positions of members whose response is to be ended because too much waits for
            them; the caller ends them, and empties this set.
    """

    def __init__(
        self,
        limit: int,
        gap: Callable[[int], bytes],
        counters: Counters,
        delivered: Traffic,
        milliseconds: Callable[[], int],
    ) -> None:
        self.kept = 0
        self.late: set[Position] = set()
        self.limit = limit
        self._gap = gap
        self.counters = counters
        self.delivered = delivered
        # How many messages the group has had, and how many bytes they had.
        self._next = 0
        self._bytes = 0
        # The messages that are kept, by number, in order; some numbers are missing.
        self._frames: dict[int, bytes] = {}
        # When some of them expire, by number, in milliseconds since 1970.
        self._expiries: dict[int, int] = {}
        self.milliseconds = milliseconds
        # How many bytes may be kept before `prune` looks which of them are still needed.
        self._enough = limit
        self._behind: dict[Overflow, set[Position]] = {kind: set() for kind in Overflow}
        # How many positions there are.
        self._positions = 0
        # Positions for which nothing has been dropped so far, because too much does not
        # wait; and the value of `_bytes` up to which that stays true for all of them.
        self._open: set[Position] = set()
        self._patience = 0
        # For `DROP_OLDEST`: the first message that fits into the backlog.
        self._oldest = 0
        self._oldest_start = 0
        # For `LATEST`: the newest message of each channel.
        self._latest = Latest(limit)

    def limit_to(self, limit: int) -> None:
        """
        Change how many bytes may wait for one member.  For whom more waits already, it is
        dropped when the next message is added.
        """
        self.limit = self._latest.limit = limit
        self._enough = 2 * self.kept + limit
        self._be_patient()

    def fall_behind(
        self, overflow: Overflow, frames: Sequence[bytes] = (), taken: int = 0
    ) -> Position:
        """
        Give a position to one more member.

        Args:
            frames: Messages that are about to be added.
            taken: How many bytes of them the member has got already.

        Returns:
            The position, to be given to `discard` in the end.
        """
        position = Position(overflow, self._next, self._bytes)
        for frame in frames:
            if taken < len(frame):
                position.offset = taken
                break
            taken -= len(frame)
            self._get(position, len(frame))
        if overflow is Overflow.DROP_OLDEST and not self._behind[overflow]:
            self._oldest, self._oldest_start = self._next, self._bytes
        self._behind[overflow].add(position)
        self._positions += 1
        if overflow in (Overflow.DROP_NEWEST, Overflow.CLOSE):
            self._keep_all_for(position)
        return position

    @property
    def numbered(self) -> int:
        """
        How many messages the group has had.
        """
        return self._next

    def waiting(self, position: Position) -> tuple[int, int, int]:
        """
        How many messages wait for the member at this position, how many bytes, and how many
        messages are dropped for it of which it has not been told yet.  With `LATEST`,
        fewer may wait, because it is not counted which messages have been replaced.
        """
        number, start = position.number, position.start
        messages = size = lost = 0
        if position.offset:
            # The rest of a message goes first, whatever becomes of those behind it.
            whole = len(self._frames[number])
            messages, size = 1, whole - position.offset
            number, start = number + 1, start + whole
        if position.overflow is Overflow.DROP_OLDEST and number < self._oldest:
            lost = self._oldest - number
            number, start = self._oldest, self._oldest_start
        last, end = self._next, self._bytes
        if position.limit is not None:
            last, end = max(number, position.limit), max(start, position.end)
            lost = self._next - last
        elif position.overflow is Overflow.LATEST:
            end = min(end, start + self.limit)
        return messages + last - number, size + end - start, lost

    def add(self, channel: str, frame: bytes, expires: int | None = None) -> None:
        """
        Number a message that was published to this channel, and keep it if a member that
        is behind gets it.

        Args:
            expires: When it is not to be sent any more; None for never.
        """
        if not self._positions:
            self._next += 1
            self._bytes += len(frame)
            return
        number = self._next
        if self._open and self._bytes > self._patience:
            self._limit_the_late()
        rolling = self._behind[Overflow.DROP_OLDEST]
        latest = self._behind[Overflow.LATEST]
        if rolling:
            self._roll()
        if latest:
            self._latest.add(channel, number, len(frame))
        if self._open or rolling or latest:
            self._frames[number] = frame
            if expires is not None:
                self._expiries[number] = expires
            self._count(len(frame))
        self._next += 1
        self._bytes += len(frame)
        if self.kept > self._enough:
            self.prune()

    def pass_over(self, count: int) -> None:
        """
        Number so many messages that no member gets.  Those that are behind are told of them
        as of others that were dropped; all of them have chosen `Overflow.LATEST`.
        """
        self._next += count

    def owed(self, position: Position) -> list[bytes | memoryview]:
        """
        What the member at this position gets next, in pieces that are not copied: about
        64 KiB, or nothing if it has been given everything.
        """
        if not position.line and not position.offset:
            self._jump(position)
        if position.line:
            return [position.line]
        pieces: list[bytes | memoryview] = []
        size = -position.offset
        end = self._next if position.limit is None else position.limit
        # The message after one that was sent in part may have been dropped meanwhile.
        if position.offset or position.overflow is Overflow.LATEST:
            end = min(end, position.number + 1)
        if self._expiries:
            end = self._fresh_until(position.number + 1, end)
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
        The member at this position has got so many of the bytes that `owed` returned.
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
            position.offset = 0
            self._get(position, size)

    def skip(self, position: Position) -> None:
        """
        The member at this position, which has got no part of a message, gets none of those
        that were added so far.
        """
        position.number, position.start = self._next, self._bytes

    def rest(self, position: Position) -> bytes | memoryview:
        """
        The rest of the message, or of the line before it, that the member at this position
        has got a part of.
        """
        if position.line or not position.offset:
            return position.line
        return memoryview(self._frames[position.number])[position.offset :]

    def discard(self, position: Position) -> None:
        """
        The member at this position is level now, or has left.
        """
        same = self._behind[position.overflow]
        same.remove(position)
        self._positions -= 1
        self._open.discard(position)
        if not same and position.overflow is Overflow.LATEST:
            self._latest.clear()
        if not self._positions:
            self._keep_only({})

    def prune(self) -> None:
        """
        Drop the messages that no member has to get any more.
        """
        spans = [(position.number, self._next) for position in self._open]
        for positions in self._behind.values():
            for position in positions:
                if position.limit is not None:
                    spans.append((position.number, position.limit))
                elif position.offset:
                    # A member that has got a part of it must get the rest.
                    spans.append((position.number, position.number + 1))
        if self._behind[Overflow.DROP_OLDEST]:
            spans.append((self._oldest, self._next))
        spans.sort(reverse=True)
        needed, end = {}, 0
        for number, frame in self._frames.items():
            while spans and spans[-1][0] <= number:
                end = max(end, spans.pop()[1])
            if number < end or number in self._latest.channels:
                needed[number] = frame
        self._keep_only(needed)

    def shed(self) -> None:
        """
        Drop the older half of what is kept, as if too much waited for each member that was
        still to get some of it.  A message that a member has got a part of cannot be
        dropped: if such messages are most of what is kept, those members are put into
        `late`.
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
                position.limit, position.end = position.number, position.start
                if position.offset:
                    position.limit += 1
                    position.end += len(self._frames[position.number])
        while self._oldest < cut and self._behind[Overflow.DROP_OLDEST]:
            self._roll_one()
        self._latest.drop(cut)
        before = self.kept
        self.prune()
        if self.kept > before * 3 / 4:
            self.late |= pinned

    def _jump(self, position: Position) -> None:
        """
        Move a position to the next message that its member gets, and have the member told
        how many were dropped between.
        """
        number = position.number
        if position.overflow is Overflow.LATEST:
            newest = self._latest.next(number)
            number = self._next if newest is None else newest
        elif position.overflow is Overflow.DROP_OLDEST:
            if self._oldest > number:
                number, position.start = self._oldest, self._oldest_start
        elif position.limit is not None and position.number >= position.limit:
            number = self._next
            position.start = self._bytes
            position.limit = None
            self._keep_all_for(position)
        if self._expiries:
            number = self._skip_expired(position, number)
        missed = number - position.number
        if missed > 0:
            position.number = number
            position.line = self._gap(missed)
            position.missed += missed
            self.counters.dropped[position.overflow] += missed
            self.counters.gaps[position.overflow] += 1

    def _skip_expired(self, position: Position, number: int) -> int:
        """
        The number from this one on of the first message that has not expired.
        """
        end = self._next if position.limit is None else position.limit
        now = self.milliseconds()
        while number < end and self._expiries.get(number, now + 1) <= now:
            position.start += len(self._frames[number])
            number += 1
            if position.overflow is Overflow.LATEST:
                newest = self._latest.next(number)
                number = self._next if newest is None else newest
        return number

    def _fresh_until(self, number: int, end: int) -> int:
        """
        The number from this one on, up to the end, of the first message that has expired.
        """
        now = self.milliseconds()
        for each in range(number, min(end, number + SLICE_PIECES)):
            if self._expiries.get(each, now + 1) <= now:
                return each
        return end

    def _get(self, position: Position, size: int) -> None:
        """
        The member at this position has got all of its message.
        """
        position.number += 1
        position.start += size
        self.delivered.add(1, size)

    def _keep_all_for(self, position: Position) -> None:
        patience = position.start + self.limit
        self._patience = min(self._patience, patience) if self._open else patience
        self._open.add(position)

    def _limit_the_late(self) -> None:
        for position in tuple(self._open):
            if self._bytes - position.start > self.limit:
                self._open.discard(position)
                position.limit, position.end = self._next, self._bytes
                if position.overflow is Overflow.CLOSE:
                    self.late.add(position)
        self._be_patient()

    def _be_patient(self) -> None:
        starts = [position.start for position in self._open]
        self._patience = min(starts, default=0) + self.limit

    def _roll(self) -> None:
        while self._bytes - self._oldest_start > self.limit:
            self._roll_one()

    def _roll_one(self) -> None:
        self._oldest_start += len(self._frames[self._oldest])
        self._oldest += 1

    def _keep_only(self, frames: dict[int, bytes]) -> None:
        self._frames = frames
        if self._expiries:
            kept = self._expiries.items()
            self._expiries = {n: expires for n, expires in kept if n in frames}
        self._count(sum(map(len, frames.values())) - self.kept)
        self._enough = 2 * self.kept + self.limit

    def _count(self, size: int) -> None:
        self.kept += size
        self.counters.waiting += size
