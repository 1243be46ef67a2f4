"""
Tests for `msgbus.history` and `msgbus.replay`, and, against a model, for what a bus
with subscribers that come and go makes of them.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.bus import Bus
from msgbus.bus.cursor import LOOKS, Cursor
from msgbus.bus.history import CHANNEL_OVERHEAD, MESSAGE_OVERHEAD, History, Keep
from msgbus.bus.id_sequence import COUNT_DIGITS
from msgbus.bus.store import Store
from msgbus.fanout.backlog import Counters, Overflow
from msgbus.fanout.fanout import Fanout, Limits
from msgbus.fanout.member import Response
from msgbus.fanout.replay import Held, Replay
from msgbus.formats.framing import ChunkedFraming
from msgbus.formats.multipart_framing import MultipartFraming
from msgbus.ids import Gap, Since, parse_id
from msgbus.match import Filter
from msgbus.message import Invalid, Message

from ..memory import InlinePool, Pipe
from ..strategies import machine_settings

UNKNOWN = Gap(None)


class HistoryTests(SynchronousTestCase):
    """
    What is kept, and reading it again.  The id of the nth message is (n, n).
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
        What a replay finds: the numbers of messages, and what is missing.
        """
        return self.rest(self.begin(*args, **kwargs))

    def rest(self, cursor):
        found = []
        while (read := cursor.read(self.count)) is not None:
            found += [int(i.id) if isinstance(i, Message) else i for i in read]
        cursor.close()
        return found

    def test_all(self):
        """
        Without a point to begin at, all comes, in order, of channel, folder and
        root.
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
        A replay begins behind an id, or at a time.
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
        The last so many that match, however far back they are.
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

    def test_few_looks(self):
        """
        A replay that finds nothing in a thousand messages lets others go first.
        """
        self.make(count=10 * LOOKS)
        self.add(*"a" * LOOKS, "b")
        for since in ({}, {"last": 2}):
            cursor = self.begin("", Filter(channel="b"), **since)
            self.assertEqual(cursor.read(0), [])
            self.assertEqual(self.rest(cursor), [LOOKS + 1])

    def test_count(self):
        """
        Each channel keeps so many; who comes back to one that has lost some is
        told so, and others are not.
        """
        self.make(count=2)
        self.add("a", "b/c", *"aaa")
        self.assertEqual(self.read("a"), [4, 5])
        self.assertEqual(self.read("a", id=(1, 1)), [UNKNOWN, 4, 5])
        self.assertEqual(self.read("a", id=(3, 3)), [4, 5])
        self.assertEqual(self.read("b/", id=(1, 1)), [2])

    def test_counted(self):
        """
        On the root, without a filter, it is known how many are missing, and
        where.
        """
        self.make(count=2)
        self.add(*"aabaaba")
        self.assertEqual(self.read("", id=(1, 1)), [Gap(1), 3, Gap(1), 5, 6, 7])
        self.add("a", keep=False)
        self.assertEqual(self.read("", id=(6, 6)), [7, Gap(1)])
        self.assertEqual(self.read("", Filter(channel="?"), id=(6, 6)), [UNKNOWN, 7])

    def test_strange(self):
        """
        Behind an id that is none of this bus, all that there is comes, and it is
        told that some may be missing.
        """
        self.add(*"ab")
        since = Since((2**40, 7))
        cursor = Cursor(self.history, "a", Filter(), since, 0, foreign=True)
        self.assertEqual(self.rest(cursor), [UNKNOWN, 1])

    def test_age(self):
        """
        What is too old goes, at the latest when somebody would read it.
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

    def test_size(self):
        """
        All together stay in a bound, in which messages and channels cost more
        than their text; the oldest go first.
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

    def test_off(self):
        """
        Without history, nothing is kept, and who comes back is told.
        """
        self.make(count=0)
        self.add("a", "b")
        self.assertEqual(self.history.size, 0)
        self.assertEqual(self.read("a", id=(1, 1)), [])
        self.assertEqual(self.read("b", id=(1, 1)), [UNKNOWN])

    def test_nothing_left(self):
        """
        A channel without messages is forgotten, and of those that lost some,
        only so many names are remembered.
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
        What is published while a replay goes on is part of it, also what is not
        to be kept; and others, who come later, do not get that.
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
        What goes before a replay has come to it is told to be missing.
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

    def test_ids(self):
        """
        An id is two numbers.
        """
        self.assertEqual(parse_id("12-34"), (12, 34))
        for text in ("", "12", "-", "1-", "-1", "a-1", "1-2 ", "1-2-3", "²-1", "1" * 30):
            with self.assertRaises(Invalid, msg=text):
                parse_id(text)


class BeginsTests(SynchronousTestCase):
    """
    Where a replay says that it begins.
    """

    def test_time(self):
        """
        Behind a time, nothing before it is missing, and something behind it may be.
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


class ReplayTests(SynchronousTestCase):
    """
    A replay, taken in pieces.
    """

    def test_pieces(self):
        """
        However much is taken at once, the bytes are those of the frames.
        """
        history = History(Keep(count=1))
        framing = ChunkedFraming(MultipartFraming("B"))
        messages = [Message("a", b"x" * n, "a/b").published(f"{n}") for n in (0, 5, 300)]
        for taken in (1, 7, 1000):
            history = History(Keep(count=1))
            history.add((1, 1), messages[0])
            for number, message in enumerate(messages):
                history.add((2, number), message.published(message.id), keep=number > 0)
            cursor = Cursor(history, "a", Filter(), Since((1, 0)), 0)
            counters = Counters()
            replay = Replay(cursor, framing, lambda: 0, Held(counters))
            got = b""
            while (owed := replay.owed()) is not None:
                piece = b"".join(owed)[:taken]
                replay.advance(len(piece))
                got += piece
            self.assertEqual(counters.waiting, 0)
            self.assertEqual(got, framing.gap(None) + framing.frame(messages[2]))


class Marks:
    """
    A framing of which only a message can come in part.
    """

    heartbeat = b""

    def frame(self, message):
        return b"".join(self.pieces(message))

    def pieces(self, message):
        return b"<", message.body, b">"

    def gap(self, count):
        return b"?" if count is None else b"!" * count


MARKS = Marks()
COUNT = 5
CHANNELS = st.sampled_from(["a", "ab", "b/c", "b/d"])


class Listener:
    """
    One who subscribes, is cut off, and comes back behind the last that it has got
    whole; and what it must have seen.
    """

    def __init__(self, name, since):
        self.name = name
        self.since = since
        self.numbers = []
        self.told = False
        self.connected = False
        # The first that it must get, or be told of, and those that were over when it
        # first came.
        self.due = self.earliest = None
        self.excused = set()


class HistoryMachine(RuleBasedStateMachine):
    """
    Publishing, subscribing, dropping, resuming, setting the clock back, and starting
    anew, on channels, a folder and the root.
    """

    @initialize()
    def begin(self):
        """
        A bus.
        """
        self.clock = Clock()
        self.clock.callFromThread = lambda call, *args: call(*args)
        self.time = 1_000_000.0
        self.published = []
        self.ids = []
        self.acknowledged = []
        self.listeners = []
        self.folder = TemporaryDirectory()
        self.start()

    def start(self):
        """
        A bus with a file, that goes on where the last one was.
        """
        self.history = History(Keep(count=COUNT))
        self.bus = Bus(history=self.history, seconds=lambda: self.time)
        self.bus.subscribe("", lambda message: self.ids.append(message.id))
        self.store = Store(Path(self.folder.name, "file"), self.bus, self.clock)
        self.store._pool = InlinePool()
        self.store.load()
        self.fanout = Fanout(self.bus, self.clock, Limits(backlog=10_000))

    @rule(killed=st.booleans())
    def restart(self, killed):
        """
        All are cut off, and it starts anew.
        """
        self.turn()
        assert len(self.acknowledged) == len(self.published)
        for listener in self.listeners:
            if listener.connected:
                listener.member.stopProducing()
                listener.connected = False
        if killed:
            self.store._database.close()
        else:
            self.store.close()
            self.clock.advance(0)
            assert not self.store._database.is_open
        self.start()

    @rule(
        channels=st.lists(
            st.sampled_from(["a", "ab", "b/c", "b/d"]), min_size=1, max_size=4
        ),
        keep=st.booleans(),
    )
    def publish(self, channels, keep):
        """
        Messages, in one turn.
        """
        for channel in channels:
            number = len(self.published)
            message = Message(channel, b"%06d" % number)
            self.bus.publish(message, keep=keep).addCallback(self.acknowledged.append)
            self.published.append((channel, keep))

    @rule(seconds=st.integers(-100, 100))
    def set_clock(self, seconds):
        """
        The clock is set, back too.
        """
        self.time += seconds

    @rule()
    def turn(self):
        """
        Turns of the reactor.
        """
        self.clock.pump([0, 0])
        for listener in self.listeners:
            self.look(listener)

    @rule(
        name=st.sampled_from(["a", "b/c", "b/", ""]),
        since=st.sampled_from([None, Since(), Since(last=2)]),
        room=st.integers(0, 100),
    )
    def subscribe(self, name, since, room):
        """
        One more.
        """
        listener = Listener(name, since)
        kept = [n for n in self.matched(listener) if self.kept(n)]
        listener.excused = set(range(len(self.published))) - set(kept)
        if since is None:
            listener.due = len(self.published)
        else:
            wanted = kept[-2:] if since.last else kept
            listener.due = wanted[0] if wanted else len(self.published)
        # Those before the last two are the last two, if these go before it begins.
        listener.earliest = min([*kept[:1], listener.due])
        self.listeners.append(listener)
        self.connect(listener, since, room)

    def connect(self, listener, since, room):
        """
        Open its connection.
        """
        listener.pipe = Pipe()
        listener.connected = True
        listener.seen = 0
        # That nobody knows how many are missing is told first, wherever they are.
        listener.told = False
        listener.member = self.fanout.subscribe(
            listener.name,
            Filter(),
            MARKS,
            Response(listener.pipe, lambda: None),
            overflow=Overflow.DROP_NEWEST,
            cursor=since and self.bus.replay(listener.name, Filter(), since),
        )
        listener.pipe.grant(listener.member, room)
        self.look(listener)

    @rule(data=st.data(), room=st.integers(0, 100))
    def read(self, data, room):
        """
        One reads so much.
        """
        if self.listeners:
            listener = data.draw(st.sampled_from(self.listeners))
            if listener.connected:
                listener.pipe.grant(listener.member, room)
                self.look(listener)

    @rule(data=st.data())
    def cut(self, data):
        """
        One is cut off.
        """
        if self.listeners:
            listener = data.draw(st.sampled_from(self.listeners))
            if listener.connected:
                self.look(listener)
                listener.member.stopProducing()
                listener.connected = False

    @rule(data=st.data(), room=st.integers(0, 100))
    def resume(self, data, room):
        """
        One comes back behind the last that it has got.
        """
        if self.listeners:
            listener = data.draw(st.sampled_from(self.listeners))
            if not listener.connected and listener.numbers:
                id = parse_id(self.ids[listener.numbers[-1]])
                self.connect(listener, Since(id), room)

    def matched(self, listener):
        """
        The numbers of what it wants.
        """
        return [
            number
            for number, (channel, _) in enumerate(self.published)
            if channel == listener.name
            or (listener.name[-1:] in ("", "/") and channel.startswith(listener.name))
        ]

    def kept(self, number):
        """
        Does history have it?
        """
        channel, keep = self.published[number]
        later = [c for c, k in self.published[number:] if k and c == channel]
        return keep and len(later) <= COUNT

    def look(self, listener):
        """
        See what has come.
        """
        if not listener.connected:
            return
        data = bytes(listener.pipe.got)
        for match in re.finditer(rb"<(\d{6})>|([?!])", data[listener.seen :]):
            if match[1]:
                listener.numbers.append(int(match[1]))
                matched = self.matched(listener)
                due = range(listener.due, int(match[1]))
                missing = {*matched} & {*due} - listener.excused
                # Nothing comes twice, or late, and nothing is missing untold.
                assert int(match[1]) in matched
                assert int(match[1]) >= min(listener.due, listener.earliest)
                listener.earliest = listener.due
                assert listener.told or not missing, missing
                # Whatever was told, what is kept is not missing.
                assert not any(map(self.kept, missing)), missing
                listener.due = int(match[1]) + 1
            else:
                listener.told = True
        ends = [m.end() for m in re.finditer(rb">|[?!]", data)]
        listener.seen = ends[-1] if ends else 0

    def teardown(self):
        """
        All read all: nothing that was promised is missing.
        """
        if not hasattr(self, "listeners"):
            return
        self.turn()
        assert self.ids == sorted(self.ids, key=parse_id)
        assert len(set(self.ids)) == len(self.ids)
        for listener in self.listeners:
            if not listener.connected and listener.numbers:
                id = parse_id(self.ids[listener.numbers[-1]])
                self.connect(listener, Since(id), 0)
        for _ in range(5):
            for listener in self.listeners:
                if listener.connected:
                    listener.pipe.grant(listener.member, 1_000_000)
            self.clock.advance(0)
        for listener in self.listeners:
            if listener.connected:
                self.look(listener)
                due = range(listener.due, len(self.published))
                missing = {*self.matched(listener)} & {*due} - listener.excused
                assert listener.told or not missing, missing
                assert not any(map(self.kept, missing)), missing
                assert listener.member.position is None
                assert listener.member.replay is None
        assert self.history._transient == []
        self.store._database.close()
        self.folder.cleanup()


HistoryMachineTests = HistoryMachine.TestCase
HistoryMachineTests.settings = machine_settings


class LifeTests(SynchronousTestCase):
    """
    Ids.
    """

    def publish(self, bus):
        receipts = []
        bus.publish(Message("a", b"")).addCallback(receipts.append)
        return parse_id(receipts[0].id)

    def test_growing(self):
        """
        Ids grow, also when the clock is set back, and tell the time.
        """
        times = [5.0, 5.0, 3.0, 7.0]
        bus = Bus(seconds=lambda: times[0])
        ids = []
        while times:
            ids.append(self.publish(bus))
            times.pop(0)
        self.assertEqual(
            [milliseconds for milliseconds, _ in ids], [5000, 5000, 5000, 7000]
        )
        numbers = [number for _, number in ids]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + 4)))
        self.assertEqual(numbers[0] // 10**COUNT_DIGITS, bus.life)

    def test_strange(self):
        """
        An id of another life, or from the future, is known to be one.
        """
        bus, other = Bus(), Bus()
        other.restore(bus.life + 1, other.boundary, (0, (bus.life + 1) * 10**COUNT_DIGITS))
        mine, theirs = self.publish(bus), self.publish(other)
        future = (mine[0], mine[1] + 1)
        for id, expected in ((mine, None), (theirs, UNKNOWN), (future, UNKNOWN)):
            read = bus.replay("a", Filter(), Since(id)).read(0)
            self.assertEqual(read and read[0], expected)
