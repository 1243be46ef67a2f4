"""
Tests for `msgbus.web.pages`.
"""

import hashlib
import json
import re
from base64 import b64encode
from pathlib import Path

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

import msgbus
from msgbus.access import Rules, Users
from msgbus.message import Message
from msgbus.web import Root
from msgbus.web.auth import portal_with
from msgbus.web.origins import Origins
from msgbus.web.visitor import Access

from ..memory import Server
from ..requests import authorization, get

PAGE = Path(msgbus.__file__).parent / "web" / "page"
BROWSER = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\n"
OTHERS = "Origin: https://app.example\n"


class LivePageTests(SynchronousTestCase):
    """
    The page at the address of a channel.
    """

    def setUp(self):
        self.server = Server()

    def page(self, path, headers=BROWSER, **kwargs):
        """
        The headers and the text of the answer, which is a page.
        """
        code, head, body = self.server.ask(get(path, headers, **kwargs))
        self.assertEqual(code, 200, body)
        self.assertEqual(head["Content-Type"], "text/html; charset=utf-8")
        return head, body.decode()

    def test_everywhere(self):
        """
        Channels, folders and the root have a page, whatever the query; nothing of the
        address is written into it, and serving it subscribes to nothing.
        """
        for path, root in (
            ("/msgbus/", "./"),
            ("/msgbus/foo", "./"),
            ("/msgbus/a/", "../"),
            ("/msgbus/a/b%2Fc/zebra", "../../"),
            ("/msgbus/zebra?type=text/*&since=1h&zebra", "./"),
        ):
            head, page = self.page(path)
            self.assertIn(f'src="{root}.js/live.js"', page)
            self.assertNotIn("zebra", page)
            self.assertEqual(int(head["Content-Length"]), len(page.encode()))
        # The script of the page subscribes; serving the page does not.
        receipt = self.successResultOf(self.server.bus.publish(Message("foo", b"")))
        self.assertEqual(receipt.subscribers, 0)

    def test_lists(self):
        """
        A list of channels has a page, whatever else the query says.
        """
        for path, root in (
            ("/msgbus/?list", "./"),
            ("/msgbus/a/b/?list&limit=3&after=zebra", "../../"),
        ):
            head, page = self.page(path)
            self.assertIn(f'src="{root}.js/list.js"', page)
            self.assertNotIn("zebra", page)
            self.assertIn("script-src 'nonce-", head["Content-Security-Policy"])
            self.assertEqual(head["Cache-Control"], "no-store")
        for path in ("/msgbus/foo?list", "/msgbus/?list&limit=0"):
            self.assertEqual(self.server.ask(get(path, BROWSER))[0], 400)

    def test_policy(self):
        """
        The page may run only its own script, by a nonce that is new each time, loads
        nothing else, and is not stored.
        """
        nonces = set()
        for _ in range(2):
            head, page = self.page("/msgbus/foo")
            (nonce,) = re.findall(r'<script type="module" nonce="([^"]{16,})" src=', page)
            nonces.add(nonce)
            self.assertEqual(
                head["Content-Security-Policy"],
                f"default-src 'none'; script-src 'nonce-{nonce}';"
                " style-src 'unsafe-inline'; img-src data:; connect-src 'self';"
                " base-uri 'none'; form-action 'none';"
                " frame-ancestors 'self'",
            )
            self.assertEqual(page.count("<script"), 1)
            self.assertEqual(head["Cache-Control"], "no-store")
            self.assertEqual(head["X-Content-Type-Options"], "nosniff")
            self.assertEqual(head["Referrer-Policy"], "no-referrer")
            self.assertEqual(head["Vary"], "Accept")
        self.assertEqual(len(nonces), 2)

    def test_head(self):
        """
        HEAD is answered with the headers alone.
        """
        head, page = self.page("/msgbus/foo", method="HEAD")
        self.assertEqual(page, "")
        self.assertGreater(int(head["Content-Length"]), 1000)

    def test_mistakes(self):
        """
        An invalid name or filter is refused in a browser too.
        """
        for path in ("/msgbus/a//b", "/msgbus/foo?type=!", "/msgbus/foo?format=x"):
            self.assertEqual(self.server.ask(get(path, BROWSER))[0], 400)

    def test_stream(self):
        """
        A client that asks for the stream gets it and not the page.
        """
        for path, headers in (
            ("/msgbus/foo?format=multipart", BROWSER),
            ("/msgbus/foo", "Accept: */*\n"),
            ("/msgbus/foo", ""),
        ):
            code, head, _ = self.server.ask(get(path, headers))
            self.assertEqual(code, 200)
            self.assertIn("multipart/x-mixed-replace", head["Content-Type"])
            self.assertEqual(head["Vary"], "Accept")


@implementer(ICredentialsChecker)
class AnyPassword:
    """
    Believes everybody's name.
    """

    credentialInterfaces = (IUsernamePassword,)

    def requestAvatarId(self, credentials):
        return succeed(credentials.username)


class SignInTests(SynchronousTestCase):
    """
    How the pages learn who has signed in, and ask those who have not.
    """

    def setUp(self):
        self.server = Server()

    def give_users(self, rules=b"* publish,subscribe *\n"):
        """
        From now on, the bus has users, and these rules.
        """
        users = Users({'a"<b': "hash"})
        access = Access(users, Rules.parse(rules, "access"))
        root = Root(None, None, portal_with(AnyPassword(), access), access)
        root.putChild(b"msgbus", self.server.resource)
        self.server.site.resource = root

    def page(self, headers=""):
        """
        The text of the live page.
        """
        return self.server.ask(get(headers=BROWSER + headers))[2].decode()

    def test_without_users(self):
        """
        A bus without users asks nobody, and its page has a field for any name.
        """
        code, head, body = self.server.ask(get("/msgbus/.sign-in"))
        self.assertEqual((code, body), (204, b""))
        self.assertEqual(head["Cache-Control"], "no-store")
        self.assertIn('<button id="sign-in" type="button" hidden>', self.page())
        self.assertIn('placeholder="nobody" >', self.page())

    def test_stranger(self):
        """
        Somebody who has not signed in is asked to, and gets a button for it.
        """
        self.give_users()
        code, head, body = self.server.ask(get("/msgbus/.sign-in"))
        self.assertEqual(code, 401)
        self.assertEqual(head["WWW-Authenticate"], 'Basic realm="msgbus"')
        self.assertIn(b"You have not signed in", body)
        self.assertIn('<button id="sign-in" type="button" >', self.page())
        self.assertIn('placeholder="nobody" >', self.page())

    def test_documents(self):
        """
        What is beside the bus is for those who may read some channel.
        """
        self.give_users()
        self.assertEqual(self.server.ask(get("/"))[0], 200)
        self.give_users(b'a"<b subscribe foo\n')
        code, _, body = self.server.ask(get("/"))
        self.assertEqual(code, 401)
        self.assertIn(b"lets you subscribe to nothing", body)
        self.assertEqual(self.server.ask(get("/", authorization('a"<b:x')))[0], 200)

    def test_user(self):
        """
        A user is not asked again, and sees the name that all publications will have.
        """
        self.give_users()
        user = authorization('a"<b:x')
        self.assertEqual(self.server.ask(get("/msgbus/.sign-in", user))[0], 204)
        page = self.page(user)
        self.assertIn('<button id="sign-in" type="button" hidden>', page)
        self.assertIn('placeholder="nobody" value="a&quot;&lt;b" disabled>', page)


class ChatTests(SynchronousTestCase):
    """
    The page of the chat demo.
    """

    def test_policy(self):
        """
        The policy of the page allows its inline script, by the hash that it has now, and
        exactly the modules that its module imports.
        """
        folder = PAGE.parents[1] / "chatdemo"
        page = (folder / "index.html").read_text()
        (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
        self.assertIn(f"default-src 'none'; script-src 'self' 'sha256-{digest}';", page)
        (paths,) = re.findall(r"\[(.+)\]", script)
        module = (folder / "chat.js").read_text()
        imported = re.findall(r'^(?:import|\}) .*"\./(.+)\.js";$', module, re.MULTILINE)
        self.assertEqual(set(json.loads(f"[{paths}]")), {"chat", *imported})
        self.assertLess(page.index("Content-Security-Policy"), page.index("<script"))


class ModuleTests(SynchronousTestCase):
    """
    The JavaScript modules that pages import.
    """

    def setUp(self):
        self.server = Server()

    def test_all(self):
        """
        Each module of the package is served as it is, and so is every module that it
        imports.
        """
        modules = sorted(PAGE.glob("*.js"))
        self.assertIn("msgbus.js", [file.name for file in modules])
        for file in modules:
            code, head, body = self.server.ask(get(f"/msgbus/.js/{file.name}"))
            self.assertEqual((code, body), (200, file.read_bytes()))
            self.assertEqual(head["Content-Type"], "text/javascript; charset=utf-8")
            self.assertEqual(head["X-Content-Type-Options"], "nosniff")
            for name in re.findall(
                r'^(?:im|ex)port .*from "\./(.+)";$', body.decode(), re.M
            ):
                self.assertIn(PAGE / name, modules)

    def test_again(self):
        """
        A browser that has a module asks whether it has changed, and gets 304 if not.
        """
        _, head, _ = self.server.ask(get("/msgbus/.js/msgbus.js"))
        self.assertEqual(head["Cache-Control"], "no-cache")
        known = f"If-None-Match: {head['ETag']}\n"
        code, _, body = self.server.ask(get("/msgbus/.js/msgbus.js", known))
        self.assertEqual((code, body), (304, b""))
        code, _, _ = self.server.ask(get("/msgbus/.js/msgbus.js", 'If-None-Match: "x"\n'))
        self.assertEqual(code, 200)

    def test_head(self):
        """
        HEAD is answered with the headers alone.
        """
        code, head, body = self.server.ask(get("/msgbus/.js/msgbus.js", method="HEAD"))
        self.assertEqual((code, body), (200, b""))
        self.assertEqual(
            int(head["Content-Length"]), len((PAGE / "msgbus.js").read_bytes())
        )

    def test_nothing_else(self):
        """
        No other file is served, however its path is written.
        """
        for name in (
            "live.html",
            "",
            "x.js",
            "../pages.py",
            "..%2Fpages.py",
            "%6Dsgbus.js",
        ):
            code, _, body = self.server.ask(get(f"/msgbus/.js/{name}"))
            self.assertEqual(code, 404)
            self.assertIn(b"list.js, live.js, look.js, msgbus.js", body)

    def test_other_origins(self):
        """
        A page of another site may import the modules only if its origin is allowed.
        """
        _, head, _ = self.server.ask(get("/msgbus/.js/msgbus.js", OTHERS))
        self.assertNotIn("Access-Control-Allow-Origin", head)
        self.assertEqual(head["Cross-Origin-Resource-Policy"], "same-origin")
        self.server = Server(origins=Origins(["https://app.example"]))
        _, head, _ = self.server.ask(get("/msgbus/.js/msgbus.js", OTHERS))
        self.assertEqual(head["Access-Control-Allow-Origin"], "https://app.example")

    def test_password(self):
        """
        The modules and the page ask for the password, if there is one.
        """
        self.server = Server(secret=b"x")
        for path, headers in (("/msgbus/.js/msgbus.js", ""), ("/msgbus/foo", BROWSER)):
            self.assertEqual(self.server.ask(get(path, headers))[0], 401)
