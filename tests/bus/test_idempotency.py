"""
Tests for `msgbus.bus.idempotency`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.idempotency import MAX_ANSWERS, SECONDS, Answers, Fingerprint, Reused
from msgbus.message import Invalid, Message


class AnswersTests(SynchronousTestCase):
    """
    Which publications are recognized as repetitions.
    """

    def setUp(self):
        self.answers = Answers()
        self.message = Message("foo", b"1", sender="alice")

    def find(self, key, message, seconds):
        return self.answers.find(Fingerprint.of(key, message), seconds)

    def remember(self, key, message, seconds, answer):
        self.answers.remember(Fingerprint.of(key, message), seconds, answer)

    def test_same(self):
        """
        A repeated publication is recognized for ten minutes.
        """
        self.assertIsNone(self.find("k", self.message, 0))
        self.remember("k", self.message, 0, "answer")
        same = Message("foo", b"1", "text/plain", "alice")
        self.assertEqual(self.find("k", same, SECONDS - 1), "answer")
        self.assertIsNone(self.find("k", same, SECONDS))
        self.assertEqual(len(self.answers._answers), 0)

    def test_others(self):
        """
        With another channel, sender or key it is another publication.
        """
        self.remember("k", self.message, 0, "answer")
        for key, message in (
            ("k", Message("bar", b"1", sender="alice")),
            ("k", Message("foo", b"1", sender="bob")),
            ("k", Message("foo", b"1")),
            ("K", self.message),
        ):
            self.assertIsNone(self.find(key, message, 0))

    def test_reused(self):
        """
        Another body with the same key is refused, and so is an empty or too long key.
        """
        self.remember("k", self.message, 0, "answer")
        with self.assertRaises(Reused):
            self.find("k", Message("foo", b"2", sender="alice"), 1)
        for key in ("", "k" * 1001):
            with self.assertRaises(Invalid):
                self.find(key, self.message, 1)

    def test_origin(self):
        """
        A message with the same origin is recognized whatever its channel, sender and body,
        and no key is taken for an origin.
        """
        origin = "7/1-7000000000001"
        self.assertIsNone(self.answers.find(Fingerprint.of_origin(origin), 0))
        self.answers.remember(Fingerprint.of_origin(origin), 0, "answer")
        self.assertEqual(self.answers.find(Fingerprint.of_origin(origin), 1), "answer")
        self.assertIsNone(self.find(origin, Message("", b""), 1))
        other = Fingerprint.of_origin("7/1-7000000000002")
        self.assertIsNone(self.answers.find(other, 1))

    def test_bounded(self):
        """
        The number of answers is limited; the oldest are forgotten.
        """
        for number in range(MAX_ANSWERS + 10):
            self.remember(f"{number}", self.message, number / 1e6, number)
        self.assertEqual(len(self.answers._answers), MAX_ANSWERS)
        self.assertIsNone(self.find("9", self.message, 1))
        self.assertEqual(self.find("10", self.message, 1), 10)
