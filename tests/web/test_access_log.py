"""
Tests for `msgbus.web.access_log`.
"""

import re

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from msgbus.fanout import Limits
from msgbus.web.access_log import AccessLog
from msgbus.web.connections import Connections

from ..memory import Server
from ..requests import authorization, get, post
from .websocket_testcase import UPGRADE

# The Combined Log Format, as the programs that read it have it.
COMBINED = re.compile(
    r'(\S+) - (\S+) \[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "((?:[^"\\]|\\.)*)"'
    r' (\d{3}) (\d+) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"\n'
)
CREDENTIALS = authorization("alice b:x")


class AccessLogTests(SynchronousTestCase):
    """
    The lines of an access log.
    """

    def setUp(self):
        self.written = []
        self.server = Server(limits=Limits(backlog=10_000_000))
        self.server.site.keep_access_log(AccessLog(self.written.append, lambda: 0.0))

    def lines(self):
        """
        The lines since the last call: the user, the request line, the status and the bytes.
        """
        lines, self.written[:] = list(self.written), []
        found = []
        for line in lines:
            self.assertTrue(line[:-1].isprintable(), line)
            fields = COMBINED.fullmatch(line)
            self.assertIsNotNone(fields, line)
            self.assertEqual(fields[1], "192.0.2.1")
            found.append((fields[2], fields[4], int(fields[5]), int(fields[6])))
        return found

    def test_requests(self):
        """
        Each request has a line, without its query, also one that was there before.
        """
        for _ in range(3):
            self.server.ask(post("/msgbus/foo?require=0"))
        self.assertEqual(self.lines(), [("-", "POST /msgbus/foo HTTP/1.1", 204, 0)] * 3)
        path = "/msgbus/foo?format=message&last=1"
        self.server.ask(get(path, CREDENTIALS))
        self.assertEqual(self.lines(), [("alice%20b", "GET /msgbus/foo HTTP/1.1", 200, 5)])
        code, _, body = self.server.ask(get("/msgbus/a?since=x"))
        self.assertEqual(self.lines(), [("-", "GET /msgbus/a HTTP/1.1", code, len(body))])

    def test_headers(self):
        """
        `Referer` has no query, and what is no plain character is escaped, as are quotation
        marks.
        """
        headers = 'Referer: http://a/b?link=s#s\nUser-Agent: "a\\ \x1b\x9b\n'
        self.server.ask(get("/x%22?s", headers))
        (line,) = self.written
        end = '404 41 "http://a/b" "\\x22a\\x5c \\x1b\\xc2\\x9b"\n'
        self.assertTrue(line.endswith(f'"GET /x%22 HTTP/1.1" {end}'), line)
        self.written.clear()
        self.server.connect().send('GET /"\\ HTTP/1.1\n' + "Host: localhost\n\n")
        self.assertEqual(self.lines()[0][1], "GET /\\x22\\x5c HTTP/1.1")

    def test_streams(self):
        """
        A stream has a line when it ends, with the bytes that it was sent; so has a
        WebSocket, and a message that is too large for one piece.
        """
        for headers, status in (("", 200), (UPGRADE, 101)):
            peer = self.server.connect()
            peer.send(get("/msgbus/foo", headers))
            _, _, opening = peer.answer()
            self.server.ask(post())
            sent = peer.received()
            self.assertIn(b"hello", sent)
            self.lines()
            peer.leave(ConnectionDone())
            ((user, line, code, size),) = self.lines()
            self.assertEqual((user, line), ("-", "GET /msgbus/foo HTTP/1.1"))
            self.assertEqual(code, status)
            self.assertGreaterEqual(size, len(sent))
            self.assertLessEqual(size, len(opening) + len(sent))
        self.server.ask(post(body="x" * 200_000))
        self.lines()
        _, _, body = self.server.ask(get("/msgbus/foo?format=message&last=1"))
        self.assertEqual(len(body), 200_000)
        self.assertEqual(self.lines()[0][2:], (200, 200_000))

    def test_stopped(self):
        """
        A stream that the bus ends has one line.
        """
        self.server.connect().send(get("/msgbus/foo"))
        self.server.resource.close()
        self.server.turn()
        self.assertEqual(len(self.lines()), 1)

    def test_gone(self):
        """
        A client that has gone before its answer has a line, unless its request had not come
        whole.
        """
        peer = self.server.connect()
        peer.send(get("/msgbus/foo?format=message&wait=60"))
        peer.leave(ConnectionDone())
        self.assertEqual(self.lines(), [("-", "GET /msgbus/foo HTTP/1.1", 499, 0)])
        peer = self.server.connect()
        peer.send("GET /msgbus/foo HTTP/1.1\nHost: ")
        peer.leave(ConnectionDone())
        self.assertEqual(self.lines(), [])

    def test_refused(self):
        """
        What cannot be read as a request has a line, and a connection that is refused.
        """
        self.server.connect().send("nonsense\n\n")
        self.server.site.connections = Connections(0)
        self.server.connect()
        lines = self.lines()
        self.assertEqual([line[:3] for line in lines], [("-", "-", 400), ("-", "-", 503)])
        self.assertTrue(all(line[3] > 20 for line in lines))
