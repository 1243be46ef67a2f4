"""
Tests for `msgbus.bus.bus`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.bus import Bus, TooLarge
from msgbus.ids import origin_of
from msgbus.match import Filter
from msgbus.message import Invalid, Message, Receipt

from ..strategies import names


class DeliveryTests(SynchronousTestCase):
    """
    Who gets what.
    """

    def setUp(self):
        self.bus = Bus()

    def subscribe(self, name, *args):
        got = []
        subscription = self.bus.subscribe(name, got.append, *args)
        return got, subscription

    def publish(self, *channels):
        messages = [Message(channel, b"") for channel in channels]
        for message in messages:
            self.assertTrue(self.successResultOf(self.bus.publish(message)).id)
        return messages

    def test_channel(self):
        """
        A subscription of a channel gets what is published there, in order.
        """
        got, _ = self.subscribe("foo")
        first, _, second = self.publish("foo", "bar", "foo")
        self.assertEqual(got, [first, second])

    def test_folders(self):
        """
        A message goes to its channel and to each folder above it, once.
        """
        subscribed = ["a/b/c", "a/b/", "a/", "", "a/b", "a", "b/", "a/b/c/"]
        got = {name: self.subscribe(name)[0] for name in subscribed}
        sent = self.publish("a/b/c")
        self.assertEqual([name for name in subscribed if got[name] == sent], subscribed[:4])
        self.assertEqual([name for name in subscribed if not got[name]], subscribed[4:])

    def test_published_to_a_folder(self):
        """
        A message published to a folder, or to the root, goes to subscriptions of that
        folder and the folders above it, and to nothing below.
        """
        got = {name: self.subscribe(name)[0] for name in ("", "a/", "a", "a/b")}
        root, folder = self.publish("", "a/")
        self.assertEqual(got, {"": [root, folder], "a/": [folder], "a": [], "a/b": []})

    @given(names, names)
    def test_prefix(self, subscribed, published):
        """
        A message reaches a subscription of the same name, or of a folder above it.
        """
        bus, got = Bus(), []
        bus.subscribe(subscribed, got.append)
        bus.publish(Message(published, b""))
        folder = not subscribed or subscribed.endswith("/")
        reached = published == subscribed or (folder and published.startswith(subscribed))
        self.assertEqual(len(got), int(reached))

    def test_filter(self):
        """
        A message that does not pass the filter is not delivered.
        """
        got, _ = self.subscribe("", Filter(channel="a/*"))
        _, sent = self.publish("b/a", "a/b")
        self.assertEqual(got, [sent])

    def test_cancel(self):
        """
        A cancelled subscription gets nothing more; others go on.
        """
        got, subscription = self.subscribe("foo")
        other, _ = self.subscribe("foo")
        self.assertTrue(subscription.active)
        for _ in range(2):
            subscription.cancel()
        self.assertFalse(subscription.active)
        sent = self.publish("foo")
        self.assertEqual((got, other), ([], sent))

    def test_nothing_left(self):
        """
        Cancelled subscriptions leave nothing in memory.
        """
        for name in ("", "a/", "a/b", "a/b"):
            self.subscribe(name)[1].cancel()
        self.assertEqual(self.bus._subscriptions.by_name, {})

    def test_bad_name(self):
        """
        Nobody can subscribe to a name that breaks the rules.
        """
        with self.assertRaises(Invalid):
            self.bus.subscribe("/foo", print)


class OrderTests(SynchronousTestCase):
    """
    One order for all.
    """

    def test_publish_while_delivering(self):
        """
        A message that a subscriber publishes while another is delivered comes after that
        one, for every subscriber, and its Deferred fires only then.
        """
        bus, first, last, fired = Bus(), [], [], []

        def echo(message):
            first.append(message.body)
            if message.body == b"1":
                bus.publish(Message("foo", b"2")).addCallback(
                    lambda _: fired.append(list(last))
                )

        bus.subscribe("foo", echo)
        bus.subscribe("foo", lambda message: last.append(message.body))
        bus.publish(Message("foo", b"1"))
        self.assertEqual((first, last), ([b"1", b"2"], [b"1", b"2"]))
        self.assertEqual(fired, [[b"1", b"2"]])

    def test_subscribe_while_delivering(self):
        """
        A subscription that is made during a delivery gets the next message first.
        """
        bus, got = Bus(), []

        def invite(message):
            if message.body == b"1":
                bus.subscribe("foo", lambda message: got.append(message.body))

        bus.subscribe("foo", invite)
        for body in (b"1", b"2"):
            bus.publish(Message("foo", body))
        self.assertEqual(got, [b"2"])

    def test_cancel_while_delivering(self):
        """
        A subscription that an earlier subscriber cancels does not get the message.
        """
        bus, got = Bus(), []
        bus.subscribe("foo", lambda message: later.cancel())
        later = bus.subscribe("foo", got.append)
        bus.publish(Message("foo", b""))
        self.assertEqual(got, [])

    def test_failing_subscriber(self):
        """
        A subscriber that raises is logged, and the others get the message.
        """
        bus, got = Bus(), []
        bus.subscribe("foo", lambda message: 1 / 0)
        bus.subscribe("foo", got.append)
        published = bus.publish(Message("foo", b""))
        self.assertEqual(self.successResultOf(published).subscribers, 2)
        self.assertEqual(len(got), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class RefusalTests(SynchronousTestCase):
    """
    What cannot be published.
    """

    def setUp(self):
        self.bus = Bus(max_message=100)
        self.got = []
        self.bus.subscribe("", self.got.append)

    def test_boundaries_differ(self):
        """
        Each bus has a boundary of its own, of letters and digits.
        """
        boundaries = {Bus().boundary for _ in range(10)}
        self.assertEqual(len(boundaries), 10)
        for boundary in boundaries:
            self.assertRegex(boundary, r"\A[a-z0-9]{38}\Z")

    def test_boundary(self):
        """
        A message that holds the boundary, wherever, is refused.
        """
        boundary = self.bus.boundary
        for message in (
            Message("foo", f"\r\n--{boundary}\r\n".encode()),
            Message(boundary, b""),
            Message("foo", b"", f"text/plain;x={boundary}"),
            Message("foo", b"", sender=boundary),
        ):
            with self.assertRaisesRegex(Invalid, "boundary"):
                self.bus.publish(message)
        self.bus.publish(Message("foo", boundary[:-1].encode()))
        self.assertEqual(len(self.got), 1)

    @given(st.integers(0, 200))
    def test_size(self, size):
        """
        A message has at most as many bytes as the bus takes.
        """
        message = Message("foo", b"x" * size)
        if size <= 100:
            self.bus.publish(message)
            self.assertIs(self.got[-1].body, message.body)
        else:
            with self.assertRaisesRegex(TooLarge, "at most 100 bytes"):
                self.bus.publish(message)


class OriginTests(SynchronousTestCase):
    """
    Messages that programs copy from one bus to another.
    """

    ORIGIN = "4711/1764-4711000000000017"

    def setUp(self):
        self.now = 0.0
        self.bus, self.got = self.make_bus(1)

    def make_bus(self, life):
        bus = Bus(seconds=lambda: self.now)
        bus.log.restore(life, bus.boundary, (0, life * 10**12))
        got = []
        bus.subscribe("", got.append)
        return bus, got

    def publish(self, channel="foo", body=b"1", origin=ORIGIN, **options):
        message = Message(channel, body, origin=origin)
        return self.successResultOf(self.bus.publish(message, **options))

    def test_once(self):
        """
        A message with an origin is published once in ten minutes, whatever its channel, its
        body and its key.
        """
        first = self.publish(key="k")
        self.assertEqual(first, Receipt(self.got[0].id, 1))
        for options in ({}, {"channel": "bar"}, {"body": b"2"}, {"key": "l"}):
            self.assertEqual(self.publish(**options), Receipt(first.id, 1, repeated=True))
        self.assertEqual([message.origin for message in self.got], [self.ORIGIN])
        self.assertEqual(self.bus.repeated, 4)
        self.now = 601
        self.assertFalse(self.publish().repeated)
        self.assertEqual(len(self.got), 2)

    def test_key(self):
        """
        A publication that is repeated with its key is counted, too.
        """
        first = self.publish(origin="", key="k")
        again = self.publish(origin="", key="k")
        self.assertEqual(again, first._replace(repeated=True))
        self.assertEqual(self.bus.repeated, 1)

    def test_refused(self):
        """
        A message that was refused is not remembered, and can come again.
        """
        self.bus.max_message = 1
        with self.assertRaises(TooLarge):
            self.publish(body=b"22")
        self.assertFalse(self.publish().repeated)

    def test_ring(self):
        """
        A message that comes back to the bus at which it was published first is not
        published again.
        """
        first = self.publish(origin="")
        other, copied = self.make_bus(2)
        other.publish(Message("foo", b"1", origin=origin_of(first.id)))
        back = self.publish(origin=copied[0].origin)
        self.assertEqual(back, Receipt(first.id, 0, repeated=True))
        self.assertEqual(len(self.got), 1)

    def test_while_delivering(self):
        """
        A subscriber that publishes a message again from within its delivery gets the same
        receipt.
        """
        told = []
        message = Message("foo", b"1", origin=self.ORIGIN)

        def publish_again(message):
            self.bus.publish(message).addCallback(told.append)

        self.bus.subscribe("foo", publish_again)
        receipt = self.successResultOf(self.bus.publish(message))
        self.assertEqual(told, [receipt._replace(repeated=True)])
        self.assertEqual(len(self.got), 1)
