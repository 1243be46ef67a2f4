"""
Tests for `msgbus.fanout.paced`.
"""

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.bus import Bus
from msgbus.fanout.choices import Choices, Live
from msgbus.fanout.fanout import Fanout, Limits
from msgbus.fanout.member import Response
from msgbus.fanout.overflow import Overflow
from msgbus.formats.ndjson import NdjsonFraming
from msgbus.ids import Since
from msgbus.match import Filter
from msgbus.message import Message

from ..memory import Pipe


class PacedTests(SynchronousTestCase):
    """
    Members of an interval of two seconds.
    """

    def setUp(self):
        self.clock = Clock()
        self.bus = Bus()
        self.fanout = Fanout(self.bus, self.clock, Limits(backlog=2000))
        self.ended = []

    def publish(self, *bodies, channel="a", keep=True):
        for body in bodies:
            message = Message(channel, body.encode())
            self.successResultOf(self.bus.publish(message, keep))

    def join(self, interval=2.0, since=None, room=10**9, ready=True, **choices):
        pipe = Pipe()
        member = self.fanout.subscribe(
            "",
            Filter(),
            NdjsonFraming(),
            Response(
                pipe,
                lambda: (self.ended.append(pipe), member.stopProducing()),
                ready=ready,
            ),
            Choices(Overflow.LATEST, interval=interval, **choices),
            cursor=since and self.bus.replay("", Filter(), since),
        )
        pipe.grant(member, room)
        return pipe, member

    def got(self, pipe):
        """
        What came since the last call: the bodies of messages, and other objects.
        """
        lines = [json.loads(line) for line in bytes(pipe.got).splitlines() if line]
        pipe.got.clear()
        return [line.get("body", line) for line in lines]

    def after(self, seconds):
        self.clock.advance(seconds)
        # A replay takes its turns.
        for _ in range(5):
            self.clock.advance(0)

    def test_pace(self):
        """
        The first message comes at once, and what is published later when two seconds have
        passed, of each channel the newest, in order, without a gap; after a silence, the
        next comes at once.
        """
        pipe, _ = self.join()
        self.publish("1", "2")
        self.publish("x", channel="b")
        self.assertEqual(self.got(pipe), [])
        self.after(0)
        self.assertEqual(self.got(pipe), ["2", "x"])
        self.publish("3", "4")
        self.publish("y", channel="b")
        self.publish("5")
        self.after(1.9)
        self.assertEqual(self.got(pipe), [])
        self.after(0.2)
        self.assertEqual(self.got(pipe), ["y", "5"])
        self.after(10)
        self.assertEqual(self.got(pipe), [])
        self.publish("6")
        self.after(0)
        self.assertEqual(self.got(pipe), ["6"])
        self.assertEqual(self.fanout.counters.dropped.total(), 0)

    def test_nothing_runs(self):
        """
        While nothing is published, nothing is done.
        """
        self.join()
        (look,) = self.clock.getDelayedCalls()
        self.publish("1")
        self.after(3)
        self.assertEqual(self.clock.getDelayedCalls(), [look])

    def test_others(self):
        """
        Who has another interval, or none, has another pace.
        """
        slow, _ = self.join(4.0)
        paced, _ = self.join()
        plain, _ = self.join(0)
        for number in range(8):
            self.publish(str(number))
            self.after(1)
        self.assertEqual(self.got(plain), [str(number) for number in range(8)])
        self.assertEqual(self.got(paced), ["0", "2", "4", "6"])
        self.assertEqual(self.got(slow), ["0", "4"])

    def test_whoever_joins(self):
        """
        Who joins gets what is published from then on, and nothing that has waited for the
        others, whether it reads at once or has to be told something before.
        """
        first, _ = self.join()
        self.publish("1")
        self.after(0)
        self.publish("old")
        self.publish("both", channel="b")
        for room, ready in ((10**9, True), (0, True), (3, False)):
            later, member = self.join(live=Live.TOLD, room=room, ready=ready)
            self.publish("new", channel="b")
            self.publish("more", channel="c")
            self.after(2)
            later.room = 10**9
            member.resumeProducing()
            told = {"live": True}
            self.assertEqual(self.got(later), [told, "new", "more"])
            self.publish("next", channel="d")
            self.after(2)
            self.assertEqual(self.got(later), ["next"])
            member.stopProducing()
            self.assertEqual(self.got(first)[-3:], ["new", "more", "next"])
            self.publish("old")
            self.publish("both", channel="b")
        self.assertEqual(self.fanout.counters.behind, 0)

    def test_leaves_before(self):
        """
        Who joins and leaves between two moments is sent nothing, and takes nothing away.
        """
        first, _ = self.join()
        self.publish("1")
        self.after(0)
        self.publish("2")
        pipe, member = self.join()
        self.publish("3", channel="b")
        member.stopProducing()
        self.after(2)
        self.assertEqual(self.got(first), ["1", "2", "3"])
        self.assertEqual(self.got(pipe), [])
        self.publish("x" * 3000)
        _, member = self.join()
        member.stopProducing()
        self.publish("4", channel="b")
        self.after(2)
        self.assertEqual(self.got(first), [{"gap": 1}, "4"])
        self.assertEqual(self.fanout.counters.gaps[Overflow.LATEST], 1)

    def test_replay(self):
        """
        History comes whole, and at once; then each message comes once, also what waits for
        others and what is not kept.
        """
        first, _ = self.join()
        self.publish("1", "2", "3")
        self.after(0)
        self.publish("4", "5")
        pipe, _ = self.join(since=Since(), live=Live.TOLD)
        self.publish("6", keep=False)
        self.after(0)
        self.assertEqual(self.got(pipe), ["1", "2", "3", "4", "5", "6", {"live": True}])
        self.publish("7", channel="b")
        self.after(2)
        self.assertEqual(self.got(pipe), ["7"])
        self.assertEqual(self.got(first), ["3", "6", "7"])

    def test_too_much(self):
        """
        If more waits than the backlog allows, the oldest are dropped; that is told, to
        those who were there.
        """
        pipe, member = self.join()
        self.publish("1")
        self.after(0)
        for number in range(5):
            self.publish("x" * 600, channel=f"c{number}")
        late, _ = self.join()
        self.publish("end")
        self.after(2)
        first, gap, *rest = self.got(pipe)
        self.assertEqual((first, gap), ("1", {"gap": 3}))
        self.assertEqual([len(body) for body in rest], [600, 600, 3])
        self.assertEqual(self.got(late), ["end"])
        self.assertEqual(self.fanout.counters.gaps[Overflow.LATEST], 1)
        self.assertEqual(self.fanout.counters.dropped[Overflow.LATEST], 3)
        self.assertEqual(member.standing.missed, 3)

    def test_waiting(self):
        """
        What waits is counted until it is sent, or until nobody is there any more.
        """
        _, member = self.join()
        self.publish("1")
        self.assertGreater(self.fanout.counters.waiting, 100)
        self.after(0)
        self.assertEqual(self.fanout.counters.waiting, 0)
        self.publish("2")
        self.assertGreater(self.fanout.counters.waiting, 100)
        member.stopProducing()
        self.assertEqual(self.fanout.counters.waiting, 0)
        self.assertEqual(self.fanout.groups(), ())
        self.after(10)

    def test_make_room(self):
        """
        If too much waits for all subscribers, half of what waits here goes, too.
        """
        self.fanout.replace_limits(Limits(backlog=100_000, waiting=3000))
        pipe, _ = self.join()
        self.publish("1")
        self.after(0)
        for number in range(8):
            self.publish("x" * 600, channel=f"c{number}")
        self.assertLess(self.fanout.counters.waiting, 4000)
        self.after(2)
        told = self.got(pipe)
        gaps = sum(item["gap"] for item in told if isinstance(item, dict))
        self.assertEqual(len([m for m in told if len(m) == 600]) + gaps, 8)

    def test_slow_reader(self):
        """
        Who reads more slowly than that is told what it misses by that, as without an
        interval.
        """
        pipe, member = self.join()
        self.publish("1")
        self.after(0)
        pipe.room = 0
        for number in range(2, 5):
            self.publish(str(number))
            self.after(2)
        pipe.grant(member, 10**9)
        self.assertEqual(self.got(pipe), ["1", {"gap": 2}, "4"])

    def test_heartbeat(self):
        """
        Between two moments, it gets heartbeats and what is for it alone.
        """
        pipe, member = self.join(60.0, heartbeat=5)
        self.publish("1")
        self.after(0)
        self.got(pipe)
        self.publish("2")
        member.tell(b'{"ack": 1}\n')
        self.assertEqual(self.got(pipe), [{"ack": 1}])
        self.clock.pump([1] * 6)
        self.assertEqual(pipe.got, b"\n")
        self.assertEqual(member.standing.state, "level")

    def test_slow_and_dropped(self):
        """
        Who reads slowly, while too much waits for all again and again, is told of each
        message that it does not get, as is who reads.
        """
        fast, _ = self.join()
        for room in (0, 3, 1000):
            slow, member = self.join(room=room)
            for turn in range(5):
                for number in range(30):
                    self.publish("x" * 50, channel=f"{room}/{turn}/{number}")
                self.after(2)
            slow.grant(member, 10**9)
            for pipe in (fast, slow):
                got = self.got(pipe)
                gaps = sum(each["gap"] for each in got if isinstance(each, dict))
                messages = sum(isinstance(each, str) for each in got)
                self.assertEqual(messages + gaps, 150)
                self.assertGreater(gaps, 0)
            self.assertEqual(member.standing.missed, gaps)
            member.stopProducing()

    def test_end(self):
        """
        When the bus stops, it gets what waits, and what comes after that.
        """
        pipe, _ = self.join()
        behind, member = self.join(room=0)
        self.publish("1")
        self.after(0)
        self.publish("2")
        self.fanout.end()
        self.assertEqual(self.got(pipe), ["1", "2"])
        self.publish("3")
        self.after(0)
        self.assertEqual(self.ended, [pipe])
        behind.grant(member, 10**9)
        self.assertEqual(self.got(behind)[-1], "3")
        self.assertEqual(self.ended, [pipe, behind])
        self.assertEqual(self.fanout.counters.waiting, 0)

    def test_missed(self):
        """
        If messages may be missing, all are told so.
        """
        pipe, _ = self.join()
        self.publish("1")
        self.after(0)
        self.bus._miss()
        self.after(2)
        self.assertEqual(self.got(pipe), ["1", {"gap": "unknown"}])

    def test_clock_set_back(self):
        """
        If the clock is set back, nothing waits longer than an interval.
        """
        pipe, _ = self.join()
        self.publish("1")
        self.after(0)
        self.clock.rightNow -= 1000
        self.publish("2")
        self.after(2)
        self.assertEqual(self.got(pipe), ["1", "2"])
