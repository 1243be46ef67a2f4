"""
Tests for `msgbus.fanout.turns`.
"""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.fanout.turns import BYTES_A_TURN, CALLS_A_TURN, WAIT_SECONDS, Turns


class TurnsTests(SynchronousTestCase):
    """
    Work that is done a few pieces at a time.
    """

    def setUp(self):
        self.clock = Clock()
        self.done = []
        self.after = lambda: None
        self.turns = Turns(self.clock, lambda: self.after())

    def turn(self):
        """
        One turn of the reactor, where `Clock.advance` would go on.
        """
        calls, self.clock.calls = self.clock.calls, []
        for call in calls:
            call.func(*call.args, **call.kw)

    def put(self, number, size=0):
        """
        Put a piece of work in the queue, which counts as so many bytes.
        """

        def work():
            self.done.append(number)
            return size

        self.turns.call(work)

    def test_many_small_pieces(self):
        """
        Pieces of little work share a turn of the reactor, 64 at most, in order.
        """
        for number in range(CALLS_A_TURN + 1):
            self.put(number)
        self.assertEqual(self.done, [])
        self.turn()
        self.assertEqual(self.done, list(range(CALLS_A_TURN)))
        self.turn()
        self.assertEqual(self.done, list(range(CALLS_A_TURN + 1)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_large_pieces(self):
        """
        A turn ends behind the piece with which 256 KiB of work are done.
        """
        for number in range(3):
            self.put(number, BYTES_A_TURN // 2)
        self.turn()
        self.assertEqual(self.done, [0, 1])
        self.turn()
        self.assertEqual(self.done, [0, 1, 2])

    def test_work_that_puts_more(self):
        """
        What a piece of work puts in the queue has a turn of its own.
        """

        def work():
            self.put("next")
            return 0

        self.turns.call(work)
        self.turn()
        self.assertEqual(self.done, [])
        self.turn()
        self.assertEqual(self.done, ["next"])

    def test_waiting(self):
        """
        Work that waits is put in the queue after a moment.
        """
        self.put(1)
        self.turns.wait(lambda: self.done.append("waited") or 0)
        self.clock.advance(0)
        self.put(2)
        self.clock.advance(WAIT_SECONDS / 2)
        self.assertEqual(self.done, [1, 2])
        self.clock.advance(WAIT_SECONDS / 2)
        self.clock.advance(0)
        self.assertEqual(self.done, [1, 2, "waited"])

    def test_failures(self):
        """
        A piece that fails is logged, and holds up no other; nor does a failure after the
        turn.
        """

        def fail():
            raise ZeroDivisionError

        self.turns.call(fail)
        for number in range(CALLS_A_TURN):
            self.put(number)
        self.after = fail
        with self.assertRaises(ZeroDivisionError):
            self.turn()
        self.after = lambda: None
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.turn()
        self.assertEqual(self.done, list(range(CALLS_A_TURN)))
