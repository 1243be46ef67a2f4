"""
Tests for `msgbus.access.rules`, `.patterns`, `.rule_limits` and `.readable`.
"""

import time
from urllib.parse import quote

from hypothesis import given, reject
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.limits import Rate
from msgbus.access.patterns import Glob, Pattern
from msgbus.access.readable import MAX_REMEMBERED
from msgbus.access.rule_limits import NO_LIMITS, RuleLimits
from msgbus.access.rules import BadRules, Rules, Verb
from msgbus.message import Invalid

PUBLISH, SUBSCRIBE = Verb.PUBLISH, Verb.SUBSCRIBE

EXAMPLE = """\
# who          may                  channels        limits (optional)
alice          publish,subscribe    *
@anonymous     subscribe            public/*
sensor-*       publish              sensors/%u/*    rate=10/s max-message=64k
@users         publish,subscribe    chat/*          history=1000
*              nothing              *
"""

# Names that a wildcard, a path or a language of its own could see in.
HOSTILE = [
    "*",
    "a/b",
    "..",
    ".",
    "%u",
    "-",
    "[a-z]",
    "a\0b",
    "a%2Fb",
    "",
    "a\\b",
    "?",
    "!x",
]


def parse(text):
    """
    The rules of a text.
    """
    return Rules.parse(text.encode(), "access")


def slow_match(pattern, text, name):
    """
    Match in another way: character by character of the written pattern, trying every way to
    divide the text.
    """
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(slow_match(pattern[1:], text[i:], name) for i in range(len(text) + 1))
    if pattern.startswith("%u"):
        if name is None or name in ("", ".", "..") or "/" in name:
            return False
        return text.startswith(name) and slow_match(pattern[2:], text[len(name) :], name)
    if pattern[0] == "%":
        return text[:1] == chr(int(pattern[1:3], 16)) and slow_match(
            pattern[3:], text[1:], name
        )
    return text[:1] == pattern[0] and slow_match(pattern[1:], text[1:], name)


def slow_decide(lines, user, verb, channel):
    """
    The number of the line that decides, and what it says.
    """
    for number, (who, may, channels) in enumerate(lines, 1):
        if who == "@users":
            fits = user is not None
        elif who == "@anonymous":
            fits = user is None
        elif who.strip("*") == "":
            fits = True
        else:
            fits = user is not None and slow_match(who, user, None)
        if fits and (may == "nothing" or verb.value in may.split(",")):
            for pattern in channels:
                if slow_match(pattern, channel, user):
                    return may != "nothing", number
    return False, None


SEGMENTS = st.text("ab", min_size=1, max_size=2)
NAMES = st.one_of(st.sampled_from(["a", "b", "ab", "%u", "*", "a*"]), SEGMENTS)
WHO = st.one_of(
    st.sampled_from(["*", "**", "@users", "@anonymous", "%2A", "%25u"]),
    st.text("ab*", min_size=1, max_size=3),
)
CHANNELS = st.lists(
    st.sampled_from(["a", "b", "ab", "*", "a*", "b", "%u", "%2A"]),
    min_size=1,
    max_size=3,
).map("/".join)
NAMED = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
LINES = st.lists(
    st.tuples(
        WHO,
        st.sampled_from(["publish", "subscribe", "publish,subscribe", "nothing"]),
        st.lists(CHANNELS, min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=5,
)


def rules_of(lines):
    """
    The rules of these lines, unless they are too many for one user.
    """
    try:
        return parse(written(lines))
    except BadRules:
        reject()


def written(lines):
    """
    The text of these rules.
    """
    return "".join(f"{who} {may} {' '.join(channels)}\n" for who, may, channels in lines)


class PatternTests(SynchronousTestCase):
    """
    Patterns over names.
    """

    def matches(self, pattern, text, name=None):
        glob = Pattern.parse(pattern).for_user(name)
        return glob is not None and glob.matches(text)

    def test_stars(self):
        """
        A star matches any number of characters, slashes too, and all else itself.
        """
        self.assertTrue(self.matches("chat/*", "chat/a/b"))
        self.assertTrue(self.matches("chat/*", "chat/"))
        self.assertTrue(self.matches("*.jpg", "a/b.jpg"))
        self.assertFalse(self.matches("chat/*", "chat"))
        self.assertFalse(self.matches("ab*ba", "aba"))
        self.assertFalse(self.matches("a", "A"))
        self.assertTrue(self.matches("[a-z]", "[a-z]"))
        self.assertFalse(self.matches("[a-z]", "a"))

    def test_escapes(self):
        """
        An escape is the character itself, never a wildcard or the user's name.
        """
        self.assertTrue(self.matches("a%20b", "a b"))
        self.assertTrue(self.matches("%C3%A9", "é"))
        self.assertTrue(self.matches("%2a", "*"))
        self.assertFalse(self.matches("%2A", "a"))
        self.assertTrue(self.matches("%25u", "%u", "alice"))
        self.assertFalse(self.matches("%25u", "alice", "alice"))

    @given(st.text(min_size=1).filter(lambda text: text.isprintable()))
    def test_every_name_can_be_written(self, name):
        """
        With escapes, every name can be written, and nothing else matches.
        """
        glob = Pattern.parse(quote(name, safe="")).for_user("x")
        self.assertEqual(glob, Glob((name,)))

    def test_malformed(self):
        """
        What has no meaning is refused.
        """
        for text in ("%", "%u%u", "a%u", "%ux/b", "%zz", "%C3", "a?", "*%u", "%U", "%2"):
            with self.assertRaises(Invalid, msg=text):
                Pattern.parse(text)

    @given(CHANNELS, NAMED, st.one_of(st.none(), NAMES))
    def test_reference(self, pattern, text, name):
        """
        A pattern matches what a slow way to match says.
        """
        self.assertEqual(self.matches(pattern, text, name), slow_match(pattern, text, name))

    @given(st.text("ab/", max_size=60), st.text("ab/", min_size=1, max_size=4))
    def test_pieces_in_the_middle(self, text, piece):
        """
        A piece between two stars is found wherever it is.
        """
        self.assertEqual(self.matches(f"*{piece}*", text), piece in text)
        self.assertEqual(
            self.matches("*/%u/*", text, "ab"), "/ab/" in text, "the name is a segment"
        )


class DecisionTests(SynchronousTestCase):
    """
    Who may do what.
    """

    def decide(self, text, user, verb, channel):
        return parse(text).decide(user, verb, channel)[:2]

    def test_example(self):
        """
        The first line that fits decides.
        """
        for user, verb, channel, expected in (
            ("alice", PUBLISH, "any/thing", (True, 2)),
            (None, SUBSCRIBE, "public/cam", (True, 3)),
            (None, PUBLISH, "public/cam", (False, 6)),
            (None, SUBSCRIBE, "private", (False, 6)),
            ("bob", SUBSCRIBE, "public/cam", (False, 6)),
            ("sensor-1", PUBLISH, "sensors/sensor-1/x", (True, 4)),
            ("sensor-1", PUBLISH, "sensors/sensor-2/x", (False, 6)),
            ("sensor-1", SUBSCRIBE, "sensors/sensor-1/x", (False, 6)),
            ("bob", PUBLISH, "chat/x", (True, 5)),
        ):
            with self.subTest(user=user, channel=channel):
                self.assertEqual(self.decide(EXAMPLE, user, verb, channel), expected)

    def test_sentences(self):
        """
        A decision says which line made it, or what is missing.
        """
        rules = parse("al publish a\nbob nothing a\n")
        for user, expected in (
            ("al", "Line 1 of the access file lets the user 'al' publish to 'a'."),
            (
                "bob",
                "Line 2 of the access file does not let the user 'bob' publish to 'a'.",
            ),
            (
                None,
                "No line of the access file lets somebody without a name and password"
                " publish to 'a'.",
            ),
        ):
            self.assertEqual(rules.decide(user, PUBLISH, "a").sentence, expected)

    def test_no_rule(self):
        """
        If no rule fits, the answer is no.
        """
        self.assertEqual(
            self.decide("alice publish a\n", "bob", PUBLISH, "a"), (False, None)
        )

    def test_no_name(self):
        """
        An empty name is none: it is anonymous, and no user.
        """
        text = "@anonymous publish a\n@users publish b\n*a* publish c\n"
        for user in (None, ""):
            self.assertTrue(parse(text).decide(user, PUBLISH, "a").allowed)
            self.assertFalse(parse(text).decide(user, PUBLISH, "b").allowed)
            self.assertFalse(parse(text).decide(user, PUBLISH, "c").allowed)

    def test_hostile_names(self):
        """
        A user's name is compared with one segment, and is never a pattern.
        """
        rules = parse("@users publish sensors/%u/* *x/%u/y*\n")
        others = ["sensors/a/t", "sensors/a/b/t", "sensors/../t", "sensors//t", "sensors/t"]
        for name in HOSTILE:
            for channel in others:
                allowed = rules.decide(name, PUBLISH, channel).allowed
                self.assertFalse(allowed, (name, channel))
        for name in ("*", "%u", "-", "[a-z]", "a%2Fb", "?"):
            self.assertTrue(rules.decide(name, PUBLISH, f"sensors/{name}/t").allowed)
            self.assertTrue(rules.decide(name, PUBLISH, f"a/x/{name}/y").allowed)
        self.assertFalse(rules.decide("a/b", PUBLISH, "sensors/a/b/t").allowed)
        self.assertFalse(rules.decide("*", PUBLISH, "a/x/b/y").allowed)

    def test_names_of_groups(self):
        """
        A user who is called like a group is not this group, and one called like a wildcard
        is one user.
        """
        rules = parse("@anonymous publish a\n%2A publish b\n")
        self.assertFalse(rules.decide("@anonymous", PUBLISH, "a").allowed)
        self.assertTrue(rules.decide("*", PUBLISH, "b").allowed)
        self.assertFalse(rules.decide("bob", PUBLISH, "b").allowed)

    def test_no_names_of_channels(self):
        """
        What is no name of a channel is denied by no line, even to those who may do all.
        """
        rules = parse("* publish,subscribe *\n")
        for channel in ("a//b", "../a", "a\0", "a\\b", "/" * 1000, "x" * 2000, "\ud800"):
            decision = rules.decide("alice", PUBLISH, channel)
            self.assertEqual(decision[:2], (False, None), channel)
            self.assertEqual(rules.limits("alice", PUBLISH, channel), NO_LIMITS)

    @given(LINES, st.one_of(st.none(), NAMES), NAMED, st.sampled_from(Verb))
    def test_reference(self, lines, user, channel, verb):
        """
        Decisions are those of a slow way to make them; so is what can be read.
        """
        rules = rules_of(lines)
        expected = slow_decide(lines, user, verb, channel)
        self.assertEqual(rules.decide(user, verb, channel)[:2], expected)
        readable = slow_decide(lines, user, SUBSCRIBE, channel)[0]
        self.assertEqual(rules.readable(user).allows(channel), readable)

    def test_time(self):
        """
        No decision takes longer than 100 microseconds, whatever the file, the name and the
        channel are.
        """
        # Each pattern is almost matched, and as late as possible.
        searching = [f"{'a' * 50}*{'a' * 60}b*c"] * 3 + ["*/%u/b*"]
        many = " ".join(searching + [f"{'a' * 900}%2A{i}*b" for i in range(45)])
        own = " ".join(searching + [f"*{'a' * 800}{i}" for i in range(46)])
        user = "a" * 1000
        rules = parse(f"@users publish {many}\n{user} publish {own}\n")
        for channel in ("a" * 1024, "a/" * 31 + "a" * 900, "/".join(["a" * 31] * 32)):
            # The first decision about a user, for which the rules that fit are looked for.
            self.assert_faster(500e-6, rules, user, channel, rules._remembered.clear)
            self.assert_faster(100e-6, rules, user, channel, lambda: None)

    def assert_faster(self, seconds, rules, user, channel, before):
        """
        A decision can be made in this time; other programs may slow down some tries.
        """
        for _ in range(5000):
            before()
            best = self.timed(rules, user, channel)
            if best < seconds:
                return
        self.fail(f"The last decision took {best} seconds.")

    def timed(self, rules, user, channel):
        """
        The seconds that a decision takes that has not been made before.
        """
        rules._decisions.clear()
        started = time.thread_time()
        decision = rules.decide(user, PUBLISH, channel)
        seconds = time.thread_time() - started
        self.assertFalse(decision.allowed)
        return seconds

    def test_many_users(self):
        """
        The time of a decision does not grow with the rules for other users, and the rights
        of a bounded number of users are remembered.
        """
        rules = parse("".join(f"user{i} publish a/{i}\n" for i in range(10_000)))
        for i in range(0, 10_000, 3):
            self.assertEqual(rules.decide(f"user{i}", PUBLISH, f"a/{i}")[:2], (True, i + 1))
        self.assertLessEqual(len(rules._decisions), 1000)
        self.assertLessEqual(len(rules._remembered), 1000)


class ReadableTests(SynchronousTestCase):
    """
    What a subscriber may read, as a value.
    """

    def test_everything(self):
        """
        Those who may read all are equal, by whatever rules; all others are not among them.
        """
        rules = parse(
            "alice subscribe a\n"
            "alice subscribe *\n"
            "bob subscribe *\n"
            "carol nothing secret\n"
            "carol,".replace(",", "")
            + " subscribe *\n"
            "dave publish *\n"
        )
        self.assertTrue(rules.readable("alice").everything)
        self.assertEqual(rules.readable("alice"), rules.readable("bob"))
        self.assertEqual(hash(rules.readable("alice")), hash(rules.readable("bob")))
        self.assertFalse(rules.readable("carol").everything)
        self.assertFalse(rules.readable("carol").allows("secret"))
        self.assertEqual(rules.readable("dave").steps, ())
        self.assertEqual(rules.readable("dave"), rules.readable(None))

    def test_below(self):
        """
        A folder is refused as a whole only if it is certain that there is no channel in it
        with which the user may do this.
        """
        rules = parse(
            "alice nothing a/secret/*\n"
            "alice subscribe a/* b c/d\n"
            "alice publish x*y\n"
            "bob subscribe own/%u/*\n"
        )
        for user, verb, folder, answer in (
            ("alice", SUBSCRIBE, "", True),
            ("alice", SUBSCRIBE, "a/", True),
            ("alice", SUBSCRIBE, "a/b/", True),
            ("alice", SUBSCRIBE, "a/secret/", False),
            ("alice", SUBSCRIBE, "a/secret/b/", False),
            ("alice", SUBSCRIBE, "b/", False),
            ("alice", SUBSCRIBE, "c/", True),
            ("alice", SUBSCRIBE, "c/d/", False),
            ("alice", PUBLISH, "a/", False),
            ("alice", PUBLISH, "x/", True),
            ("alice", PUBLISH, "", True),
            ("bob", SUBSCRIBE, "own/", True),
            ("bob", SUBSCRIBE, "own/bob/", True),
            ("bob", SUBSCRIBE, "own/alice/", False),
            ("bob", PUBLISH, "", False),
            (None, SUBSCRIBE, "", False),
        ):
            self.assertEqual(rules.may_below(user, verb, folder), answer, (user, folder))

    def test_equal_rights(self):
        """
        Users are equal if their rules allow them the same; not if their own names matter.
        """
        rules = parse(
            "a* subscribe x y\n@users nothing z\nb* subscribe y x\nc* subscribe %u\n"
        )
        readable = rules.readable
        self.assertEqual(readable("a1"), readable("a2"))
        self.assertNotEqual(readable("a1"), readable("b1"))
        self.assertNotEqual(readable("c1"), readable("c2"))
        # For those whose name is no segment, the rule is as if it were not there.
        self.assertEqual(readable("c/"), readable("d"))

    def test_no_collisions(self):
        """
        Rights whose texts look alike when they are joined are not equal.
        """
        sets = [
            "a b",
            "ab",
            "a%20b",
            "a*b",
            "a%2Ab",
            "a* b",
            "a *b",
            "*a b",
            "a%2Cb",
            "a/b",
        ]
        values = [parse(f"* subscribe {text}\n").readable(None) for text in sets]
        self.assertEqual(len(set(values)), len(sets))
        users = parse("@users subscribe x/%u/*\n")
        self.assertNotEqual(users.readable("*"), users.readable("a"))
        self.assertNotEqual(users.readable("*"), parse("* subscribe x/*/*\n").readable("*"))

    @given(LINES, LINES, st.lists(NAMED, min_size=1, max_size=20), NAMES)
    def test_equal_means_equal(self, some, others, channels, user):
        """
        What is equal allows the same channels.
        """
        one, other = (rules_of(x).readable(user) for x in (some, others))
        if one == other:
            for channel in channels:
                self.assertEqual(one.allows(channel), other.allows(channel))

    def test_bounded(self):
        """
        A bounded number of results is remembered.
        """
        readable = parse("* subscribe a*\n").readable(None)
        for i in range(MAX_REMEMBERED + 500):
            self.assertEqual(readable.allows(f"a{i}"), True)
            self.assertEqual(readable.allows(f"b{i}"), False)
        self.assertLessEqual(len(readable._results), MAX_REMEMBERED)


class LimitTests(SynchronousTestCase):
    """
    The limits of a rule.
    """

    def limits(self, text):
        rules = parse(f"* publish,subscribe a {text}\n")
        return rules.limits(None, PUBLISH, "a")

    def test_all(self):
        """
        Each limit is read in its unit.
        """
        self.assertEqual(
            self.limits(
                "rate=1000/h rate=10/s max-message=64k history=0 max-subscriptions=5"
            ),
            RuleLimits((Rate(10, 1), Rate(1000, 3600)), 65536, 0, 5),
        )
        self.assertEqual(self.limits("max-message=1M").max_message, 1024 * 1024)
        self.assertEqual(self.limits("max-message=12").max_message, 12)
        self.assertEqual(
            self.limits("rate=2/min rate=3/d").rates, (Rate(2, 60), Rate(3, 86400))
        )
        self.assertEqual(self.limits("# rate=1/s"), NO_LIMITS)

    def test_of_the_line_that_decides(self):
        """
        The limits are those of the deciding line, and of no other.
        """
        rules = parse("alice publish a rate=1/s\n@users publish a rate=2/s\n* nothing *\n")
        self.assertEqual(rules.limits("alice", PUBLISH, "a").rates, (Rate(1, 1),))
        self.assertEqual(rules.limits("bob", PUBLISH, "a").rates, (Rate(2, 1),))
        self.assertEqual(rules.limits(None, PUBLISH, "a"), NO_LIMITS)
        self.assertEqual(rules.limits("alice", SUBSCRIBE, "a"), NO_LIMITS)

    def test_malformed(self):
        """
        A limit that is not understood is refused.
        """
        for text in (
            "rate=10", "rate=0/s", "rate=10/w", "rate=-1/s", "rate=1.5/s",
            "rate=1/s rate=2/s", "max-message=64K", "max-message=1e3",
            "max-message=999999999999G", "max-message=",
            "history=-1", "history=x", "history=1 history=1", "history=9999999999999",
            "Rate=1/s", "burst=1", "history=1 b", "history=\u0661",
        ):  # fmt: skip
            with self.assertRaises(BadRules, msg=text):
                self.limits(text)
        for text in ("* publish a history=1\n", "* subscribe a rate=1/s\n"):
            with self.assertRaises(BadRules, msg=text):
                parse(text)


class FileTests(SynchronousTestCase):
    """
    Files that cannot be used.
    """

    def refusal(self, data):
        with self.assertRaises(BadRules) as caught:
            Rules.parse(data, "access")
        return str(caught.exception)

    def test_empty(self):
        """
        A file without a rule is refused, since it would deny everything by mistake.
        """
        for data in (b"", b"\n\n", b"# alice publish *\n", b" \t\r\n"):
            self.assertEqual(
                self.refusal(data),
                "access: There is no rule in the file, so nobody could do anything. If that"
                " is meant, write the rule '* nothing *'.",
            )

    def test_damaged(self):
        """
        A damaged file is refused as a whole, with the line.
        """
        for data, start in (
            (
                b"\xef\xbb\xbfalice publish a\n",
                "access, line 1: The file begins",
            ),
            (
                "alice publish a\n".encode("utf-16"),
                "access, line 1: The file begins",
            ),
            (
                b"alice publish a\nbob publish a\0\n",
                "access, line 2: The line holds '\\x00'",
            ),
            (b"a publish b\n\xff\n", "access, line 2: The line is not UTF-8."),
            (b"a publish b\rc publish d\n", "access, line 1: The line holds '\\r'"),
            ("a publish b\u200b\n".encode(), "access, line 1: The line holds '\\u200b'"),
            ("a publish\u00a0b\n".encode(), "access, line 1: The line holds '\\xa0'"),
            (b"a publish b\nc publish d", "access, line 2: The last line has no line end"),
            (b"#" * 2_000_000 + b"\n", "access: The file is larger"),
        ):
            with self.subTest(start=start):
                refusal = self.refusal(data)
                self.assertEqual(refusal[: len(start)], start)

    def test_cut_off_anywhere(self):
        """
        A file that is cut off within a line is refused.
        """
        data = EXAMPLE.encode()
        for end in range(len(data)):
            if data[:end].rfind(b"\n") != end - 1:
                self.refusal(data[:end])

    def test_line_ends(self):
        """
        Lines may end in CRLF.
        """
        rules = Rules.parse(EXAMPLE.replace("\n", "\r\n").encode(), "access")
        self.assertTrue(rules.decide("bob", PUBLISH, "chat/x").allowed)

    def test_malformed(self):
        """
        A line that is not understood is refused, and the sentence says why.
        """
        for line, part in (
            ("alice", "has only one word"),
            ("alice publish", "lacks the channels"),
            ("alice publish # a", "lacks the channels"),
            ("alice publish rate=1/s", "lacks the channels"),
            ("alice write a", "'write' is none of publish"),
            ("alice publish, subscribe a", "'publish,' is none of publish"),
            ("alice publish,nothing a", "is none of publish"),
            ("alice PUBLISH a", "is none of publish"),
            ("@admins publish a", "There is no group '@admins'"),
            ("alice,bob publish a", "Write a line for each user."),
            ("!alice publish a", "begins with '!'"),
            ("%u publish a", "no meaning"),
            ("alice publish a,b", "Separate channels by spaces."),
            ("alice publish !a", "begins with '!'"),
            ("alice publish chat/", "Write 'chat/*'"),
            ("alice publish /chat/*", "empty segment"),
            ("alice publish a//b", "empty segment"),
            ("alice publish .js/*", "begins with a dot"),
            ("alice publish x-%u", "whole segment"),
            ("alice publish a?b", "%3F"),
            ("alice publish %00", "control character"),
            ("alice publish a=b", "%3D"),
            ("alice publish a b=c", "'b=c' is not a limit"),
            ("alice publish a rate=1/s b", "'b' comes behind a limit"),
            ("alice nothing a rate=1/s", "does not allow"),
        ):
            with self.subTest(line=line):
                refusal = self.refusal(f"# A comment.\n{line}\n".encode())
                self.assertTrue(refusal.startswith("access, line 2: "), refusal)
                self.assertIn(part, refusal)

    def test_no_secret_in_refusals(self):
        """
        No refusal shows a line of another file, such as one of users or of keys.
        """
        for line in ("alice:$2y$05$hunter2", "key-1:hunter2=", "hunter2", "hunter2 # x"):
            self.assertNotIn("hunter2", self.refusal(f"{line}\n".encode()))

    def test_bounds(self):
        """
        A file that would make decisions slow is refused.
        """
        for text in ("* publish " + "a " * 51, "* publish " + "*a* " * 5):
            self.assertIn("Up to this line", self.refusal(text.encode() + b"\n"))
        self.assertIn("'bob'", self.refusal(b"bob publish a\n" * 51))
        parse("* publish " + "a " * 50 + "\nbob publish " + "*a* " * 4 + "\n")

    @given(st.binary(max_size=200))
    def test_garbage(self, data):
        """
        Anything is either rules or refused.
        """
        try:
            Rules.parse(data, "access")
        except BadRules as error:
            self.assertTrue(str(error).startswith("access"))
