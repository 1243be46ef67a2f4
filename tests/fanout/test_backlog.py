"""
Tests for `msgbus.backlog`, and, against a model, for what `group` and `fanout`
make of it.
"""

import re

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.bus import Bus
from msgbus.fanout.backlog import Backlog
from msgbus.fanout.choices import Choices
from msgbus.fanout.counters import Counters
from msgbus.fanout.fanout import Fanout, Limits
from msgbus.fanout.member import Response
from msgbus.fanout.outlet import BufferedOutlet
from msgbus.fanout.overflow import Overflow
from msgbus.match import Filter
from msgbus.message import Message

from ..memory import Pipe
from ..strategies import machine_settings


def gap(count):
    """
    A line that tells of so many.
    """
    return b"(%d)" % count


class BacklogTests(SynchronousTestCase):
    """
    Positions among numbered messages of ten bytes.
    """

    def setUp(self):
        self.counters = Counters()
        self.delivered = self.counters.delivered_in("x")
        self.now = 0
        self.backlog = Backlog(30, gap, self.counters, self.delivered, lambda: self.now)

    def add(self, *letters, channel="foo", expires=None):
        for letter in letters:
            self.backlog.add(channel, letter.encode() * 10, expires)

    def take(self, position, size=None):
        """
        What one gets when it takes so many bytes, or all.
        """
        got = b""
        while size is None or len(got) < size:
            owed = b"".join(self.backlog.owed(position))
            if not owed:
                break
            piece = owed[: None if size is None else size - len(got)]
            self.backlog.advance(position, len(piece))
            got += piece
        return re.sub(rb"(.)\1{9}", rb"\1", got)

    def test_nobody(self):
        """
        Nothing is kept for nobody.
        """
        self.add("a", "b")
        self.assertEqual((self.backlog.kept, self.counters.waiting), (0, 0))

    def test_taken(self):
        """
        One that has got some of what is about to be added gets the rest.
        """
        frames = [b"a" * 10, b"b" * 10]
        for taken in range(20):
            position = self.backlog.fall_behind(Overflow.DROP_NEWEST, frames, taken)
            self.add("a", "b")
            got = b""
            while len(got) < 20 - taken:
                piece = self.backlog.owed(position)[0]
                self.backlog.advance(position, len(piece))
                got += piece
            self.assertEqual(got, b"".join(frames)[taken:])
            self.backlog.discard(position)
        self.assertEqual((self.delivered.messages, self.delivered.bytes), (40, 400))

    def test_overflow(self):
        """
        Each way to be past the backlog, which is looked at before a message
        is added.
        """
        for overflow, expected, dropped in (
            (Overflow.DROP_NEWEST, b"abcd(2)", 2),
            (Overflow.DROP_OLDEST, b"(2)cdef", 2),
            (Overflow.LATEST, b"(5)f", 5),
        ):
            self.counters.dropped.clear()
            position = self.backlog.fall_behind(overflow)
            self.add(*"abcdef")
            self.assertEqual(self.take(position), expected)
            self.assertEqual(self.counters.dropped, {overflow: dropped})
            self.backlog.discard(position)
            self.assertEqual((self.backlog.kept, self.counters.waiting), (0, 0))

    def test_expired(self):
        """
        What has expired while it waited is not sent, but told as missing, whatever the kind
        of overflow; a message that was sent in part is sent whole.
        """
        for overflow, expected in (
            (Overflow.DROP_NEWEST, b"(1)b(2)e"),
            (Overflow.DROP_OLDEST, b"(1)b(2)e"),
            (Overflow.CLOSE, b"(1)b(2)e"),
            (Overflow.LATEST, b"(5)e"),
        ):
            self.backlog.limit_to(1000)
            self.now = 0
            position = self.backlog.fall_behind(overflow)
            self.add("a", "x", expires=2)
            self.add("b")
            self.add("c", "d", expires=3)
            self.add("e", expires=9)
            # The first message is on its way.
            started = overflow is not Overflow.LATEST
            begun = self.take(position, 3) if started else b""
            self.now = 3
            self.assertEqual(begun + self.take(position), b"a" * 10 * started + expected)
            self.backlog.discard(position)
            self.assertEqual((self.backlog.kept, self.backlog._expiries), (0, {}))

    def test_all_expired(self):
        """
        If all has expired, only that is told; and at the end, nothing is left of it.
        """
        for overflow in Overflow:
            self.now = 0
            self.backlog.limit_to(1000)
            position = self.backlog.fall_behind(overflow)
            self.add(*"abc", expires=2)
            self.now = 2
            told = b"(3)"
            self.assertEqual(self.take(position), told)
            self.add("d", expires=3)
            self.assertEqual(self.take(position), b"d")
            self.backlog.discard(position)

    def test_again(self):
        """
        Who has jumped to the newest waits anew, up to its backlog.
        """
        position = self.backlog.fall_behind(Overflow.DROP_NEWEST)
        self.add(*"abcdef")
        self.assertEqual(self.take(position, 40), b"abcd")
        self.assertEqual(self.backlog.owed(position), [b"(2)"])
        self.add(*"ghijkl")
        self.assertEqual(self.take(position), b"(2)ghij(2)")

    def test_close(self):
        """
        One that is to be closed is told to the caller.
        """
        position = self.backlog.fall_behind(Overflow.CLOSE)
        self.add(*"abcd")
        self.assertEqual(self.backlog.late, set())
        self.add("e")
        self.assertEqual(self.backlog.late, {position})

    def test_message_in_hand(self):
        """
        Who has got a part of a message gets the rest of it, whatever becomes
        of what comes behind it.
        """
        for overflow, expected in (
            (Overflow.DROP_NEWEST, b"aaaaabcd(5)"),
            (Overflow.DROP_OLDEST, b"aaaaa(4)fghi"),
            (Overflow.LATEST, b"aaaaa(7)i"),
        ):
            position = self.backlog.fall_behind(overflow)
            self.add("a")
            self.assertEqual(self.take(position, 5), b"aaaaa")
            self.add(*"bcdefghi")
            self.backlog.prune()
            self.assertEqual(self.take(position), expected)
            self.backlog.discard(position)

    def test_newest_of_each_channel(self):
        """
        With `LATEST`, each channel's newest comes, in their order; what
        strangers make up channels for stays within the backlog.
        """
        position = self.backlog.fall_behind(Overflow.LATEST)
        for letter, channel in zip("abcdef", "xyxyzx", strict=True):
            self.add(letter, channel=channel)
        self.assertEqual(self.take(position), b"(3)def")
        for number in range(100):
            self.add("g", channel=f"c{number}")
        self.backlog.prune()
        self.assertEqual(self.take(position), b"(96)gggg")

    def test_costs_nothing(self):
        """
        One that never reads has its backlog kept, and nothing of what comes
        behind it; several that stand at one place cost no more.
        """
        for _ in range(3):
            self.backlog.fall_behind(Overflow.DROP_NEWEST)
            self.backlog.fall_behind(Overflow.DROP_OLDEST)
            self.backlog.fall_behind(Overflow.LATEST)
        self.add(*"x" * 1000)
        self.backlog.prune()
        # The first four, and the last four.
        self.assertEqual(self.backlog.kept, 80)
        self.add(*"x" * 1000)
        self.assertLess(self.backlog.kept, 400)

    def test_shed(self):
        """
        Shedding drops the older half: for those who stand there, it is as if
        they were past their backlog.
        """
        first = self.backlog.fall_behind(Overflow.DROP_NEWEST)
        self.add(*"abcd")
        second = self.backlog.fall_behind(Overflow.DROP_NEWEST)
        oldest = self.backlog.fall_behind(Overflow.DROP_OLDEST)
        closed = self.backlog.fall_behind(Overflow.CLOSE)
        self.add(*"efgh")
        self.backlog.shed()
        self.assertLessEqual(self.backlog.kept, 40)
        self.assertEqual(self.take(first), b"(8)")
        self.assertEqual(self.take(second), b"(4)")
        self.assertEqual(self.take(oldest), b"(1)fgh")
        self.assertEqual(self.backlog.late, {closed})

    def test_shed_messages_in_hand(self):
        """
        Who has got a part of a large message can only be closed.
        """
        positions = [self.backlog.fall_behind(kind) for kind in Overflow]
        self.backlog.add("foo", bytes(100))
        for position in positions:
            self.backlog.advance(position, 1)
        self.backlog.shed()
        self.assertEqual(self.backlog.late, set(positions))


# Three channels fit, so that `LATEST` has one of each.
LIMIT = 400


class Buffer(BufferedOutlet):
    """
    Twisted's way: all is taken, until the producer is paused.
    """

    def __init__(self):
        self.got = bytearray()
        self.room = 0
        super().__init__(self._take, None)

    def _take(self, data):
        self.got += data
        self.room -= len(data)
        if self.room <= 0:
            self.paused = True

    def grant(self, member, size):
        """
        There is room for so many bytes, and for one write beyond them.
        """
        self.room = size
        if size:
            member.resumeProducing()


class Queue:
    """
    What one subscriber must get: a queue of its own, in plain words.
    """

    def __init__(self, overflow):
        self.overflow = overflow
        self.waiting = []
        self.offset = 0
        self.got = []
        self.full = self.closed = False

    def add(self, number, channel, size, taken):
        """
        A message comes, of which it has got so many bytes already.
        """
        if taken >= size:
            self.got.append(number)
            return
        first = 1 if self.offset else 0
        if self.overflow in (Overflow.DROP_NEWEST, Overflow.CLOSE):
            if sum(s for *_, s in self.waiting) > LIMIT:
                self.full = True
            if self.full:
                self.closed = self.overflow is Overflow.CLOSE
                return
        if self.overflow is Overflow.LATEST:
            self.waiting[first:] = [w for w in self.waiting[first:] if w[1] != channel]
        if self.overflow is Overflow.DROP_OLDEST:
            while sum(s for *_, s in self.waiting[first:]) > LIMIT:
                del self.waiting[first]
        self.waiting.append((number, channel, size))
        self.offset += taken

    def take(self, size):
        """
        It takes so many bytes of messages.
        """
        self.offset += size
        while self.waiting and self.offset >= self.waiting[0][2]:
            number, _, size = self.waiting.pop(0)
            self.offset -= size
            self.got.append(number)
        if not self.waiting:
            self.full = False


class Subscriber:
    """
    A member, its outlet, and what it must get.
    """

    def __init__(self, fanout, overflow, outlet, matches, published):
        self.outlet = outlet
        self.matches = matches
        self.since = len(self.matched(published))
        self.queue = Queue(overflow)
        self.member = fanout.subscribe(
            "",
            Filter(channel="" if matches == "abc" else matches),
            MARKS,
            Response(outlet, lambda: None),
            Choices(overflow),
        )
        outlet.abort = self.abort
        self.aborted = False

    def matched(self, published):
        """
        The numbers of the messages that it wants.
        """
        return [n for n, channel in enumerate(published) if channel in self.matches]

    def abort(self):
        """
        The connection is cut.
        """
        self.aborted = True
        self.member.stopProducing()

    def taken(self):
        """
        How many bytes of messages it has got.
        """
        return len(self.outlet.got) - self.outlet.got.count(MISSED)


class Marks:
    """
    A framing of which no piece but a message can come in part: a mark for each
    message that was missed.
    """

    form = "marks"
    heartbeat = b""

    def frame(self, message):
        return message.body

    def gap(self, count):
        return MISSED * count


MISSED = b"!"
MARKS = Marks()


class FanoutMachine(RuleBasedStateMachine):
    """
    Subscribers of every kind, some level, some behind at many places, against
    a queue for each.
    """

    @initialize()
    def begin(self):
        """
        A bus.
        """
        self.clock = Clock()
        self.bus = Bus()
        self.fanout = Fanout(self.bus, self.clock, Limits(backlog=LIMIT))
        self.subscribers = []
        self.fresh = []
        self.published = []

    @rule(
        overflow=st.sampled_from(Overflow),
        kind=st.sampled_from([Pipe, Buffer]),
        matches=st.sampled_from(["abc", "a"]),
        room=st.integers(0, 1000),
    )
    def subscribe(self, overflow, kind, matches, room):
        """
        One more, with room for so much.
        """
        self.turn()
        subscriber = Subscriber(self.fanout, overflow, kind(), matches, self.published)
        self.subscribers.append(subscriber)
        self.drain(subscriber, room)

    @rule(
        channels=st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
        size=st.integers(6, 130),
    )
    def publish(self, channels, size):
        """
        Messages, in one turn.
        """
        for channel in channels:
            number = len(self.published)
            self.published.append(channel)
            message = Message(channel, (b"%06d" % number).ljust(size, b"x") + b";")
            self.fresh.append((number, message))
            self.bus.publish(message)

    @rule()
    def turn(self):
        """
        The end of a turn of the reactor.
        """
        before = [subscriber.taken() for subscriber in self.subscribers]
        self.clock.advance(0)
        for subscriber, had in zip(self.subscribers, before, strict=True):
            taken = subscriber.taken() - had
            for number, message in self.fresh:
                if message.channel in subscriber.matches and not subscriber.queue.closed:
                    size = len(message.body)
                    subscriber.queue.add(number, message.channel, size, min(size, taken))
                    taken -= min(size, taken)
        self.fresh = []

    @rule(data=st.data(), room=st.integers(0, 1000))
    def room(self, data, room):
        """
        One reads so much.
        """
        if self.subscribers:
            self.drain(data.draw(st.sampled_from(self.subscribers)), room)

    @rule(data=st.data())
    def exact_room(self, data):
        """
        One reads just the messages that wait for it.
        """
        if self.subscribers:
            subscriber = data.draw(st.sampled_from(self.subscribers))
            waiting = sum(size for *_, size in subscriber.queue.waiting)
            self.drain(subscriber, waiting - subscriber.queue.offset)

    @rule(data=st.data())
    def leave(self, data):
        """
        One leaves.
        """
        if self.subscribers:
            subscriber = data.draw(st.sampled_from(self.subscribers))
            self.subscribers.remove(subscriber)
            subscriber.member.stopProducing()

    def drain(self, subscriber, room):
        """
        Give one room for so much.
        """
        had = subscriber.taken()
        subscriber.outlet.grant(subscriber.member, room)
        subscriber.queue.take(subscriber.taken() - had)

    @invariant()
    def kept(self):
        """
        What is counted is what is kept, and for nobody, nothing is.
        """
        if not self.subscribers:
            assert self.fanout.counters.waiting == 0
            assert self.clock.getDelayedCalls() == []
        backlogs = [group.backlog for group in self.fanout._groups.values()]
        assert sum(b.kept for b in backlogs) == self.fanout.counters.waiting
        for backlog in backlogs:
            assert backlog.kept == sum(map(len, backlog._frames.values()))

    @invariant()
    def standing(self):
        """
        What is told of each subscriber is so: what it has missed, and at least how much
        waits for it.
        """
        for subscriber in getattr(self, "subscribers", ()):
            if subscriber.aborted or self.fresh:
                continue
            standing, queue = subscriber.member.standing, subscriber.queue
            wanted = len(subscriber.matched(self.published)) - subscriber.since
            waiting = sum(size for *_, size in queue.waiting) - queue.offset
            if queue.overflow is not Overflow.LATEST and not queue.closed:
                assert standing.messages == len(queue.waiting)
                assert standing.bytes == waiting
                missed = wanted - len(queue.got) - len(queue.waiting)
                assert standing.missed == missed
            if standing.state == "level":
                assert (standing.bytes, queue.waiting) == (0, [])

    def teardown(self):
        """
        All read all: each has what its queue says, in order, and its gaps and
        parts are what matched.
        """
        if not hasattr(self, "subscribers"):
            return
        self.turn()
        for subscriber in self.subscribers:
            assert subscriber.aborted == subscriber.queue.closed
            if subscriber.aborted:
                continue
            self.drain(subscriber, 1_000_000)
            got = re.findall(rb"(!*)(?:(\d{6})x*;|\Z)", subscriber.outlet.got)
            numbers = [int(number) for _, number in got if number]
            assert numbers == subscriber.queue.got
            place = subscriber.since
            for missed, number in got:
                place += len(missed)
                if number:
                    assert subscriber.matched(self.published)[place] == int(number)
                    place += 1
            assert place == len(subscriber.matched(self.published))


FanoutMachineTests = FanoutMachine.TestCase
FanoutMachineTests.settings = machine_settings
