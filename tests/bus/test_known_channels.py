"""
Tests for `msgbus.bus.known_channels`, by way of `msgbus.bus.bus.Bus`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus import Bus, History, Keep
from msgbus.match import Filter
from msgbus.message import Message


class KnownChannelTests(SynchronousTestCase):
    """
    Which channels there are, and what is known of each.
    """

    def setUp(self):
        self.now = 1000.0
        history = History(Keep(count=2, seconds=60))
        self.bus = Bus(history=history, seconds=lambda: self.now)

    def publish(self, channel, body=b"", **options):
        self.successResultOf(self.bus.publish(Message(channel, body), **options))

    def subscribe(self, name, count=1, filter=None):
        return self.bus.subscribe(name, print, filter or Filter(), count=lambda: count)

    def channels(self):
        """
        What is known, by name: how many subscribers and messages, and the last body.
        """
        names = sorted({*self.bus.channel_names()})
        known = filter(None, map(self.bus.find_channel, names))
        return {
            channel.name: (
                channel.subscribers,
                channel.messages,
                channel.last and channel.last.body,
            )
            for channel in known
        }

    def test_messages(self):
        """
        A channel is known as long as a message of it is kept, and tells the newest.
        """
        for body in (b"1", b"2", b"3"):
            self.publish("a/b", body)
        self.publish("unkept", keep=False)
        self.assertEqual(self.channels(), {"a/b": (0, 2, b"3")})
        self.now += 61
        self.assertEqual(self.channels(), {})
        self.assertIsNone(self.bus.find_channel("a/b"))

    def test_subscribers(self):
        """
        A channel is known as long as somebody is subscribed to exactly it, whatever the
        filter; subscribers of folders do not count.
        """
        self.subscribe("")
        self.subscribe("a/")
        only = self.subscribe("a/b", 3)
        self.subscribe("a/c")
        self.subscribe("a/c", 2, Filter("text/*"))
        self.publish("a/c", b"1")
        self.assertEqual(self.channels(), {"a/b": (3, 0, None), "a/c": (3, 1, b"1")})
        only.cancel()
        self.assertEqual(list(self.channels()), ["a/c"])
        self.assertIsNone(self.bus.find_channel("a/b"))
        self.assertIsNone(self.bus.find_channel("a/"))

    def test_folders(self):
        """
        A folder is a channel if a message was published to the folder itself.
        """
        self.subscribe("a/", 5)
        self.publish("a/", b"1")
        self.publish("", b"2")
        self.assertEqual(self.channels(), {"": (0, 1, b"2"), "a/": (5, 1, b"1")})

    def test_unknown(self):
        """
        Nothing is known of other names.
        """
        self.assertIsNone(self.bus.find_channel("x"))
        self.assertEqual(self.bus.channel_names(), [])
