"""
Tests for `msgbus.message`.
"""

from dataclasses import FrozenInstanceError

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.message import Invalid, Message, check_name


class NameTests(SynchronousTestCase):
    """
    Names of channels and folders.
    """

    def test_names(self):
        """
        A name is segments joined by slashes, of any characters but a few; a
        folder ends in a slash, and the root is empty.
        """
        for name in (
            "",
            "foo",
            "foo/",
            "a/b/c",
            "a b",
            "ä/漢字/",
            "a.b",
            "*",
            "%2F",
            "x?y",
        ):
            check_name(name)

    def test_no_names(self):
        """
        No segment is empty, begins with a dot, or holds a control character
        or a backslash.
        """
        bad = ["/", "//", "/a", "a//b", "a//", ".", "..", "a/../b", "a/.js/x", ".a/"]
        bad += ["a\x00b", "a\nb", "\r", "a\x7f", "a\x85b", "a\\b"]
        for name in bad:
            with self.assertRaises(Invalid, msg=name):
                check_name(name)

    def test_length(self):
        """
        A name has at most 1,024 bytes, not characters.
        """
        check_name("x" * 1024)
        check_name("ä" * 512)
        for name in ("x" * 1025, "ä" * 513):
            with self.assertRaisesRegex(Invalid, "longer than 1024 bytes"):
                check_name(name)

    def test_depth(self):
        """
        A name has at most 32 segments; the slash of a folder adds none.
        """
        deep = "/".join("x" * 32)
        check_name(deep)
        check_name(deep + "/")
        for name in (deep + "/x", deep + "/x/"):
            with self.assertRaisesRegex(Invalid, "more than 32 segments"):
                check_name(name)

    def test_surrogates(self):
        """
        A text that cannot be encoded as UTF-8 is not a name.
        """
        with self.assertRaisesRegex(Invalid, "cannot be UTF-8"):
            check_name("a\udc80")

    @given(st.text())
    def test_total(self, name):
        """
        Any text is accepted as a name, or refused with one sentence on one line.
        """
        try:
            check_name(name)
        except Invalid as error:
            self.assertEqual(len(str(error).splitlines()), 1)
            self.assertTrue(str(error).endswith("."))


class MessageTests(SynchronousTestCase):
    """
    What a message can be.
    """

    def test_immutable(self):
        """
        A message cannot be changed.
        """
        message = Message("foo", b"x")
        with self.assertRaises(FrozenInstanceError):
            message.body = b"y"

    def test_defaults(self):
        """
        The default type is that of any bytes, and the default sender is empty.
        """
        self.assertEqual(
            Message("foo", b"x"), Message("foo", b"x", "application/octet-stream", "")
        )

    def test_types(self):
        """
        A type is kept as it came, with whatever parameters it has.
        """
        for content_type in (
            "text/plain",
            "Text/HTML; charset=UTF-8",
            'multipart/mixed ; boundary="a b"',
            "image/svg+xml",
            "text/plain;name=ä",
        ):
            message = Message("foo", b"", content_type)
            self.assertEqual(message.content_type, content_type)

    def test_no_types(self):
        """
        What is not type/subtype, holds a control character, or has more than
        1,000 bytes is refused as a type.
        """
        for content_type in (
            "",
            "text",
            "text/",
            "/plain",
            "text/plain, text/html",
            "text/plain text/html",
            " text/plain",
            "te xt/plain",
            "text/plain\r\nX: y",
            "text/plain;a=\x00",
            "text/plain;a=" + "x" * 990,
            "text/plain;a=" + "ä" * 500,
        ):
            with self.assertRaises(Invalid, msg=content_type):
                Message("foo", b"", content_type)

    def test_senders(self):
        """
        A sender is any text that a header can carry unchanged.
        """
        for sender in ("alice", "Älice B.", "a,b", "!x"):
            self.assertEqual(Message("foo", b"", sender=sender).sender, sender)

    def test_no_senders(self):
        """
        A sender holds no control character, no outer space and at most 1,000
        bytes.
        """
        for sender in (
            "eve\nX-Evil: 1",
            "eve\r",
            "e\x00",
            " eve",
            "eve ",
            "e" * 1001,
            "\ud800",
        ):
            with self.assertRaises(Invalid, msg=sender):
                Message("foo", b"", sender=sender)

    def test_origins(self):
        """
        An origin is checked, kept when the message is published, and not compared.
        """
        origin = "4711/1764-4711000000000017"
        message = Message("foo", b"", origin=origin)
        self.assertEqual(message.published("1-2", b"x").origin, origin)
        self.assertEqual(message.with_body(b"x").origin, origin)
        self.assertEqual(message, Message("foo", b""))
        self.assertEqual(Message("foo", b"").published("1-2").origin, "")
        for wrong in ("1/2", "4712/1764-4711000000000017", "4711/1764-4711000000000017\n"):
            with self.assertRaisesRegex(Invalid, "no origin", msg=wrong):
                Message("foo", b"", origin=wrong)

    def test_wrong_kinds(self):
        """
        A body that could change, and names that are bytes, are refused.
        """
        for fields in (
            (b"foo", b""),
            ("foo", bytearray()),
            ("foo", "text"),
            ("foo", b"", b"a/b"),
        ):
            with self.assertRaises(Invalid, msg=fields):
                Message(*fields)
