"""
Tests for `msgbus.bus.subscriptions`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.subscriptions import MAX_REMEMBERED, Subscriptions
from msgbus.match import Filter
from msgbus.message import Message


class SubscriptionsTests(SynchronousTestCase):
    """
    Who gets a message.
    """

    def setUp(self):
        self.subscriptions = Subscriptions()

    def add(self, name, **filter):
        return self.subscriptions.add(name, Filter(**filter), print, lambda: 1, print)

    def matching(self, channel="a/b", content_type="a/b", sender=""):
        message = Message(channel, b"", content_type, sender)
        return self.subscriptions.matching(message)

    def test_order(self):
        """
        Those of the channel come first, then those of the folders above it; of one name, in
        the order in which they were added.
        """
        root, first, folder, second = map(self.add, ("", "a/b", "a/", "a/b"))
        self.add("other")
        self.assertEqual(self.matching(), [first, second, folder, root])

    def test_changes(self):
        """
        One that is added gets the next message, and one that is cancelled gets none any
        more, though another message like it has come before.
        """
        first = self.add("a/b")
        self.assertEqual(self.matching(), [first])
        second = self.add("", sender="x")
        self.assertEqual(self.matching(sender="x"), [first, second])
        first.cancel()
        first.cancel()
        self.assertEqual(self.matching(sender="x"), [second])
        self.assertEqual(self.matching(), [])
        second.cancel()
        self.assertEqual(self.subscriptions.by_name, {})

    def test_like_it(self):
        """
        A message with another channel, type or sender is another.
        """
        typed, sent = self.add("", type="a/*"), self.add("", sender="?*")
        self.assertEqual(self.matching(), [typed])
        self.assertEqual(self.matching(sender="x"), [typed, sent])
        self.assertEqual(self.matching(content_type="b/a"), [])
        self.assertEqual(self.matching("c", sender="x"), [typed, sent])

    def test_limit(self):
        """
        What is remembered is limited, however many subscriptions get messages of however
        many senders.
        """
        for number in range(100):
            self.add("", type=f"*/*,!x/{number}")
        for number in range(300):
            self.assertEqual(len(self.matching(sender=f"{number}")), 100)
            remembered = self.subscriptions._remembered.values()
            self.assertLessEqual(sum(map(len, remembered)), MAX_REMEMBERED)
