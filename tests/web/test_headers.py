"""
Tests for `msgbus.web.headers`, over HTTP.
"""

from msgbus.web.origins import Origins

from ..requests import HOST, get, post
from .testcase import SAFE, WebTestCase


class BrowserTests(WebTestCase):
    """
    Requests that web pages of any site can make a browser send.
    """

    options = {"origins": Origins(allowed=["https://app.example"], hosts=["bus.example"])}

    def test_cross_site(self):
        """
        A page of another site may publish only if its origin is allowed.
        """
        for headers in (
            "Origin: https://evil.example\n",
            "Origin: null\n",
            "Sec-Fetch-Site: cross-site\n",
            "Sec-Fetch-Site: same-site\n",
        ):
            self.assert_refused(
                post(headers="Content-Type: text/plain\n" + headers), 403, "--allow-origin"
            )
        for headers in (
            "Origin: https://app.example\nSec-Fetch-Site: cross-site\n",
            "Origin: http://localhost:8888\nSec-Fetch-Site: same-origin\n",
            "Origin: http://localhost:8888\n",
            "Origin: https://bus.example\n",
            "Sec-Fetch-Site: none\n",
        ):
            code, _, _ = self.server.ask(
                post(headers="Content-Type: text/plain\n" + headers)
            )
            self.assertEqual(code, 204, headers)

    def test_cors(self):
        """
        A page of an allowed origin may read the answers, and a page of another origin may
        not.
        """
        for origin, allowed in (
            ("https://app.example", True),
            ("https://evil.example", False),
        ):
            for request in (get, post):
                _, headers, _ = self.server.ask(
                    request(headers=f"Content-Type: a/b\nOrigin: {origin}\n")
                )
                self.assertEqual(headers["Vary"], "Accept, Origin")
                self.assertEqual(
                    headers.get("Access-Control-Allow-Origin"), origin if allowed else None
                )
                self.assertEqual(
                    headers["Cross-Origin-Resource-Policy"],
                    "cross-origin" if allowed else "same-origin",
                )

    def test_host(self):
        """
        A request that arrives on a loopback address is refused if its `Host` is no name of
        the bus; on other addresses any name passes.
        """
        evil = "Host: evil.example\n"
        for address in ("127.0.0.1", "127.9.9.9"):
            for request in (
                get("/", host=evil),
                get("/x", host=evil),
                post(host=evil),
                get(host=evil),
                get("/msgbus", host=evil),
                get(method="OPTIONS", host=evil),
                get("http://evil.example/msgbus/foo"),
            ):
                self.assert_refused(request, 421, "--host", address)
        for host in (
            "localhost",
            "a.localhost:1",
            "[::1]:8888",
            "192.0.2.1",
            "bus.example",
        ):
            self.assertEqual(self.server.ask(get(host=f"Host: {host}\n"))[0], 200)
        self.assertEqual(self.server.ask(get(host=evil), "192.0.2.1")[0], 200)

    def test_no_host(self):
        """
        An HTTP/1.1 request needs exactly one `Host`, even if its target has a host.
        """
        self.assert_refused(get(host=""), 400, "needs a Host")
        self.assert_refused(get(host=HOST * 2), 400, "once only")
        self.assert_refused(
            get("http://localhost/msgbus/foo", host=""), 400, "needs a Host"
        )
        self.assert_refused(get("http://localhost/msgbus/foo", host=HOST * 2), 400, "once")

    def test_safe(self):
        """
        Every answer of the bus, refusals too, has the headers that make it safe to open in
        a browser.
        """
        for request in (
            get(),
            get(version="1.0"),
            post(),
            get("/msgbus"),
            post(headers=""),
        ):
            _, headers, _ = self.server.ask(request)
            self.assertEqual({name: headers[name] for name in SAFE}, SAFE)
