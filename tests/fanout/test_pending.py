"""
Tests for `msgbus.fanout.pending`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.fanout.pending import Pending


class Joined:
    """
    Somebody who has joined.
    """


class PendingTests(SynchronousTestCase):
    """
    What is taken at once.
    """

    def setUp(self):
        self.pending = Pending()

    def put(self, *names, size=1, limit=100):
        for name in names:
            self.pending.put(name, name.encode() * size, limit)

    def test_newest(self):
        """
        Only the newest message of a channel waits, at the place where it was published.
        """
        self.put("a", "b", "a", "c")
        self.assertEqual(self.pending.size, 3)
        self.assertEqual(self.pending.take(0), [("b", b"b"), ("a", b"a"), ("c", b"c")])
        self.assertEqual((self.pending.size, self.pending.take(0)), (0, []))

    def test_expired(self):
        """
        What has expired while it waited counts as dropped.
        """
        self.pending.put("a", b"a", 100, expires=5)
        self.pending.put("b", b"b", 100, expires=6)
        self.assertEqual(self.pending.take(5), [1, ("b", b"b")])
        self.assertEqual(self.pending.size, 0)

    def test_marks(self):
        """
        Where somebody joins, is a mark, unless nothing waits; whoever leaves takes it away.
        """
        first, second, third = Joined(), Joined(), Joined()
        self.pending.mark(first)
        self.put("a", "b")
        self.pending.mark(second)
        self.pending.mark(third)
        self.put("a")
        self.pending.forget(second)
        self.pending.forget(first)
        self.assertEqual(self.pending.take(0), [("b", b"b"), third, ("a", b"a")])

    def test_limit(self):
        """
        Past the limit, the oldest go, and it is known how many stood where; one message
        always fits.
        """
        joined, gone = Joined(), Joined()
        self.put("a", "b", size=40)
        self.pending.mark(joined)
        self.pending.mark(gone)
        self.put("c", size=40)
        self.put("d", size=300)
        self.assertEqual(self.pending.size, 380)
        self.put("e")
        self.pending.forget(gone)
        self.assertEqual(self.pending.size, 1)
        self.assertEqual(self.pending.take(0), [2, joined, 2, ("e", b"e")])

    def test_drop_to(self):
        """
        What is dropped to make room is the oldest.
        """
        self.put("a", "b", "c", "d")
        self.pending.drop_to(2)
        self.assertEqual(self.pending.take(0), [2, ("c", b"c"), ("d", b"d")])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "mark"]), st.sampled_from("abc"), st.integers(0, 9)
            )
        ),
        st.integers(0, 20),
    )
    def test_accounts(self, steps, limit):
        """
        Every message is taken, or superseded, or counted among the dropped; and behind a
        mark stand exactly those that came later.
        """
        pending, put, marks = Pending(), [], {}
        for step, channel, size in steps:
            if step == "put":
                frame = b"%d:" % len(put) + bytes(size)
                put.append(channel)
                pending.put(channel, frame, limit)
                self.assertLessEqual(pending.size, limit + len(frame))
            else:
                joined = Joined()
                marks[joined] = len(put)
                pending.mark(joined)
        seen, dropped = [], 0
        for item in pending.take(0):
            if isinstance(item, Joined):
                self.assertTrue(all(number < marks[item] for number in seen))
            elif isinstance(item, int):
                dropped += item
            else:
                channel, frame = item
                number = int(frame.partition(b":")[0])
                self.assertNotIn(channel, put[number + 1 :])
                seen.append(number)
        self.assertEqual(seen, sorted(seen))
        self.assertGreaterEqual(len(seen) + dropped, len(set(put)))
