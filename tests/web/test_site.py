"""
Tests for `msgbus.web.site`.
"""

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from msgbus.web.channel import LINGER_BYTES
from msgbus.web.connections import Connections

from ..memory import Server

HEAD = "POST /msgbus/foo HTTP/1.1\nHost: localhost\nContent-Type: a/b\n"


class PaceTests(SynchronousTestCase):
    """
    How slowly a request may come.
    """

    def dribble(self, peer, data, seconds):
        """
        Send these bytes one by one, with so many seconds between them.  Returns what the
        server has sent until then.
        """
        sent = b""
        for byte in data:
            peer.send(bytes([byte]))
            peer.server.clock.advance(seconds)
            sent += peer.received()
        return sent

    def test_head(self):
        """
        A head that dribbles is refused after a minute in all.
        """
        peer = Server().connect()
        sent = self.dribble(peer, b"GET /msgbus/foo HTTP/1.1\r\n", 10)
        self.assertEqual(sent[:12], b"HTTP/1.1 408")

    def test_body(self):
        """
        So is a body, also of a request whose head is remembered.
        """
        server = Server()
        head = HEAD + "Content-Length: 100\n\n"
        for _ in range(3):
            peer = server.connect()
            peer.send(head)
            self.assertEqual(self.dribble(peer, b"x" * 50, 10)[:12], b"HTTP/1.1 408")
            peer = server.connect()
            peer.send(head + "x" * 100)
            self.assertEqual(peer.answer()[0], 204)

    def test_slow(self):
        """
        A request that comes slowly, but steadily, is not.
        """
        peer = Server().connect()
        peer.send(HEAD + "Content-Length: 300000\n\n")
        for _ in range(30):
            peer.send("x" * 10_000)
            peer.server.clock.advance(9)
        self.assertEqual(peer.answer()[0], 204)

    def test_several(self):
        """
        Each request has its own time.
        """
        peer = Server().connect()
        for _ in range(20):
            peer.send(HEAD + "Content-Length: 2\n\n")
            self.dribble(peer, b"x", 20)
            peer.send("x")
            self.assertEqual(peer.answer()[0], 204)


class ConnectionTests(SynchronousTestCase):
    """
    How many connections there may be.
    """

    def test_all(self):
        """
        A connection too many is told so and closed, until another has ended.
        """
        server = Server()
        server.site.connections = Connections(most=2)
        peers = [server.connect() for _ in range(3)]
        self.assertEqual([p.received()[:12] for p in peers], [b"", b"", b"HTTP/1.1 503"])
        server.clock.advance(2)
        self.assertTrue(peers[2].closed)
        for peer in peers[1:]:
            peer.leave(ConnectionDone())
        self.assertEqual(server.connect().received(), b"")

    def test_of_address(self):
        """
        The same for those from one address; what is sent on such a one is not answered
        otherwise.
        """
        server = Server()
        server.site.connections = Connections(of_address=1)
        first, second = server.connect(), server.connect()
        second.send(HEAD + "Content-Length: 0\n\n")
        first.send(HEAD + "Content-Length: 0\n\n")
        self.assertEqual(second.answer()[0], 429)
        self.assertEqual(first.answer()[0], 204)
        for peer in first, second:
            peer.leave(ConnectionDone())
        self.assertEqual(server.connect().received(), b"")

    def test_behind_the_proxy_protocol(self):
        """
        Connections whose proxy tells the address of its client count for the client, and
        never for the proxy: clients that say nothing lock nobody out.
        """
        server = Server()
        server.site.connections = Connections(of_address=1)
        wrapping = HAProxyWrappingFactory(server.site)

        def connect(client, data=b""):
            wire = StringTransport(peerAddress=IPv4Address("TCP", "10.0.0.9", 4711))
            wrapper = wrapping.buildProtocol(None)
            wrapper.makeConnection(wire)
            line = b"PROXY TCP4 %b 10.0.0.5 4711 8888\r\n" % client
            wrapper.dataReceived(line + data)
            return wire.value()[:12]

        request = HEAD.replace("\n", "\r\n").encode() + b"Content-Length: 0\r\n\r\n"
        silent = [connect(b"198.18.0.1") for _ in range(9)]
        self.assertEqual(silent, [b""] * 9)
        self.assertEqual(connect(b"198.18.0.2", request), b"HTTP/1.1 204")
        self.assertEqual(connect(b"198.18.0.2", request), b"HTTP/1.1 429")
        self.assertEqual(connect(b"198.18.0.3", request), b"HTTP/1.1 204")


class LimitTests(SynchronousTestCase):
    """
    What is too much.
    """

    def setUp(self):
        self.server = Server(max_message=1000)
        self.published = []
        self.server.bus.subscribe("", self.published.append)
        self.peer = self.server.connect()

    def assert_refused(self, code, sentence):
        answer, headers, body = self.peer.answer()
        self.assertEqual(answer, code)
        self.assertEqual(headers["Connection"], "close")
        self.assertEqual(headers["Content-Type"], "text/plain; charset=utf-8")
        self.assertEqual(int(headers["Content-Length"]), len(body))
        self.assertRegex(body.decode(), rf"\A[^\n]*{sentence}[^\n]*\.\n\Z")
        self.assertEqual(self.published, [])

    def test_largest(self):
        """
        A body of just the limit is published.
        """
        self.peer.send(HEAD + "Content-Length: 1000\n\n" + "x" * 1000)
        self.assertEqual(self.peer.answer()[0], 204)
        self.peer.send(
            HEAD + "Transfer-Encoding: chunked\n\n" + "1f4\n%s\n" % ("x" * 500) * 2
        )
        self.peer.send("0\n\n")
        self.assertEqual(self.peer.answer()[0], 204)
        self.assertEqual([len(m.body) for m in self.published], [1000, 1000])

    def test_declared(self):
        """
        A body that says that it is too large is refused before it comes, and
        nobody is told to go on.
        """
        self.peer.send(HEAD + "Content-Length: 1001\nExpect: 100-continue\n\n")
        self.assert_refused(413, "at most 1000 bytes")

    def test_huge(self):
        """
        Any number of bytes is too large.
        """
        for digits in (20, 31, 4000, 5000):
            self.peer = self.server.connect()
            self.peer.send(HEAD + f"Content-Length: {'9' * digits}\n\n")
            self.assert_refused(413, "at most 1000 bytes")

    def test_grown(self):
        """
        A chunked body that grows too large is refused when it does, once.
        """
        self.peer.send(HEAD + "Transfer-Encoding: chunked\n\n3e8\n" + "x" * 1000 + "\n")
        self.assertEqual(self.peer.received(), b"")
        self.peer.send("1\nx\n1\nx\n0\n\n" + "not HTTP\n")
        self.assert_refused(413, "at most 1000 bytes")
        self.assertEqual(self.peer.received(), b"")

    def test_one_piece(self):
        """
        It makes no difference if the refused request comes in one piece.
        """
        self.peer.send(HEAD + "Content-Length: 2000\n\n" + "x" * 2000 + HEAD)
        self.assert_refused(413, "at most 1000 bytes")

    def test_lingers(self):
        """
        A refused client may go on sending for a while, or it would see a
        reset before the answer; what it sends is no request.
        """
        self.peer.send(HEAD + "Content-Length: 2000\n\n")
        self.peer.received()
        self.server.clock.advance(1.9)
        self.peer.send("x" * 2000 + HEAD + "Content-Length: 0\n\n")
        self.assertFalse(self.peer.closed)
        self.assertEqual(self.peer.received(), b"")
        self.server.clock.advance(0.2)
        self.assertTrue(self.peer.closed)
        self.assertEqual(self.published, [])

    def test_lingers_in_bounds(self):
        """
        It may not go on for ever.
        """
        self.peer.send(HEAD + "Content-Length: 2000\n\n")
        self.peer.send(b"x" * LINGER_BYTES)
        self.assertFalse(self.peer.closed)
        self.peer.send(b"x")
        self.assertTrue(self.peer.closed)

    def test_gone_while_lingering(self):
        """
        A refused client that goes leaves no timer.
        """
        self.peer.send(HEAD + "Content-Length: 2000\n\n")
        self.peer.leave(ConnectionDone())
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_long_lines(self):
        """
        A line over 16 KiB is answered, be it of the request or a header.
        """
        for request in (
            "GET /msgbus/" + "x" * 17000,
            "GET /msgbus/" + "x" * 17000 + " HTTP/1.1\n",
            "GET /msgbus/foo HTTP/1.1\nHost: localhost\nX: " + "x" * 17000 + "\n\n",
        ):
            self.peer = self.server.connect()
            self.peer.send(request)
            self.assert_refused(431, "at most 16384 bytes")

    def test_many_headers(self):
        """
        Too many header lines are refused, and so are too many bytes of them.
        """
        for headers in ("X: y\n" * 501, f"X: {'y' * 1000}\n" * 17):
            self.peer = self.server.connect()
            self.peer.send("GET /msgbus/foo HTTP/1.1\nHost: localhost\n" + headers + "\n")
            self.assert_refused(400, "no HTTP")

    def test_no_http(self):
        """
        What is no HTTP is refused once, and what comes behind it is not read.
        """
        for request in (
            "NOPE\n",
            "GET / HTTP/2.0\n",
            "GET / HTTP/1.1\nBad Header: x\nA: b\n",
        ):
            self.peer = self.server.connect()
            self.peer.send(request)
            self.assert_refused(400, "no HTTP")
            self.peer.send("\nX: y\n\n" + HEAD + "Content-Length: 0\n\n")
            self.assertEqual(self.peer.received(), b"")

    def test_ended(self):
        """
        A connection whose last answer was given reads nothing more, and is cut
        if its peer does not let it be closed, or sends on and on.
        """
        for last in (
            "GET / HTTP/1.0\n\n",
            "GET / HTTP/1.1\nHost: [::1]\nConnection: close\n\n",
        ):
            self.peer = self.server.connect()
            self.peer.send(last + "x" * 20000 + HEAD + "Content-Length: 0\n\n")
            self.assertEqual(self.peer.answer()[0], 200)
            self.assertTrue(self.peer.transport.disconnecting)
            self.server.clock.advance(60)
            self.server.clock.advance(239)
            self.assertFalse(self.peer.transport.disconnected)
            self.server.clock.advance(1)
            self.assertTrue(self.peer.transport.disconnected)
        self.assertEqual(self.published, [])

    def test_idle(self):
        """
        An idle connection is closed, without a word to the log, and at last
        by force.
        """
        self.peer.send("GET / HTTP/1.1\nHost: localhost\n\n")
        self.server.clock.advance(59)
        self.assertFalse(self.peer.closed)
        self.server.clock.advance(1)
        self.assertTrue(self.peer.transport.disconnecting)
        self.server.clock.advance(60)
        self.server.clock.advance(240)
        self.assertTrue(self.peer.transport.disconnected)

    def test_idle_subscriber(self):
        """
        A subscriber may be idle for ever.
        """
        self.peer.send("GET /msgbus/foo HTTP/1.1\nHost: localhost\n\n")
        self.server.clock.advance(100_000)
        self.assertFalse(self.peer.closed)


class SiteTests(SynchronousTestCase):
    """
    The site itself.
    """

    def test_no_http2(self):
        """
        Over TLS, HTTP/2 is not offered.
        """
        protocols = Server().site.acceptableProtocols()
        self.assertEqual(protocols, [b"http/1.1", b"http/1.0"])
