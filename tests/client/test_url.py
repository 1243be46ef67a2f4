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
    All that is shown of an address.
    """
    return f"{address} {address!r} {address:} {[address]}"


class ParseTests(SynchronousTestCase):
    """
    Addresses from URLs.
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
        Scheme, host and port are those of the URL, or those that are usual.
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
        Without a path it is that of the bus; what may not stand in one is encoded, and
        what is encoded stays.
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
        Name and password are decoded, either may be missing, and the last `@` ends them.
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
        An IPv6 address loses its brackets, and gets them where it needs them.
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
        A Unix socket has a path, as it was written, in place of the host.
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
        What is no URL of a bus is refused, in one sentence with the URL.
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
        Any text is an address, which can be shown, or `Invalid`.
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
        As a string, an address is a URL of it, without name and password.
        """
        address = BusURL(scheme, host, port, "", "/" + quote(path), quote(query))
        shown = str(address.with_credentials("alice", SECRET))
        self.assertEqual(BusURL.parse(shown), address)

    @given(st.text(characters, min_size=1))
    def test_round_trip_unix(self, socket):
        """
        So is that of a Unix socket, wherever that is.
        """
        address = BusURL("http", "localhost", 0, socket, "/msgbus/foo")
        self.assertEqual(BusURL.parse(str(address)), address)

    def test_surrogates(self):
        """
        What cannot be UTF-8, as arguments of a program may be, is refused wherever it
        stands.
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
        Port 0, and a socket with a port or a zero byte in its name, are refused: nothing
        listens there.
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
        What is wrong with a URL is told without its password.
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
        Nor is it shown when it is in the environment that it is.
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
        Whatever else is wrong with a URL, what stands before its `@` is not shown.
        """
        url = f"{scheme}://{user}:{SECRET}{more}@{rest}"
        self.assertNotIn(SECRET, self.shown(url))
        self.assertNotIn(SECRET, self.shown(url, {}))

    def test_hostile(self):
        """
        Nor is it shown of a URL that lacks slashes, has a password that is not encoded,
        or a host that Python has something against.
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
        A URL without its scheme is none, and no name of a channel on this machine.
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
    Addresses from addresses.
    """

    def test_channel(self):
        """
        A channel is below the path of the bus, asked by the same name.
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
        The server reads the name that was meant, whatever that is.
        """
        path = BUS.channel(name).path
        self.assertTrue(path.startswith("/msgbus/"))
        self.assertEqual(channel_name(path.removeprefix("/msgbus/").encode("ascii")), name)
        self.assertEqual(BusURL.parse(str(BUS.channel(name))), BUS.channel(name))

    def test_no_channel(self):
        """
        What is no name is refused.
        """
        for name in ("/foo", "a//b", "../x", "a\nb", "a\\b", "x" * 1025, "\udcff"):
            with self.assertRaises(Invalid, msg=name[:20]):
                BUS.channel(name)

    def test_split(self):
        """
        A channel is split into its folder and its decoded name there; a folder has none.
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
        What was split is the channel of that name in that folder.
        """
        folder, last = BUS.channel(name).split()
        self.assertEqual(folder.channel(last), BUS.channel(name))

    def test_with_parameters(self):
        """
        Parameters follow those that there are, encoded; those that say nothing do not.
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
        A name or a password takes the place of the one that there is; none takes none.
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
        The target of a request has the query; the authority has no usual port.
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
    What users of tools say.
    """

    def test_channel(self):
        """
        A bare name is a channel of the bus in the environment, or else of the usual one.
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
        A URL is meant as it is, and has nothing of the bus in the environment.
        """
        environment = {"MSGBUS_URL": "https://alice:secret@h/bus/"}
        self.assertEqual(
            locate("http://bus.example:8888/msgbus/foo", environment), BUS.channel("foo")
        )

    def test_password(self):
        """
        The password in the environment is that of a URL without one.
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
        What looks like a host is no name of a channel.
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
        A query is none of a name's, though a URL may have one.
        """
        with self.assertRaisesRegex(Invalid, "'foo.last=1' has a query"):
            locate("foo?last=1", {})

    def test_refused(self):
        """
        What is neither is refused, and so is what the environment has, if it is asked.
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
        Any text, in any environment, is an address, or `Invalid`.
        """
        try:
            address = locate(text, environment)
        except Invalid as error:
            self.assertTrue(str(error).endswith("."))
        else:
            self.assertIsInstance(address, BusURL)
            self.assertTrue(text_of(address))
