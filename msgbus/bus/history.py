"""
What is kept of what was published, and reading it again.

No I/O and no clock.  Ids are pairs of numbers here, which grow with every message of
a bus; how they are made is `bus`'s business, how a replay goes out `replay`'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from ..ids import ZERO, Gap, Id, Since
from ..match import EVERYTHING, Filter
from ..message import Message, is_folder, names_of

__all__ = ["Changes", "Cursor", "History", "Keep"]

# What a message costs beyond its text, and what a channel does, in bytes.
MESSAGE_OVERHEAD = 700
CHANNEL_OVERHEAD = 900

# Of how many names it is remembered when they last lost a message.
MAX_LOSERS = 10_000

# How much of what is not to be kept is there for replays that have begun.
PASSING_BYTES = 8 * 1024 * 1024

# What a replay looks at, and takes, before others have their turn; less, the longer the
# patterns are that it looks with.
LOOKS = 1000
PATTERN_CHARACTERS = 50
TAKE_BYTES = 64 * 1024
TAKE_MESSAGES = 100


@dataclass(frozen=True, slots=True)
class Keep:
    """
    How much is kept.

    Attributes:
        count: Messages of each channel; none turns history off.
        seconds: How long, or None for as long as there is room.
        size: Bytes for all channels together, with what a message and a channel cost
            beyond their text; the oldest message goes first.
    """

    count: int = 100
    seconds: float | None = None
    size: int = 64 * 1024 * 1024


@dataclass(slots=True)
class Changes:
    """
    What a copy of a history does not know yet, beside new messages.

    Attributes:
        dropped: Ids of messages that are not kept any more.
        lost: For each name that has lost a message, or will with the end of the
            process, the newest id; None for one of which nothing is remembered.
    """

    dropped: list[Id] = field(default_factory=list)
    lost: dict[str, Id | None] = field(default_factory=dict)


class _Entry:
    """
    A message that is kept, until it is dropped: then there is none.
    """

    __slots__ = ("id", "message", "passing", "size")

    def __init__(self, id: Id, message: Message, passing: bool = False) -> None:
        self.id = id
        # Is it there only for replays that had begun when it was published?
        self.passing = passing
        self.message: Message | None = message
        text = len(message.body) + len(message.content_type) + len(message.sender)
        self.size = text + MESSAGE_OVERHEAD


_id = attrgetter("id")


class _Log:
    """
    Entries in the order of their ids, with holes where some were dropped.
    """

    __slots__ = ("entries", "_holes", "_begin")

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self._holes = 0
        # All before this are holes.
        self._begin = 0

    def __len__(self) -> int:
        return len(self.entries) - self._holes

    def oldest(self) -> _Entry:
        """
        The first that is no hole; there must be one.
        """
        while self.entries[self._begin].message is None:
            self._begin += 1
        return self.entries[self._begin]

    def drop(self) -> None:
        """
        One of them is a hole now.
        """
        self._holes += 1
        if self._holes > len(self.entries) // 2:
            self.entries = [e for e in self.entries if e.message is not None]
            self._holes = self._begin = 0


class History:
    """
    Keeps the last messages of each channel.

    Args:
        keep: How much.

    Attributes:
        size: Bytes that are kept, with what messages and channels cost.
        newest: The largest id that there was.
        lost_ids: The newest id that a channel, or any channel of a folder, has lost,
            for those that have lost some lately.
        forgotten: The newest id that all others may have lost.
        counted_from: Numbers from this on have no holes but what was lost.
        unwritten: What has changed, for one who keeps a copy; None where nobody does.
    """

    def __init__(self, keep: Keep | None = None) -> None:
        self.keep = keep or Keep()
        self.size = 0
        self.forgotten = ZERO
        self.counted_from = 0
        self.unwritten: Changes | None = None
        self._all = _Log()
        self._channels: dict[str, _Log] = {}
        self.lost_ids: OrderedDict[str, Id] = OrderedDict()
        self.newest = ZERO
        self._cursors: set[Cursor] = set()
        self._passing: list[_Entry] = []
        self._passing_size = 0

    def add(self, id: Id, message: Message, keep: bool = True) -> None:
        """
        Keep a message, with an id larger than all before.

        Args:
            keep: If not, it is there only for replays that have begun.
        """
        self.newest = id
        if not keep or not self.keep.count:
            self._pass(_Entry(id, message, passing=True), message.channel)
            return
        log = self._channels.get(message.channel)
        if log is None:
            log = self._channels[message.channel] = _Log()
            self.size += len(message.channel) + CHANNEL_OVERHEAD
        entry = _Entry(id, message)
        self._all.entries.append(entry)
        log.entries.append(entry)
        self.size += entry.size
        while len(log) > self.keep.count:
            self._drop(log.oldest())
        while self.size > self.keep.size:
            self._drop(self._all.oldest())
        self.expire(id[0])

    def restore(self, forgotten: Id, lost: dict[str, Id]) -> None:
        """
        Know what one before this one had lost.
        """
        self.forgotten = forgotten
        self.lost_ids.update(sorted(lost.items(), key=lambda item: item[1]))

    def expire(self, milliseconds: int) -> None:
        """
        Drop what is too old at this time, in milliseconds since 1970.
        """
        if self.keep.seconds is None:
            return
        limit = milliseconds - self.keep.seconds * 1000
        while len(self._all) and (oldest := self._all.oldest()).id[0] < limit:
            self._drop(oldest)

    def replay(
        self,
        name: str,
        filter: Filter,
        since: Since,
        milliseconds: int,
        strange: bool = False,
    ) -> Cursor:
        """
        Begin to read again what was published to a channel or folder.

        Args:
            milliseconds: The time.
            strange: The id that it begins behind is none of this bus: begin at the
                first that is kept, and tell that some may be missing.

        Returns:
            A cursor, to be closed in the end.
        """
        self.expire(milliseconds)
        cursor = Cursor(self, name, filter, since, milliseconds, strange)
        self._cursors.add(cursor)
        return cursor

    def after(self, id: Id) -> Iterator[tuple[Id, Message]]:
        """
        All that is kept, and larger than this id, in order.
        """
        entries = self._all.entries
        for entry in entries[bisect_right(entries, id, key=_id) :]:
            if entry.message is not None:
                yield entry.id, entry.message

    def lost(self, name: str) -> Id:
        """
        The newest id that this channel, or a channel of this folder, may have lost.
        """
        return self.lost_ids.get(name, self.forgotten)

    def log(self, name: str) -> list[_Entry]:
        """
        What is kept of a channel, or, for a folder, of all.
        """
        if is_folder(name):
            return self._all.entries
        log = self._channels.get(name)
        return [] if log is None else log.entries

    def close(self, cursor: Cursor) -> None:
        """
        A cursor has come to its end, or is not read from any more.
        """
        self._cursors.discard(cursor)
        if not self._cursors:
            self._pass_by(len(self._passing))

    def passing(self, after: Id, end: Id) -> list[_Entry]:
        """
        What is not kept, and there only for replays that had begun when it was
        published: with ids from the first to the last of these, but not the first.
        """
        place = bisect_right(self._passing, after, key=_id)
        return self._passing[place : bisect_right(self._passing, end, key=_id)]

    def _pass(self, entry: _Entry, channel: str) -> None:
        if not self._cursors:
            self._lose(entry.id, channel)
            return
        self._passing.append(entry)
        self._passing_size += entry.size
        if self.unwritten is not None:
            lost = dict.fromkeys(names_of(channel), entry.id)
            self.unwritten.lost.update(lost)
        if self._passing_size > PASSING_BYTES:
            self._pass_by(len(self._passing) // 4 + 1)

    def _pass_by(self, count: int) -> None:
        """
        Drop so many of what is not kept, the oldest.
        """
        for entry in self._passing[:count]:
            self._passing_size -= entry.size
            if entry.message is not None:
                self._lose(entry.id, entry.message.channel)
                self._tell(entry, entry.message.channel)
        del self._passing[:count]

    def _drop(self, entry: _Entry) -> None:
        message, entry.message = entry.message, None
        if message is None:
            return
        self.size -= entry.size
        self._lose(entry.id, message.channel)
        self._tell(entry, message.channel)
        if self.unwritten is not None:
            self.unwritten.dropped.append(entry.id)
        self._all.drop()
        log = self._channels[message.channel]
        log.drop()
        if not len(log):
            del self._channels[message.channel]
            self.size -= len(message.channel) + CHANNEL_OVERHEAD

    def _tell(self, entry: _Entry, channel: str) -> None:
        for cursor in self._cursors:
            cursor.lose(entry, channel)

    def _lose(self, id: Id, channel: str) -> None:
        for name in names_of(channel):
            self.lost_ids[name] = max(self.lost(name), id)
            self.lost_ids.move_to_end(name)
            if self.unwritten is not None:
                self.unwritten.lost[name] = max(
                    self.lost_ids[name], self.unwritten.lost.get(name) or ZERO
                )
        while len(self.lost_ids) > MAX_LOSERS:
            name, oldest = self.lost_ids.popitem(last=False)
            if self.unwritten is not None:
                self.unwritten.lost[name] = None
            self.forgotten = max(self.forgotten, oldest)


class Cursor:
    """
    Where a replay reads: a channel or folder again, from the past to the present,
    however long that takes and whatever is published meanwhile.  Made by
    `History.replay`.

    Attributes:
        begins: The id behind which all comes that it reads; None as long as that is
            looked for, and for one of another bus.
    """

    def __init__(
        self,
        history: History,
        name: str,
        filter: Filter,
        since: Since,
        milliseconds: int,
        strange: bool,
    ) -> None:
        self._history = history
        self._name = name
        self._filter = filter
        # Does it begin where somebody was cut off, who must be told what he missed?
        self._comes_back = not strange and (since.id, since.seconds) != (None, None)
        # It has read all up to this.
        self._id = since.id if since.id is not None and not strange else ZERO
        # What had been published when it began, and was just passing, is over.
        self._born = history.newest
        patterns = (filter.type, filter.sender, filter.channel)
        characters = sum(len(pattern.text) for pattern in patterns)
        share = PATTERN_CHARACTERS / (PATTERN_CHARACTERS + characters)
        self._looks = int(LOOKS * share) + 1
        # How many more must match, while it still goes back.
        self._wanted = self._last = since.last
        if since.last is not None:
            self._id = self._born
        elif since.seconds is not None:
            self._id = (max(0, milliseconds - since.seconds * 1000), 0)
        # Where nothing is filtered, the numbers tell how many are missing: that of the
        # last message that it has read, or told of.
        self._counted: int | None = None
        if not name and filter == EVERYTHING and self._id[1] > history.counted_from:
            self._counted = self._id[1] if since.id is not None else None
        # What is missing and not yet told: so many, or nobody knows how many.
        self._missed = 0
        self._unknown = strange or (self._comes_back and history.lost(name) > self._id)
        if self._wanted is not None:
            # At once, as far as it gets: what goes from now on is missing.
            self._go_back(history.log(name))
        self.begins = None if strange or self._wanted is not None else self._id
        if since.seconds is not None:
            # A time has no number, but the first message behind it has.
            entries = history.log("")
            place = bisect_right(entries, self._id, key=_id)
            first = entries[place].id[1] if place < len(entries) else history.newest[1] + 1
            self.begins = (self._id[0], first - 1)

    def lose(self, entry: _Entry, channel: str) -> None:
        """
        This message, published to this channel, is there no more.
        """
        if entry.id <= self._id or not self._covers(channel):
            return
        if entry.passing and entry.id <= self._born and not self._comes_back:
            return
        if self._filter == EVERYTHING:
            self._missed += 1
        else:
            self._unknown = True

    def read(self, milliseconds: int) -> list[Message | Gap] | None:
        """
        What comes next: about 64 KiB or 100 messages of it, or what can be found by
        looking at 1,000, or fewer with long patterns, which may be nothing; None at the
        present.

        Args:
            milliseconds: The time.
        """
        self._history.expire(milliseconds)
        log = self._history.log(self._name)
        if self._wanted is not None and self._go_back(log):
            return []
        found: list[Message | Gap] = []
        if self._counted is None:
            found += [Gap(None)] * self._unknown + [Gap(self._missed)] * bool(self._missed)
        self._unknown, self._missed = False, 0
        place = bisect_right(log, self._id, key=_id)
        entries = log[place : place + self._looks]
        more = place + len(entries) < len(log)
        end = entries[-1].id if more else self._history.newest
        size = 0
        passing = self._history.passing(self._id, end)
        for entry in sorted([*entries, *passing], key=_id) if passing else entries:
            self._id = entry.id
            message = entry.message
            if message is None or not self._matches(message):
                continue
            if entry.passing and entry.id <= self._born:
                if self._comes_back and self._counted is None:
                    found.append(Gap(1))
                continue
            found += self._gap(entry.id[1])
            found.append(message)
            size += len(message.body)
            if size >= TAKE_BYTES or len(found) >= TAKE_MESSAGES:
                return found
        if more:
            return found
        # The present: whatever was published and not found is missing.
        self._id = max(self._id, end)
        found += self._gap(end[1] + 1)
        if self._counted is not None:
            self._counted = end[1]
        return found or None

    def close(self) -> None:
        """
        Read no more.  Closing twice is no error.
        """
        self._history.close(self)

    def _gap(self, number: int) -> list[Gap]:
        """
        What to tell before the message of this number, where they are counted.
        """
        if self._counted is None:
            return []
        missed, self._counted = number - self._counted - 1, number
        return [Gap(missed)] if missed > 0 else []

    def _go_back(self, log: list[_Entry]) -> bool:
        """
        Go back until as many as are wanted match; is there more to look at?
        """
        wanted = self._wanted or 0
        place = bisect_right(log, self._id, key=_id)
        stop = max(0, place - self._looks)
        while place > stop and wanted:
            place -= 1
            message = log[place].message
            wanted -= message is not None and self._matches(message)
        self._id = log[place - 1].id if place else ZERO
        if not place and wanted == self._last:
            # Nothing matches, so nothing comes again, however much was lost.
            self._id = self._born
        self._wanted = wanted if place and wanted else None
        return self._wanted is not None

    def _matches(self, message: Message) -> bool:
        return self._covers(message.channel) and self._filter.matches(message)

    def _covers(self, channel: str) -> bool:
        name = self._name
        return channel == name or (is_folder(name) and channel.startswith(name))
