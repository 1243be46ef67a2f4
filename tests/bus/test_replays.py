"""
Tests for replays through a bus with subscribers that come and go, against a model.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.bus import Bus
from msgbus.bus.cursor import Cursor
from msgbus.bus.file_log import FileLog
from msgbus.bus.history import History, Keep
from msgbus.fanout.counters import Counters
from msgbus.fanout.fanout import Fanout, Limits
from msgbus.fanout.member import Response
from msgbus.fanout.replay import HeldFrames, Replay
from msgbus.formats.framing import ChunkedFraming
from msgbus.formats.multipart_framing import MultipartFraming
from msgbus.ids import Since, parse_id
from msgbus.match import Filter
from msgbus.message import Message

from ..memory import InlinePool, Pipe
from ..strategies import machine_settings


class ReplayTests(SynchronousTestCase):
    """
    The bytes of a replay, taken in pieces.
    """

    def test_pieces(self):
        """
        However much is taken at once, the bytes together are those of the frames.
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
            delivered = counters.delivered_in("x")
            held = HeldFrames(counters)
            replay = Replay(cursor, framing, lambda: 0, held, delivered)
            got = b""
            while (owed := replay.owed()) is not None:
                piece = b"".join(owed)[:taken]
                replay.advance(len(piece))
                got += piece
            self.assertEqual(counters.waiting, 0)
            frame = framing.frame(messages[2])
            self.assertEqual(got, framing.gap(None) + frame)
            self.assertEqual((delivered.messages, delivered.bytes), (1, len(frame)))

    def test_expired(self):
        """
        A message that expires after it was read, and before it is sent, is told as missing,
        unless a part of it was sent.
        """
        for taken in (0, 1):
            history = History()
            for number, max_age in enumerate((1, 1, None, 1), 1):
                message = Message("a", b"x", max_age=max_age).published(f"1-{number}")
                history.add((1, number), message)
            counters = Counters()
            clock = Clock()
            replay = Replay(
                Cursor(history, "a", Filter(), Since(), 0),
                MARKS,
                lambda clock=clock: int(clock.seconds() * 1000),
                HeldFrames(counters),
                counters.delivered_in("x"),
            )
            got = b"".join(replay.owed())[:taken]
            replay.advance(taken)
            clock.advance(2)
            while (owed := replay.owed()) is not None:
                got += b"".join(owed)
                replay.advance(sum(map(len, owed)))
            self.assertEqual(got, b"<x>!<x>!" if taken else b"!!<x>!")
            self.assertEqual(counters.waiting, 0)


class Marks:
    """
    A framing with marks that are easy to find.  Only a message has more than one byte, so
    only a message can arrive in part.
    """

    form = "marks"
    heartbeat = b""

    def frame(self, message):
        return b"".join(self.pieces(message))

    def pieces(self, message):
        return b"<", message.body, b">"

    def gap(self, count):
        return b"?" if count is None else b"!" * count


MARKS = Marks()
COUNT = 5


class Listener:
    """
    A subscriber that is cut off now and then, and comes back behind the last message that
    it has got whole; and what it must have got by now.

    Attributes:
        numbers: Of the messages that it has got, in order.
        told: Whether it was told of a gap since it connected.
        due: The number of the next message that it must get, or be told of.
        earliest: The smallest number that it may get next; see `subscribe`.
        excused: Numbers of messages that it need not be told of, because they were gone
            when it first connected.
    """

    def __init__(self, name, since):
        self.name = name
        self.since = since
        self.numbers = []
        self.told = False
        self.connected = False
        self.due = self.earliest = None
        self.excused = set()
        # Those that were the newest of their channels when it first connected, and may be
        # missing without a gap if they are not kept any more.
        self.replaceable = set()


class HistoryMachine(RuleBasedStateMachine):
    """
    A bus with a history file, and listeners on channels, a folder and the root, while
    messages are published and dropped, listeners are cut off and resume, the clock is set
    back, and the bus is stopped or killed and started again.
    """

    @initialize()
    def begin(self):
        """
        The first start.
        """
        self.clock = Clock()
        self.clock.callFromThread = lambda call, *args: call(*args)
        self.time = 1_000_000.0
        self.published = []
        # By channel, how many messages had been published when it was forgotten last.
        self.forgotten = {}
        self.ids = []
        self.acknowledged = []
        self.listeners = []
        self.prepare()
        self.start()

    def prepare(self):
        """
        A place for the log.
        """
        self.folder = TemporaryDirectory()

    def open_log(self):
        """
        The log of before, if there was one.
        """
        file = Path(self.folder.name, "file")
        log = FileLog(file, self.clock, self.history, lambda: self.time)
        log._pool = InlinePool()
        return log

    def close_log(self, killed):
        """
        Stop the log in order, or as if the process was killed.
        """
        if killed:
            self.log._database.close()
        else:
            self.log.close()
            self.clock.advance(0)
            assert not self.log._database.is_open

    def settle(self):
        """
        Wait until what was published has come back, if it comes from elsewhere.
        """

    def until_forgotten(self, forgotten):
        """
        Wait until a channel is forgotten, if that is up to somebody else.
        """

    def start(self):
        """
        A bus that goes on where the one before it ended.
        """
        self.history = History(Keep(count=COUNT))
        self.log = self.open_log()
        self.bus = Bus(log=self.log)
        self.bus.subscribe("", lambda message: self.ids.append(message.id))
        self.log.load()
        self.fanout = Fanout(self.bus, self.clock, Limits(backlog=10_000))

    @rule(killed=st.booleans())
    def restart(self, killed):
        """
        The bus is stopped or killed, which cuts off all listeners, and started again.
        """
        self.turn()
        assert len(self.acknowledged) == len(self.published)
        for listener in self.listeners:
            if listener.connected:
                listener.member.stopProducing()
                listener.connected = False
        self.close_log(killed)
        self.start()

    @rule(
        channels=st.lists(
            st.sampled_from(["a", "ab", "b/c", "b/d"]), min_size=1, max_size=4
        ),
        keep=st.booleans(),
    )
    def publish(self, channels, keep):
        """
        Messages are published in one turn of the reactor.
        """
        for channel in channels:
            number = len(self.published)
            message = Message(channel, b"%06d" % number)
            self.bus.publish(message, keep=keep).addCallback(self.acknowledged.append)
            self.published.append((channel, keep))
        self.settle()

    @rule(channel=st.sampled_from(["a", "ab", "b/c", "b/d"]))
    def forget(self, channel):
        """
        A channel is forgotten.
        """
        self.until_forgotten(self.bus.forget(channel))
        self.forgotten[channel] = len(self.published)

    @rule(seconds=st.integers(-100, 100))
    def set_clock(self, seconds):
        """
        The clock is set forward or back.
        """
        self.time += seconds

    @rule()
    def turn(self):
        """
        The reactor turns, so messages are delivered and written.
        """
        self.clock.pump([0, 0])
        for listener in self.listeners:
            self.look(listener)

    @rule(
        name=st.sampled_from(["a", "b/c", "b/", ""]),
        since=st.sampled_from([None, Since(), Since(last=2), Since(each=True)]),
        room=st.integers(0, 100),
    )
    def subscribe(self, name, since, room):
        """
        A new listener connects.
        """
        listener = Listener(name, since)
        kept = [n for n in self.matched(listener) if self.kept(n)]
        listener.excused = set(range(len(self.published))) - set(kept)
        if since is None:
            listener.due = len(self.published)
        else:
            newest = {self.published[n][0]: n for n in kept}
            wanted = kept[-2:] if since.last else kept
            if since.each:
                wanted = sorted(newest.values())
                listener.excused = set(range(len(self.published))) - set(wanted)
                listener.replaceable = set(wanted)
            listener.due = wanted[0] if wanted else len(self.published)
        # If the last two are dropped before the replay begins, it begins with earlier
        # messages, which have become the last two.
        listener.earliest = min([*kept[:1], listener.due])
        self.listeners.append(listener)
        self.connect(listener, since, room)

    def connect(self, listener, since, room):
        """
        Open a listener's connection.
        """
        listener.pipe = Pipe()
        listener.connected = True
        listener.seen = 0
        # An unknown number of missing messages is told at the beginning of a connection,
        # wherever they are missing.
        listener.told = False
        listener.member = self.fanout.subscribe(
            listener.name,
            Filter(),
            MARKS,
            Response(listener.pipe, lambda: None),
            cursor=since and self.bus.replay(listener.name, Filter(), since),
        )
        listener.pipe.grant(listener.member, room)
        self.look(listener)

    @rule(data=st.data(), room=st.integers(0, 100))
    def read(self, data, room):
        """
        A listener reads so many bytes.
        """
        if self.listeners:
            listener = data.draw(st.sampled_from(self.listeners))
            if listener.connected:
                listener.pipe.grant(listener.member, room)
                self.look(listener)

    @rule(data=st.data())
    def cut(self, data):
        """
        A listener is cut off.
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
        A listener comes back behind the last message that it has got.
        """
        if self.listeners:
            listener = data.draw(st.sampled_from(self.listeners))
            if not listener.connected and listener.numbers:
                id = parse_id(self.ids[listener.numbers[-1]])
                self.connect(listener, Since(id), room)

    def matched(self, listener):
        """
        The numbers of the messages that a listener wants.
        """
        return [
            number
            for number, (channel, _) in enumerate(self.published)
            if channel == listener.name
            or (listener.name[-1:] in ("", "/") and channel.startswith(listener.name))
        ]

    def kept(self, number):
        """
        Must the history have the message with this number?
        """
        channel, keep = self.published[number]
        if number < self.forgotten.get(channel, 0):
            return False
        later = [c for c, k in self.published[number:] if k and c == channel]
        return keep and len(later) <= COUNT

    def excused(self, listener):
        """
        The numbers of messages that a listener need not be told of.
        """
        return listener.excused | {n for n in listener.replaceable if not self.kept(n)}

    def look(self, listener):
        """
        Check what a listener has got since the last look.
        """
        if not listener.connected:
            return
        data = bytes(listener.pipe.got)
        for match in re.finditer(rb"<(\d{6})>|([?!])", data[listener.seen :]):
            if match[1]:
                listener.numbers.append(int(match[1]))
                matched = self.matched(listener)
                due = range(listener.due, int(match[1]))
                missing = {*matched} & {*due} - self.excused(listener)
                # No message comes twice or out of order, and none is missing without a
                # gap.
                assert int(match[1]) in matched
                assert int(match[1]) >= min(listener.due, listener.earliest)
                listener.earliest = listener.due
                assert listener.told or not missing, missing
                # A message that is kept is never missing, not even with a gap.
                assert not any(map(self.kept, missing)), missing
                listener.due = int(match[1]) + 1
            else:
                listener.told = True
        ends = [m.end() for m in re.finditer(rb">|[?!]", data)]
        listener.seen = ends[-1] if ends else 0

    def teardown(self):
        """
        All listeners come back and read everything; then none may miss anything.
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
                missing = {*self.matched(listener)} & {*due} - self.excused(listener)
                assert listener.told or not missing, missing
                assert not any(map(self.kept, missing)), missing
                assert listener.member.position is None
                assert listener.member.replay is None
        assert self.history._transient == []
        self.close_log(killed=True)
        self.folder.cleanup()


HistoryMachineTests = HistoryMachine.TestCase
HistoryMachineTests.settings = machine_settings
