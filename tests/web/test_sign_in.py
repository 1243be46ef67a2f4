"""
Tests for signing in: who guesses passwords has to wait, and others do not.
"""

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.addresses import TrustedProxies
from msgbus.access.rules import Rules
from msgbus.access.users import Users
from msgbus.web.peer import Peer
from msgbus.web.sign_in import SignIn, TooManyGuesses
from msgbus.web.visitor import Access

from ..memory import Server, log_lines
from ..requests import authorization, basic, get, post

HEADERS = "Content-Type: text/plain\n"


class SecretTests(SynchronousTestCase):
    """
    One password for everybody, over HTTP.
    """

    def setUp(self):
        self.now = 0.0
        self.server = Server(secret=b"right")
        self.server.root.sign_in._seconds = lambda: self.now

    def ask(self, password, name="x"):
        return self.server.ask(post(headers=HEADERS + authorization(f"{name}:{password}")))

    def test_slowed(self):
        """
        After some wrong passwords, the next is not looked at, whatever the name; the answer
        says when to try again.
        """
        codes = [self.ask("wrong", name=f"n{i}")[0] for i in range(21)]
        code, headers, body = self.ask("right", name="new")

        self.assertEqual(codes, [401] * 21)
        self.assertEqual((code, headers["Retry-After"]), (429, "1"))
        self.assertIn(b"Too many wrong passwords", body)

    def test_passes_later(self):
        """
        After the delay, the right password is taken.
        """
        for _ in range(21):
            self.ask("wrong")
        self.now += 1

        self.assertEqual(self.ask("right")[0], 204)

    def test_known_passes(self):
        """
        A password that was right from the same address does not wait.
        """
        self.assertEqual(self.ask("right")[0], 204)
        for _ in range(25):
            self.ask("wrong")

        self.assertEqual(self.ask("right")[0], 204)
        self.assertEqual(self.ask("wrong")[0], 429)

    def test_remembered_heads_tell_nothing(self):
        """
        An address that has to wait gets no answer from the heads that are remembered.
        """
        peer = Peer("192.0.2.1")
        for _ in range(3):
            self.ask("right")
        for _ in range(40):
            self.server.root.sign_in._failed(peer, "")
        self.server.root.sign_in._right.clear()

        self.assertEqual(self.ask("right")[0], 429)

    def test_nothing_guessed(self):
        """
        Requests without a password are not counted.
        """
        for _ in range(30):
            self.assertEqual(self.server.ask(get())[0], 401)

        self.assertEqual(self.ask("right")[0], 204)

    def test_logged_once(self):
        """
        Wrong passwords are logged once a minute, with address and name, without them.
        """
        lines = log_lines(self, "msgbus.web.sign_in")
        for _ in range(50):
            self.ask("wrong1", "eve")
        self.now += 61
        self.ask("wrong1", "eve")

        self.assertEqual(
            [text for _, text in lines],
            [
                "Wrong passwords from 192.0.2.1 for 'eve': 1",
                "Wrong passwords from 192.0.2.1 for 'eve': 50",
            ],
        )


class PeerTests(SynchronousTestCase):
    """
    Where requests come from.
    """

    def test_kinds(self):
        """
        A program on this machine is local, unless it is a trusted proxy.
        """
        proxies = TrustedProxies.parse("127.0.0.1,unix")
        here = IPv4Address("TCP", "127.0.0.1", 4711)
        there = IPv4Address("TCP", "192.0.2.1", 4711)

        self.assertTrue(Peer.at(here).is_local)
        self.assertTrue(Peer.at(UNIXAddress(None)).is_local)
        self.assertFalse(Peer.at(here, proxies).is_local)
        self.assertTrue(Peer.at(here, proxies).is_trusted)
        self.assertTrue(Peer.at(UNIXAddress(None), proxies).is_trusted)
        self.assertFalse(Peer.at(there, proxies).is_local)
        self.assertEqual(str(Peer.at(there)), "192.0.2.1:4711")

    def test_waits_are_of_one_address(self):
        """
        Nobody waits for what was tried from another address.
        """
        root = Server(secret=b"right").root
        signing = SignIn(root._portal, by_name=False, seconds=lambda: 0.0)
        for _ in range(100):
            signing.login(Peer("192.0.2.1"), basic("x:y")).addErrback(lambda _: None)

        waits = signing.login(Peer("192.0.2.1"), basic("x:right"))
        self.failureResultOf(waits, TooManyGuesses)
        self.successResultOf(signing.login(Peer("192.0.2.2"), basic("x:right")))
        self.assertTrue(signing.suspects(Peer("192.0.2.1")))
        self.assertFalse(signing.suspects(Peer("192.0.2.2")))


class UserHeaderTests(SynchronousTestCase):
    """
    Users whom a proxy has signed in.
    """

    HASH = b"$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"

    def ask(self, headers, trusted="192.0.2.1", times=1):
        """
        The answers to a publication to `mine`, on which only carol may publish, as status
        and sender.
        """
        users = Users.parse(b"alice:%b\n" % self.HASH, "users")
        access = Access(users, Rules.parse(b"carol publish,subscribe mine\n", "access"))
        server = Server(secret=b"x")
        server.root._access, server.root._user_header = access, "X-Remote-User"
        server.site.proxies = TrustedProxies.parse(trusted)
        senders = []
        server.bus.subscribe("", lambda message: senders.append(message.sender))
        peer = server.connect()
        for _ in range(times):
            peer.send(post("/msgbus/mine", headers=HEADERS + headers))
            code = peer.answer()[0]
        return code, senders

    def test_believed(self):
        """
        A trusted proxy is believed; rules hold for the user.
        """
        self.assertEqual(self.ask("X-Remote-User: carol\n"), (204, ["carol"]))
        self.assertEqual(self.ask("X-Remote-User: dave\n"), (403, []))
        self.assertEqual(self.ask("X-Remote-User: carol\n", times=4)[1], ["carol"] * 4)

    def test_not_believed(self):
        """
        Nobody else is, and nobody is meant by an empty header, or by two.
        """
        self.assertEqual(self.ask("X-Remote-User: carol\n", "192.0.2.2"), (401, []))
        self.assertEqual(self.ask("X-Remote-User:\n"), (401, []))
        self.assertEqual(self.ask(""), (401, []))
        self.assertEqual(self.ask("X-Remote-User: carol\n" * 2)[0], 400)
        for name in ("a/b", "@users", "x" * 300):
            self.assertEqual(self.ask(f"X-Remote-User: {name}\n")[0], 400, name)
