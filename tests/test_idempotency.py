"""
Tests for `msgbus.idempotency`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.idempotency import MAX_ANSWERS, SECONDS, Answers, Reused
from msgbus.message import Invalid, Message


class AnswersTests(SynchronousTestCase):
    """
    What is remembered.
    """

    def setUp(self):
        self.answers = Answers()
        self.message = Message("foo", b"1", sender="alice")

    def test_same(self):
        """
        The same publication is known, for ten minutes.
        """
        self.assertIsNone(self.answers.find("k", self.message, 0))
        self.answers.remember("k", self.message, 0, "answer")
        same = Message("foo", b"1", "text/plain", "alice")
        self.assertEqual(self.answers.find("k", same, SECONDS - 1), "answer")
        self.assertIsNone(self.answers.find("k", same, SECONDS))
        self.assertEqual(len(self.answers._answers), 0)

    def test_others(self):
        """
        With another channel, sender or key it is another publication.
        """
        self.answers.remember("k", self.message, 0, "answer")
        for key, message in (
            ("k", Message("bar", b"1", sender="alice")),
            ("k", Message("foo", b"1", sender="bob")),
            ("k", Message("foo", b"1")),
            ("K", self.message),
        ):
            self.assertIsNone(self.answers.find(key, message, 0))

    def test_reused(self):
        """
        Another body with the same key is a mistake, as is a key that is none.
        """
        self.answers.remember("k", self.message, 0, "answer")
        with self.assertRaises(Reused):
            self.answers.find("k", Message("foo", b"2", sender="alice"), 1)
        for key in ("", "k" * 1001):
            with self.assertRaises(Invalid):
                self.answers.find(key, self.message, 1)

    def test_bounded(self):
        """
        There is room for so many, and the oldest go.
        """
        for number in range(MAX_ANSWERS + 10):
            self.answers.remember(f"{number}", self.message, number / 1e6, number)
        self.assertEqual(len(self.answers._answers), MAX_ANSWERS)
        self.assertIsNone(self.answers.find("9", self.message, 1))
        self.assertEqual(self.answers.find("10", self.message, 1), 10)
