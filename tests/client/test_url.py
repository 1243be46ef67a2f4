"""
Tests for `msgbus.client.url`.
"""

from traceback import format_exception
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.url import DEFAULT_URL, BusURL, locate
from msgbus.message import Invalid
from msgbus.web.query import channel_name

from ..strategies import characters, names

BUS = BusURL("http", "bus.example", 8888, "", "/msgbus/")
SECRET = "Tr0ub4dor"

# Text that is often the beginning of a URL.
urls = st.builds(
    str.__add__,
    st.sampled_from(
        ["", "http://", "https://a:b@", "http+unix://", "HTTP://[", "//", "x:"]
    ),
    st.text(max_size=40) | st.text("@:/?#[]%\\.\n 0aä", max_size=20),
)
ascii_characters = [chr(code) for code in range(128)]


def text_of(address):
    """
    Every text form of a URL.
    """
    return f"{address} {address!r} {address:} {[address]}"


class ParseTests(SynchronousTestCase):
    """
    URLs as text, read.
    """

    def parse_all(self, table):
        for url, address in table:
            self.assertEqual(BusURL.parse(url), address, url)

    def complaint(self, url):
        with self.assertRaises(Invalid, msg=url) as caught:
            BusURL.parse(url)
        return str(caught.exception)

    def test_urls(self):
        """
        Scheme, host and port are read; without a port, it is the usual one of the scheme.
        """
        self.parse_all(
            (
                ("http://bus.example:8888/msgbus/", BUS),
                ("HTTP://Bus.Example:8888/msgbus/", BUS),
                ("http://h/foo", BusURL("http", "h", 80, "", "/foo")),
                ("http://h:/foo", BusURL("http", "h", 80, "", "/foo")),
                ("https://h/foo", BusURL("https", "h", 443, "", "/foo")),
                ("https://h:80/foo", BusURL("https", "h", 80, "", "/foo")),
                ("http://192.0.2.1:1/foo", BusURL("http", "192.0.2.1", 1, "", "/foo")),
                (DEFAULT_URL, BusURL("http", "localhost", 8888, "", "/msgbus/")),
            )
        )

    def test_path(self):
        """
        A URL without a path gets the default one.  Characters that a path or query may not
        hold are percent-encoded, and what is percent-encoded already stays.
        """
        for url, path, query in (
            ("http://h", "/msgbus/", ""),
            ("http://h/", "/msgbus/", ""),
            ("http://h?last=1", "/msgbus/", "last=1"),
            ("http://h/bus/", "/bus/", ""),
            ("http://h/a b/ä%2F%41", "/a%20b/%C3%A4%2F%41", ""),
            ("http://h/!$&'()*+,;=:@x", "/!$&'()*+,;=:@x", ""),
            ("http://h/x?a=b c&d=ä?/%20\"'", "/x", "a=b%20c&d=%C3%A4?/%20%22'"),
            ("http://h/x#fragment", "/x", ""),
        ):
            self.assertEqual(
                BusURL.parse(url), BusURL("http", "h", 80, "", path, query), url
            )

    def test_credentials(self):
        """
        Name and password are decoded.  Either may be missing.  The last `@` ends them.
        """
        for credentials, user, password in (
            ("alice:secret", "alice", "secret"),
            ("%C3%A4%20b:p%40%3A%2F%25", "ä b", "p@:/%"),
            ("alice:a:b", "alice", "a:b"),
            ("alice:a@b", "alice", "a@b"),
            ("alice", "alice", ""),
            ("alice:", "alice", ""),
            (":secret", "", "secret"),
            ("", "", ""),
        ):
            self.assertEqual(
                BusURL.parse(f"https://{credentials}@h/x"),
                BusURL("https", "h", 443, "", "/x", "", user, password),
                credentials,
            )

    def test_ipv6(self):
        """
        An IPv6 address is kept without brackets, and is written with them.
        """
        address = BusURL.parse("http://alice:secret@[2001:DB8::1]:8888/x")
        self.assertEqual(
            address, BusURL("http", "2001:db8::1", 8888, "", "/x", "", "alice", "secret")
        )
        self.assertEqual(address.authority, "[2001:db8::1]:8888")
        self.assertEqual(str(address), "http://[2001:db8::1]:8888/x")
        self.assertEqual(str(BusURL.parse("https://[::1]/x")), "https://[::1]/x")

    def test_unix(self):
        """
        The path of a Unix socket stands in place of the host, and keeps its capitals.
        """
        socket = "/run/Msg bus.sock"
        where = "http+unix://%2Frun%2FMsg%20bus.sock"
        self.parse_all(
            (
                (
                    f"{where}/foo?a=b",
                    BusURL("http", "localhost", 0, socket, "/foo", "a=b"),
                ),
                (where, BusURL("http", "localhost", 0, socket, "/msgbus/")),
            )
        )
        address = BusURL.parse("http+unix://alice:secret@%2FA/x")
        self.assertEqual(
            address, BusURL("http", "localhost", 0, "/A", "/x", "", "alice", "secret")
        )
        self.assertEqual(address.authority, "localhost")
        self.assertEqual(str(BusURL.parse(f"{where}/foo?a=b")), f"{where}/foo?a=b")

    def test_refused(self):
        """
        Text that is no URL of a bus is refused, by a sentence that quotes it.
        """
        for url in ("", "foo", "localhost:8888", "ftp://h/", "//h/", "ws://h", "httpx://h"):
            self.assertEqual(
                self.complaint(url),
                f"{url!r} is no URL of a bus: it begins with http://, https:// or"
                " http+unix://.",
            )
        for url in (
            "http:",
            "http://",
            "http:///msgbus/",
            "https://:8888/",
            "http+unix:///run/msgbus.sock",
            "http://a b/",
            "http://a\x1bc/",
            "http://a\x7f/",
            "http://a\x85/",
        ):
            self.assertEqual(self.complaint(url), f"{url!r} names no host.")
        self.assertEqual(self.complaint("http://a:b@/"), "'http:///' names no host.")
        for url in (
            "http://h:x/",
            "http://h:65536/",
            "http://h:-1/",
            "http://h:٣/",
            "http://[::1/",
            "http://::1]/",
            "http+unix://a:b/",
        ):
            self.assertEqual(
                self.complaint(url), f"{url!r} is no URL, by its host or port."
            )

    @given(urls)
    def test_total(self, url):
        """
        Any text is either a URL that can be printed and requested, or `Invalid`.
        """
        try:
            address = BusURL.parse(url)
        except Invalid as error:
            self.assertTrue(str(error).endswith("."))
        else:
            self.assertTrue(address.target.isascii())
            self.assertTrue(address.target.startswith("/"))
            self.assertNotIn(" ", address.target)
            self.assertTrue(text_of(address))

    @given(
        st.sampled_from(["http", "https"]),
        st.sampled_from(["h", "bus.example", "192.0.2.1", "::1"]),
        st.integers(1, 65535),
        st.text(characters, min_size=1),
        st.text(characters),
    )
    def test_round_trip(self, scheme, host, port, path, query):
        """
        `str()` gives a URL that means the same, without name and password.
        """
        address = BusURL(scheme, host, port, "", "/" + quote(path), quote(query))
        shown = str(address.with_credentials("alice", SECRET))
        self.assertEqual(BusURL.parse(shown), address)

    def test_links(self):
        """
        `str()` shows no link, which would give its right to whoever reads the log.
        """
        where = "http://bus.example/msgbus/foo"
        for query, shown in (
            ("link=secret", "link=..."),
            ("since=all&link=secret&last=1", "since=all&link=...&last=1"),
            ("l%69nk=secret", "link=..."),
            ("type=link&blink=x", "type=link&blink=x"),
        ):
            address = BusURL.parse(f"{where}?{query}")
            self.assertEqual(str(address), f"{where}?{shown}")
            self.assertEqual(address.target, f"/msgbus/foo?{query}")

    @given(st.text(characters, min_size=1))
    def test_round_trip_unix(self, socket):
        """
        The same is true for a Unix socket, whatever its path.
        """
        address = BusURL("http", "localhost", 0, socket, "/msgbus/foo")
        self.assertEqual(BusURL.parse(str(address)), address)

    def test_surrogates(self):
        """
        Text that is no UTF-8, as arguments of a program may be, is refused in every part
        of a URL.
        """
        for url in (
            "http://h/\udcff",
            "http://h/?\udcff",
            "http://h\udcff/",
            "http://\udcff@h/",
            "http://a:\udcff@h/",
            "http+unix://\udcff/",
        ):
            self.complaint(url)

    def test_nowhere(self):
        """
        Port 0 is refused, and so is a socket with a port, or with a zero byte in its path:
        nothing can listen there.
        """
        for url in ("http://h:0/", "http+unix://%2Fx:81/", "http+unix://%2Fx%00/"):
            self.complaint(url)


class SecretTests(SynchronousTestCase):
    """
    Passwords, which are shown nowhere.
    """

    def shown(self, url, environment=None):
        """
        All that anyone sees of this URL.
        """
        try:
            address = BusURL.parse(url) if environment is None else locate(url, environment)
        except Invalid as error:
            # With what caused it.
            return "".join(format_exception(error)) + repr(error)
        return text_of(address)

    def test_address(self):
        """
        An address shows its name at most, and none of both as a string.
        """
        address = BusURL.parse(f"http://alice:{SECRET}@bus.example:8888")
        self.assertEqual(str(address), "http://bus.example:8888/msgbus/")
        self.assertEqual(
            repr(address),
            "BusURL(scheme='http', host='bus.example', port=8888, socket='',"
            " path='/msgbus/', query='', user='alice')",
        )
        for other in (
            address.channel("x"),
            address.with_parameters({"a": 1}),
            BUS.with_credentials("", SECRET),
        ):
            self.assertNotIn(SECRET, text_of(other))

    def test_refused(self):
        """
        The complaint about a URL does not show its password.
        """
        for before, after in (
            ("ftp://alice:", "@h/"),
            ("://alice:", "@h/"),
            ("http://alice:", "@"),
            ("http://alice:", "@:80/"),
            ("http://alice:", "@h:x/"),
            ("http://alice:", "@h:99999/"),
            ("http://alice:", "@a b/"),
            ("http://alice:", "@[::1/"),
            ("http://alice:", "\n@a b/"),
            ("http://alice:a@b:", "@a b/x@y"),
            ("http+unix://alice:", "@/run/x.sock"),
        ):
            url = before + SECRET + after
            with self.assertRaises(Invalid, msg=url):
                BusURL.parse(url)
            self.assertNotIn(SECRET, self.shown(url))

    def test_environment(self):
        """
        A password in the environment is not shown either.
        """
        for environment in (
            {"MSGBUS_PASSWORD": SECRET},
            {"MSGBUS_URL": f"http://alice:{SECRET}@h/"},
            {"MSGBUS_URL": f"http://alice:{SECRET}@h:x/"},
            {"MSGBUS_URL": f"ftp://alice:{SECRET}@h/"},
        ):
            for text in ("foo", "../x", "http://h/", "http://h:x/", "localhost:8888/x"):
                self.assertNotIn(SECRET, self.shown(text, environment))

    @given(
        st.sampled_from(["http", "https", "http+unix", "ftp", "", " http", "a b"]),
        st.text([c for c in ascii_characters if c not in "/?#[]"], max_size=5),
        st.text([c for c in ascii_characters if c not in "/?#[]"], max_size=5),
        st.text(ascii_characters, max_size=20),
    )
    def test_garbled(self, scheme, user, more, rest):
        """
        Whatever else is wrong with a URL, a password before its `@` is not shown.
        """
        url = f"{scheme}://{user}:{SECRET}{more}@{rest}"
        self.assertNotIn(SECRET, self.shown(url))
        self.assertNotIn(SECRET, self.shown(url, {}))

    def test_hostile(self):
        """
        The password is not shown if the URL lacks slashes, if the password is not
        percent-encoded, or if Python refuses the host.
        """
        for before, after in (
            ("http:alice:", "@h/"),
            ("http:/alice:", "@h/"),
            ("//alice:", "@h/"),
            ("alice:", "@h/"),
            ("alice:", "@http://h/"),
            ("http://alice:", "@ho℀st/"),
            ("http://alice:", "/more@h/"),
            ("http://alice:", "?more@h/"),
            ("http://alice:[", "]@h/"),
        ):
            url = before + SECRET + after
            self.assertNotIn(SECRET, self.shown(url), url)

    def test_no_scheme(self):
        """
        A URL without its scheme is refused, and is not taken for the name of a channel.
        """
        for text in (
            f"alice:{SECRET}@bus.example:8888/msgbus/foo",
            f"alice:{SECRET}@bus.example/msgbus/foo",
            f"http:/alice:{SECRET}@bus.example/msgbus/foo",
            f"alice:1/{SECRET}@bus.example:8888/msgbus/foo",
        ):
            with self.assertRaises(Invalid, msg=text):
                locate(text, {})
            self.assertNotIn(SECRET, self.shown(text, {}), text)


class DerivedTests(SynchronousTestCase):
    """
    URLs made from other URLs.
    """

    def test_channel(self):
        """
        The URL of a channel has the path of the bus before the encoded name, and the same
        query, name and password.
        """
        bus = BusURL.parse("https://alice:secret@h/bus?a=b")
        for name, path in (
            ("", "/bus/"),
            ("foo", "/bus/foo"),
            ("a b/ä/", "/bus/a%20b/%C3%A4/"),
            ("100%/?#", "/bus/100%25/%3F%23"),
        ):
            expected = BusURL("https", "h", 443, "", path, "a=b", "alice", "secret")
            self.assertEqual(bus.channel(name), expected)
        self.assertEqual(BUS.channel("foo").path, "/msgbus/foo")

    @given(names)
    def test_channel_round_trip(self, name):
        """
        The server reads the name of the channel back from the path, for every name.
        """
        path = BUS.channel(name).path
        self.assertTrue(path.startswith("/msgbus/"))
        self.assertEqual(channel_name(path.removeprefix("/msgbus/").encode("ascii")), name)
        self.assertEqual(BusURL.parse(str(BUS.channel(name))), BUS.channel(name))

    def test_no_channel(self):
        """
        Text that is no name of a channel is refused.
        """
        for name in ("/foo", "a//b", "../x", "a\nb", "a\\b", "x" * 1025, "\udcff"):
            with self.assertRaises(Invalid, msg=name[:20]):
                BUS.channel(name)

    def test_split(self):
        """
        The URL of a channel is split into that of its folder and its decoded name there.
        For a folder the name is empty.
        """
        for url, path, name in (
            ("http://a:b@h/msgbus/foo?c=d", "/msgbus/", "foo"),
            ("http://a:b@h/msgbus/x%20y/%C3%A4%25?c=d", "/msgbus/x%20y/", "ä%"),
            ("http://a:b@h/msgbus/x/?c=d", "/msgbus/x/", ""),
            ("http://a:b@h/foo?c=d", "/", "foo"),
        ):
            folder = BusURL("http", "h", 80, "", path, "c=d", "a", "b")
            self.assertEqual(BusURL.parse(url).split(), (folder, name))

    @given(names)
    def test_split_round_trip(self, name):
        """
        The channel with the name in the folder is the URL that was split.
        """
        folder, last = BUS.channel(name).split()
        self.assertEqual(folder.channel(last), BUS.channel(name))

    def test_with_parameters(self):
        """
        Parameters are encoded and added at the end of the query; those that are empty or
        zero are left out.
        """
        parameters = {
            "type": "image/*,!image/svg+xml",
            "sender": "ä &=b",
            "channel": "",
            "last": 0,
            "heartbeat": 25,
        }
        query = "type=image/*,!image/svg%2Bxml&sender=%C3%A4%20%26%3Db&heartbeat=25"
        self.assertEqual(BUS.with_parameters(parameters).query, query)
        asked = BusURL.parse("http://a:b@h/x?y=z").with_parameters({"last": 5})
        self.assertEqual(asked, BusURL("http", "h", 80, "", "/x", "y=z&last=5", "a", "b"))
        self.assertEqual(BUS.with_parameters({}), BUS)

    def test_with_credentials(self):
        """
        A given name or password replaces that of the URL; an empty one does not.
        """
        address = BUS.with_credentials("alice", "secret")
        self.assertEqual((address.user, address.password), ("alice", "secret"))
        self.assertEqual(address.with_credentials(), address)
        self.assertEqual(
            address.with_credentials("bob"), BUS.with_credentials("bob", "secret")
        )
        self.assertEqual(
            address.with_credentials(password="other"),
            BUS.with_credentials("alice", "other"),
        )

    def test_request(self):
        """
        The target of a request includes the query.  The authority includes the port unless
        it is the usual one of the scheme.
        """
        for url, target, authority in (
            ("http://a:b@h/x?y", "/x?y", "h"),
            ("http://h:80/x?", "/x", "h"),
            ("http://h:443/x", "/x", "h:443"),
            ("https://h:443/x", "/x", "h"),
            ("https://h:80/x", "/x", "h:80"),
            ("http+unix://%2Fx", "/msgbus/", "localhost"),
        ):
            address = BusURL.parse(url)
            self.assertEqual((address.target, address.authority), (target, authority), url)


class LocateTests(SynchronousTestCase):
    """
    What users of tools give as a URL or a channel.
    """

    def test_channel(self):
        """
        A bare name is a channel of the bus at `MSGBUS_URL`, or else at the default URL.
        """
        usual = BusURL.parse(DEFAULT_URL)
        for text in ("foo", "", "sensors/", "a b/ä", "x:y", "localhost:8888"):
            self.assertEqual(locate(text, {}), usual.channel(text))
            self.assertEqual(locate(text, {"MSGBUS_URL": ""}), usual.channel(text))
            environment = {"MSGBUS_URL": "https://alice:secret@h/bus/"}
            expected = BusURL("https", "h", 443, "", "/bus/", "", "alice", "secret")
            self.assertEqual(locate(text, environment), expected.channel(text))

    def test_url(self):
        """
        A URL is taken as it is, without anything from `MSGBUS_URL`.
        """
        environment = {"MSGBUS_URL": "https://alice:secret@h/bus/"}
        self.assertEqual(
            locate("http://bus.example:8888/msgbus/foo", environment), BUS.channel("foo")
        )

    def test_password(self):
        """
        A URL without a password gets that of the environment.
        """
        environment = {"MSGBUS_PASSWORD": "secret", "MSGBUS_URL": "http://alice@h/"}
        for text, user, password in (
            ("foo", "alice", "secret"),
            ("http://h/", "", "secret"),
            ("http://bob@h/", "bob", "secret"),
            ("http://bob:@h/", "bob", "secret"),
            ("http://bob:other@h/", "bob", "other"),
        ):
            address = locate(text, environment)
            self.assertEqual((address.user, address.password), (user, password), text)
        environment["MSGBUS_URL"] = "http://alice:other@h/"
        self.assertEqual(locate("foo", environment).password, "other")

    def test_host(self):
        """
        Text that looks like a host is not taken for the name of a channel.
        """
        for text in (
            "localhost:8888/msgbus/foo",
            "bus.example:80/",
            "[::1]:8888/x",
            "[::1]",
        ):
            with self.assertRaises(Invalid) as caught:
                locate(text, {})
            self.assertEqual(
                str(caught.exception),
                f"{text!r} is no name of a channel; write http:// before a host.",
            )

    def test_query(self):
        """
        A bare name may not have a query, though a URL may.
        """
        with self.assertRaisesRegex(Invalid, "'foo.last=1' has a query"):
            locate("foo?last=1", {})

    def test_refused(self):
        """
        Text that is neither a URL nor a name is refused.  A wrong `MSGBUS_URL` is refused
        too, but only if it is needed.
        """
        for text in ("/foo", "a//b", "../x", "a\nb", "ftp://h/x", "://", "x\udcff"):
            with self.assertRaises(Invalid, msg=text):
                locate(text, {})
        environment = {"MSGBUS_URL": "bus.example"}
        with self.assertRaisesRegex(Invalid, "'bus.example' is no URL of a bus"):
            locate("foo", environment)
        self.assertEqual(locate("http://bus.example:8888", environment), BUS)

    @given(urls, st.dictionaries(st.sampled_from(["MSGBUS_URL", "MSGBUS_PASSWORD"]), urls))
    def test_total(self, text, environment):
        """
        Any text, in any environment, is either a URL or `Invalid`.
        """
        try:
            address = locate(text, environment)
        except Invalid as error:
            self.assertTrue(str(error).endswith("."))
        else:
            self.assertIsInstance(address, BusURL)
            self.assertTrue(text_of(address))
