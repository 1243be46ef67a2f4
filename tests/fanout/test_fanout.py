"""
Tests for `msgbus.fanout.fanout`.
"""

import re
from functools import partial

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from msgbus.bus.bus import Bus
from msgbus.fanout.choices import Choices
from msgbus.fanout.fanout import Fanout, Limits
from msgbus.fanout.member import Response
from msgbus.fanout.outlet import BufferedOutlet
from msgbus.fanout.overflow import Overflow
from msgbus.formats.framing import ChunkedFraming
from msgbus.formats.multipart_framing import MultipartFraming
from msgbus.ids import Since
from msgbus.match import Filter
from msgbus.message import Message
from msgbus.web.poll import Body

from ..memory import Pipe


class FramingTests(SynchronousTestCase):
    """
    Parts as they stand in a response.
    """

    def test_chunked(self):
        """
        With chunks, a message is one chunk.
        """
        part = MultipartFraming("B").frame(Message("foo", b"x"))
        self.assertEqual(
            ChunkedFraming(MultipartFraming("B")).frame(Message("foo", b"x")),
            b"%x\r\n%s\r\n" % (len(part), part),
        )

    def test_gap(self):
        """
        A gap is a header line of the part to come, and a chunk of its own.
        """
        self.assertEqual(MultipartFraming("B").gap(12), b"Msgbus-Gap: 12\r\n")
        self.assertEqual(
            ChunkedFraming(MultipartFraming("B")).gap(12), b"10\r\nMsgbus-Gap: 12\r\n\r\n"
        )


class CountingFraming(MultipartFraming):
    """
    Notes what is encoded.
    """

    encoded = []

    def pieces(self, message):
        """
        Encode, and note it.
        """
        self.encoded.append(message)
        return super().pieces(message)


class FanoutTests(SynchronousTestCase):
    """
    One message to many members.
    """

    def setUp(self):
        self.clock = Clock()
        self.bus = Bus()
        self.fanout = Fanout(self.bus, self.clock)
        self.framing = MultipartFraming("B")
        self.frame = self.framing.frame
        self.cut = []
        self.logged = []

        def observe(event):
            if event["log_namespace"] == "msgbus.fanout.fanout.Fanout":
                self.logged.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def join(self, name="foo", filter=None, framing=None, **choices):
        written = []
        member = self.fanout.subscribe(
            name,
            filter or Filter(),
            framing or self.framing,
            Response(
                BufferedOutlet(
                    written.append,
                    lambda: (self.cut.append(member), member.stopProducing()),
                ),
                lambda: (written.append("end"), member.stopProducing()),
            ),
            Choices(**choices),
        )
        return written, member

    def publish(self, *bodies):
        return [self.publish_to("foo", body) for body in bodies]

    def publish_to(self, channel, body):
        """
        Publish a message; it, as it is sent.
        """
        message = Message(channel, body)
        receipt = self.successResultOf(self.bus.publish(message))
        return message.published(receipt.id)

    def turn(self):
        self.clock.advance(0)

    def test_producer(self):
        """
        A member is a push producer.
        """
        verifyObject(IPushProducer, self.join()[1])

    def test_missed(self):
        """
        If the log says that messages may be missing, all members are told so, in order with
        the messages; and those that do not read, once they do.
        """
        written, _ = self.join()
        chunked = ChunkedFraming(self.framing)
        other, _ = self.join("", framing=chunked)
        slow, member = self.join(overflow=Overflow.LATEST)
        member.pauseProducing()
        (first,) = self.publish(b"1")
        self.turn()
        self.bus.log._follower.miss()
        (second,) = self.publish(b"2")
        self.turn()
        gap = self.framing.gap(None)
        self.assertEqual(b"".join(written), self.frame(first) + gap + self.frame(second))
        self.assertIn(chunked.gap(None), b"".join(other))
        member.resumeProducing()
        self.turn()
        self.assertEqual(b"".join(slow), self.framing.gap(1) + gap + self.frame(second))

    def test_one_write_a_turn(self):
        """
        What is published in one turn of the reactor is one write to each
        member, at the end of it.
        """
        written, _ = self.join()
        other, _ = self.join()
        first, second = self.publish(b"1", b"2")
        self.assertEqual(written, [])
        self.turn()
        self.assertEqual(written, [self.frame(first) + self.frame(second)])
        self.assertEqual(other, written)
        (third,) = self.publish(b"3")
        self.turn()
        self.assertEqual(written[1:], [self.frame(third)])

    def test_encoded_once(self):
        """
        A message becomes bytes once for each framing, however many groups and
        members there are.
        """
        encoder = CountingFraming("B")
        encoder.encoded.clear()
        for framing in (encoder, ChunkedFraming(encoder)):
            for filter in (Filter(), Filter(sender="!bob")):
                for _ in range(3):
                    self.join("foo", filter, framing)
        sent = self.publish(b"1")
        self.turn()
        self.assertEqual(encoder.encoded, sent * 2)

    def test_one_group(self):
        """
        Members with equal name, filter and framing are one subscription of
        the bus.
        """
        self.join("foo", Filter("a/b,c/d"))
        self.join("foo", Filter("C/d,a/b"))
        self.assertEqual(len(self.bus._subscriptions.by_name["foo"]), 1)

    def test_replays_fill(self):
        """
        What replays alone hold is bounded too, though nobody publishes.
        """
        self.fanout.limits = Limits(waiting=25_000)
        for number in range(20):
            self.publish_to(f"{number}", b"x" * 10_000)
        cut = []
        for number in range(20):
            # Nobody reads.
            pipe = Pipe()
            pipe.abort = partial(cut.append, number)
            cursor = self.bus.replay(f"{number}", Filter(), Since(last=1))
            member = self.fanout.subscribe(
                f"{number}",
                Filter(),
                self.framing,
                Response(pipe, lambda: None),
                cursor=cursor,
            )
            member.resumeProducing()
        self.turn()
        self.assertLessEqual(self.fanout.counters.waiting, 25_000)
        self.assertGreater(self.fanout.counters.waiting, 0)
        self.assertGreater(len(cut), 15)
        self.assertEqual(self.fanout.counters.closed, len(cut))

    def replaying(self, channel):
        """
        Who gets what is kept there, as there is room, and what came of him.
        """
        pipe, cut = Pipe(), []
        pipe.abort = partial(cut.append, channel)
        cursor = self.bus.replay(channel, Filter(), Since(last=1))
        member = self.fanout.subscribe(
            channel, Filter(), self.framing, Response(pipe, lambda: None), cursor=cursor
        )
        return pipe, cut, member

    def test_new_replays(self):
        """
        Who has just come is not taken for one that has read nothing for long.
        """
        self.join()
        self.publish_to("a", b"x")
        self.clock.advance(299)
        _, cut, member = self.replaying("a")
        self.clock.advance(30)
        self.assertEqual(cut, [])
        member.stopProducing()

    def fill(self, late=False):
        """
        Ten streams, each with a part of a message, so that its rest cannot be dropped, past
        a limit for nine, and a replay; which of them were cut, and those of the replay.

        Args:
            late: Are they told that they are late?
        """
        self.fanout.limits = Limits(waiting=100_000)
        self.publish_to("kept", b"x" * 10_000)
        pipe, replay_cut, replay = self.replaying("kept")
        pipe.grant(replay, 1_000)
        self.turn()
        cut, members = [], {}

        def leave(number):
            members[number].stopProducing()

        for number in range(10):
            lazy = Pipe()
            lazy.abort = partial(cut.append, number)
            members[number] = self.fanout.subscribe(
                f"{number}",
                Filter(),
                self.framing,
                Response(lazy, lambda: None, partial(leave, number) if late else None),
            )
            members[number].resumeProducing()
            lazy.room = 10
            self.publish_to(f"{number}", b"x" * 10_000)
            self.turn()
        return cut, replay_cut

    def test_streams_before_replays(self):
        """
        Where streams hold too much, those are cut, as many as need be, and no replay.
        """
        cut, replay_cut = self.fill()
        self.assertEqual((len(cut), replay_cut), (3, []))
        self.assertEqual(self.fanout.counters.closed, 3)

    def test_closes_before_replays(self):
        """
        No replay is cut either where what streams hold goes with the close that they get.
        """
        cut, replay_cut = self.fill(late=True)
        self.assertEqual((cut, replay_cut), ([], []))
        self.assertGreater(self.fanout.counters.closed, 2)

    def test_answers(self):
        """
        One message alone goes to each as it takes it, is held once for all, and ends the
        response; who takes nothing is cut.
        """
        message = self.publish_to("foo", b"x" * 10_000)
        ended = []
        pipes = [Pipe(), Pipe()]
        members = [
            self.fanout.answer(message, Body(), Response(pipe, partial(ended.append, pipe)))
            for pipe in pipes
        ]
        self.assertEqual(pipes[0].got, b"")
        for member, pipe in zip(members, pipes, strict=True):
            pipe.grant(member, 4_000)
            self.turn()
        self.assertEqual(self.fanout.counters.waiting, 10_000)
        pipes[0].grant(members[0], 9_000)
        self.turn()
        self.assertEqual((pipes[0].got, ended), (message.body, pipes[:1]))
        members[0].stopProducing()
        self.assertEqual(self.fanout.counters.waiting, 10_000)
        pipes[1].abort = members[1].stopProducing
        self.clock.advance(400)
        self.assertEqual(pipes[1].got, message.body[:4_000])
        self.assertEqual(self.fanout.counters.waiting, 0)
        self.assertEqual(self.fanout._groups, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_member(self):
        """
        Who joins within a turn gets only what is published later in it.
        """
        self.join()
        self.publish(b"1")
        written, _ = self.join()
        (second,) = self.publish(b"2")
        self.turn()
        self.assertEqual(written, [self.frame(second)])

    def test_leave(self):
        """
        Who leaves gets nothing more, at once; leaving twice is no error.
        """
        written, member = self.join()
        other, _ = self.join()
        self.publish(b"1")
        for _ in range(2):
            member.stopProducing()
        self.turn()
        self.assertEqual((len(written), len(other)), (0, 1))

    def test_nothing_left(self):
        """
        When all have left, nothing is left, not even a call to come; and who
        comes then is served anew.
        """
        _, member = self.join()
        self.publish(b"1")
        member.stopProducing()
        self.assertEqual(self.bus._subscriptions.by_name, {})
        self.assertEqual(self.fanout._groups, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])
        written, _ = self.join()
        self.publish(b"2")
        self.turn()
        self.assertEqual(len(written), 1)

    def test_write_that_ends_a_member(self):
        """
        A write that finds members gone harms nobody.
        """
        members = []

        def lose_all(data):
            for member in members:
                member.stopProducing()

        members.append(
            self.fanout.subscribe(
                "foo",
                Filter(),
                self.framing,
                Response(BufferedOutlet(lose_all, None), None),
            )
        )
        written, member = self.join()
        members.append(member)
        other, last = self.join()
        first = self.publish(b"1")
        self.turn()
        self.assertEqual((len(written), len(other)), (0, 1))
        # Who falls behind then gets just what is published then.
        last.pauseProducing()
        for body in (b"2", b"3"):
            first += self.publish(body)
            self.turn()
        last.resumeProducing()
        self.assertEqual(b"".join(other), b"".join(map(self.frame, first)))

    def test_slow_reader(self):
        """
        What is published while the transport is full waits, and is written in
        order once it drains.
        """
        written, member = self.join()
        member.pauseProducing()
        sent = self.publish(b"1", b"2")
        self.turn()
        self.assertEqual(written, [])
        member.resumeProducing()
        self.assertEqual(written, list(map(self.frame, sent)))
        sent = self.publish(b"3")
        self.turn()
        self.assertEqual(written[2:], [self.frame(sent[0])])

    def test_backlog(self):
        """
        Past the backlog, messages are dropped and counted, until the
        transport drains; then the number is told.
        """
        written, member = self.join()
        member.pauseProducing()
        sent = []
        for _ in range(15):
            sent += self.publish(b"x" * 100_000)
            self.turn()
        member.resumeProducing()
        kept = [self.frame(message) for message in sent]
        # It is looked at before a message is added.
        while sum(map(len, kept[:-1])) > Limits().backlog:
            kept.pop()
        got = b"".join(written)
        expected = b"".join(kept) + b"Msgbus-Gap: %d\r\n" % (15 - len(kept))
        # Not `assertEqual`, which would print a megabyte.
        self.assertTrue(got == expected, got[-100:])
        written.clear()
        sent = self.publish(b"y")
        self.turn()
        self.assertEqual(written, [self.frame(sent[0])])

    def test_stalled(self):
        """
        A member that takes nothing while something waits for it is cut in
        time; one that has nothing to take, or takes a little, is not.
        """
        _, idle = self.join()
        idle.pauseProducing()
        idle.resumeProducing()
        _, slow = self.join()
        _, stalled = self.join()
        self.publish(b"1")
        self.turn()
        for member in (slow, stalled):
            member.pauseProducing()
        self.publish(b"2")
        self.turn()
        for _ in range(300 // 10):
            self.assertEqual(self.cut, [])
            self.clock.advance(10)
            slow.resumeProducing()
            slow.pauseProducing()
            self.publish(b"3")
            self.turn()
        self.clock.advance(300 / 10)
        self.assertEqual(self.cut, [stalled])
        logged = [event["log_format"].format(**event) for event in self.logged]
        self.assertEqual(logged, ["Cut 1 subscribers that took nothing for 300 seconds"])
        for member in (idle, slow):
            member.stopProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed(self):
        """
        One that asks to be closed when it is past its backlog is cut then, and
        the operator is told, as of messages that were dropped.
        """
        _, closed = self.join(overflow=Overflow.CLOSE)
        _, told = self.join()
        for member in (closed, told):
            member.pauseProducing()
        for _ in range(4):
            self.assertEqual(self.cut, [])
            self.publish(b"x" * 400_000)
            self.turn()
        self.assertEqual(self.cut, [closed])
        told.resumeProducing()
        self.clock.advance(30)
        self.assertEqual(
            [event["log_format"].format(**event) for event in self.logged],
            [
                "Dropped 1 messages for subscribers that read too slowly",
                "Closed 1 subscribers that were past their backlog",
            ],
        )

    def test_waiting_for_all(self):
        """
        What waits for all together is bounded: those farthest behind lose it
        first, and are told.
        """
        self.fanout = Fanout(self.bus, self.clock, Limits(waiting=2_000_000))
        slow = [self.join(f"{number}") for number in range(8)]
        for _, member in slow:
            member.pauseProducing()
        near, member = self.join("near")
        member.pauseProducing()
        for _ in range(8):
            for number in range(8):
                self.bus.publish(Message(f"{number}", bytes(100_000)))
            self.turn()
            self.assertLess(self.fanout.counters.waiting, 3_000_000)
        sent = self.publish_to("near", b"x")
        self.turn()
        member.resumeProducing()
        self.assertEqual(near, [self.frame(sent)])
        for written, member in slow:
            member.resumeProducing()
            data = b"".join(written)
            missed = sum(map(int, re.findall(rb"Msgbus-Gap: (\d+)", data)))
            self.assertEqual(missed + data.count(b"Content-Length"), 8)
        self.assertGreater(self.fanout.counters.dropped.total(), 30)
        self.assertEqual(self.fanout.counters.waiting, 0)

    def test_heartbeat(self):
        """
        Who asks for it gets a heartbeat every so many seconds, unless
        something waits for it anyway; others get none.
        """
        quiet, _ = self.join()
        fast, fast_member = self.join(heartbeat=5)
        slow, slow_member = self.join(heartbeat=60)
        beat = b"Msgbus-Heartbeat: 1\r\n"
        self.assertEqual(self.framing.heartbeat, beat)
        self.clock.pump([1] * 62)
        self.assertEqual((quiet, fast, slow), ([], [beat] * 12, [beat]))
        fast_member.pauseProducing()
        (sent,) = self.publish(b"1")
        self.clock.pump([1] * 62)
        self.assertEqual(slow, [beat, self.frame(sent), beat])
        fast_member.resumeProducing()
        self.assertEqual(fast[12:], [self.frame(sent)])
        for member in (fast_member, slow_member):
            member.stopProducing()
        self.clock.pump([1] * 10)
        self.assertEqual((len(fast), len(slow)), (13, 3))
        # Only the look for who is stalled.
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_heartbeat_in_part(self):
        """
        A heartbeat that goes out in part is finished before what comes behind.
        """
        pipe = Pipe()
        member = self.fanout.subscribe(
            "foo", Filter(), self.framing, Response(pipe, None), Choices(heartbeat=5)
        )
        pipe.grant(member, 7)
        self.clock.pump([1] * 6)
        self.assertEqual(pipe.got, b"Msgbus-")
        (sent,) = self.publish(b"1")
        self.turn()
        pipe.grant(member, 1000)
        self.assertEqual(pipe.got, self.framing.heartbeat + self.frame(sent))

    def test_end(self):
        """
        When all ends, each gets what it is owed, and then its end.
        """
        written, _ = self.join()
        (first,) = self.publish(b"1")
        self.turn()
        slow, member = self.join()
        member.pauseProducing()
        (second,) = self.publish(b"2")
        self.turn()
        (third,) = self.publish(b"3")
        self.fanout.end()
        self.assertEqual(
            written, [self.frame(first), self.frame(second), self.frame(third), "end"]
        )
        self.assertEqual(slow, [])
        member.resumeProducing()
        self.assertEqual(slow, [self.frame(second), self.frame(third), "end"])
        self.assertEqual(self.bus._subscriptions.by_name, {})

    def test_gone_while_paused(self):
        """
        A transport that drains into nothing is not written to.
        """
        written, member = self.join()
        member.pauseProducing()
        self.publish(b"1")
        self.turn()
        member.stopProducing()
        member.resumeProducing()
        self.assertEqual(written, [])
