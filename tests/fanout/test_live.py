"""
Tests for where a replay ends: what a member is told there, and whether its response ends.
"""

from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.bus import Bus
from msgbus.bus.history import History, Keep
from msgbus.fanout.choices import Choices, Live
from msgbus.fanout.fanout import Fanout
from msgbus.fanout.member import Response
from msgbus.fanout.overflow import Overflow
from msgbus.formats.framing import ChunkedFraming
from msgbus.formats.ndjson import NdjsonFraming
from msgbus.ids import Since
from msgbus.match import Filter
from msgbus.message import Message

from ..memory import Pipe

ALL = Since()
LIVE = b'{"live": true}\n'


class LiveTests(SynchronousTestCase):
    """
    Where history ends.
    """

    def setUp(self):
        self.clock = Clock()
        self.bus = Bus(history=History(Keep(count=1000)))
        self.fanout = Fanout(self.bus, self.clock)
        self.ended = []

    def publish(self, *bodies, keep=True):
        """
        Publish messages; what a member that gets them is sent.
        """
        frames = []
        for body in bodies:
            message = Message("foo", body)
            receipt = self.successResultOf(self.bus.publish(message, keep))
            frames.append(NdjsonFraming().frame(message.published(receipt.id)))
        return b"".join(frames)

    def join(self, live=Live.TOLD, since=ALL, room=10**9, ready=False, **choices):
        pipe = Pipe()
        member = self.fanout.subscribe(
            "foo",
            Filter(),
            NdjsonFraming(),
            Response(
                pipe,
                lambda: self.ended.append("finish"),
                ready=ready,
                complete=lambda: (self.ended.append("complete"), member.stopProducing()),
            ),
            Choices(live=live, **choices),
            cursor=since and self.bus.replay("foo", Filter(), since),
        )
        pipe.grant(member, room)
        return pipe, member

    def turns(self, count=100):
        for _ in range(count):
            self.clock.advance(0)

    def test_between(self):
        """
        The member is told so once, behind all that is kept and before all that is
        published later.
        """
        old = self.publish(b"1", b"2")
        pipe, _ = self.join()
        self.turns()
        new = self.publish(b"3")
        self.turns()
        self.assertEqual(pipe.got, old + LIVE + new)

    def test_nothing_kept(self):
        """
        It is told so also if there is nothing to replay, or if it asked for nothing.
        """
        for since in Since(), None:
            for ready in True, False:
                pipe, _ = self.join(since=since, ready=ready)
                self.turns()
                self.assertEqual(pipe.got, LIVE)
        new = self.publish(b"1")
        self.turns()
        self.assertEqual(pipe.got, LIVE + new)

    def test_untold(self):
        """
        Who did not ask where history ends is not told.
        """
        old = self.publish(b"1")
        pipe, _ = self.join(Live.UNTOLD)
        self.turns()
        self.assertEqual(pipe.got, old)

    def test_slow_reader(self):
        """
        However little a member reads at once, and whatever is published meanwhile: it is
        told so once, between two messages, and gets all of them, in order.
        """
        sent = self.publish(*[b"%d" % number for number in range(300)])
        pipe, member = self.join(room=0)
        count = 300
        while len(pipe.got) < len(sent):
            pipe.grant(member, 37)
            self.turns(1)
            if count < 400:
                sent += self.publish(b"%d" % count)
                count += 1
        pipe.grant(member, 10**9)
        self.turns()
        sent += self.publish(b"last")
        self.turns()
        self.assertEqual(pipe.got.count(LIVE), 1)
        before, _, behind = pipe.got.partition(LIVE)
        self.assertEqual(before + behind, sent)
        self.assertTrue(before.endswith(b"\n"))
        # What was there when it came is before that, and what is published when nothing
        # waits for it is behind.
        self.assertIn(b'"299"', before)
        self.assertIn(b'"last"', behind)

    def test_told_in_part(self):
        """
        If there is room for a part of it only, the rest follows, and then what was
        published meanwhile.
        """
        for since in Since(id=self.bus.newest), None:
            pipe, member = self.join(since=since, room=3)
            self.turns()
            self.assertEqual(pipe.got, LIVE[:3])
            new = self.publish(b"1")
            self.turns()
            pipe.grant(member, 10**9)
            self.turns()
            self.assertEqual(pipe.got, LIVE + new)

    def test_one_call(self):
        """
        A short replay, and that it has ended, are one system call.
        """
        old = self.publish(b"1", b"2")
        pipe, _ = self.join(room=0)
        calls = []
        send = pipe.sendmsg
        pipe.sendmsg = lambda pieces: (calls.append(1), send(pieces))[1]
        pipe.room = 10**9
        self.turns()
        self.assertEqual(pipe.got, old + LIVE)
        self.assertEqual(len(calls), 1)

    def test_end(self):
        """
        The response of a member that wants no more ends there; what is published from then
        on, even before it has read that, is not for it.
        """
        old = self.publish(b"1")
        for room in 10**9, len(old) + 3:
            pipe, member = self.join(Live.END, room=room)
            self.turns()
            if room < 10**9:
                self.assertEqual(self.ended, ["complete"])
                self.publish(b"2")
                pipe.grant(member, 10**9)
                self.turns()
            self.assertEqual(pipe.got, old + LIVE)
        self.assertEqual(self.ended, ["complete"] * 2)
        self.assertEqual(self.fanout.groups(), ())
        self.assertEqual(self.fanout.counters.waiting, 0)
        self.assertEqual(self.fanout.counters.replays, 0)

    def test_end_of_nothing(self):
        """
        Without history, the response ends at once, but not before `subscribe` has returned.
        """
        pipe, _ = self.join(Live.END, since=None, ready=True)
        self.assertEqual(self.ended, [])
        self.turns()
        self.assertEqual((pipe.got, self.ended), (LIVE, ["complete"]))

    def test_chunked(self):
        """
        It is a chunk of its own.
        """
        pipe = Pipe()
        member = self.fanout.subscribe(
            "foo",
            Filter(),
            ChunkedFraming(NdjsonFraming()),
            Response(pipe, partial(self.ended.append, "finish")),
            Choices(live=Live.TOLD),
        )
        pipe.grant(member, 10**9)
        self.assertEqual(pipe.got, b"f\r\n" + LIVE + b"\r\n")

    def test_overflow(self):
        """
        Whatever happens when too much waits for it, nothing gets between.
        """
        old = self.publish(b"1")
        for overflow in Overflow:
            pipe, _ = self.join(overflow=overflow)
            self.turns()
            self.assertEqual(pipe.got, old + LIVE)
