"""
Tests for `msgbus.access.grant`, `.channels` and `.credentials`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.channels import MAX_REMEMBERED, NO_CHANNELS, Channels
from msgbus.access.credentials import bearer_of, link_of
from msgbus.access.grant import INSUFFICIENT_SCOPE, INVALID_REQUEST, BadGrant, Grant
from msgbus.access.verbs import Verb
from msgbus.match import Pattern
from msgbus.message import Invalid

from ..strategies import names

globs = st.text("ab/*?", min_size=1, max_size=6)


class ChannelsTests(SynchronousTestCase):
    """
    A set of channels.
    """

    def test_patterns(self):
        """
        A channel is in the set if a pattern matches it; a star crosses slashes.
        """
        channels = Channels(["public/*", "new?"])
        for channel in ("public/", "public/a/b", "news"):
            self.assertTrue(channels.allows(channel), channel)
        for channel in ("", "public", "newss", "xpublic/a"):
            self.assertFalse(channels.allows(channel), channel)

    def test_folders(self):
        """
        It can be told whether any channel below a folder may be in the set.
        """
        for patterns, within, without in (
            (["a/b"], ["", "a/"], ["a/b/", "b/", "a/c/"]),
            (["a/*"], ["", "a/", "a/b/"], ["b/", "aa/"]),
            (["?/b", "c"], ["", "x/", "xx/"], []),
            (["a*"], ["", "a/", "ab/", "a/b/"], ["b/"]),
            (["*"], ["", "a/"], []),
            ([], [], ["", "a/"]),
        ):
            channels = Channels(patterns)
            for folder in (*within, *without):
                told = channels.may_reach(folder)
                self.assertEqual(told, folder in within, (patterns, folder))

    def test_nothing(self):
        """
        Without patterns, there is no channel in the set.
        """
        self.assertFalse(NO_CHANNELS.allows(""))
        self.assertFalse(NO_CHANNELS.everything)

    def test_everything(self):
        """
        A set that has all channels says so.
        """
        for patterns in (["*"], ["a", "**"]):
            self.assertTrue(Channels(patterns).everything)
            self.assertTrue(Channels(patterns).allows("b"))
        self.assertFalse(Channels(["?*"]).everything)

    def test_equal(self):
        """
        Sets with the same patterns are equal, and have the same hash; sets whose patterns
        only look alike when they are put together are not.
        """
        self.assertEqual(Channels(["b", "a**", "b"]), Channels(["a*", "b"]))
        self.assertEqual(hash(Channels(["b", "a"])), hash(Channels(["a", "b"])))
        self.assertNotEqual(Channels(["ab"]), Channels(["a", "b"]))
        self.assertNotEqual(Channels(["a_b"]), Channels(["a", "_b"]))

    def test_refused(self):
        """
        What is no single positive glob is refused, and so are too many.
        """
        bad = ["", "a,b", "!a", "a\n", "a\0", "\x7f", "\udc80"]
        for patterns in (*([b] for b in bad), ["a"] * 33, ["a" * 600, "b" * 600]):
            with self.assertRaises(Invalid):
                Channels(patterns)

    def test_remembered(self):
        """
        Results are right, however many channels are asked for, and few are remembered.
        """
        channels = Channels(["a*"])
        for i in range(3 * MAX_REMEMBERED):
            self.assertTrue(channels.allows(f"a{i}"))
            self.assertFalse(channels.allows(f"b{i}"))
        self.assertLessEqual(len(channels._results), MAX_REMEMBERED)

    @given(st.lists(globs, min_size=1, max_size=4), st.text("ab/", max_size=6))
    def test_as_filters(self, patterns, channel):
        """
        A channel is in the set exactly if a filter with one of the patterns passes it.
        """
        expected = any(Pattern(p).matches(channel) for p in patterns)
        for _ in range(2):
            self.assertEqual(Channels(patterns).allows(channel), expected)


class GrantTests(SynchronousTestCase):
    """
    A grant.
    """

    def test_check(self):
        """
        A grant holds for the channels that its verb has; otherwise it says what it allows.
        """
        grant = Grant(publish=Channels(["in/*"]), subscribe=Channels(["out", "log"]))
        grant.check(Verb.PUBLISH, "in/a")
        grant.check(Verb.SUBSCRIBE, "out")
        for verb, channel in ((Verb.PUBLISH, "out"), (Verb.SUBSCRIBE, "in/a")):
            with self.assertRaises(BadGrant) as caught:
                grant.check(verb, channel)
            self.assertEqual(caught.exception.code, INSUFFICIENT_SCOPE)
        self.assertEqual(
            str(caught.exception),
            "This link or token does not let you subscribe to 'in/a'; it lets you subscribe"
            " to 'log', 'out'.",
        )

    @given(names)
    def test_empty(self, channel):
        """
        A grant without channels allows nothing.
        """
        for verb in Verb:
            with self.assertRaises(BadGrant):
                Grant().check(verb, channel)

    def test_refused(self):
        """
        A name that can be no sender, and negative numbers, are refused.
        """
        for fields in (
            {"name": "a\r\nX: y"},
            {"name": " a"},
            {"name": "a" * 1001},
            {"expires": -1},
            {"max_message": -1},
        ):
            with self.assertRaises(Invalid):
                Grant(**fields)


class CredentialsTests(SynchronousTestCase):
    """
    Links and tokens in requests and logs.
    """

    def test_bearer(self):
        """
        The token is what stands behind the word Bearer, in any case.
        """
        for authorization in ("Bearer a.b-c_d", "bearer  a.b-c_d ", "BEARER a.b-c_d"):
            self.assertEqual(bearer_of(authorization), "a.b-c_d")

    def test_no_bearer(self):
        """
        Without the header, and with other schemes, there is no token.
        """
        for authorization in (None, "", "Basic YTpi", "Bearerx a"):
            self.assertIsNone(bearer_of(authorization))

    def test_broken_bearer(self):
        """
        A header that has no token, or more than one, is refused.
        """
        for authorization in ("Bearer", "Bearer ", "Bearer a b", "Bearer ä", "Bearer a=b"):
            with self.assertRaises(BadGrant) as caught:
                bearer_of(authorization)
            self.assertEqual(caught.exception.code, INVALID_REQUEST)

    def test_link(self):
        """
        The link is the value of one parameter, and is taken as it stands.
        """
        self.assertEqual(link_of(b"type=a&link=x.y&t=1"), "x.y")
        self.assertEqual(link_of(b"%6cink=x%2Ey"), "x%2Ey")
        for query in (b"", b"links=x", b"type=link", b"LINK=x"):
            self.assertIsNone(link_of(query))

    def test_doubled(self):
        """
        Two links are refused, whichever is good, and so is one that is not ASCII.
        """
        for query in (b"link=a&link=a", b"link=a&%6Cink=b", b"link=&link=a", b"link=\xff"):
            with self.assertRaises(BadGrant):
                link_of(query)
