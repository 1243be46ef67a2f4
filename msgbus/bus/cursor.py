"""
Reading history again, from some point in the past to the present.

No I/O and no clock.  What is kept is up to `history`; how a replay gets to a subscriber is
up to `fanout.replay`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from ..ids import ZERO, Gap, Id, Since, life_of
from ..match import EVERYTHING, Filter
from ..message import Message, is_folder
from .history import Entry, History, entry_id

__all__ = ["Cursor"]

# One call of `Cursor.read` looks at no more entries than LOOKS, and stops after so many
# messages or bytes of bodies, so that no replay delays other work for long.  With longer
# patterns in the filter, fewer entries are looked at: half of LOOKS if the patterns have
# PATTERN_CHARACTERS.
LOOKS = 1000
PATTERN_CHARACTERS = 50
TAKE_BYTES = 64 * 1024
TAKE_MESSAGES = 100


class Cursor:
    """
    Reads a channel or folder from some point in the past to the present, however long
    that takes and whatever is published or dropped meanwhile.

    Args:
        since: Where to begin.
        milliseconds: The time, in milliseconds since 1970.
        foreign: Whether `since.id` is not an id of this bus.  Then the cursor begins at
            the first message that is kept, with a gap that says that some may be missing.
        awaited: If the message with the id `since.id` has not come to this process yet:
            tells whether it may still come.  Nothing is read before it has come.  If it
            cannot come, the cursor reads all that is kept, behind a gap.

    Attributes:
        waits: Whether the last call of `read` has found nothing because it waits for that
            message.
        begins: The messages that are read have larger ids than this one.  None if
            `since.id` is foreign, or if the cursor is still looking for the last so many
            messages; or if it reads the newest message of each channel, because who resumes
            from an id is to get the others, too.
        outcome: What becomes of a subscriber that resumes: `complete` if everything behind
            `since.id` is there, `gap` if some is missing, and `unknown` if the id is
            foreign; empty if there is no id.
    """

    def __init__(
        self,
        history: History,
        name: str,
        filter: Filter,
        since: Since,
        milliseconds: int,
        foreign: bool = False,
        awaited: Callable[[], bool] | None = None,
    ) -> None:
        history.expire(milliseconds)
        self._history = history
        self._name = name
        self._filter = filter
        # Whether the cursor begins at an id or a time, so that the subscriber is told of
        # every message since then that it has missed.  Otherwise, the cursor only reads
        # what is kept.
        self._resumes = not foreign and (since.id, since.seconds) != (None, None)
        self.waits = False
        self._awaited = awaited
        # Entries up to this id have been read, or are not to be read.
        self._id = since.id if since.id is not None and not foreign else ZERO
        # Up to this id, transient messages are not read, which were published before and
        # not to be kept; and with `_each`, only the newest of each channel.
        self._opened_at, self._each = history.newest, since.each
        characters = filter.characters
        share = PATTERN_CHARACTERS / (PATTERN_CHARACTERS + characters)
        self._looks = int(LOOKS * share) + 1
        if since.seconds is not None:
            self._id = (max(0, milliseconds - since.seconds * 1000), 0)
        # A cursor of the root without a filter reads every message, so a missing number
        # tells that a message is missing, and where.  This is the number of the last
        # message that was read or counted as missing; None for other cursors.
        self._counted: int | None = None
        counts = not name and filter == EVERYTHING and since.last is None
        if counts and since.id is not None and self._id[1] > history.counted_from:
            self._counted = self._id[1]
        # For other cursors: how many matching messages were dropped before they were read,
        # and whether messages were dropped of which it is not known whether they match.
        # Both count only what no gap has told yet.
        self._missed = 0
        self._unknown = foreign or (self._resumes and self._has_lost())
        # Ids behind which a gap is told, because messages up to there may be missing.
        self._missed_until: list[Id] = []
        outcome = "unknown" if foreign else "gap" if self._unknown else "complete"
        self.outcome = "" if since.id is None else outcome
        # For `since.last`: how many matching messages are still to be found, while the
        # cursor goes back from the present, and the id behind which it stays; None once it
        # has found its beginning.
        self._wanted = self._last = since.last
        self._floor = self._id
        if self._wanted is not None:
            self._id = self._opened_at
            # Go back now, so that few of the last messages are dropped before that.
            self._go_back(history.entries(name))
        known = not foreign and not since.each and self._wanted is None
        self.begins = self._id if known else None
        if since.seconds is not None and self.begins == self._floor:
            self.begins = (self._id[0], self._number_before(self._id))
        history.attach(self)

    def lose(self, entry: Entry, channel: str) -> None:
        """
        Learn that an entry, published to this channel, was dropped from the history.
        """
        if entry.id <= self._id or not self._covers(channel):
            return
        if entry.id <= self._opened_at and (
            self._each or (entry.transient and not self._resumes)
        ):
            return
        if self._filter == EVERYTHING:
            self._missed += 1
        else:
            self._unknown = True

    def miss_until(self, id: Id) -> None:
        """
        Learn that any messages up to this id may be missing in the history.
        """
        if id > self._id and self._counted is None:
            self._missed_until.append(id)

    def start_over(self) -> None:
        """
        Learn that the history was emptied, and that nobody knows what is missing in it:
        read all that is added from now on, behind a gap.
        """
        self._id = self._opened_at = ZERO
        self._awaited = None
        self._wanted = self._counted = None
        self._unknown, self._missed = True, 0
        self._missed_until.clear()

    def read(self, milliseconds: int) -> list[Message | Gap] | None:
        """
        The next messages and gaps, in order.

        One call returns about 64 KiB or 100 messages, or what it finds among the next
        1,000 entries, or fewer with long patterns.

        Args:
            milliseconds: The time, in milliseconds since 1970.

        Returns:
            An empty list if nothing was found yet, and None at the present.
        """
        self.effort = TAKE_BYTES
        self._history.expire(milliseconds)
        self.waits = self._has_to_wait()
        if self.waits:
            # Anybody can make up such an id, so that must take nothing from others.
            self.effort = 0
            return []
        kept = self._history.entries(self._name)
        if self._wanted is not None and self._go_back(kept):
            return []
        found: list[Message | Gap] = [*self._untold()]
        place = bisect_right(kept, self._id, key=entry_id)
        entries = kept[place : place + self._looks]
        self.effort = TAKE_BYTES * len(entries) // self._looks
        more = place + len(entries) < len(kept)
        end = entries[-1].id if more else self._history.newest
        if self._each and self._id < self._opened_at:
            entries = [e for e in entries if self._is_of_each(e)]
        size = 0
        transient = self._history.transient(self._id, end)
        if transient:
            entries = sorted([*entries, *transient], key=entry_id)
        for entry in entries:
            self._id = entry.id
            message = entry.message
            if message is None or not self._matches(message):
                continue
            if entry.transient:
                left_out = self._left_out(entry, message, milliseconds)
                if left_out is not None:
                    found += left_out
                    continue
            found += self._gap_before(entry.id[1]) or self._gap_behind(entry.id)
            found.append(message)
            size += len(message.body)
            if size >= TAKE_BYTES or len(found) >= TAKE_MESSAGES:
                return found
        if more:
            self._id = end
            return found
        # The present is reached.  If numbers after the last message were given, those
        # messages are missing.
        self._id = max(self._id, end)
        found += self._gap_before(end[1] + 1) or self._gap_behind(end)
        if self._counted is not None:
            self._counted = end[1]
        return found or None

    def _left_out(
        self, entry: Entry, message: Message, milliseconds: int
    ) -> list[Gap] | None:
        """
        What is told in place of a transient entry that is not to be read, because it was
        published before the cursor was made, or has expired; None for one that is.
        """
        is_early = entry.id <= self._opened_at
        expires = message.expires()
        if not is_early and (expires is None or expires > milliseconds):
            return None
        is_told = self._counted is None and (self._resumes or not is_early)
        return [Gap(1)] if is_told else []

    def _has_to_wait(self) -> bool:
        """
        Is the message where the cursor begins still to come?
        """
        if self._awaited is None:
            return False
        newest = self._history.newest
        if life_of(newest) != life_of(self._id) or newest[1] < self._id[1]:
            if self._awaited():
                return True
            self.start_over()
        self._awaited = None
        return False

    def close(self) -> None:
        """
        Read no more.  Closing twice is no error.
        """
        self._history.detach(self)

    def _untold(self) -> list[Gap]:
        """
        The gaps that were noticed since the last call; none if numbers tell of them.
        """
        gaps = []
        if self._counted is None:
            if self._unknown:
                gaps.append(Gap(None))
            if self._missed:
                gaps.append(Gap(self._missed))
        self._unknown, self._missed = False, 0
        return gaps

    def _gap_before(self, number: int) -> list[Gap]:
        """
        The gap between the last message that was counted and the one with this number; an
        empty list if there is no gap, or if numbers cannot tell.
        """
        if self._counted is None:
            return []
        missed, self._counted = number - self._counted - 1, number
        return [Gap(missed)] if missed > 0 else []

    def _gap_behind(self, id: Id) -> list[Gap]:
        """
        The gap of unknown size that is to be told before what comes behind this id; an
        empty list if there is none.
        """
        passed = [missed for missed in self._missed_until if missed <= id]
        del self._missed_until[: len(passed)]
        return [Gap(None)] if passed else []

    def _go_back(self, entries: list[Entry]) -> bool:
        """
        Go back until as many messages match as are wanted, or the limit on entries is
        reached; is there more to look at?
        """
        wanted = self._wanted or 0
        place = bisect_right(entries, self._id, key=entry_id)
        first = bisect_right(entries, self._floor, 0, place, key=entry_id)
        stop = max(first, place - self._looks)
        while place > stop and wanted:
            place -= 1
            message = entries[place].message
            wanted -= (
                message is not None
                and self._matches(message)
                and (not self._each or self._is_of_each(entries[place]))
            )
        self._id = entries[place - 1].id if place > first else self._floor
        if place == first and wanted == self._last and not self._resumes:
            # No message matches: begin at the present, so that nothing counts as missing.
            self._id = self._opened_at
        self._wanted = wanted if place > first and wanted else None
        return self._wanted is not None

    def _is_of_each(self, entry: Entry) -> bool:
        """
        Is an entry read by a cursor that begins with the newest message of each channel?
        """
        opened_at = self._opened_at
        return entry.id > opened_at or self._history.is_last(entry, opened_at)

    def _number_before(self, id: Id) -> int:
        """
        A number that is one smaller than that of the first message kept after this id; the
        id has a time, and no number.
        """
        entries = self._history.entries("")
        place = bisect_right(entries, id, key=entry_id)
        if place < len(entries):
            return entries[place].id[1] - 1
        return self._history.newest[1]

    def _matches(self, message: Message) -> bool:
        return self._covers(message.channel) and self._filter.matches(message)

    def _covers(self, channel: str) -> bool:
        name = self._name
        if channel != name and not (is_folder(name) and channel.startswith(name)):
            return False
        return self._filter.covers(channel)

    def _has_lost(self) -> bool:
        """
        Have messages been lost since where the cursor begins?  Only those count that the
        subscriber may read: they must not be told of others.
        """
        history, name = self._history, self._name
        if self._filter.readable is None:
            return history.lost(name) > self._id
        if history.forgotten > self._id:
            return True
        # The entry of a folder is also that of channels below it, which the subscriber may
        # not be able to read.  So only channels are looked at.
        return any(
            id > self._id and not is_folder(lost) and self._covers(lost)
            for lost, id in history.lost_ids.items()
        )
