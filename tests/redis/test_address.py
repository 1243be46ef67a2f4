"""
Tests for `msgbus.redis.address`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.message import Invalid
from msgbus.redis import RedisAddress


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
            RedisAddress("redis.example", 7000, "", False, "alice", "se/cret", 3, "a/b"),
        )
        self.assertEqual(
            RedisAddress.parse("rediss://[::1]"),
            RedisAddress("::1", 6379, "", True, "", "", 0, "msgbus"),
        )

    def test_unix(self):
        """
        By a Unix socket, the path is that of the socket, and the database an option.
        """
        self.assertEqual(
            RedisAddress.parse("redis+unix://:secret@/run/a%20b.sock?db=2"),
            RedisAddress("", 6379, "/run/a b.sock", False, "", "secret", 2, "msgbus"),
        )

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
        ):
            with self.assertRaisesRegex(Invalid, "give redis://") as caught:
                RedisAddress.parse(url)
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

    def test_greeting(self):
        """
        A connection begins with the password, if there is one, and the database.
        """
        for url, commands in (
            ("redis://host/1", [("SELECT", "1")]),
            ("redis://:p@host", [("AUTH", "p"), ("SELECT", "0")]),
            ("redis://u:p@host", [("AUTH", "u", "p"), ("SELECT", "0")]),
        ):
            self.assertEqual(RedisAddress.parse(url).greeting(), commands)
