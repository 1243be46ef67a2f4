"""
Tests for `msgbus.web.root`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.guesses import Guesses
from msgbus.web.origins import Origins

from ..memory import Server
from ..requests import authorization, get, post
from .testcase import WebTestCase


class PasswordTests(WebTestCase):
    """
    A bus that asks for a password.
    """

    options = {
        "secret": "sécret: x".encode(),
        "origins": Origins(allowed=["https://app.example"]),
    }
    good = authorization("álice:sécret: x")

    def test_asked_for(self):
        """
        Without the password, every request is refused with 401, and told how to give one.
        """
        bad = [
            authorization("alice:"),
            authorization("alice:secret"),
            authorization("sécret: x:"),
            authorization("a:sécret: xx"),
        ]
        bad += ["", "Authorization: Bearer x\n", authorization("alice:x" + "y" * 5000)]
        for headers in bad:
            for request in (
                post(headers="Content-Type: a/b\n" + headers),
                get(headers=headers),
                get("/", headers=headers),
                get("/msgbus", headers=headers),
                get("/x", headers=headers, method="BREW"),
                get(headers=headers, method="OPTIONS"),
            ):
                # Nobody is slowed down here.
                self.server.root.sign_in._guesses = Guesses()
                self.assert_refused(request, 401, "asks for a password")
        _, answered, _ = self.server.ask(get())
        self.assertEqual(answered["WWW-Authenticate"], 'Basic realm="msgbus"')

    def test_given(self):
        """
        With the password, every request is served, under any name or none; the name is the
        sender.
        """
        self.server.ask(post(headers="Content-Type: a/b\n" + self.good))
        self.server.ask(post(headers="Content-Type: a/b\n" + authorization(":sécret: x")))
        self.assertEqual([m.sender for m in self.published], ["álice", ""])
        for path, code in (("/msgbus/foo", 200), ("/", 200), ("/x", 404), ("/msgbus", 308)):
            self.assertEqual(self.server.ask(get(path, headers=self.good))[0], code)

    def test_broken(self):
        """
        A malformed `Authorization`, or two of them, is refused with 400.
        """
        self.assert_refused(get(headers="Authorization: Basic x\n"), 400, "not Basic")
        self.assert_refused(get(headers=self.good * 2), 400, "once only")

    def test_preflight(self):
        """
        A CORS preflight is answered without a password, and a page of an allowed origin may
        read a 401.
        """
        origin = "Origin: https://app.example\n"
        ask = get(
            method="OPTIONS", headers=f"{origin}Access-Control-Request-Method: POST\n"
        )
        self.assertEqual(self.server.ask(ask)[0], 204)
        code, headers, _ = self.server.ask(get(headers=origin))
        self.assertEqual(code, 401)
        self.assertEqual(headers["Access-Control-Allow-Origin"], "https://app.example")

    def test_rebound(self):
        """
        A request with a foreign `Host` is refused with 421 before the password is asked
        for.
        """
        self.assert_refused(get(host="Host: evil.example\n"), 421, "--host")

    def test_keeps_the_connection(self):
        """
        After a 401, the client can try again on the same connection.
        """
        peer = self.server.connect()
        for headers, code in (("", 401), (self.good, 204)):
            peer.send(post(headers="Content-Type: a/b\n" + headers))
            self.assertEqual(peer.answer()[0], code)

    def test_gone(self):
        """
        A subscriber that has given the password and leaves is unsubscribed.
        """
        peer, _, _ = self.subscribe(headers=self.good)
        peer.leave(ConnectionDone())
        self.assertEqual(list(self.server.bus._subscriptions.by_name), [""])


class GuardedDocumentTests(SynchronousTestCase):
    """
    Documents of a site that asks for a password.
    """

    def test_pages(self):
        """
        A document has the same headers with a password as without one; in particular, not
        those that disarm messages.
        """
        folder = Path(self.enterContext(TemporaryDirectory()))
        (folder / "void.html").write_bytes(b"")
        heads = []
        for secret in (None, b"x"):
            server = Server(documents=folder, secret=secret)
            code, headers, _ = server.ask(
                get("/void.html", authorization("alice:x"), method="HEAD")
            )
            self.assertEqual(code, 200)
            heads.append({name: value for name, value in headers.items() if name != "Date"})
        self.assertEqual(heads[0], heads[1])
        self.assertNotIn("Content-Security-Policy", heads[1])


class RootTests(WebTestCase):
    """
    Requests for what is not below the bus, on a site without documents.
    """

    def test_root(self):
        """
        The root of the site is a sentence that says where the bus is.
        """
        code, headers, body = self.server.ask(get("/"))
        self.assertEqual(code, 200)
        self.assertEqual(headers["Content-Type"], "text/plain; charset=utf-8")
        self.assertIn(b"/msgbus/CHANNEL", body)

    def test_published_to_the_root(self):
        """
        A POST to the root of the site is answered with 404, and told where the bus is.
        """
        code, _, body = self.server.ask(post("/"))
        self.assertEqual(code, 404)
        self.assertIn(b"/msgbus/", body)

    def test_elsewhere(self):
        """
        Every other path is answered with 404, and publishes nothing.
        """
        for path in ("/x", "/msgbusx", "//msgbus/foo", "/x/../msgbus/foo", "/a" * 8000):
            self.assertEqual(self.server.ask(get(path))[0], 404, path[:20])
        self.assertEqual(self.published, [])
