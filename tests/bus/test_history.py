"""
Tests for `msgbus.bus.history` and `msgbus.bus.cursor`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.cursor import LOOKS, Cursor
from msgbus.bus.history import CHANNEL_OVERHEAD, MESSAGE_OVERHEAD, History, Keep
from msgbus.ids import Gap, Since
from msgbus.match import EVERYTHING, Filter
from msgbus.message import Message

UNKNOWN = Gap(None)


class HistoryTests(SynchronousTestCase):
    """
    What is kept, and what a cursor reads of it.  The id of the nth message is (n, n).
    """

    def setUp(self):
        self.make()

    def make(self, **keep):
        self.history = History(Keep(**keep))
        self.count = 0

    def add(self, *names, keep=True, size=1):
        for name in names:
            self.count += 1
            message = Message(name, b"x" * size).published(f"{self.count}")
            self.history.add((self.count, self.count), message, keep)

    def begin(self, name="", filter=None, **since):
        return Cursor(self.history, name, filter or Filter(), Since(**since), self.count)

    def read(self, *args, **kwargs):
        """
        What a cursor reads: the numbers of messages, and gaps.
        """
        return self.rest(self.begin(*args, **kwargs))

    def rest(self, cursor):
        found = []
        while (read := cursor.read(self.count)) is not None:
            found += [int(i.id) if isinstance(i, Message) else i for i in read]
        cursor.close()
        return found

    def test_keeps_less(self):
        """
        If less is to be kept from now on, what is too much is dropped at once; a reader
        that has begun is told what it misses.
        """
        both = MESSAGE_OVERHEAD + CHANNEL_OVERHEAD + 10
        for keep, kept in (
            ({"count": 2}, [2, 3, 4]),
            ({"count": 0}, []),
            ({"channels": 1}, [4]),
            ({"size": both + MESSAGE_OVERHEAD}, [4]),
            ({"size": 0}, []),
            ({"seconds": 0.0015}, [3, 4]),
            ({}, [1, 2, 3, 4]),
        ):
            self.make()
            self.add("a", "a", "a", "b")
            reader = self.begin(id=(0, 0))
            self.history.keep_within(Keep(**keep))
            self.assertEqual(self.read(), kept, keep)
            missed = 4 - len(kept)
            self.assertEqual(
                sum(i.count for i in self.rest(reader) if isinstance(i, Gap)), missed
            )
            self.assertEqual(self.history.messages, len(kept))

    def test_losses(self):
        """
        A message that is not kept is lost for its channel and the folders above it: once no
        reader is attached, and for a copy of the history already before.
        """
        cursor = Cursor(self.history, "", EVERYTHING, Since(), 0, False)
        self.history.add((1, 1), Message("a/b", b"", "a/b"), keep=False)
        self.assertEqual(self.history.lost_ids, {})
        losses = self.history.losses()
        self.assertEqual(losses, dict.fromkeys(("a/b", "a/", ""), (1, 1)))
        cursor.close()
        self.assertEqual(self.history.lost_ids, losses)
        self.assertEqual(self.history.losses(), losses)

    def test_all(self):
        """
        If it is not told where to begin, a cursor reads all that is kept of a channel,
        a folder or the root, in order.
        """
        self.add("a", "b/c", "b/d/e", "b", "b/", "a")
        for name, expected in (
            ("", [1, 2, 3, 4, 5, 6]),
            ("a", [1, 6]),
            ("b/", [2, 3, 5]),
            ("b/d/", [3]),
            ("b", [4]),
            ("c", []),
        ):
            self.assertEqual(self.read(name), expected, name)

    def test_since(self):
        """
        A cursor begins behind an id, or at a time.
        """
        self.add(*"abab")
        self.assertEqual(self.read("", id=(2, 2)), [3, 4])
        self.assertEqual(self.read("a", id=(1, 1)), [3])
        self.assertEqual(self.read("", id=(4, 4)), [])
        self.count = 2000
        self.add("a")
        self.assertEqual(self.read("", seconds=1), [2001])

    def test_last(self):
        """
        A cursor reads the last so many messages that match, however far back they are.
        """
        self.make(count=10 * LOOKS)
        self.add("a", "b", *"a" * LOOKS, "b", *"a" * LOOKS)
        last = 2 * LOOKS + 3
        self.assertEqual(self.read("", last=2), [last - 1, last])
        self.assertEqual(self.read("b", last=1), [LOOKS + 3])
        channel = Filter(channel="b")
        self.assertEqual(self.read("", channel, last=2), [2, LOOKS + 3])
        self.assertEqual(self.read("", channel, last=1), [LOOKS + 3])
        self.assertEqual(self.read("", channel, last=9), [2, LOOKS + 3])

    def test_last_since(self):
        """
        The last so many may be counted behind an id or a time: a cursor reads no message
        before that, and tells a gap if messages since then were dropped.
        """
        self.make(count=10 * LOOKS)
        self.add("a", "b", *"a" * (2 * LOOKS), "b")
        end = self.count
        for last, found in ((1, [end]), (2, [2, end]), (9, [2, end])):
            self.assertEqual(self.read("b", id=(1, 1), last=last), found)
            self.assertEqual(
                self.read("", Filter(channel="b"), id=(1, 1), last=last), found
            )
            self.assertEqual(
                self.read("", Filter(channel="b"), id=(2, 2), last=last), [end]
            )
        for last in (1, 9):
            self.assertEqual(self.read("b", id=(end, end), last=last), [])
            self.assertEqual(self.read("b", seconds=1, last=last), [end])
            self.assertEqual(self.read("", id=(end - 1, end - 1), last=last), [end])
        self.make(count=3)
        self.add(*"aaaaa")
        for name in ("a", ""):
            self.assertEqual(self.read(name, id=(1, 1), last=9), [UNKNOWN, 3, 4, 5])
            self.assertEqual(self.read(name, id=(1, 1), last=2), [UNKNOWN, 4, 5])
            self.assertEqual(self.read(name, id=(2, 2), last=2), [4, 5])
            self.assertEqual(self.read(name, id=(3, 3), last=9), [4, 5])

    def test_few_looks(self):
        """
        A cursor that finds nothing in a thousand messages returns, so that others can
        go first.
        """
        self.make(count=10 * LOOKS)
        self.add(*"a" * LOOKS, "b")
        for since in ({}, {"last": 2}):
            cursor = self.begin("", Filter(channel="b"), **since)
            self.assertEqual(cursor.read(0), [])
            self.assertEqual(self.rest(cursor), [LOOKS + 1])

    def test_count(self):
        """
        Each channel keeps its last messages; a subscriber that comes back to a channel
        that has lost some is told so, and others are not.
        """
        self.make(count=2)
        self.add("a", "b/c", *"aaa")
        self.assertEqual(self.read("a"), [4, 5])
        self.assertEqual(self.read("a", id=(1, 1)), [UNKNOWN, 4, 5])
        self.assertEqual(self.read("a", id=(3, 3)), [4, 5])
        self.assertEqual(self.read("b/", id=(1, 1)), [2])

    def test_counted(self):
        """
        On the root, without a filter, a cursor tells how many messages are missing,
        and where.
        """
        self.make(count=2)
        self.add(*"aabaaba")
        self.assertEqual(self.read("", id=(1, 1)), [Gap(1), 3, Gap(1), 5, 6, 7])
        self.add("a", keep=False)
        self.assertEqual(self.read("", id=(6, 6)), [7, Gap(1)])
        self.assertEqual(self.read("", Filter(channel="?"), id=(6, 6)), [UNKNOWN, 7])

    def test_foreign(self):
        """
        Behind an id of another bus, a cursor reads all that is kept, and tells that
        some may be missing.
        """
        self.add(*"ab")
        since = Since((2**40, 7))
        cursor = Cursor(self.history, "a", Filter(), since, 0, foreign=True)
        self.assertEqual(self.rest(cursor), [UNKNOWN, 1])

    def test_age(self):
        """
        A message that is too old is dropped, at the latest when somebody would read it.
        """
        self.make(seconds=1)
        self.add("a")
        self.count = 900
        self.add("a")
        self.assertEqual(self.read("a"), [1, 2 + 899])
        self.count = 1002
        self.assertEqual(self.read("a"), [901])
        self.count = 5000
        self.assertEqual(self.read("a", id=(901, 901)), [])
        self.assertEqual(self.history.size, 0)

    def test_time_to_live(self):
        """
        A message with a `max_age` is kept no longer, and then counts as dropped: who
        resumes before it is told, also if it has come to the message already.
        """
        cursor = self.begin()
        for number, max_age in ((1, 0), (2, 9), (3, None), (4, 5)):
            message = Message("a", b"x", max_age=max_age).published(f"{number}-{number}")
            self.history.add((number, number), message)
            self.count = number
        self.assertEqual(self.history.messages, 3)
        resumed = self.begin(id=(1, 1))
        filtered = self.begin("a", Filter(type="a/*,*/*"), id=(1, 1))
        self.history.expire(5003)
        self.assertEqual(self.history.messages, 3)
        self.history.expire(5004)
        self.assertEqual(self.history.messages, 2)
        self.assertEqual(self.ids(resumed), [2, 3, Gap(1)])
        self.assertEqual(self.ids(filtered), [UNKNOWN, 2, 3])
        self.history.expire(9002)
        self.assertEqual(self.ids(cursor), [Gap(3), 3])
        self.assertEqual(self.history._perishing, [])
        self.assertEqual(self.history.last("a")[0], 1)

    def test_expired_go_first(self):
        """
        No message is dropped to make room that messages take which have expired.
        """
        one = MESSAGE_OVERHEAD + CHANNEL_OVERHEAD
        for keep in ({"count": 2}, {"channels": 2}, {"size": 2 * one + 100}):
            self.make(**keep)
            for number, name, max_age in ((1, "a", None), (2, "b", 1), (5000, "c", None)):
                channel = name if "count" not in keep else "a"
                message = Message(channel, b"", max_age=max_age)
                message = message.published(f"{number}-{number}")
                self.history.add((number, number), message)
            self.count = 5000
            self.assertEqual(self.ids(self.begin()), [1, 5000], keep)

    def ids(self, cursor):
        """
        As `rest`, of messages whose ids are whole.
        """
        found = []
        while (read := cursor.read(0)) is not None:
            found += [
                int(i.id.partition("-")[2]) if isinstance(i, Message) else i for i in read
            ]
        cursor.close()
        return found

    def test_newest_expires(self):
        """
        When the newest message of a channel has expired, the one before is the newest: the
        last of each, which is dropped last.
        """
        self.make(size=10 * (MESSAGE_OVERHEAD + CHANNEL_OVERHEAD))
        for number, name, max_age in ((1, "a", None), (2, "a", 1), (3, "b", None)):
            message = Message(name, b"", max_age=max_age).published(f"{number}-{number}")
            self.history.add((number, number), message)
            self.count = number
        self.history.expire(2000)
        self.assertEqual(self.history.last("a")[1].id, "1-1")
        self.assertEqual(self.ids(self.begin(each=True)), [1, 3])
        for _ in range(100):
            self.count += 1
            message = Message("b", b"x" * 500).published(f"{self.count}-{self.count}")
            self.history.add((self.count, self.count), message)
        self.assertEqual(self.ids(self.begin(each=True)), [1, self.count])

    def test_transient_time_to_live(self):
        """
        A message that is not kept, and has expired before a reader came to it, is told as
        missing.
        """
        for filter in (Filter(), Filter(type="*/*,a/b")):
            self.make()
            self.add("a")
            cursor = self.begin("", filter, id=(1, 1))
            for number, max_age in ((2, 1), (3, 9)):
                message = Message("a", b"", max_age=max_age).published(f"{number}-{number}")
                self.history.add((number, number), message, keep=False)
            found = cursor.read(1002)
            self.assertEqual(found[0], Gap(1))
            self.assertEqual([m.id for m in found[1:]], ["3-3"])
            cursor.close()

    def test_many_times_to_live(self):
        """
        Messages that are dropped before they expire are not remembered for long.
        """
        self.make(count=2)
        for number in range(1, 1000):
            message = Message("a", b"", max_age=2**31).published(f"{number}-{number}")
            self.history.add((number, number), message)
        self.assertLess(len(self.history._perishing), 100)

    def test_size(self):
        """
        All channels together stay below the limit, in which messages and channels cost
        more than their text; the oldest messages are dropped first.
        """
        size = 10 * (MESSAGE_OVERHEAD + CHANNEL_OVERHEAD + 100)
        for body, names in (
            (0, (f"{n}" for n in range(1000))),
            (100, "a" * 1000),
            (5000, "ab" * 100),
        ):
            self.make(size=size, count=10**6)
            for name in names:
                self.add(name, size=body)
                self.assertLessEqual(self.history.size, size)
            found = self.read("")
            self.assertEqual(found, list(range(found[0], self.count + 1)))
            self.assertGreater(len(found), 1)
        self.add("a", size=size)
        self.assertEqual((self.read(""), self.history.size), ([], 0))

    def test_flood(self):
        """
        A flood of one channel takes from the others none of their newest messages, and only
        its own older ones; who resumes is told of those that it has lost.
        """
        quiet = [f"{n}" for n in range(100)]
        self.make(size=110 * (MESSAGE_OVERHEAD + CHANNEL_OVERHEAD + 10), count=10**6)
        self.add(*quiet)
        self.add(*"a" * 1000)
        found = self.read("")
        self.assertEqual(found[:100], list(range(1, 101)))
        self.assertEqual(found[100:], list(range(found[100], 1101)))
        self.assertGreater(len(found), 102)
        self.assertEqual(self.read("7", id=(1, 1)), [8])
        self.assertEqual(self.read("a", id=(101, 101))[0], UNKNOWN)
        self.assertEqual(self.read("", id=(100, 100))[0], Gap(found[100] - 101))

    def test_superseded_first(self):
        """
        The message goes first that was superseded first, whichever is older.
        """
        self.make(size=4 * (MESSAGE_OVERHEAD + 30) + 2 * (CHANNEL_OVERHEAD + 1), count=10)
        self.add(*"abbab")
        # Message 2 was superseded by 3, message 1 by 4.
        self.assertEqual(self.read(""), [1, 3, 4, 5])
        self.add("b")
        self.assertEqual(self.read(""), [3, 4, 5, 6])

    def test_little_is_remembered(self):
        """
        What was dropped is not remembered for long, though an older message of a quiet
        channel is still kept.
        """
        self.make(count=3)
        self.add("b", "b", *"a" * 5000)
        self.assertEqual(self.history.messages, 5)
        self.assertLess(len(self.history._superseded), 100)

    def test_channels(self):
        """
        When a channel more than the limit gets a message, one that has been silent for
        longest loses all of its messages; those who come back there are told.
        """
        self.make(channels=3)
        self.add("a", "a", "b", "c/d", "a")
        self.assertEqual(self.read("", last=9), [1, 2, 3, 4, 5])
        self.add("e")
        self.assertEqual(self.read("", last=9), [1, 2, 4, 5, 6])
        self.assertEqual(self.read("b", id=(2, 2)), [UNKNOWN])
        self.add("c/d", "f")
        self.assertEqual(self.read("", last=9), [4, 6, 7, 8])

    def test_many_channels(self):
        """
        However many channels there have been, no more than the limit have messages, and at
        most one in a hundred loses its own at once.
        """
        self.make(channels=1000)
        for n in range(3000):
            self.add(f"{n}")
            if n % 47 == 0:
                kept = len(self.read(""))
                self.assertLessEqual(kept, 1000)
                self.assertGreaterEqual(kept, min(n, 989))

    def test_off(self):
        """
        With a count of 0, nothing is kept, and a subscriber that comes back is told.
        """
        self.make(count=0)
        self.add("a", "b")
        self.assertEqual(self.history.size, 0)
        self.assertEqual(self.read("a", id=(1, 1)), [])
        self.assertEqual(self.read("b", id=(1, 1)), [UNKNOWN])

    def test_nothing_left(self):
        """
        A channel without messages takes no memory, and what was lost is remembered for
        a limited number of names.
        """
        self.make(count=1)
        for number in range(12_000):
            self.add(f"{number}", keep=False)
        self.assertEqual((self.history.size, self.history._channels), (0, {}))
        self.assertLess(len(self.history.lost_ids), 10_001)
        for name in ("0", "11999", "a"):
            self.assertEqual(self.read(name, id=(1000, 1000)), [UNKNOWN])
        self.assertEqual(self.read("11999", id=(12_000, 12_000)), [])

    def test_meanwhile(self):
        """
        A cursor reads what is published after it was opened, also messages that are
        not kept; cursors that are opened later do not read those.
        """
        self.add("a", keep=False)
        self.add("a")
        cursor = self.begin("a")
        self.add("a", keep=False)
        self.add("a")
        later = self.begin("a")
        self.add("a", keep=False)
        self.assertEqual(self.rest(cursor), [2, 3, 4, 5])
        self.assertEqual(self.rest(later), [2, 4, 5])
        self.assertEqual(self.read("a"), [2, 4])
        self.assertEqual(self.history._transient, [])

    def test_lost_meanwhile(self):
        """
        A cursor tells of messages that were dropped before it could read them.
        """
        self.make(count=100)
        self.add(*"a" * 100, size=1000)
        cursor = self.begin("a")
        first = cursor.read(0)
        self.assertLess(len(first), 80)
        self.add(*"a" * 90, size=1000)
        cursor_of_some = self.begin("a", Filter(type="a*"))
        missed = 90 - len(first)
        self.assertEqual(self.rest(cursor), [Gap(missed), *range(91, 191)])
        self.add(*"a" * 90, size=1000)
        self.assertEqual(self.rest(cursor_of_some), [UNKNOWN, *range(181, 281)])

    def test_start_over(self):
        """
        If the history starts over, readers that have begun read all that is added then,
        behind a gap, and it has lost nothing that it knows of.
        """
        self.make(count=2)
        self.add(*"aaaa")
        self.add("a", keep=False)
        cursors = [self.begin("a"), self.begin(""), self.begin("a", last=1)]
        cursors.append(self.begin("", id=(4, 4)))
        for cursor in cursors[:2]:
            cursor.read(0)
        self.history.start_over(0)
        self.assertEqual(self.history.size, 0)
        self.count = 1
        self.add("a", "b")
        self.assertEqual(self.rest(cursors[0]), [UNKNOWN, 2])
        self.assertEqual(self.rest(cursors[1]), [UNKNOWN, 2, 3])
        self.assertEqual(self.rest(cursors[2]), [UNKNOWN, 2])
        self.assertEqual(self.rest(cursors[3]), [UNKNOWN, 2, 3])
        self.assertEqual(self.read("a", id=(1, 1)), [2])

    def test_lose_until(self):
        """
        If any channel may have lost messages up to an id, who resumes before it is told so.
        """
        self.make(count=1)
        self.add("a", "b", "a")
        self.history.lose_until((2, 2))
        self.assertEqual(self.read("b", id=(1, 1)), [UNKNOWN, 2])
        self.assertEqual(self.read("a", id=(1, 1)), [UNKNOWN, 3])
        self.assertEqual(self.read("a", id=(2, 2)), [3])
        self.add("a")
        self.assertEqual(self.read("b", id=(2, 2)), [])
        self.assertEqual(self.read("a", id=(2, 2)), [UNKNOWN, 4])

    def test_lose_until_while_reading(self):
        """
        A cursor that is reading meanwhile tells a gap where messages may be missing, behind
        what came before; and none if it is behind that place, or if numbers tell it.
        """
        self.add("a", "a")
        cursors = [self.begin("a", id=(1, 1)), self.begin("a"), self.begin(id=(1, 1))]
        late = self.begin("a", id=(3, 3))
        self.history.lose_until((3, 3))
        self.count = 3
        self.add("a")
        self.history.lose_until((5, 5))
        self.history.newest = (5, 5)
        found = [self.rest(cursor) for cursor in cursors]
        self.assertEqual(found[0], [2, UNKNOWN, 4, UNKNOWN])
        self.assertEqual(found[1], [1, 2, UNKNOWN, 4, UNKNOWN])
        self.assertEqual(found[2], [2, Gap(1), 4, Gap(1)])
        self.assertEqual(self.rest(late), [4, UNKNOWN])

    def test_ahead(self):
        """
        A cursor that begins behind a message that has not come yet waits for it; if it
        cannot come, the cursor reads what is kept, behind a gap.
        """
        self.add("a")
        may_come = [True, True]
        early, late = (
            Cursor(
                self.history,
                "a",
                Filter(),
                Since((3, 3)),
                self.count,
                awaited=lambda place=place: may_come[place],
            )
            for place in range(2)
        )
        for cursor in (early, late):
            self.assertEqual(cursor.read(0), [])
            self.assertTrue(cursor.waits)
        may_come[1] = False
        self.assertEqual(late.read(0)[0], UNKNOWN)
        self.assertFalse(late.waits)
        self.add("a")
        self.assertEqual(early.read(0), [])
        self.add("a")
        self.assertIsNone(early.read(0))
        self.assertFalse(early.waits)
        self.add("a")
        self.assertEqual(self.rest(early), [4])
        # Not for one that begins at a time.
        self.count = 10_000
        self.assertEqual(self.read("a", seconds=1), [])

    def test_each(self):
        """
        A cursor that begins with the newest message of each channel below a folder reads
        these in the order of their ids, and then all that comes, also if it comes before
        they are read; as far as the filter lets them pass.
        """
        self.add("b/c", "a", "b/c", "b/d", "a", "e", "b/", "e", keep=True)
        self.add("e", keep=False)
        for name, pattern, expected in (
            ("", "", [3, 4, 5, 7, 8]),
            ("b/", "", [3, 4, 7]),
            ("", "?", [5, 8]),
            ("x/", "", []),
        ):
            filter = Filter(channel=pattern)
            self.assertEqual(self.read(name, filter, each=True), expected)
        cursor = self.begin("", each=True)
        self.assertIsNone(cursor.begins)
        self.add("a", "a", "x")
        self.add("a", keep=False)
        self.assertEqual(self.rest(cursor), [3, 4, 5, 7, 8, 10, 11, 12, 13])

    def test_each_dropped(self):
        """
        The newest message of a channel that is dropped before it is read is not missed, and
        what is published meanwhile and dropped is told.
        """
        self.make(count=1)
        self.add("a", "b")
        cursor = self.begin("", each=True)
        self.add("a", "a")
        self.assertEqual(self.rest(cursor), [Gap(1), 2, 4])

    def test_each_of_many(self):
        """
        It looks at a thousand messages at a time, and misses none.
        """
        self.make(count=10**6)
        self.add(*"ab", *"c" * (3 * LOOKS), "a")
        cursor = self.begin("", each=True)
        self.assertEqual(len(cursor.read(0)), 1)
        self.add("b")
        end = self.count
        self.assertEqual(self.rest(cursor), [end - 2, end - 1, end])
        self.assertEqual(self.read("", each=True), [end - 2, end - 1, end])

    def test_each_limited(self):
        """
        Of these, only the last so many may be read.
        """
        self.add(*"abcabca")
        self.assertEqual(self.read("", each=True, last=2), [6, 7])
        self.assertEqual(self.read("", each=True, last=9), [5, 6, 7])

    def test_forget(self):
        """
        All messages of a channel are dropped, also those that are held for a reader; who
        resumes there is told, and other channels keep theirs.
        """
        self.add("a/b", "a/c", "a/b")
        size = self.history.size
        resuming = self.begin("a/b", id=(1, 1))
        reading = self.begin("a/b")
        self.add("a/b", keep=False)
        forgotten = self.history.forget("a/b")
        self.assertEqual(self.history.size, size - forgotten)
        self.assertGreater(forgotten, 2 * MESSAGE_OVERHEAD)
        self.assertEqual(self.rest(resuming), [Gap(2)])
        self.assertEqual(self.rest(reading), [Gap(3)])
        self.assertEqual(self.read("a/b"), [])
        self.assertEqual(self.read("a/b", id=(3, 3)), [UNKNOWN])
        self.assertEqual(self.read("a/", id=(1, 1)), [UNKNOWN, 2])
        self.assertEqual(self.read("", id=(1, 1)), [2, Gap(2)])
        self.assertEqual(self.read("a/c", id=(1, 1)), [2])
        self.assertEqual(self.history.names(), ["a/c"])
        self.assertEqual(self.history.forget("a/b"), 0)
        self.add("a/b")
        self.assertEqual(self.read("a/b", id=(4, 4)), [5])


class DropOrderTests(SynchronousTestCase):
    """
    The order in which messages are dropped, against a model.
    """

    @given(
        st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 900)), max_size=60),
        st.integers(1, 6),
        st.integers(0, 12_000),
        st.data(),
    )
    def test_order(self, published, count, size, data):
        """
        The messages of each channel within the count are kept; above the size, those that
        are not the newest of their channel go first, the one first that was superseded
        first, and then the oldest.  One that reads what is kept later, and some of what was
        dropped shortly before, keeps all that is kept here.
        """
        history = History(Keep(count=count, size=size))
        kept, dropped = [], []

        def cost():
            text = sum(MESSAGE_OVERHEAD + length + 3 for _, _, length in kept)
            return text + sum(CHANNEL_OVERHEAD + 1 for _ in {c for _, c, _ in kept})

        def rank(place):
            number, channel, _ = kept[place]
            later = [n for n, c, _ in kept[place + 1 :] if c == channel]
            return (0, later[0]) if later else (1, number)

        for number, (channel, length) in enumerate(published, 1):
            message = Message(channel, b"x" * length, "a/b").published(f"{number}")
            history.add((number, number), message)
            kept.append((number, channel, length))
            mine = [place for place, each in enumerate(kept) if each[1] == channel]
            if len(mine) > count:
                dropped.append(kept.pop(mine[0]))
            while cost() > size:
                dropped.append(kept.pop(min(range(len(kept)), key=rank)))
            found = [id[1] for id, _ in history.after((0, 0))]
            self.assertEqual(found, [n for n, _, _ in kept])
            self.assertEqual(history.size, cost())

        left = sorted(
            [*kept, *data.draw(st.lists(st.sampled_from(dropped), unique=True))]
            if dropped
            else kept
        )
        other = History(Keep(count=count, size=size))
        for number, channel, length in left:
            message = Message(channel, b"x" * length, "a/b").published(f"{number}")
            other.add((number, number), message)
        found = {id[1] for id, _ in other.after((0, 0))}
        self.assertLessEqual({n for n, _, _ in kept}, found)


class BeginsTests(SynchronousTestCase):
    """
    Where a cursor says that it begins.
    """

    def test_time(self):
        """
        A cursor that begins at a time begins behind an id from which a later one can go
        on without a gap.
        """
        history = History(Keep(count=100))
        for number in range(1, 6):
            history.add(
                (number * 1000, number), Message("a", b"x").published(f"{number}-1")
            )
        for now, begins in ((3500, (2500, 2)), (9000, (8000, 5)), (500, (0, 0))):
            cursor = Cursor(history, "", Filter(), Since(seconds=1), now)
            self.assertEqual(cursor.begins, begins)
            again = Cursor(history, "", Filter(), Since(cursor.begins), now)
            found = again.read(now) or []
            self.assertEqual([m for m in found if isinstance(m, Gap)], [])
            self.assertEqual(len(found), 5 - begins[1])
