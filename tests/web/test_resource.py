"""
Tests for `msgbus.web.resource`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from twisted.web.server import Site as ForeignSite
from zope.interface.verify import verifyObject

from msgbus.bus.bus import Bus
from msgbus.match import Filter
from msgbus.message import Message
from msgbus.web.origins import Origins
from msgbus.web.resource import BusResource

from ..memory import Peer, Server, parts, unchunked
from ..requests import get, post
from .testcase import WebTestCase


class RequestTests(WebTestCase):
    """
    Which requests the resource takes, and that any bytes get an answer.
    """

    def test_methods(self):
        """
        A method that is none of ours, known to HTTP or not, is refused with 405.
        """
        for method in ("PATCH", "BREW", "get", "CONNECT", "TRACE"):
            self.assert_refused(get(method=method), 405, "POST or PUT")
        _, headers, _ = self.server.ask(get(method="BREW"))
        self.assertEqual(headers["Allow"], "GET, HEAD, POST, PUT, DELETE, OPTIONS")

    @given(st.binary(max_size=300))
    def test_any_bytes(self, data):
        """
        Any bytes are answered with a 4xx or wait for more bytes, and none of them cause an
        error in the log.
        """
        peer = Server().connect()
        peer.send(data)
        if received := peer.received():
            self.assertTrue(received.startswith(b"HTTP/1.1 4"), received)

    @given(
        st.binary(max_size=50).map(lambda b: b.hex("%")),
        st.text("=&%+;?*!,/a", max_size=50),
    )
    def test_any_target(self, path, query):
        """
        Any path and query below the bus is answered with 200 or 400.
        """
        path = f"%{path}" if path else ""
        code, _, _ = Server().ask(get(f"/msgbus/{path}?{query}"))
        self.assertIn(code, (200, 400))

    def test_no_slash(self):
        """
        The address of the bus without the slash at its end redirects to the one with it,
        and keeps the query.
        """
        for method in ("GET", "POST", "HEAD"):
            code, headers, _ = self.server.ask(get("/msgbus?type=a/*", method=method))
            self.assertEqual((code, headers["Location"]), (308, "/msgbus/?type=a/*"))


class OptionsTests(WebTestCase):
    """
    Answers to OPTIONS.
    """

    options = {"origins": Origins(allowed=["https://app.example"], hosts=["bus.example"])}

    def test_preflight(self):
        """
        A CORS preflight is granted to a page of an allowed origin, and refused to others.
        """
        ask = "Access-Control-Request-Method: PUT\n"
        code, headers, _ = self.server.ask(
            get(method="OPTIONS", headers=f"Origin: https://app.example\n{ask}")
        )
        self.assertEqual(code, 204)
        self.assertEqual(headers["Access-Control-Allow-Origin"], "https://app.example")
        self.assertEqual(
            headers["Access-Control-Allow-Methods"], "GET, HEAD, POST, PUT, DELETE, OPTIONS"
        )
        self.assertEqual(
            headers["Access-Control-Allow-Headers"],
            "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match,"
            " Last-Event-ID",
        )
        self.assert_refused(
            get(method="OPTIONS", headers=f"Origin: https://evil.example\n{ask}"),
            403,
            "--allow-origin",
        )

    def test_options(self):
        """
        OPTIONS is answered with the methods that the resource takes.
        """
        code, headers, _ = self.server.ask(get(method="OPTIONS"))
        self.assertEqual(
            (code, headers["Allow"]), (204, "GET, HEAD, POST, PUT, DELETE, OPTIONS")
        )


class MountedTests(SynchronousTestCase):
    """
    The resource in the resource tree, and the site, of another program.
    """

    def test_resource(self):
        """
        `BusResource` provides `IResource`.
        """
        verifyObject(IResource, BusResource(Bus(), Server().clock))

    def test_elsewhere(self):
        """
        A resource that is mounted at another path, and told so, serves there, and redirects
        and locates messages by that path.
        """
        server = Server()
        bus = Bus()
        resource = BusResource(bus, server.clock, prefix="/a%20b/bus/")
        server.root.putChild(b"a b", parent := type(server.root)())
        parent.putChild(b"bus", resource)
        code, headers, _ = server.ask(get("/a%20b/bus"))
        self.assertEqual((code, headers["Location"]), (308, "/a%20b/bus/"))
        peer = server.connect()
        peer.send(get("/a%20b/bus/c/"))
        peer.received()
        bus.publish(Message("c/d", b""))
        self.assertIn(b"Content-Location: /a%20b/bus/c/d\r\n", peer.received())

    def test_foreign_site(self):
        """
        In a plain site of Twisted, the resource publishes and subscribes, and reads
        parameters from the query alone, not from the body of a form.
        """
        server = Server()
        server.site = ForeignSite(server.root, reactor=server.clock)
        for version, decode in (("1.0", lambda data: [data]), ("1.1", unchunked)):
            peer = Peer(server, "127.0.0.1")
            peer.send(get("/msgbus/foo?type=*/x-www-form-urlencoded", version=version))
            _, _, opening = peer.answer()
            self.assertEqual(decode(opening), [f"--{server.bus.boundary}\r\n".encode()])
            form = "Content-Type: application/x-www-form-urlencoded\n"
            self.assertEqual(server.ask(post(headers=form, body="sender=eve"))[0], 204)
            (data,) = decode(peer.received())
            (part,) = parts(data, server.bus.boundary)
            self.assertEqual(part.body, b"sender=eve")
            peer.leave(ConnectionDone())
        self.assertEqual(server.bus._subscriptions.by_name, {})
        server.site.stopFactory()

    def test_stalled_in_a_foreign_site(self):
        """
        In a plain site of Twisted too, the connection of a client that takes no bytes is
        aborted; closing it would wait for the client.
        """
        server = Server()
        server.site = ForeignSite(server.root, reactor=server.clock)
        body = "x" * 100_000
        server.ask(post(body=body))
        for path in ("/msgbus/foo?format=message", "/msgbus/foo"):
            peer = Peer(server, "127.0.0.1")
            peer.send(get(path))
            server.turn()
            peer.transport.producer.pauseProducing()
            server.bus.publish(Message("foo", body.encode()))
            for _ in range(11):
                server.clock.advance(30)
            self.assertTrue(peer.transport.disconnected)
            self.assertEqual(server.resource.mount.fanout.counters.waiting, 0)
            peer.leave(ConnectionAborted())
        server.site.stopFactory()

    def test_python_subscriber(self):
        """
        A Python callable that subscribes at the bus gets what is published over HTTP.
        """
        server, got = Server(), []
        server.bus.subscribe("foo", got.append, Filter("text/*"))
        server.ask(post())
        self.assertEqual(got, [Message("foo", b"hello", "text/plain")])
