"""
Tests for `msgbus.redis.address`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.message import Invalid
from msgbus.redis import RedisAddress
from msgbus.redis.address import Server


class AddressTests(SynchronousTestCase):
    """
    URLs of a log.
    """

    def test_tcp(self):
        """
        By TCP, the database is the path; port, database and stream can be left out.
        """
        self.assertEqual(
            RedisAddress.parse("redis://alice:se%2Fcret@redis.example:7000/3?stream=a/b"),
            RedisAddress(
                Server("redis.example", 7000, "", False, "alice", "se/cret", 3), "a/b"
            ),
        )
        self.assertEqual(
            RedisAddress.parse("rediss://[::1]"),
            RedisAddress(Server("::1", 6379, tls=True), "msgbus"),
        )

    def test_unix(self):
        """
        By a Unix socket, the path is that of the socket, and the database an option.
        """
        self.assertEqual(
            RedisAddress.parse("redis+unix://:secret@/run/a%20b.sock?db=2"),
            RedisAddress(
                Server("", 0, "/run/a b.sock", password="secret", database=2), "msgbus"
            ),
        )

    def test_sentinels(self):
        """
        Sentinels are a list of hosts, and the name of the master is an option.  User,
        password and database are those of the servers that the sentinels name.
        """
        for scheme, tls in (("redis+sentinel", False), ("rediss+sentinel", True)):
            url = f"{scheme}://u:p@a.example,[::1]:7,b.example:8/2?master=m&stream=s"
            self.assertEqual(
                RedisAddress.parse(url),
                RedisAddress(
                    Server("", 0, tls=tls, user="u", password="p", database=2),
                    "s",
                    (
                        Server("a.example", 26379, tls=tls, database=None),
                        Server("::1", 7, tls=tls, database=None),
                        Server("b.example", 8, tls=tls, database=None),
                    ),
                    "m",
                ),
            )

    def test_wait(self):
        """
        It can say how many replicas must have a message.
        """
        for url in ("redis://a?wait=2", "redis+unix:///a?wait=2"):
            self.assertEqual(RedisAddress.parse(url).replicas, 2)
        url = "redis+sentinel://a?master=m&wait=2"
        self.assertEqual(RedisAddress.parse(url).replicas, 2)

    def test_password_files(self):
        """
        Passwords can be in files; sentinels are given one only if a file for them is named.
        """
        files = {"f 1": "one", "f2": "two"}
        url = "redis://alice@host?password-file=f%201"
        self.assertEqual(
            RedisAddress.parse(url, files.__getitem__).server.greeting()[0],
            ("AUTH", "alice", "one"),
        )
        url = "redis+sentinel://a,b?master=m&password-file=f%201&sentinel-password-file=f2"
        address = RedisAddress.parse(url, files.__getitem__)
        self.assertEqual(address.server.greeting(), [("AUTH", "one"), ("SELECT", "0")])
        for sentinel in address.sentinels:
            self.assertEqual(sentinel.greeting(), [("AUTH", "two")])
        with self.assertRaisesRegex(Invalid, "files with passwords are not read here"):
            RedisAddress.parse(url)

    def test_mistakes(self):
        """
        Another URL is refused, without telling its password.
        """
        for url in (
            "msgbus",
            "http://host",
            "redis://",
            "redis:///0",
            "redis://:secret@host/x",
            "redis://:secret@host:x/0",
            "redis://:secret@host/0?streams=x",
            "redis://:secret@host/0?stream=",
            "redis://:secret@host/0?stream",
            "redis+unix://host/run/x",
            "redis+unix:///",
            "redis://a:1,b:2/0",
            "redis://a?master=m",
            "redis+sentinel://a,b",
            "redis+sentinel://a,,b?master=m",
            "redis+sentinel://a:0,b?master=m",
            "redis+sentinel://?master=m",
            "redis://:secret@a?password-file=f",
            "redis://a?sentinel-password-file=f",
            "redis://a?wait=-1",
        ):
            with self.assertRaisesRegex(Invalid, "give redis://") as caught:
                RedisAddress.parse(url, str)
            self.assertNotIn("secret", str(caught.exception))

    def test_shown(self):
        """
        In logs, it has no password.
        """
        address = RedisAddress.parse("redis://alice:secret@host/1")
        self.assertEqual(
            str(address), "the stream 'msgbus' of Redis at host:6379, database 1"
        )
        self.assertNotIn("secret", repr(address))
        self.assertEqual(
            str(RedisAddress.parse("redis+sentinel://u:secret@[::1]:7,b/1?master=m")),
            "the stream 'msgbus' of Redis at the master 'm' of the sentinels"
            " [::1]:7,b:26379, database 1",
        )

    def test_greeting(self):
        """
        A connection begins with the password, if there is one, and the database.
        """
        for url, commands in (
            ("redis://host/1", [("SELECT", "1")]),
            ("redis://:p@host", [("AUTH", "p"), ("SELECT", "0")]),
            ("redis://u:p@host", [("AUTH", "u", "p"), ("SELECT", "0")]),
        ):
            self.assertEqual(RedisAddress.parse(url).server.greeting(), commands)
