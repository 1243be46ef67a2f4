"""
Tests for `msgbus.web.journal`, with all places where something is refused.
"""

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase
from wsproto.frame_protocol import Opcode

from msgbus.web.connections import Connections
from msgbus.web.responses import REASONS
from msgbus.web.verbosity import Verbosity

from ..memory import Server, log_lines
from ..requests import authorization, get, post
from .test_rights import SECRET
from .testcase import WebTestCase
from .websocket_testcase import UPGRADE, masked, text

ALICE = authorization("alice:secret")
RULES = "alice publish,subscribe chat/*\n"


class RefusedTests(SynchronousTestCase):
    """
    What is counted and logged if something is refused.
    """

    def setUp(self):
        self.server = Server(verbosity=1)

    def refused(self, act, *args, **options):
        """
        The lines that are logged while this is called, without the client, and the
        reasons that are counted.
        """
        lines = log_lines(self, "msgbus.web.journal")
        counted = self.server.resource.mount.counters.refused
        counted.clear()
        act(*args, **options)
        self.server.turn()
        found = [line for _, line in lines if " is refused " in line]
        self.assertLessEqual(counted.keys(), set(REASONS))
        self.assertEqual(len(found), counted.total())
        client = "192.0.2.1:4711 is refused "
        self.assertTrue(all(line.startswith(client) for line in found), found)
        return [line.removeprefix(client) for line in found], list(counted)

    def assert_request(self, request, line, reason, address="127.0.0.1"):
        """
        Assert that a request is refused, once, with a line that begins so.
        """
        lines, reasons = self.refused(self.server.ask, request, address)
        self.assertEqual(reasons, [reason])
        self.assertEqual(len(lines), 1)
        self.assertTrue(lines[0].startswith(line), lines[0])

    def test_requests(self):
        """
        A request that is refused is logged with its client, its method, its channel or its
        path, and why; but without its query.
        """
        typed = "Content-Type: text/plain\n"
        for request, line, reason in (
            (get("/msgbus/a//b?sig=x"), "GET 'a//b' as '': 400 invalid: ", "invalid"),
            (get("/msgbus/%0aa"), "GET '\\na' as '': 400 invalid: ", "invalid"),
            (get("/msgbus/a?since=x"), "GET 'a' as '': 400 invalid: ", "invalid"),
            (post(headers=""), "POST 'foo' as '': 400 invalid: ", "invalid"),
            (get(method="BREW"), "BREW 'foo' as '': 405 method: ", "method"),
            (
                post(headers=f"{typed}Origin: http://evil.example\n"),
                "POST 'foo' as '': 403 cross_site: ",
                "cross_site",
            ),
            (
                get(host="Host: evil.example\n"),
                "GET 'foo' as '': 421 host: ",
                "host",
            ),
            (
                post("/msgbus/foo?require=1", headers=typed + ALICE),
                "POST 'foo' as 'alice': 409 no_subscriber: ",
                "no_subscriber",
            ),
        ):
            with self.subTest(line):
                self.assert_request(request, line, reason)

    def test_no_refusals(self):
        """
        Nothing is refused by a redirection, or if there is nothing at a path.
        """
        for path in ("/msgbus", "/none", "/msgbus/.js/none.js", "/"):
            self.assertEqual(self.refused(self.server.ask, get(path)), ([], []))

    def test_sign_in(self):
        """
        Who gives a wrong password, or may not do something, is logged with their name, and
        without the password.
        """
        users = {"alice": SECRET}
        self.server = Server(users=users, rules=RULES, verbosity=1)
        wrong = get("/msgbus/chat/a", authorization("alice:WRONG"))
        self.assert_request(wrong, "GET 'chat/a' as 'alice': 401 sign_in: ", "sign_in")
        self.assert_request(
            get("/msgbus/chat/a"), "GET 'chat/a' as '': 401 denied: ", "denied"
        )
        self.assert_request(
            get("/msgbus/other", ALICE), "GET 'other' as 'alice': 403 denied: ", "denied"
        )
        self.assert_request(
            get("/file?secret", authorization("alice:WRONG")),
            "GET '/file' as 'alice': 401 sign_in: ",
            "sign_in",
        )
        for _ in range(3):
            self.server.ask(wrong)
        self.assert_request(wrong, "GET 'chat/a' as 'alice': 429 guesses: ", "guesses")

    def test_connections(self):
        """
        A connection that is one too many, and one on which no HTTP is spoken, are logged.
        """
        lines, reasons = self.refused(lambda: self.server.connect().send("\x16\x03\n\n"))
        self.assertEqual(reasons, ["invalid"])
        self.assertTrue(lines[0].startswith("connection: 400 invalid: "), lines)
        self.server.site.connections = Connections(0)
        lines, reasons = self.refused(self.server.connect)
        self.assertEqual(reasons, ["connections"])
        self.assertTrue(lines[0].startswith("connection: 503 "), lines)
        self.server.site.connections = Connections(None, 0)
        lines, _ = self.refused(self.server.connect)
        self.assertTrue(lines[0].startswith("connection: 429 "), lines)

    def test_handshake(self):
        """
        A connection that ends with an error of TLS is logged.
        """
        peer = self.server.connect()
        error = SSL.Error([("SSL routines", "", "no shared cipher")])
        lines, reasons = self.refused(peer.leave, error)
        self.assertEqual(reasons, ["tls"])
        self.assertEqual(lines, ["tls: 400 tls: no shared cipher"])
        lines, _ = self.refused(self.server.connect().leave, SSL.SysCallError(-1, "end"))
        self.assertEqual(lines, ["tls: 400 tls: (-1, 'end')"])

    def test_streams(self):
        """
        A message in a stream that is refused is logged, and a stream that cannot be read.
        """
        headers = "Content-Type: application/x-ndjson\nAccept: application/x-ndjson\n"
        bad = '{"type": "", "body": "a"}\n{"type": "text/plain", "body": "b"}\n'
        lines, reasons = self.refused(
            self.server.ask, post("/msgbus/foo?format=ndjson", bad, headers)
        )
        self.assertEqual(reasons, ["invalid"])
        self.assertTrue(lines[0].startswith("stream 'foo' as '': 400 invalid: "), lines)
        parted = "Content-Type: multipart/x-mixed-replace;boundary=x\n"
        lines, reasons = self.refused(
            self.server.ask, post(body="--x\r\nnonsense\r\n\r\n", headers=parted)
        )
        self.assertEqual(reasons, ["invalid"])
        self.assertTrue(lines[0].startswith("stream 'foo' as '': 400 invalid: "), lines)

    def test_websockets(self):
        """
        A message from a WebSocket that is refused is logged, with the channel that it
        names; and a client that breaks the protocol.
        """

        def send(frame):
            peer = self.server.connect()
            peer.send(get("/msgbus/foo", UPGRADE))
            peer.send(frame)
            peer.leave(ConnectionDone())

        lines, _ = self.refused(send, text(channel="bar", require=True))
        self.assertEqual(len(lines), 1)
        self.assertTrue(lines[0].startswith("websocket 'bar' as '': 409 "), lines)
        lines, _ = self.refused(send, masked(Opcode.TEXT, b"nonsense"))
        self.assertTrue(lines[0].startswith("websocket 'foo' as '': 400 "), lines)
        lines, _ = self.refused(send, masked(Opcode.TEXT, b"x", reserved=0x70))
        self.assertEqual(len(lines), 1)
        self.assertTrue(lines[0].startswith("websocket 'foo' as '': 400 "), lines)

    def test_lost_rights(self):
        """
        A stream that ends because its subscriber has lost the right to it is logged.
        """
        users = {"alice": SECRET}
        self.server = Server(users=users, rules=RULES, verbosity=1)
        self.server.connect().send(get("/msgbus/chat/a", ALICE))
        self.server.turn()
        lines, _ = self.refused(self.server.allow, users, "alice publish chat/*\n")
        self.assertEqual(len(lines), 1)
        self.assertTrue(lines[0].startswith("stream 'chat/a' as 'alice': 403 "), lines)


class VerbosityTests(WebTestCase):
    """
    Of whom something is logged.
    """

    def all_of(self, **options):
        """
        The lines that are logged of two users, one after the other, who each subscribe,
        publish, and are refused something.
        """
        lines = log_lines(self, "msgbus.web.journal")
        for name, client in (("alice", "192.0.2.1"), ("bob", "192.0.2.2")):
            sender = authorization(f"{name}:")
            peer = self.server.connect(client=client, **options)
            peer.send(get("/msgbus/foo", sender))
            other = self.server.connect(client=client, **options)
            other.send(post(headers=f"Content-Type: text/plain\n{sender}"))
            other.send(post(headers=sender))
            peer.leave(ConnectionDone())
            other.leave(ConnectionDone())
        return [line.split(" at ")[0] for _, line in lines]

    def test_replaced(self):
        """
        The verbosity can be replaced while the bus runs, for everybody or for one user or
        address.
        """
        journal = self.server.resource.mount.journal
        self.assertEqual(self.all_of(), [])
        for exception in ("bob", "192.0.2.2"):
            journal.verbosity = Verbosity.of_all(0, [exception])
            lines = self.all_of()
            self.assertEqual(len(lines), 4, lines)
            self.assertTrue(all(line.startswith("192.0.2.2") for line in lines), lines)
        journal.verbosity = Verbosity(1)
        self.assertEqual(len(self.all_of()), 6)
        journal.verbosity = Verbosity(2)
        self.assertEqual(len(self.all_of()), 8)
        journal.verbosity = Verbosity(0)
        self.assertEqual(self.all_of(), [])
