"""
Tests for `msgbus.match`.
"""

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.channels import Channels
from msgbus.match import EVERYTHING, MAX_REMEMBERED, Filter, Pattern
from msgbus.message import Invalid, Message


def simple_match(glob, text):
    """
    Match a glob in the simple way, which tries every way to divide the text.
    """
    if not glob:
        return not text
    if glob[0] == "*":
        return any(simple_match(glob[1:], text[i:]) for i in range(len(text) + 1))
    return bool(text) and glob[0] in ("?", text[0]) and simple_match(glob[1:], text[1:])


# Globs that cost about as much as a filter may cost, and what they nearly match.
COSTLIEST = [
    "*a" * 38 + "*b*",
    "a*" * 38 + "b",
    "*" + "a" * 900 + "b*",
    "*" + "a?" * 19 + "b*",
    "*" + "?" * 900 + "b*",
    ",".join(f"*a?b{i}*" for i in range(8)),
    ",".join(f"*{'a' * 30}{i}*" for i in range(26)),
]
NEARLY = "a" * 1024


class PatternTests(SynchronousTestCase):
    """
    Lists of globs.
    """

    def assert_matches(self, pattern, *texts):
        for text in texts:
            self.assertTrue(Pattern(pattern).matches(text), (pattern, text))

    def assert_fails(self, pattern, *texts):
        for text in texts:
            self.assertFalse(Pattern(pattern).matches(text), (pattern, text))

    def test_globs(self):
        """
        A star matches any number of characters, a question mark any one, and every other
        character itself.
        """
        self.assert_matches("text/*", "text/", "text/plain", "text/a/b\n")
        self.assert_matches("a?c", "abc", "a/c", "a\nc", "a?c")
        self.assert_matches("a*b*c", "abc", "aXbYc", "abcbc")
        self.assert_matches("[ab].(c)$", "[ab].(c)$")
        self.assert_fails("a?c", "ac", "abbc", "Abc")
        self.assert_fails("ab*ba", "aba")
        self.assert_fails("[ab]", "a")
        self.assert_fails("a", "a\n", "xa", "")

    def test_list(self):
        """
        A list matches when one of its globs does.
        """
        self.assert_matches("a*,b", "ab", "b")
        self.assert_fails("a*,b", "bb", "c", "")

    def test_negation(self):
        """
        A negated glob excludes what it matches, wherever it stands in the list; a list of
        negated globs only matches all the rest.
        """
        self.assert_matches("!b", "a", "", "!b")
        self.assert_fails("!b", "b")
        self.assert_matches("!ab,a*", "a", "abc")
        self.assert_fails("!ab,a*", "ab", "b")
        self.assert_fails("a*,!ab", "ab")
        self.assert_fails("!*", "a", "")

    def test_empty(self):
        """
        An empty list matches everything, and a star means the same.
        """
        for pattern in ("", ",", ",,", "*", "**,a"):
            self.assert_matches(pattern, "", "a")
            self.assertEqual(Pattern(pattern), Pattern())

    def test_something(self):
        """
        A pattern can ask for any text that is not empty.
        """
        self.assert_matches("?*", "a", "ab")
        self.assert_fails("?*", "")

    def test_equal(self):
        """
        Lists that mean the same are equal, and hash so.
        """
        self.assertEqual(Pattern("a,b,!c"), Pattern("!c,b,,a,a"))
        self.assertEqual(hash(Pattern("a**b")), hash(Pattern("a*b")))
        self.assertEqual(Pattern("a*?*?b"), Pattern("a??*b"))
        self.assertNotEqual(Pattern("a"), Pattern("!a"))

    def test_limits(self):
        """
        A list has at most 1,000 characters and 32 globs.
        """
        Pattern("x" * 1000)
        Pattern(",".join("x" * 32))
        with self.assertRaisesRegex(Invalid, "at most 1000 characters"):
            Pattern("x" * 1001)
        with self.assertRaisesRegex(Invalid, "at most 32 globs"):
            Pattern(",".join("x" * 33))

    def test_bare_negation(self):
        """
        A `!` without a glob is refused.
        """
        with self.assertRaisesRegex(Invalid, "negates"):
            Pattern("a,!")

    @given(st.text("ab?*", max_size=8), st.text("ab", max_size=10))
    def test_as_simple(self, glob, text):
        """
        A glob matches exactly what it should.
        """
        expected = simple_match(glob, text) or not glob
        self.assertEqual(Pattern(glob).matches(text), expected)

    @given(st.text(max_size=20), st.text(max_size=20))
    def test_as_fnmatch(self, glob, text):
        """
        A glob means what it means to the shell, except for brackets.
        """
        if not any(c in glob for c in "[],!"):
            expected = fnmatchcase(text, glob) or not glob
            self.assertEqual(Pattern(glob).matches(text), expected)

    def test_hostile(self):
        """
        The costliest globs that are taken do not match what they nearly match;
        `bench/match.py` tells how long that takes.
        """
        for glob in COSTLIEST:
            self.assertFalse(Pattern(glob).matches(NEARLY), glob)

    def test_slow_headers(self):
        """
        A header may be longer than all else, so looking for a text in it costs more.
        """
        Filter(type="*a*,*b*,*c*,*d*,*e*", header={"x-a": "*a*,*b*,*c*", "x-b": "a*,b*,*c"})
        for header in (
            {"x-a": "*a*,*b*,*c*,*d*,*e*"},
            {"x-a": "*a*,*b*,*c*", "x-b": "!*a*,!*b*"},
            {"x-a": "*aaaa?b*"},
        ):
            with self.assertRaisesRegex(Invalid, "too long to match"):
                Filter(header=header)

    def test_too_slow(self):
        """
        Slower ones are refused, also if it takes several patterns of a filter together.
        """
        for glob in ("*a" * 100 + "*b", "*" + "a?" * 50 + "b*"):
            with self.assertRaisesRegex(Invalid, "too long to match"):
                Pattern(glob)
        half = "*a" * 25 + "*"
        Filter(sender=half)
        with self.assertRaisesRegex(Invalid, "too long to match"):
            Filter(sender=half, channel=half)


class FilterTests(SynchronousTestCase):
    """
    Filters of messages.
    """

    def test_all_must_match(self):
        """
        A message passes when type, sender and channel match.
        """
        filter = Filter("text/*", "alice", "sensors/*")
        self.assertTrue(filter.matches(Message("sensors/1", b"", "text/plain", "alice")))
        self.assertFalse(filter.matches(Message("sensors/1", b"", "image/gif", "alice")))
        self.assertFalse(filter.matches(Message("sensors/1", b"", "text/plain", "bob")))
        self.assertFalse(filter.matches(Message("doors/1", b"", "text/plain", "alice")))

    def test_admits(self):
        """
        A channel is admitted if a message of it can pass, whatever the type and sender.
        """
        for filter in (
            Filter("text/*", "alice", "a/*"),
            EVERYTHING.within(None, Filter(channel="a/*")),
            EVERYTHING.within(Channels(("a/*",))),
        ):
            self.assertTrue(filter.admits("a/b"))
            self.assertFalse(filter.admits("b/a"))

    def test_type_without_case_and_parameters(self):
        """
        Types compare without case and without parameters, on both sides.
        """
        message = Message("foo", b"", "Text/HTML ; charset=UTF-8")
        for pattern in (
            "text/html",
            "TEXT/*",
            "text/html;level=1",
            "!text/plain,text/html ; q",
        ):
            self.assertTrue(Filter(pattern).matches(message), pattern)
        self.assertFalse(Filter("!TEXT/html").matches(message))
        self.assertFalse(Filter("*charset*").matches(message))

    def test_also(self):
        """
        A message has to pass the other filter as well; filters with other ones differ.
        """
        filter = Filter("text/*").within(None, Filter("*/plain", "alice"))
        for kind, sender, passes in (
            ("text/plain", "alice", True),
            ("text/html", "alice", False),
            ("a/plain", "alice", False),
            ("text/plain", "bob", False),
        ):
            message = Message("foo", b"", kind, sender)
            self.assertEqual(filter.matches(message), passes, (kind, sender))
        self.assertNotEqual(filter, Filter("text/*"))
        self.assertNotEqual(filter, Filter("text/*").within(None, Filter("*/plain")))
        self.assertEqual(filter.within(None), Filter("text/*"))
        self.assertEqual(filter.characters, len("text/*" + "*/plain" + "alice"))

    def test_remembered(self):
        """
        Results are remembered by type, sender and channel, and only a limited number of
        them.
        """
        filter = Filter("text/*", "!bob", "!b")
        fields = [(c, t, s) for c in "ab" for t in ("text/a", "a/b") for s in ("bob", "al")]
        expected = [c == "a" and t == "text/a" and s == "al" for c, t, s in fields]
        for _ in range(2):
            messages = [Message(c, b"", t, s) for c, t, s in fields]
            self.assertEqual(list(map(filter.matches, messages)), expected)
        for number in range(10 * MAX_REMEMBERED):
            self.assertFalse(filter.matches(Message("b", b"", "text/a", f"{number}")))
        self.assertLessEqual(len(filter._results), MAX_REMEMBERED)
        any_channel = Filter("text/*")
        for number in range(10):
            self.assertTrue(any_channel.matches(Message(f"{number}", b"", "text/a")))
        self.assertEqual(len(any_channel._results), 1)

    def test_sender_with_case(self):
        """
        Senders and channels compare with case.
        """
        message = Message("Foo", b"", sender="Alice")
        self.assertFalse(Filter(sender="alice").matches(message))
        self.assertFalse(Filter(channel="foo").matches(message))

    def test_no_sender(self):
        """
        A message without a sender has the empty one.
        """
        message = Message("foo", b"")
        for pattern in ("*", "!bob", ""):
            self.assertTrue(Filter(sender=pattern).matches(message), pattern)
        for pattern in ("?*", "alice", "!bob,?*"):
            self.assertFalse(Filter(sender=pattern).matches(message), pattern)

    def test_channel_crosses_slashes(self):
        """
        A star in a channel's pattern crosses slashes.
        """
        self.assertTrue(Filter(channel="a/*/c").matches(Message("a/b/b/c", b"")))

    def test_equal(self):
        """
        Filters that mean the same are equal.
        """
        self.assertEqual(Filter("Text/*,a/b;c=d"), Filter("a/b,text/*"))
        self.assertEqual(Filter("*", "*", "*"), Filter())
        self.assertNotEqual(Filter(sender="a"), Filter(sender="A"))

    def test_limits(self):
        """
        The limits hold for types as they were given, parameters included.
        """
        for pattern in ("a/b;" + "x" * 1000, ",".join(["a/b"] * 33)):
            with self.assertRaises(Invalid):
                Filter(pattern)
