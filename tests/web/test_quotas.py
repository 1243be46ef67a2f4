"""
Tests for quotas: how much each user and address may publish and subscribe.
"""

import json

from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.addresses import TrustedProxies
from msgbus.access.limits import Rate
from msgbus.access.rules import Rules
from msgbus.access.users import Users
from msgbus.message import Message
from msgbus.web.peer import Peer
from msgbus.web.quotas import Quotas, QuotaSizes, Throttled
from msgbus.web.visitor import Access, Visitor

from ..memory import Server
from ..requests import get, post

HASH = b"$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"
NDJSON = "Content-Type: application/x-ndjson\n"
LOCAL = Peer(None, is_local=True)


def visitor(name="", rules=b""):
    """
    Somebody who has proved a name, or nobody.
    """
    users = Users.parse(b"alice:%b\nbob:%b\n" % (HASH, HASH), "users")
    return Visitor(name, Access(users, Rules.parse(rules, "access") if rules else None))


class QuotasTests(SynchronousTestCase):
    """
    What is counted for whom.
    """

    def setUp(self):
        self.now = 0.0

    def quotas(self, *sizes):
        return Quotas(QuotaSizes(*sizes), lambda: self.now)

    def test_address(self):
        """
        An address that has published too much waits; the answer says how long, and others
        do not wait.
        """
        quotas = self.quotas(Rate(2, 10), None, None)
        one, other = Peer("192.0.2.1"), Peer("192.0.2.2")
        for _ in range(2):
            quotas.charge_publication(Visitor("x"), one, 10)

        with self.assertRaises(Throttled) as caught:
            quotas.charge_publication(Visitor("y"), one, 10)

        self.assertEqual(
            dict(caught.exception.headers),
            {
                b"Retry-After": b"5",
                b"RateLimit-Policy": b'"publications";q=2;w=10',
                b"RateLimit": b'"publications";r=0;t=5',
            },
        )
        quotas.charge_publication(Visitor("x"), other, 10)
        self.now += 5
        quotas.charge_publication(Visitor("x"), one, 10)

    def test_network(self):
        """
        Addresses of one IPv6 network with 64 bits count as one.
        """
        quotas = self.quotas(Rate(1, 10), None, None)
        quotas.charge_publication(Visitor(""), Peer("2001:db8::1"), 1)
        with self.assertRaises(Throttled):
            quotas.charge_publication(Visitor(""), Peer("2001:db8::ffff:2"), 1)
        quotas.charge_publication(Visitor(""), Peer("2001:db8:0:1::1"), 1)

    def test_bytes(self):
        """
        Bytes of bodies are counted beside messages; what is refused is not counted at all.
        """
        quotas = self.quotas(Rate(2, 10), Rate(100, 10), None)
        peer = Peer("192.0.2.1")
        quotas.charge_publication(Visitor(""), peer, 90)
        for _ in range(5):
            with self.assertRaisesRegex(Throttled, "100 bytes in 10 seconds"):
                quotas.charge_publication(Visitor(""), peer, 20)
        quotas.charge_publication(Visitor(""), peer, 10)

    def test_local(self):
        """
        Programs on this machine are not limited by their address, but by their user.
        """
        quotas = self.quotas(Rate(1, 10), None, 1)
        for _ in range(10):
            quotas.charge_publication(Visitor("x"), LOCAL, 1)
            self.assertEqual(quotas.open_subscription(Visitor("x"), LOCAL, "a"), ())
        quotas.charge_publication(visitor("alice"), LOCAL, 1)
        with self.assertRaises(Throttled):
            quotas.charge_publication(visitor("alice"), LOCAL, 1)
        quotas.charge_publication(visitor("bob"), LOCAL, 1)

    def test_user_like_an_address(self):
        """
        What a user has done is not charged to the address whose name they have.
        """
        quotas = self.quotas(Rate(1, 10), None, None)
        users = Users.parse(b"192.0.2.1:%b\n" % HASH, "users")
        quotas.charge_publication(Visitor("192.0.2.1", Access(users, None)), LOCAL, 1)
        quotas.charge_publication(Visitor(""), Peer("192.0.2.1"), 1)

    def test_rule(self):
        """
        The limits of a rule hold for each user whom it allows something.
        """
        quotas = self.quotas(None, None, None)
        rules = b"* publish,subscribe a rate=1/min max-subscriptions=1\n"
        alice, bob = visitor("alice", rules), visitor("bob", rules)
        for somebody in (alice, bob):
            somebody.check_publish("a")
            quotas.charge_publication(somebody, LOCAL, 1)
            with self.assertRaises(Throttled):
                quotas.charge_publication(somebody, LOCAL, 1)
        opened = quotas.open_subscription(alice, LOCAL, "a")
        with self.assertRaises(Throttled):
            quotas.check_subscribe(alice, LOCAL, "a")
        quotas.check_subscribe(bob, LOCAL, "a")
        quotas.close_subscription(opened)
        quotas.check_subscribe(alice, LOCAL, "a")


class HistoryTests(SynchronousTestCase):
    """
    How much history a rule lets somebody have.
    """

    def replayed(self, limit, since, path="/msgbus/chat/a", secrets=0):
        """
        The bodies that a subscriber gets with this limit and these parameters, if so many
        messages are published behind them to a channel that they may not read.
        """
        server = Server(secret=b"x")
        server.site.proxies = TrustedProxies.parse("192.0.2.1")
        users = Users.parse(b"alice:%b\n" % HASH, "users")
        rules = Rules.parse(b"alice subscribe chat/* history=%d\n" % limit, "access")
        server.root._access, server.root._user_header = Access(users, rules), "X-User"
        receipts = [server.bus.publish(Message("chat/a", b"%d" % i)) for i in range(5)]
        for _ in range(secrets):
            server.bus.publish(Message("secret", b"x"))
        since = since.format(self.successResultOf(receipts[0]).id)
        peer = server.connect()
        peer.send(get(f"{path}?{since}&format=ndjson", headers="X-User: alice\n"))
        server.turn()
        lines = peer.received().decode().split("\r\n")
        return [json.loads(line)["body"] for line in lines if '"body"' in line]

    def test_limit_of_each(self):
        """
        So has one that begins with the newest message of each channel.
        """
        for limit, expected in ((0, []), (1, ["4"])):
            self.assertEqual(
                self.replayed(limit, "last-of-each=1", "/msgbus/chat/"), expected
            )

    def test_limit(self):
        """
        A replay has the last so many messages, wherever it should begin.
        """
        for since in ("since={}", "since=1h", "last=4", "since=0-000000000001"):
            for path in ("/msgbus/chat/a", "/msgbus/chat/"):
                self.assertEqual(self.replayed(2, since, path), ["3", "4"], since)
                self.assertEqual(self.replayed(0, since, path), [], since)
        self.assertEqual(self.replayed(9, "since={}"), ["1", "2", "3", "4"])

    def test_others(self):
        """
        What is published elsewhere does not shorten the replay of a folder.
        """
        for since in ("since={}", "since=1h", "last=4"):
            for path in ("/msgbus/", "/msgbus/chat/"):
                self.assertEqual(self.replayed(2, since, path, 50), ["3", "4"], since)


class DoorTests(SynchronousTestCase):
    """
    What somebody is told who has to wait.
    """

    def setUp(self):
        self.now = 0.0
        quotas = Quotas(QuotaSizes(Rate(4, 4), None, 2), lambda: self.now)
        self.server = Server(quotas=quotas)
        self.got = []
        self.server.bus.subscribe("", lambda message: self.got.append(message.body))

    def send_stream(self, length):
        """
        A connection on which ten lines have come, of a body with so many bytes.
        """
        peer = self.server.connect()
        head = post("/msgbus/foo?format=ndjson&raw=1", "", NDJSON)
        peer.send(head.replace("Content-Length: 0", f"Content-Length: {length}"))
        peer.send(b"".join(b"%d\n" % i for i in range(10)))
        return peer

    def test_publication(self):
        """
        A publication is answered with 429, also one whose head is remembered.
        """
        peer = self.server.connect()
        codes = []
        for _ in range(6):
            peer.send(post())
            code, headers, _ = peer.answer()
            codes.append(code)
        self.assertEqual(codes, [204] * 4 + [429] * 2)
        self.assertEqual(headers["Retry-After"], "1")
        self.now += 1
        peer.send(post())
        self.assertEqual(peer.answer()[0], 204)

    def test_subscription(self):
        """
        A stream too many is answered with 429, until another has ended.
        """
        peers = [self.server.connect() for _ in range(2)]
        for peer in peers:
            peer.send(get())
            self.assertEqual(peer.answer()[0], 200)
        self.assertEqual(self.server.ask(get())[0], 429)
        peers[0].leave(ConnectionError())
        self.assertEqual(self.server.ask(get())[0], 200)

    def test_waiting_poll(self):
        """
        A request that waits for one message counts as a stream, until it is answered or its
        client goes; one that does not wait does not count.
        """
        peers = [self.server.connect() for _ in range(2)]
        for peer in peers:
            peer.send(get("/msgbus/foo?format=message&wait=60"))
        waiting = get("/msgbus/bar?format=message&wait=60")
        self.assertEqual(self.server.ask(waiting)[0], 429)
        self.assertEqual(self.server.ask(get())[0], 429)
        self.assertEqual(self.server.ask(get("/msgbus/foo?format=message"))[0], 204)

        peers[0].leave(ConnectionError())
        third = self.server.connect()
        third.send(waiting)
        self.server.bus.publish(Message("foo", b"x", "text/plain"))
        self.assertEqual(peers[1].answer()[0], 200)
        self.assertEqual(self.server.ask(get())[0], 200)
        self.assertEqual(third.received(), b"")

    def test_stream(self):
        """
        A stream that is published slows down, loses nothing, and ends with its last
        message.
        """
        peer = self.send_stream(length=20)
        self.server.turn()
        self.assertEqual(len(self.got), 4)
        for _ in range(20):
            self.now += 1
            self.server.clock.advance(1)
        self.assertEqual(self.got, [b"%d" % i for i in range(10)])
        code, _, body = peer.answer()
        self.assertEqual((code, json.loads(body)["published"]), (200, 10))

    def test_stream_whose_publisher_goes(self):
        """
        What has to wait is dropped when its publisher goes.
        """
        peer = self.send_stream(length=1000)
        self.server.turn()
        peer.leave(ConnectionError())
        self.now += 60
        self.server.clock.advance(60)
        self.assertEqual(len(self.got), 4)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_stream_at_a_stop(self):
        """
        What has to wait is dropped when the bus stops, and its publisher is told, also one
        that has sent its whole body.
        """
        for length in (20, 1000):
            peer = self.send_stream(length)
            self.server.turn()
            self.server.resource.stop_waiting()
            code, _, body = peer.answer()
            self.assertEqual((code, json.loads(body)["published"]), (503, 4))
            self.setUp()
