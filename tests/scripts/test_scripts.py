"""
Tests for the parts of the tools that do no I/O: `msgbus.scripts.numbered`, `.latencies` and
`.terminal`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.scripts.latencies import Latencies
from msgbus.scripts.numbered import Mark, Order, body_of, mark_in
from msgbus.scripts.terminal import clean


class MarkTests(SynchronousTestCase):
    """
    The mark in the body of a numbered message.
    """

    def test_bodies(self):
        """
        A body is a page, followed by a comment if the mark has a run.
        """
        self.assertEqual(body_of(Mark("", 7, 123)), b"<h1>hello world 7</h1>")
        self.assertEqual(
            body_of(Mark("ab", 7, 123), 50),
            b"<h1>hello world 7</h1><!-- ab 123 xxxxxxxxxxxx -->",
        )

    @given(
        st.text("0123456789abcdef", min_size=1, max_size=16),
        st.integers(1, 10**15 - 1),
        st.integers(0, 10**19),
        st.integers(0, 1000),
    )
    def test_round_trip(self, run, number, nanoseconds, size):
        """
        The mark is read back from a body, and the body has at least the size that was asked
        for.
        """
        sent = Mark(run, number, nanoseconds)
        self.assertEqual(mark_in(body_of(sent, size)), sent)
        self.assertGreaterEqual(len(body_of(sent, size)), size)
        self.assertEqual(mark_in(body_of(Mark("", number, None))), Mark("", number, None))

    @given(st.binary())
    def test_garbage(self, data):
        """
        Any other body has no mark.
        """
        self.assertIsNone(mark_in(b"x" + data))


class OrderTests(SynchronousTestCase):
    """
    What one subscriber has got, and what it has not.
    """

    def count(self, *numbers, run="a"):
        order = Order()
        for number in numbers:
            order.count(Mark(run, number, None))
        return order.received, order.lost, order.disordered

    def test_order(self):
        """
        Numbers that are passed over are lost; those that come late, or again, are out of
        order; the first may be any.
        """
        self.assertEqual(self.count(5, 6, 7), (3, 0, 0))
        self.assertEqual(self.count(1, 2, 5), (3, 2, 0))
        self.assertEqual(self.count(1, 3, 2), (3, 1, 1))
        self.assertEqual(self.count(1, 1), (2, 0, 1))

    def test_runs(self):
        """
        Each run is counted by itself.  Messages without a run may begin again with 1.
        """
        order = Order()
        for run, number in (("a", 1), ("b", 9), ("a", 2), ("b", 10)):
            order.count(Mark(run, number, None))
        order.count(None)
        self.assertEqual((order.received, order.lost, order.disordered), (5, 0, 0))
        self.assertEqual(self.count(1, 2, 1, 2, run=""), (4, 0, 0))


class LatenciesTests(SynchronousTestCase):
    """
    How long something took.
    """

    def test_percentiles(self):
        """
        Percentiles are those of all measurements.
        """
        latencies = Latencies()
        for milliseconds in range(1, 101):
            latencies.add(milliseconds)
        self.assertEqual(str(latencies), "p50 50 ms, p99 99 ms")
        self.assertEqual(latencies.count, 100)

    def test_bounded(self):
        """
        Memory does not grow with the number of measurements.
        """
        latencies = Latencies()
        for number in range(100_000):
            latencies.add(1 + number / 1e5)
        self.assertLess(len(latencies._times), 20)


class CleanTests(SynchronousTestCase):
    """
    Text as it is printed on a terminal.
    """

    @given(st.text())
    def test_nothing_to_obey(self, text):
        """
        No control character but tab and line feed is left, nor what turns text round.
        """
        for character in set(clean(text)) - {"\t", "\n"}:
            self.assertFalse(
                character in "\x7f\u202e\u2066" or "\x80" <= character <= "\x9f", text
            )
            self.assertGreaterEqual(character, " ")

    def test_escapes(self):
        """
        Characters that a terminal would obey become escapes; all others stay.
        """
        self.assertEqual(clean("\x1b[31m\x9b\u202eé❤️\t\n"), r"\x1b[31m\x9b\u202eé❤️" "\t\n")
