"""
The history: which published messages are kept, and which channels have lost messages.

No I/O and no clock.  Ids are pairs of numbers here, and each message has a larger id than
the one before; `id_sequence` makes them.  `cursor` reads the history again, and `file_log`
copies it to a file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, nsmallest
from operator import attrgetter, itemgetter
from typing import Protocol

from ..headers import NO_HEADERS
from ..ids import ZERO, Id
from ..message import Message, is_folder, names_of

__all__ = ["Keep", "History", "Changes", "Entry", "Reader", "Watcher", "entry_id"]

# Bytes of memory that a message takes beyond its text, a channel beyond its name, and a
# header beyond name and value.
MESSAGE_OVERHEAD = 700
CHANNEL_OVERHEAD = 900
HEADER_OVERHEAD = 200

# The most channels and folders for which `History.lost_ids` has an entry.
MAX_LOST_NAMES = 10_000

# When there are too many channels, so much of them loses its messages at once, because it
# takes a look at all channels to find those that have been silent for longest.
SILENT = 1 / 100

# The most bytes of transient messages; see `History`.
TRANSIENT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Keep:
    """
    How much is kept.

    Attributes:
        count: The last messages of each channel; 0 turns history off.
        seconds: How long a message is kept, or None for as long as there is room.
        size: Bytes for all channels together, including what a message and a channel
            cost beyond their text.  The newest message of a channel is dropped only when
            every other channel has only one, too; see `History`.
        channels: How many channels may have messages.  Those that have been silent for
            longest lose theirs first.
    """

    count: int = 100
    seconds: float | None = None
    size: int = 64 * 1024 * 1024
    channels: int = 10_000


@dataclass(slots=True)
class Changes:
    """
    What has changed in a history, beside new messages, since it was last copied.

    Attributes:
        dropped: Ids of messages that are no longer kept.
        lost: New entries of `History.lost_ids`; None for a name whose entry was removed.
            A transient message is entered as lost as soon as it is published, because the
            copy never has it.
    """

    dropped: list[Id] = field(default_factory=list)
    lost: dict[str, Id | None] = field(default_factory=dict)


class Entry:
    """
    A message in the history.

    Attributes:
        message: None once the message was dropped.
        transient: Whether it is held for open cursors only; see `History`.
        size: Bytes of memory that the entry takes.
    """

    __slots__ = ("id", "message", "transient", "size")

    def __init__(self, id: Id, message: Message, transient: bool = False) -> None:
        self.id = id
        self.transient = transient
        self.message: Message | None = message
        text = len(message.body) + len(message.content_type) + len(message.sender)
        self.size = text + len(message.origin) + MESSAGE_OVERHEAD
        if message.headers is not NO_HEADERS:
            self.size += message.headers.size + HEADER_OVERHEAD * len(message.headers)


entry_id = attrgetter("id")


class Reader(Protocol):
    """
    Something that reads the history at its own pace: a `Cursor`.
    """

    def lose(self, entry: Entry, channel: str) -> None:
        """
        Learn that an entry, published to this channel, was dropped.
        """

    def miss_until(self, id: Id) -> None:
        """
        Learn that any messages up to this id may be missing in the history.
        """

    def start_over(self) -> None:
        """
        Learn that the history was emptied, and that nobody knows what is missing in it.
        """


class Watcher(Protocol):
    """
    Somebody who wants to know which channels have kept messages.
    """

    def appeared(self, channel: str) -> None:
        """
        Learn that a channel has its first message that is kept.
        """

    def gone(self, channel: str) -> None:
        """
        Learn that no message of a channel is kept any more.
        """


class _EntryList:
    """
    Entries in the order of their ids.

    A dropped entry stays in the list as a hole, because removing it would move all entries
    after it.  Once more than half of the entries are holes, `History` has all removed.
    """

    __slots__ = ("entries", "holes", "_begin")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.holes = 0
        # All entries before this index are holes.
        self._begin = 0

    def __len__(self) -> int:
        return len(self.entries) - self.holes

    def oldest(self) -> Entry:
        """
        The first entry that is not a hole; there must be one.
        """
        while self.entries[self._begin].message is None:
            self._begin += 1
        return self.entries[self._begin]

    def newest(self) -> Entry:
        """
        The last entry.  In the list of a channel, it is never a hole.
        """
        return self.entries[-1]

    def remove_holes(self) -> None:
        """
        Remove all holes from the list.
        """
        self.entries = [e for e in self.entries if e.message is not None]
        self.holes = self._begin = 0


def _newest(log: _EntryList) -> Id:
    return log.newest().id


class History:
    """
    Keeps the last messages of each channel.

    When there is too little room for all, the message goes first that was superseded first:
    that has had a newer one in its channel for longest.  When each channel has only its
    newest message, the oldest of these go.  So a flood of one channel takes nothing from
    the others before it has lost all but its own newest message.  This order depends only
    on the messages that are kept, so a copy that is read again drops the same.

    A message that is published with `keep=False` is not kept.  But a reader that has not
    reached the present when the message is published must get it.  So the message is held
    as a *transient* entry until no reader is attached.

    Args:
        keep: How much is kept.

    Attributes:
        size: Bytes of memory that kept messages and their channels take.
        newest: The id of the last message that was published, kept or not.
        lost_ids: By name of a channel or folder, the newest id that it has lost: that of
            a message that was dropped or not kept.  A name without an entry has lost no
            message, or so long ago that its entry was removed.
        forgotten: The newest id of the entries that were removed from `lost_ids`.  So a
            name without an entry may have lost messages up to this id.
        counted_from: The numbers of ids above this one are consecutive, so a missing
            number is a missing message.
        unwritten: What has changed since it was last asked for, for a log that has a copy
            of the history elsewhere; None for a log that has none.
        watcher: Is told which channels come and go; None for nobody.
    """

    def __init__(self, keep: Keep | None = None) -> None:
        self.keep = keep or Keep()
        self.size = 0
        self.forgotten = ZERO
        self.counted_from = 0
        self.unwritten: Changes | None = None
        self.watcher: Watcher | None = None
        self._all = _EntryList()
        self._channels: dict[str, _EntryList] = {}
        # All entries that are not the newest of their channel, in the order in which they
        # were superseded, and some of those that were dropped.
        self._superseded: deque[Entry] = deque()
        self.lost_ids: dict[str, Id] = {}
        self.newest = ZERO
        self._readers: set[Reader] = set()
        self._transient: list[Entry] = []
        self._transient_size = 0
        # A heap of the entries that have a time to live, by when they expire; among them
        # some that were dropped before.
        self._perishing: list[tuple[int, Id, Entry]] = []

    def add(self, id: Id, message: Message, keep: bool = True) -> None:
        """
        Add a message that has just been published, with a larger id than all before.

        Args:
            keep: If not, the message is held only for readers that are attached now.
        """
        self.newest = id
        limits = self.keep
        if not keep or not limits.count:
            self._add_transient(Entry(id, message, transient=True), message.channel)
            return
        if limits.seconds is not None or self._perishing:
            # Before anything else is dropped to make room.
            self.expire(id[0])
        log = self._channels.get(message.channel)
        if log is None:
            if len(self._channels) >= limits.channels:
                self._drop_silent()
            log = self._channels[message.channel] = _EntryList()
            self.size += len(message.channel) + CHANNEL_OVERHEAD
            if self.watcher is not None:
                self.watcher.appeared(message.channel)
        else:
            self._superseded.append(log.entries[-1])
        entry = Entry(id, message)
        self._all.entries.append(entry)
        log.entries.append(entry)
        self.size += entry.size
        if len(log.entries) - log.holes > limits.count:
            self._drop(log.oldest(), log)
        while self.size > limits.size:
            self._drop(self._least())
        if message.max_age is not None:
            self._note_expiry(entry, message)
            self.expire(id[0])

    def keep_within(self, keep: Keep) -> None:
        """
        Change how much is kept, and drop what is too much now.
        """
        self.keep = keep
        for log in tuple(self._channels.values()):
            while len(log) > keep.count:
                self._drop(log.oldest(), log)
        while len(self._channels) > keep.channels:
            self._drop_silent()
        while self.size > keep.size and len(self._all):
            self._drop(self._least())
        self.expire(self.newest[0])

    def restore(self, forgotten: Id, lost: dict[str, Id]) -> None:
        """
        Take over what another history of the same messages has lost; see the attributes
        `forgotten` and `lost_ids`.
        """
        self.forgotten = max(self.forgotten, forgotten)
        for name, id in lost.items():
            self.lost_ids[name] = max(id, self.lost_ids.get(name, ZERO))

    def start_over(self, counted_from: int) -> None:
        """
        Drop everything, because the messages may be others than those that were published.
        Messages with any ids may be added after that.

        Args:
            counted_from: See the attribute.
        """
        if self.watcher is not None:
            for channel in self._channels:
                self.watcher.gone(channel)
        self._all, self._channels, self.lost_ids = _EntryList(), {}, {}
        self._perishing.clear()
        self._superseded.clear()
        self._transient, self._transient_size = [], 0
        self.size = 0
        self.newest = self.forgotten = ZERO
        self.counted_from = counted_from
        for reader in self._readers:
            reader.start_over()

    def lose_until(self, id: Id) -> None:
        """
        Note that any channel may have lost messages up to this id.
        """
        self.forgotten = max(self.forgotten, id)
        self.lost_ids = {
            name: lost for name, lost in self.lost_ids.items() if lost > self.forgotten
        }
        for reader in self._readers:
            reader.miss_until(id)

    def expire(self, milliseconds: int) -> None:
        """
        Drop the messages that are too old at this time, in milliseconds since 1970.
        """
        perishing = self._perishing
        while perishing and perishing[0][0] <= milliseconds:
            self._drop(heappop(perishing)[2])
        if self.keep.seconds is None:
            return
        limit = milliseconds - self.keep.seconds * 1000
        while len(self._all) and (oldest := self._all.oldest()).id[0] < limit:
            self._drop(oldest)

    def forget(self, channel: str) -> int:
        """
        Drop all messages of a channel.

        Returns:
            Bytes of memory that they have taken.
        """
        before = self.size
        log = self._channels.get(channel)
        for entry in tuple(log.entries) if log is not None else ():
            self._drop(entry, log)
        for entry in self._transient:
            if entry.message is not None and entry.message.channel == channel:
                entry.message = None
                self._lose(entry.id, channel)
                self._tell(entry, channel)
        return before - self.size

    def after(self, id: Id) -> Iterator[tuple[Id, Message]]:
        """
        All kept messages with larger ids than this one, in order.
        """
        entries = self._all.entries
        for entry in entries[bisect_right(entries, id, key=entry_id) :]:
            if entry.message is not None:
                yield entry.id, entry.message

    def lost(self, name: str) -> Id:
        """
        The newest id of a message that this channel, or a channel below this folder, may
        have lost.
        """
        return self.lost_ids.get(name, self.forgotten)

    @property
    def messages(self) -> int:
        """
        How many messages are kept.
        """
        return len(self._all)

    @property
    def channels(self) -> int:
        """
        How many channels have messages that are kept.
        """
        return len(self._channels)

    def names(self) -> list[str]:
        """
        The names of the channels that have kept messages, in no particular order.
        """
        return list(self._channels)

    def last(self, channel: str) -> tuple[int, Message | None]:
        """
        How many messages of a channel are kept, and the newest of them.
        """
        log = self._channels.get(channel)
        return (0, None) if log is None else (len(log), log.newest().message)

    def is_last(self, entry: Entry, end: Id) -> bool:
        """
        Is this kept entry the newest of its channel up to this id?
        """
        if entry.message is None:
            return False
        entries = self._channels[entry.message.channel].entries
        newest = entries[-1]
        if newest is entry or newest.id <= end:
            return newest is entry
        # Others have come after `end`.
        place = bisect_right(entries, entry.id, key=entry_id)
        while entries[place].message is None:
            place += 1
        return entries[place].id > end

    def entries(self, name: str) -> list[Entry]:
        """
        The kept entries of a channel, or of all channels of the bus if the name is that of
        a folder, in order.  Entries that were dropped meanwhile have no message.
        """
        if is_folder(name):
            return self._all.entries
        log = self._channels.get(name)
        return [] if log is None else log.entries

    def transient(self, after: Id, end: Id) -> list[Entry]:
        """
        The transient entries of all channels with ids larger than `after`, up to and
        including `end`, in order.
        """
        place = bisect_right(self._transient, after, key=entry_id)
        return self._transient[place : bisect_right(self._transient, end, key=entry_id)]

    def losses(self) -> dict[str, Id]:
        """
        `lost_ids`, and what will be in it once no reader is attached, or the process ends.
        """
        losses = dict(self.lost_ids)
        for entry in self._transient:
            if entry.message is not None:
                losses.update(dict.fromkeys(names_of(entry.message.channel), entry.id))
        return losses

    def attach(self, reader: Reader) -> None:
        """
        From now on, hold transient messages for this reader, and tell it what is dropped.
        """
        self._readers.add(reader)

    def detach(self, reader: Reader) -> None:
        """
        A reader has reached the present, or does not read on.  Detaching twice is no error.
        """
        self._readers.discard(reader)
        if not self._readers:
            self._drop_transient(len(self._transient))

    def _add_transient(self, entry: Entry, channel: str) -> None:
        if not self._readers:
            self._lose(entry.id, channel)
            return
        self._transient.append(entry)
        self._transient_size += entry.size
        if self.unwritten is not None:
            lost = dict.fromkeys(names_of(channel), entry.id)
            self.unwritten.lost.update(lost)
        while self._transient_size > TRANSIENT_BYTES:
            self._drop_transient(len(self._transient) // 4 + 1)

    def _drop_transient(self, count: int) -> None:
        """
        Drop so many of the transient entries, the oldest first.
        """
        for entry in self._transient[:count]:
            self._transient_size -= entry.size
            if entry.message is not None:
                self._lose(entry.id, entry.message.channel)
                self._tell(entry, entry.message.channel)
        del self._transient[:count]

    def _note_expiry(self, entry: Entry, message: Message) -> None:
        """
        Have a message dropped when its time is over.
        """
        perishing = self._perishing
        if len(perishing) > 2 * len(self._all) + 64:
            perishing[:] = [item for item in perishing if item[2].message is not None]
            heapify(perishing)
        heappush(perishing, (message.expires() or 0, entry.id, entry))

    def _least(self) -> Entry:
        """
        The entry that is dropped first when there is too little room; see `History`.
        """
        while self._superseded:
            entry = self._superseded.popleft()
            message = entry.message
            # A message whose newer ones have all expired is the newest again.
            if (
                message is not None
                and self._channels[message.channel].newest() is not entry
            ):
                return entry
        return self._all.oldest()

    def _drop(self, entry: Entry, log: _EntryList | None = None) -> None:
        """
        Drop a kept entry.

        Args:
            log: The log of its channel, if the caller knows it.
        """
        message, entry.message = entry.message, None
        if message is None:
            return
        self.size -= entry.size
        self._lose(entry.id, message.channel)
        if self._readers:
            self._tell(entry, message.channel)
        if self.unwritten is not None:
            self.unwritten.dropped.append(entry.id)
        if log is None:
            log = self._channels[message.channel]
        # Not in a method of `_EntryList`, because this is done for nearly every message.
        for entries in (log, self._all):
            entries.holes += 1
            if entries.holes * 2 > len(entries.entries):
                entries.remove_holes()
                if entries is self._all:
                    alive = (e for e in self._superseded if e.message is not None)
                    self._superseded = deque(alive)
        # Only a message that has expired is dropped before older ones.
        while log.entries and log.entries[-1].message is None:
            log.entries.pop()
            log.holes -= 1
        if not log.entries:
            del self._channels[message.channel]
            self.size -= len(message.channel) + CHANNEL_OVERHEAD
            if self.watcher is not None:
                self.watcher.gone(message.channel)

    def _drop_silent(self) -> None:
        """
        Drop all messages of some channels, those whose last message is the oldest.
        """
        logs = self._channels.values()
        for log in nsmallest(int(len(logs) * SILENT) + 1, logs, key=_newest):
            for entry in tuple(log.entries):
                self._drop(entry, log)

    def _tell(self, entry: Entry, channel: str) -> None:
        for reader in self._readers:
            reader.lose(entry, channel)

    def _lose(self, id: Id, channel: str) -> None:
        """
        Note in `lost_ids`, for a channel and the folders above it, that a message with this
        id is lost.
        """
        lost_ids = self.lost_ids
        unwritten, forgotten = self.unwritten, self.forgotten
        for name in names_of(channel):
            if id > lost_ids.get(name, forgotten):
                lost_ids[name] = id
            if unwritten is not None:
                unwritten.lost[name] = max(
                    self.lost(name), unwritten.lost.get(name) or ZERO
                )
        if len(lost_ids) > MAX_LOST_NAMES:
            self._forget_losses()

    def _forget_losses(self) -> None:
        """
        Remove the tenth of `lost_ids` with the smallest ids, and update `forgotten`.
        """
        oldest = sorted(self.lost_ids.items(), key=itemgetter(1))[: MAX_LOST_NAMES // 10]
        for name, id in oldest:
            del self.lost_ids[name]
            if self.unwritten is not None:
                self.unwritten.lost[name] = None
            self.forgotten = max(self.forgotten, id)
