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
    b"Msgbus-Id, Msgbus-Prefix, Msgbus-Subscribers",
)


class HostTests(SynchronousTestCase):
    """
    Names that a request on the loopback may call the bus by.
    """

    def test_own_names(self):
        """
        The bus is known as localhost, below it, and by any address.
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
        It is not known by anything else, whatever it looks like.
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
        An operator adds names, with a port or without, or all.
        """
        origins = Origins(hosts=("Bus.example", "two.example:8443"))
        for host in ("bus.example", "BUS.example:1", "two.example"):
            self.assertTrue(origins.knows_host(host), host)
        self.assertFalse(origins.knows_host("three.example"))
        self.assertTrue(Origins(hosts=("*",)).knows_host("three.example"))


class PublishTests(SynchronousTestCase):
    """
    Requests that may publish.
    """

    def test_no_browser(self):
        """
        What no browser sent may publish.
        """
        self.assertTrue(Origins().may_publish(None, None, "localhost:8888"))
        self.assertTrue(Origins().may_publish(None, None, None))

    def test_fetch_site(self):
        """
        `Sec-Fetch-Site` decides where it is present, and no origin overrules
        it but an allowed one.
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
        Without it, host and port of the origin must be those of `Host`; the
        scheme need not be, since TLS may end elsewhere.
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
        An origin may also be that of a `--host`, behind a proxy that changes
        `Host`; the star names none.
        """
        origins = Origins(hosts=("bus.example", "two.example:8443", "*"))
        for origin in ("https://bus.example", "https://two.example:8443"):
            self.assertTrue(origins.may_publish(origin, None, "127.0.0.1:8888"), origin)
        for origin in ("https://bus.example:1", "https://two.example", "https://x.example"):
            self.assertFalse(origins.may_publish(origin, None, "127.0.0.1:8888"), origin)

    def test_allowed(self):
        """
        An allowed origin may publish, whatever else there is.
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
        Any headers get an answer, and strangers never a yes by accident.
        """
        answer = Origins().may_publish(origin, site, host)
        if site is not None:
            self.assertEqual(answer, site in ("same-origin", "none"))


class GrantTests(SynchronousTestCase):
    """
    What a page is granted by CORS.
    """

    def test_listed(self):
        """
        A listed origin may read, and with its user's password.
        """
        self.assertEqual(
            Origins(allowed=("https://app.example",)).grants("https://app.example"),
            [
                (b"Access-Control-Allow-Origin", b"https://app.example"),
                (b"Access-Control-Allow-Credentials", b"true"),
                (
                    b"Access-Control-Expose-Headers",
                    b"Content-Location, ETag, From, Msgbus-Gap, Msgbus-Id, Msgbus-Prefix,"
                    b" Msgbus-Subscribers",
                ),
            ],
        )

    def test_any(self):
        """
        Any origin may read, but not in the name of its user.
        """
        self.assertEqual(
            Origins(allowed=("*",)).grants("https://app.example"),
            [
                (b"Access-Control-Allow-Origin", b"*"),
                (
                    b"Access-Control-Expose-Headers",
                    b"Content-Location, ETag, From, Msgbus-Gap, Msgbus-Id, Msgbus-Prefix,"
                    b" Msgbus-Subscribers",
                ),
            ],
        )


class MistakeTests(SynchronousTestCase):
    """
    What an operator may get wrong.
    """

    def test_no_origins(self):
        """
        What is no origin is refused when it is given.
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
        What is no host is refused when it is given.
        """
        for host in ("", "http://bus.example", "bus.example/x", "a b"):
            with self.assertRaisesRegex(Invalid, "is no host"):
                Origins(hosts=(host,))
