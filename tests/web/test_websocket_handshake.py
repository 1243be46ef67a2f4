"""
Tests for `msgbus.web.websocket_handshake`, over HTTP.
"""

from twisted.internet.testing import StringTransport
from twisted.web.server import Site as ForeignSite

from msgbus.bus.bus import Bus
from msgbus.message import Message
from msgbus.web.origins import Origins
from msgbus.web.resource import BusResource

from ..memory import Server
from ..requests import HOST, get
from .websocket_testcase import KEY, UPGRADE, WebSocketTestCase


class HandshakeTests(WebSocketTestCase):
    """
    Opening handshakes, right and wrong.
    """

    def test_open(self):
        """
        The answer has the `Sec-WebSocket-Accept` of the key, the id behind which the stream
        begins, and the prefix of the bus.
        """
        self.server.bus.publish(Message("foo", b""))
        self.open()
        self.assertEqual(self.head["Sec-Websocket-Accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.assertEqual(self.head["Upgrade"], "websocket")
        self.assertEqual(self.head["Msgbus-Id"], self.published[0].id)
        self.assertEqual(self.head["Msgbus-Prefix"], "/msgbus/")
        self.assertNotIn("Transfer-Encoding", self.head)
        self.assertNotIn("Content-Length", self.head)

    def test_mistakes(self):
        """
        A handshake with a mistake is refused, with a sentence that says what is wrong.
        """
        for old, new, code, sentence in (
            ("Connection: keep-alive, Upgrade", "Connection: close", 400, "Connection"),
            ("Version: 13", "Version: 8", 426, "13"),
            ("Sec-WebSocket-Version: 13\n", "", 426, "13"),
            (KEY, "AAAA", 400, "16 bytes"),
            (KEY, "ä" * 24, 400, "16 bytes"),
            (f"Sec-WebSocket-Key: {KEY}\n", "", 400, "16 bytes"),
            (KEY, f"{KEY}\nSec-WebSocket-Key: {KEY}", 400, "once"),
        ):
            self.assertIn(old, UPGRADE)
            request = get(headers=UPGRADE.replace(old, new))
            self.assert_refused(request, code, sentence)
        body = get(headers=UPGRADE + "Content-Length: 5\n") + "hello"
        self.assert_refused(body, 400, "body")
        self.assert_refused(get("/msgbus/..", UPGRADE), 400, "dot")
        self.assert_refused(get("/msgbus/foo?raw=2", UPGRADE), 400, "raw")

    def test_none(self):
        """
        A GET with a `Sec-WebSocket-Key` that lacks the upgrade, as behind some proxies, is
        refused with 426; a POST, or a GET without the key, is an ordinary request.
        """
        for request in (
            get(headers=UPGRADE, version="1.0"),
            get(headers=UPGRADE.replace("Upgrade: websocket", "X: y")),
        ):
            self.assert_refused(request, 426, "proxy")
        code, headers, _ = self.server.ask(get(headers="Upgrade: h2c\n"))
        self.assertEqual(code, 200)
        self.assertIn("multipart/", headers["Content-Type"])
        post = f"POST /msgbus/foo HTTP/1.1\n{HOST}{UPGRADE}Content-Type: a/b\n\n"
        self.assertEqual(self.server.ask(post)[0], 204)

    def test_foreign_pages(self):
        """
        A page of another site can open a WebSocket only if its origin is allowed.
        """
        for headers in ("Origin: http://evil.example\n", "Sec-Fetch-Site: cross-site\n"):
            self.assert_refused(get(headers=UPGRADE + headers), 403, "allow-origin")
        self.open(headers=UPGRADE + "Origin: http://localhost:8888\n")
        self.server = Server(origins=Origins(["https://app.example"]))
        self.open(headers=UPGRADE + "Origin: https://app.example\n")

    def test_foreign_site(self):
        """
        In a plain site of Twisted, a WebSocket is refused with 501.
        """
        resource = BusResource(Bus(), self.server.clock)
        root = self.server.root
        root.putChild(b"other", resource)
        protocol = ForeignSite(root, reactor=self.server.clock).buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(get("/other/foo", UPGRADE).replace("\n", "\r\n").encode())
        self.assertIn(b" 501 ", transport.value())
