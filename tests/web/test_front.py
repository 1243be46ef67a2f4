"""
Tests for `msgbus.web.front`, and for what is answered in its place.
"""

import re

from twisted.web.resource import Resource
from twisted.web.test.requesthelper import DummyRequest

from msgbus.web.pages import closed_page

from ..memory import Server
from ..requests import authorization, get, post
from .test_rights import USERS
from .testcase import WebTestCase

BROWSER = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\n"
SENTENCE = b"This is msgbus: POST to /msgbus/CHANNEL, and GET it.\n"


class FrontTests(WebTestCase):
    """
    The root of a site without documents.
    """

    def test_page(self):
        """
        A browser gets a page, which may run one script of the bus and nothing else.
        """
        code, headers, body = self.server.ask(get("/", BROWSER))
        self.assertEqual(code, 200)
        self.assertEqual(headers["Content-Type"], "text/html; charset=utf-8")
        self.assertEqual(headers["Vary"], "Accept")
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
        self.assertIn(b"This is a message bus.", body)
        (nonce,) = re.findall(
            rb'<script type="module" nonce="([^"]{16,})" src="msgbus/', body
        )
        self.assertEqual(body.count(b"<script"), 1)
        policy = headers["Content-Security-Policy"]
        self.assertIn(f"default-src 'none'; script-src 'nonce-{nonce.decode()}';", policy)
        code, headers, body = self.server.ask(get("/", BROWSER, method="HEAD"))
        self.assertEqual((code, body), (200, b""))

    def test_sentence(self):
        """
        A program gets a sentence.
        """
        for accept in ("", "Accept: */*\n", "Accept: \xff\n"):
            code, headers, body = self.server.ask(get("/", accept))
            self.assertEqual((code, body), (200, SENTENCE))
            self.assertEqual(headers["Content-Type"], "text/plain; charset=utf-8")
            self.assertEqual(headers["Vary"], "Accept")

    def test_elsewhere(self):
        """
        There is no such page at any other path, nor for another method.
        """
        for path in ("/x", "/?/x", "//"):
            code, headers, _ = self.server.ask(get(path, BROWSER))
            self.assertEqual(code, 200 if path == "/?/x" else 404)
        code, headers, _ = self.server.ask(
            post("/", headers=f"Content-Type: a/b\n{BROWSER}")
        )
        self.assertEqual(code, 404)
        self.assertIn("text/plain", headers["Content-Type"])

    def test_mounted_elsewhere(self):
        """
        The page finds the bus by whatever name it is below the root; where there is no bus,
        there is no page.
        """
        root = self.server.root
        root.putChild(b"a b", root.children.pop(b"msgbus"))
        _, _, body = self.server.ask(get("/", BROWSER))
        self.assertIn(b'src="a%20b/.js/front.js"', body)
        root.children[b"a b"] = Resource()
        self.assertEqual(self.server.ask(get("/", BROWSER))[2], SENTENCE)


class ClosedTests(WebTestCase):
    """
    What those get who may not see the front page.
    """

    options = {"users": USERS, "rules": "alice subscribe *\ndave publish *\n"}

    def assert_closed(self, headers, code, sentence):
        """
        Assert that a browser gets a page without scripts that says this, and a program the
        sentence.
        """
        answer, head, body = self.server.ask(get("/", BROWSER + headers))
        self.assertEqual(answer, code)
        self.assertEqual(head["Content-Type"], "text/html; charset=utf-8")
        self.assertIn("default-src 'none'; style-src", head["Content-Security-Policy"])
        self.assertEqual(head["Cache-Control"], "no-store")
        self.assertEqual("WWW-Authenticate" in head, code == 401)
        self.assertRegex(body, sentence)
        self.assertNotIn(b"<script", body)
        self.assert_refused(get("/", headers), code, "")

    def test_closed(self):
        """
        The page says why; with 401, the browser asks for a name and a password.
        """
        self.assert_closed("", 401, b"lets you subscribe to nothing")
        self.assert_closed(authorization("dave:other"), 403, b"subscribe to nothing")
        self.assert_closed(authorization("x<b>:other"), 401, b"asks for a password")
        code, _, body = self.server.ask(get("/", BROWSER + authorization("alice:other")))
        self.assertEqual(code, 200)
        self.assertIn(b'value="alice" disabled', body)

    def test_password(self):
        """
        Where one password is for all, the page asks for it.
        """
        self.server = Server(secret=b"x")
        self.assert_closed("", 401, b"<p>This bus asks for a password: give it by")

    def test_escaped(self):
        """
        What is text in the sentence is text in the page.
        """
        request = DummyRequest([b""])
        request._disconnected = False
        closed_page(request, 403, "No <b>, 'you' & \"I\".")
        self.assertIn(
            b"<p>No &lt;b&gt;, &#x27;you&#x27; &amp; &quot;I&quot;.</p>",
            b"".join(request.written),
        )
