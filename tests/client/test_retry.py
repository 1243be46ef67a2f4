"""
Tests for `msgbus.client.retry`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.errors import Unreachable
from msgbus.client.notices import Lost
from msgbus.client.retry import Retry, delay


class DelayTests(SynchronousTestCase):
    """
    How long to wait before the next try.
    """

    def test_growth(self):
        """
        The longest delay doubles with each failure, up to a minute.  The delay is at least
        half of that; the other half depends on chance.
        """
        for failures, shortest, longest in (
            (0, 0.25, 0.5),
            (1, 0.5, 1),
            (2, 1, 2),
            (6, 16, 32),
            (7, 30, 60),
            (8, 30, 60),
            (1_000_000_000, 30, 60),
        ):
            self.assertEqual(delay(failures, 0.0), shortest)
            self.assertEqual(delay(failures, 1.0), longest)
            self.assertEqual(delay(failures, 0.5), (shortest + longest) / 2)

    def test_asked(self):
        """
        If the server has asked to wait, the delay is at least that, and up to a quarter
        longer; but a server cannot ask for more than a minute.
        """
        for failures, asked, shortest, longest in (
            (0, 0.1, 0.25, 0.5),
            (0, 8, 8, 10),
            (3, 2, 2, 4),
            (0, 1e9, 60, 75),
        ):
            self.assertEqual(delay(failures, 0.0, asked), shortest)
            self.assertEqual(delay(failures, 1.0, asked), longest)

    @given(st.integers(0), st.floats(0, 1))
    def test_bounds(self, failures, chance):
        """
        The delay is never shorter after more failures, and never longer than a minute.
        """
        seconds = delay(failures, chance)
        self.assertGreaterEqual(delay(failures + 1, chance), seconds)
        self.assertGreaterEqual(seconds, 0.25)
        self.assertLessEqual(seconds, 60)


class RetryTests(SynchronousTestCase):
    """
    When a publication is sent again.
    """

    def test_until_patience_ends(self):
        """
        It is sent again, after growing delays, as long as the next try is not too late.
        """
        retry = Retry(patience=10, now=100)
        for now, shortest, longest in ((100, 0.25, 0.5), (101, 0.5, 1), (102, 1, 2)):
            lost = retry.after(Unreachable("Gone."), now)
            self.assertEqual(lost, Lost("Gone.", lost.seconds))
            self.assertTrue(shortest <= lost.seconds <= longest, lost)
        error = Unreachable("Gone for good.")
        with self.assertRaises(Unreachable) as caught:
            retry.after(error, 109.5)
        self.assertIs(caught.exception, error)

    def test_no_patience(self):
        """
        Without patience it is sent once, or, if that failure says nothing of the bus, at
        once again.
        """
        with self.assertRaises(Unreachable):
            Retry(0, 100).after(Unreachable("Gone."), 100)
        retry = Retry(0, 100)
        lost = retry.after(Unreachable("Gone."), 100, at_once=True)
        self.assertEqual(lost.seconds, 0)
        with self.assertRaises(Unreachable):
            retry.after(Unreachable("Gone."), 100)
