"""
Tests for `msgbus.access.limits`, `.rate_fields` and `.open_counts`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access import rate_fields
from msgbus.access.limits import Limiter, Rate
from msgbus.access.open_counts import OpenCounts
from msgbus.message import Invalid


class SlowBuckets:
    """
    The same by the usual definition: tokens that are added as time passes, for any number
    of keys.
    """

    def __init__(self, rate):
        self.rate = rate
        self.buckets = {}

    def take(self, key, cost, now):
        quota = self.rate.quota
        tokens, before = self.buckets.get(key, (quota, now))
        tokens = min(quota, tokens + (now - before) * quota / self.rate.seconds)
        allowed = tokens + 1e-6 >= min(cost, quota)
        self.buckets[key] = (tokens - cost if allowed else tokens, now)
        return allowed


steps = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(1, 12), st.integers(0, 30).map(lambda n: n / 10)
    ),
    max_size=40,
)


class RateTests(SynchronousTestCase):
    """
    Rates.
    """

    def test_parse(self):
        """
        A rate is a number in a unit of time, or in several seconds.
        """
        for text, quota, seconds in (
            ("10/s", 10, 1),
            ("1000/h", 1000, 3600),
            ("1/d", 1, 86400),
            ("60/30s", 60, 30),
            ("6/min", 6, 60),
            ("64M/10s", 64 * 1024**2, 10),
        ):
            self.assertEqual(Rate.parse(text), Rate(quota, seconds))

    def test_refused(self):
        """
        Anything else is refused.
        """
        for text in (
            "",
            "10",
            "0/s",
            "10/",
            "1.5/s",
            "-1/s",
            "10/0s",
            "10/2h",
            "10/s ",
            "1e9/s",
        ):
            with self.assertRaises(Invalid):
                Rate.parse(text)
        with self.assertRaises(Invalid):
            Rate(0, 1)


class LimiterTests(SynchronousTestCase):
    """
    Token buckets.
    """

    def test_quota(self):
        """
        The quota may be used at once; then it comes back bit by bit.
        """
        limiter = Limiter(Rate(10, 5))
        self.assertEqual([limiter.take("a", 1, 100.0) for _ in range(10)], [0] * 10)
        self.assertAlmostEqual(limiter.take("a", 1, 100.0), 0.5)
        self.assertAlmostEqual(limiter.take("a", 4, 100.0), 2.0)
        self.assertEqual(limiter.take("a", 1, 100.5), 0)
        self.assertEqual(limiter.take("b", 10, 100.0), 0)

    def test_large(self):
        """
        What costs more than the quota may be taken from a full bucket, and is paid for
        afterwards.
        """
        limiter = Limiter(Rate(10, 10))
        self.assertEqual(limiter.take("a", 25, 0.0), 0)
        self.assertAlmostEqual(limiter.take("a", 1, 0.0), 16.0)
        self.assertAlmostEqual(limiter.take("a", 25, 0.0), 25.0)

    @given(st.integers(1, 10), st.integers(1, 10), steps)
    def test_as_defined(self, quota, seconds, steps):
        """
        A limiter allows what buckets allow by their usual definition, and whoever waits
        as long as it says may go on.
        """
        rate = Rate(quota, seconds)
        limiter, slow, now = Limiter(rate), SlowBuckets(rate), 1e9
        for key, cost, passed in steps:
            now += passed
            wait = limiter.take(key, cost, now)
            self.assertEqual(not wait, slow.take(key, cost, now))
            self.assertEqual(limiter.wait(key, cost, now + wait) if wait else 0, 0)

    @given(st.integers(1, 10), st.integers(1, 10), steps)
    def test_bounded(self, quota, seconds, steps):
        """
        With a table that is too small, nobody may take more than with one that is not.
        """
        rate = Rate(quota, seconds)
        small, large, now = Limiter(rate, max_keys=2), Limiter(rate), 1e9
        for key, cost, passed in steps:
            now += passed
            self.assertGreaterEqual(small.wait(key, cost, now), large.wait(key, cost, now))
            if not small.take(key, cost, now):
                large.charge(key, cost, now)
            self.assertLessEqual(len(small._full_at), 2)

    def test_others(self):
        """
        Others begin with a full bucket although an attacker with many keys fills the table,
        unless most of its buckets are used at the same time.
        """
        limiter = Limiter(Rate(10, 10), max_keys=800)
        for i in range(5000):
            now = i / 100  # An attacker's 100 requests a second, each by another key.
            self.assertEqual(limiter.take(("attacker", i), 1, now), 0)
        self.assertEqual(limiter.take("other", 10, 50.0), 0)
        self.assertLessEqual(len(limiter._full_at), 800)

    def test_keys_are_not_joined(self):
        """
        Keys that look alike when they are put together have buckets of their own.
        """
        limiter = Limiter(Rate(1, 1))
        for key in (("a", "b_c"), ("a_b", "c"), "a_b_c", ("user", "1"), ("address", "1")):
            self.assertEqual(limiter.take(key, 1, 0.0), 0)


class RateFieldsTests(SynchronousTestCase):
    """
    The fields of a response.
    """

    def test_policy(self):
        """
        A policy tells quota, window and unit.
        """
        self.assertEqual(
            rate_fields.policy("publications", Rate(60, 10)), '"publications";q=60;w=10'
        )
        self.assertEqual(
            rate_fields.policy("bytes", Rate(9, 1), "content-bytes"),
            '"bytes";q=9;w=1;qu="content-bytes"',
        )

    def test_remaining(self):
        """
        What is left is told in whole units, and in how many seconds there is more.
        """
        limiter = Limiter(Rate(10, 30))
        told = [rate_fields.remaining("p", limiter, "a", 0.0)]
        limiter.take("a", 4, 0.0)
        told.append(rate_fields.remaining("p", limiter, "a", 0.0))
        told.append(rate_fields.remaining("p", limiter, "a", 2.5))
        limiter.charge("a", 16, 0.0)
        told.append(rate_fields.remaining("p", limiter, "a", 0.0))
        self.assertEqual(told, ['"p";r=10', '"p";r=6;t=3', '"p";r=6;t=1', '"p";r=0;t=33'])

    @given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 80), st.integers(0, 99))
    def test_true(self, quota, seconds, cost, passed):
        """
        What is said to be left may be taken, and no more; and in the time that is told,
        there is more.
        """
        limiter = Limiter(Rate(quota, seconds))
        limiter.charge("a", cost, 0.0)
        now = passed / 10
        left, more = limiter.remaining("a", now)
        if left:
            self.assertEqual(limiter.wait("a", left, now), 0)
        if left < quota:
            self.assertGreater(limiter.wait("a", left + 1, now), 0)
            self.assertEqual(limiter.wait("a", left + 1, now + more), 0)

    def test_retry_after(self):
        """
        The time to wait is in whole seconds, and never too short.
        """
        self.assertEqual(
            [rate_fields.retry_after(s) for s in (0.0, 0.01, 1.0, 1.2)],
            ["1", "1", "1", "2"],
        )


class OpenCountsTests(SynchronousTestCase):
    """
    What is open at once.
    """

    def test_limit(self):
        """
        A key may have so many things open, and one more when one was closed; others are
        counted for themselves.
        """
        counts = OpenCounts(2)
        self.assertEqual([counts.open("a") for _ in range(3)], [True, True, False])
        self.assertTrue(counts.open("b"))
        counts.close("a")
        self.assertEqual(counts.count("a"), 1)
        self.assertTrue(counts.open("a"))

    def test_forgotten(self):
        """
        A key with nothing open is not kept.
        """
        counts = OpenCounts(1)
        counts.open("a")
        counts.close("a")
        self.assertEqual((counts.count("a"), counts._open), (0, {}))
