"""
Tests for `msgbus.access.guesses` and `.log_throttle`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.guesses import Delays, Guesses
from msgbus.access.log_throttle import LogThrottle


class GuessesTests(SynchronousTestCase):
    """
    Wrong passwords.
    """

    def fail_often(self, guesses, address, name, times, now=0.0):
        for _ in range(times):
            guesses.failed(address, name, now)

    def test_grows(self):
        """
        The first wrong passwords cost nothing; then the delay doubles, up to its longest.
        """
        guesses, waits = Guesses(), []
        for _ in range(12):
            guesses.failed("a", "alice", 0.0)
            waits.append(guesses.wait("a", "alice", 0.0))
        self.assertEqual(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60])
        self.assertEqual(guesses.wait("a", "alice", 45.0), 15)
        self.assertEqual(guesses.wait("a", "alice", 60.0), 0)

    def test_forever(self):
        """
        The delay stays at its longest, however many there were.
        """
        self.assertEqual(Delays(3).after(10**6), 60)

    def test_forgotten(self):
        """
        After a while without one, wrong passwords are forgotten.
        """
        guesses = Guesses()
        self.fail_often(guesses, "a", "alice", 9)
        guesses.failed("a", "alice", 900.0)
        self.assertEqual(guesses.wait("a", "alice", 900.0), 0)

    def test_right(self):
        """
        A right password makes the wrong ones for its name forgotten, but not those of the
        address.
        """
        guesses = Guesses(address=Delays(free=5))
        self.fail_often(guesses, "a", "alice", 5)
        guesses.succeeded("a", "alice")
        self.assertEqual(guesses.wait("a", "alice", 0.0), 0)
        guesses.failed("a", "bob", 0.0)
        self.assertEqual(guesses.wait("a", "alice", 0.0), 1)

    def test_many_names(self):
        """
        An address that tries one password for each of many names is slowed down as well.
        """
        guesses = Guesses()
        for i in range(25):
            guesses.failed("a", f"user{i}", 0.0)
        self.assertEqual(guesses.wait("a", "somebody", 0.0), 16)

    @given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["alice", "bob"]))))
    def test_others(self, attempts):
        """
        Whatever is tried from other addresses, even for the same name, and however full the
        tables are: who has not been wrong does not wait, and waits a second at most after
        being wrong once.
        """
        guesses = Guesses(max_keys=8)
        for address, name in attempts:
            self.fail_often(guesses, address, name, 3)
            self.assertEqual(guesses.wait("mine", "alice", 0.0), 0)
        guesses.failed("mine", "alice", 0.0)
        self.assertLessEqual(guesses.wait("mine", "alice", 0.0), 1)

    def test_bounded(self):
        """
        The tables do not grow, and an address that was forgotten has no free attempts.
        """
        guesses = Guesses(max_keys=8)
        for address in range(100):
            guesses.failed(address, "alice", 0.0)
        for table in (guesses._pairs, guesses._addresses):
            self.assertLessEqual(len(table._failures), 8)
        guesses.failed(0, "alice", 1.0)
        self.assertEqual(guesses.wait(0, "alice", 1.0), 1)

    def test_worst_are_kept(self):
        """
        Those with the most wrong passwords are not forgotten for those with few.
        """
        guesses = Guesses(max_keys=8)
        self.fail_often(guesses, "attacker", "alice", 30)
        for address in range(100):
            guesses.failed(address, "alice", 1.0)
        self.assertEqual(guesses.wait("attacker", "alice", 1.0), 59)


class LogThrottleTests(SynchronousTestCase):
    """
    What is logged once in a while.
    """

    def test_interval(self):
        """
        The first event is logged, and the next one after the interval, with the number of
        those between them.
        """
        throttle = LogThrottle(60)
        times = (0, 1, 59, 60, 61, 500)
        self.assertEqual([throttle.due("a", t) for t in times], [1, 0, 0, 3, 0, 2])
        self.assertEqual(throttle.due("b", 1), 1)

    def test_many_keys(self):
        """
        When there are too many keys, the others count as one, and the table does not grow.
        """
        throttle = LogThrottle(60, max_keys=3)
        self.assertEqual([throttle.due(i, 0) for i in range(8)], [1, 1, 1, 1, 0, 0, 0, 0])
        self.assertEqual(throttle.due("x", 1), 0)
        self.assertEqual(throttle.due("y", 61), 1)
        self.assertLessEqual(len(throttle._told), 3)

    @given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=60))
    def test_rate(self, events):
        """
        In no interval are there more lines than keys, and one.
        """
        throttle, now, lines = LogThrottle(10, max_keys=4), 0, []
        for key, passed in events:
            now += passed
            if throttle.due(key, now):
                lines.append(now)
        for i, first in enumerate(lines):
            self.assertLessEqual(sum(first <= t < first + 10 for t in lines[i:]), 5)
