"""
Tests for `msgbus.web.origins`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.message import Invalid
from msgbus.web.origins import Origins

EXPOSED = (
    b"Access-Control-Expose-Headers",
    b"Content-Location, ETag, From, Msgbus-Gap, Msgbus-Id, Msgbus-Origin,"
    b" Msgbus-Prefix, Msgbus-Subscribers, Retry-After",
)


class HostTests(SynchronousTestCase):
    """
    The names in `Host` that a request on a loopback address may have.
    """

    def test_own_names(self):
        """
        The bus is known as localhost, by all names below localhost, and by any IP address.
        """
        for host in (
            "localhost",
            "LocalHost:8888",
            "localhost.",
            "a.b.localhost:1",
            "127.0.0.1:8888",
            "[::1]:8888",
            "[::1]",
            "192.0.2.7",
        ):
            self.assertTrue(Origins().knows_host(host), host)

    def test_rebound_names(self):
        """
        The bus is not known by other names, even if they look like its own.
        """
        for host in (
            "evil.example",
            "evil.example:8888",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "",
            ":8888",
            "localhost@evil.example",
            "evil.example/localhost",
            "localhost evil",
            "[evil.example]",
            "[::1].evil.example",
            "localhost:80:80",
        ):
            self.assertFalse(Origins().knows_host(host), host)

    def test_given_names(self):
        """
        The names that an operator gives are known, with any port; a star makes every name
        known.
        """
        origins = Origins(hosts=("Bus.example", "two.example:8443"))
        for host in ("bus.example", "BUS.example:1", "two.example"):
            self.assertTrue(origins.knows_host(host), host)
        self.assertFalse(origins.knows_host("three.example"))
        self.assertTrue(Origins(hosts=("*",)).knows_host("three.example"))


class PublishTests(SynchronousTestCase):
    """
    Which requests may publish, by `Origin`, `Sec-Fetch-Site` and `Host`.
    """

    def test_no_browser(self):
        """
        A request without the headers of a browser may publish.
        """
        self.assertTrue(Origins().may_publish(None, None, "localhost:8888"))
        self.assertTrue(Origins().may_publish(None, None, None))

    def test_fetch_site(self):
        """
        If there is a `Sec-Fetch-Site`, it decides, unless the origin is allowed.
        """
        host = "localhost:8888"
        own = "http://localhost:8888"
        for site in ("same-origin", "none"):
            self.assertTrue(Origins().may_publish("null", site, host), site)
        for site in ("cross-site", "same-site", "", "Same-Origin, none"):
            self.assertFalse(Origins().may_publish(own, site, host), site)
            self.assertFalse(Origins().may_publish(None, site, host), site)

    def test_own_origin(self):
        """
        Without `Sec-Fetch-Site`, the host and the port of the origin have to be those of
        `Host`; the scheme is not compared, since TLS may end at a proxy.
        """
        for origin, host in (
            ("http://localhost:8888", "localhost:8888"),
            ("https://Bus.example", "bus.example"),
            ("https://bus.example", "bus.example:443"),
            ("http://[::1]:8888", "[::1]:8888"),
        ):
            self.assertTrue(Origins().may_publish(origin, None, host), origin)
        for origin, host in (
            ("http://localhost:3000", "localhost:8888"),
            ("https://bus.example", "bus.example:80"),
            ("http://evil.example", "localhost:8888"),
            ("http://localhost:8888.evil.example", "localhost:8888"),
            ("http://localhost:8888@evil.example", "localhost:8888"),
            ("null", "null"),
            ("", ""),
            ("http://localhost:8888", None),
            ("file://", ""),
        ):
            self.assertFalse(Origins().may_publish(origin, None, host), origin)

    def test_known_host(self):
        """
        The origin may also be one of the names given by `--host`, for proxies that change
        `Host`; a star there allows no origin.
        """
        origins = Origins(hosts=("bus.example", "two.example:8443", "*"))
        for origin in ("https://bus.example", "https://two.example:8443"):
            self.assertTrue(origins.may_publish(origin, None, "127.0.0.1:8888"), origin)
        for origin in ("https://bus.example:1", "https://two.example", "https://x.example"):
            self.assertFalse(origins.may_publish(origin, None, "127.0.0.1:8888"), origin)

    def test_allowed(self):
        """
        A page of an allowed origin may publish, whatever the other headers say.
        """
        origins = Origins(allowed=("https://App.example", "http://two.example:80"))
        for origin in (
            "https://app.example",
            "https://app.example:443",
            "http://two.example",
        ):
            self.assertTrue(origins.may_publish(origin, "cross-site", "localhost"), origin)
        for origin in (
            "http://app.example",
            "https://app.example:1",
            "https://a.app.example",
        ):
            self.assertFalse(origins.may_publish(origin, "cross-site", "localhost"), origin)

    def test_any(self):
        """
        A star allows any origin.
        """
        origins = Origins(allowed=("*",))
        for origin in ("https://x.example", "null", None):
            self.assertTrue(origins.may_publish(origin, "cross-site", "localhost"), origin)

    @given(st.none() | st.text(), st.none() | st.text(), st.none() | st.text())
    def test_total(self, origin, site, host):
        """
        Any headers are judged without an error, and a `Sec-Fetch-Site` decides.
        """
        answer = Origins().may_publish(origin, site, host)
        if site is not None:
            self.assertEqual(answer, site in ("same-origin", "none"))


class GrantTests(SynchronousTestCase):
    """
    The CORS headers that a page is granted.
    """

    def test_listed(self):
        """
        A page of a listed origin may read answers, and send its user's password.
        """
        self.assertEqual(
            Origins(allowed=("https://app.example",)).grants("https://app.example"),
            [
                (b"Access-Control-Allow-Origin", b"https://app.example"),
                (b"Access-Control-Allow-Credentials", b"true"),
                EXPOSED,
            ],
        )

    def test_any(self):
        """
        If any origin is allowed, pages may read answers, but not send their users'
        passwords.
        """
        self.assertEqual(
            Origins(allowed=("*",)).grants("https://app.example"),
            [
                (b"Access-Control-Allow-Origin", b"*"),
                EXPOSED,
            ],
        )


class MistakeTests(SynchronousTestCase):
    """
    Origins and hosts that an operator mistypes.
    """

    def test_no_origins(self):
        """
        A string that is no origin is refused when `Origins` is made.
        """
        for origin in (
            "app.example",
            "https://app.example/",
            "https://a b",
            "null",
            "://x",
        ):
            with self.assertRaisesRegex(Invalid, "is no origin"):
                Origins(allowed=(origin,))

    def test_no_hosts(self):
        """
        A string that is no host name is refused when `Origins` is made.
        """
        for host in ("", "http://bus.example", "bus.example/x", "a b"):
            with self.assertRaisesRegex(Invalid, "is no host"):
                Origins(hosts=(host,))
