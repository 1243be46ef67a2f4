"""
Tests for `msgbus.web.query`.
"""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.fanout.choices import Live
from msgbus.fanout.overflow import Overflow
from msgbus.ids import Since
from msgbus.match import Filter
from msgbus.message import Invalid
from msgbus.web.query import (
    PAGE,
    Wanted,
    channel_name,
    parse_subscription,
    requires_subscriber,
)

from ..memory import Server
from ..requests import get
from ..strategies import names

REPLACE = "multipart"
MIXED = "mixed"


class ChannelNameTests(SynchronousTestCase):
    """
    Names of channels and folders, from paths.
    """

    def test_decoded(self):
        """
        A name is percent-decoded as UTF-8, and then split at slashes.
        """
        for path, name in (
            (b"", ""),
            (b"foo", "foo"),
            (b"a%20b/c+d/", "a b/c+d/"),
            (b"%c3%A4", "ä"),
            (b"a%2Fb", "a/b"),
            (b"%2500", "%00"),
        ):
            self.assertEqual(channel_name(path), name)

    @given(names)
    def test_round_trip(self, name):
        """
        Every valid name can be written as a path.
        """
        self.assertEqual(channel_name(quote(name).encode("ascii")), name)

    def test_refused(self):
        """
        A path with a malformed percent encoding, bytes that are not UTF-8, or an invalid
        name is refused.
        """
        for path in (
            b"%",
            b"%4",
            b"%zz",
            b"%ff",
            b"%ed%a0%80",
            b"%c0%af",
            b"%00",
            b"a%0d%0ab",
            b"%2e%2e/x",
            b"a//b",
            b"a%2F%2Fb",
            b"a%5Cb",
            b"x" * 1025,
            b"x/" * 33,
            b"/" * 8000,
        ):
            with self.assertRaises(Invalid, msg=path[:20]):
                channel_name(path)


class SubscriptionTests(SynchronousTestCase):
    """
    Filters, formats and other choices from queries.
    """

    def test_filters(self):
        """
        The filters for type, sender and channel have a parameter each.
        """
        wanted = parse_subscription(b"type=text/*&sender=alice&channel=a/*", None)
        self.assertEqual(wanted, Wanted(Filter("text/*", "alice", "a/*")))

    def test_none(self):
        """
        Without parameters, and with empty lists, there is no filter.
        """
        for query in (b"", b"type=", b"type&sender=&t=123", b"type=,&&=&"):
            self.assertEqual(parse_subscription(query, None), Wanted())

    def test_twice_is_one_list(self):
        """
        A parameter given twice is one list.
        """
        filter = parse_subscription(b"type=a/*&type=!a/b", None).filter
        self.assertEqual(filter, Filter("a/*,!a/b"))

    def test_plus(self):
        """
        A plus stays a plus in `type`; in `sender` and `channel` it is a space, and `%2B` is
        the plus.
        """
        filter = parse_subscription(b"type=image/svg+xml&sender=a+b%2Bc", None).filter
        self.assertEqual(filter, Filter("image/svg+xml", "a b+c"))

    def test_semicolon(self):
        """
        Parameters are parted by `&` only.
        """
        filter = parse_subscription(b"sender=a;type=b&channel=%26", None).filter
        self.assertEqual(filter, Filter(sender="a;type=b", channel="&"))

    def test_refused(self):
        """
        A bad value of a known parameter is refused; unknown parameters are ignored, even if
        they are malformed.
        """
        for query in (
            b"type=!",
            b"sender=%",
            b"sender=%ff",
            b"type=" + b"x" * 1001,
            b"type=" + b",a" * 33,
            b"type=a&" * 33,
            b"format=jpeg",
            b"format=",
            b"format=mixed&format=mixed",
            b"form%61t=x",
            b"since=",
            b"since=yesterday",
            b"since=-1",
            b"since=10",
            b"last=",
            b"last=-1",
            b"last=1000000000",
            b"last=1&last=1",
            b"since=all&last=1",
            b"overflow=",
            b"overflow=drop",
            b"overflow=close&overflow=close",
            b"heartbeat=",
            b"heartbeat=4",
            b"heartbeat=301",
            b"heartbeat=05",
            b"heartbeat=5.5",
            b"heartbeat=%D9%A5",
        ):
            with self.assertRaises(Invalid, msg=query[:30]):
                parse_subscription(query, None)
        self.assertEqual(parse_subscription(b"%ff=%ff&t=%&x", None), Wanted())

    def test_slow_readers(self):
        """
        A subscriber chooses what becomes of messages that it reads too slowly, and how
        often it gets heartbeats.
        """
        self.assertEqual(
            parse_subscription(b"overflow=latest&heartbeat=25", None),
            Wanted(overflow=Overflow.LATEST, heartbeat=25),
        )
        for overflow in Overflow:
            query = b"overflow=" + overflow.value.encode()
            self.assertEqual(parse_subscription(query, None).overflow, overflow)

    def test_replay(self):
        """
        A replay begins behind an id, at a time, at the first message that is kept, or at
        the last few; `Last-Event-ID` overrides the query.
        """
        for query, since in (
            (b"since=12-34", Since((12, 34))),
            (b"since=10m", Since(seconds=600)),
            (b"since=2d", Since(seconds=172_800)),
            (b"since=all", Since()),
            (b"since=now", None),
            (b"last=5", Since(last=5)),
            (b"last=0", None),
        ):
            wanted = Wanted(since=since, live=Live.TOLD)
            self.assertEqual(parse_subscription(query), wanted, query)
        self.assertEqual(parse_subscription(b"last=1", None, "1-2").since, Since((1, 2)))
        self.assertEqual(parse_subscription(b"last=1", None, "").since, Since(last=1))
        with self.assertRaises(Invalid):
            parse_subscription(b"", None, "x")

    def test_until(self):
        """
        A replay ends at the present with `?until=now`, and wherever it begins; who has none
        is not told where it ends.
        """
        for query in (b"since=1h", b"last=3", b"since=now", b"since=all&format=ndjson"):
            self.assertIs(parse_subscription(query + b"&until=now").live, Live.END)
        resumed = parse_subscription(b"until=now", None, "1-2")
        self.assertEqual((resumed.live, resumed.since), (Live.END, Since((1, 2))))
        self.assertIs(parse_subscription(b"", None, "1-2").live, Live.TOLD)
        self.assertIs(parse_subscription(b"type=a/*").live, Live.UNTOLD)
        for query, sentence in (
            (b"last=1&until=yesterday", "'yesterday': give until=now"),
            (b"last=1&until=", "'': give until=now"),
            (b"last=1&until=10m", "'10m': give until=now"),
            (b"last=1&until=now&until=now", "'now,now': give until=now"),
            (b"until=now", "add since, last or last-of-each"),
            (b"last=1&until=now&format=message", "leave it away"),
        ):
            with self.assertRaisesRegex(Invalid, sentence):
                parse_subscription(query)

    def test_interval(self):
        """
        An interval is a time, and only for those who want just the newest messages.
        """
        for value, seconds in (
            ("100ms", 0.1),
            ("2s", 2),
            ("90s", 90),
            ("1500ms", 1.5),
            ("5m", 300),
            ("1h", 3600),
        ):
            query = f"overflow=latest&interval={value}".encode()
            self.assertAlmostEqual(parse_subscription(query).interval, seconds)
        for value in (
            "",
            "2",
            "99ms",
            "0s",
            "61m",
            "2h",
            "1d",
            "-1s",
            "2 s",
            "1s&interval=2s",
        ):
            with self.assertRaisesRegex(Invalid, "from 100ms to 1h"):
                parse_subscription(f"overflow=latest&interval={value}".encode())
        for query in (b"interval=2s", b"interval=2s&overflow=drop-oldest"):
            with self.assertRaisesRegex(Invalid, "add overflow=latest"):
                parse_subscription(query)

    def test_one_message(self):
        """
        A request for one message begins at the newest that is kept, unless it says where;
        with `since=now`, at the next one.
        """
        self.assertIsNotNone(parse_subscription(b"format=message").since)
        self.assertIsNone(parse_subscription(b"format=message&since=now").since)
        self.assertIsNone(parse_subscription(b"").since)

    def test_last_of_each(self):
        """
        A stream may begin with the newest message of each channel, and at no other point as
        well; who comes back begins behind the last message.
        """
        self.assertEqual(parse_subscription(b"last-of-each=1").since, Since(each=True))
        for query in (
            b"last-of-each=0",
            b"last-of-each=2",
            b"last-of-each",
            b"last-of-each=1&last-of-each=1",
            b"last-of-each=1&last=1",
            b"last-of-each=1&since=all",
            b"last-of-each=1&since=now",
            b"last-of-each=1&format=message",
        ):
            with self.assertRaises(Invalid):
                parse_subscription(query)
        wanted = parse_subscription(b"last-of-each=1", last_id="1-2")
        self.assertEqual(wanted.since, Since((1, 2)))

    def test_required(self):
        """
        A publisher may require, by `?require=1`, that there be a subscriber.
        """
        for query, expected in ((b"", False), (b"require=0", False), (b"require=1", True)):
            self.assertEqual(requires_subscriber(query), expected)
        for query in (b"require=", b"require=yes", b"require=1&require=1"):
            with self.assertRaises(Invalid):
                requires_subscriber(query)

    def test_format(self):
        """
        `?format=` overrides `Accept`.
        """
        self.assertEqual(
            parse_subscription(b"format=mixed", "multipart/x-mixed-replace").format, MIXED
        )
        self.assertEqual(
            parse_subscription(b"format=multipart", "multipart/mixed").format, REPLACE
        )

    def test_accept(self):
        """
        `multipart/mixed` is chosen for a client that names it and names nothing better; all
        others get the default.
        """
        for accept, form in (
            ("multipart/mixed", MIXED),
            ("Multipart/Mixed; q=0.5", MIXED),
            ("multipart/mixed, */*", MIXED),
            ("*/*, multipart/mixed", MIXED),
            ("multipart/*;q=0.1, multipart/mixed;q=0.2", MIXED),
            ("", REPLACE),
            ("*/*", REPLACE),
            ("multipart/*", REPLACE),
            ("application/json", REPLACE),
            ("multipart/x-mixed-replace, multipart/mixed", REPLACE),
            ("multipart/mixed;q=0.5, */*", REPLACE),
            ("multipart/mixed;q=0", REPLACE),
            ("multipart/mixed;q=x, */*;q=0.1", REPLACE),
            ("multipart/mixed;q=nan, */*;q=0.1", REPLACE),
            (",;,=", REPLACE),
        ):
            self.assertEqual(parse_subscription(b"", accept).format, form, accept)

    def test_page(self):
        """
        The page is chosen for a client that names `text/html` and prefers nothing to it, as
        browsers do when a user types an address.
        """
        for accept, form in (
            ("text/html", PAGE),
            ("TEXT/HTML;q=0.5, multipart/mixed;q=0.5", PAGE),
            # What Chromium, Firefox and WebKit send when a user types an address.
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
                "image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
                PAGE,
            ),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", PAGE),
            # What they send for an image, and other ranges.
            ("image/avif,image/webp,image/svg+xml,image/*;q=0.8,*/*;q=0.5", REPLACE),
            ("text/*", REPLACE),
            ("*/*;q=0.1, multipart/mixed;q=0.1", MIXED),
            ("text/html;q=0.9, */*", REPLACE),
            ("text/html;q=0.9, multipart/mixed", MIXED),
            ("text/html;q=0", REPLACE),
        ):
            self.assertEqual(parse_subscription(b"", accept).format, form, accept)
        for query in (b"format=multipart", b"format=mixed"):
            self.assertNotEqual(parse_subscription(query, "text/html").format, PAGE)

    @given(st.binary(max_size=200), st.text(max_size=200))
    def test_total(self, query, accept):
        """
        Any query and any `Accept` are parsed, or refused with one sentence.
        """
        try:
            parse_subscription(query, accept)
        except Invalid as error:
            self.assertTrue(str(error).endswith("."))


class NumberTests(SynchronousTestCase):
    """
    Numbers that are too large, or not the numbers that are meant.
    """

    NUMBERS = ("-1", "0", "00", "1e9", str(2**31), str(2**63), str(2**64), "9" * 400, "٣")

    def ask(self, query, headers=""):
        """
        The status of a subscription to the root.
        """
        return self.server.ask(get(f"/msgbus/?{query}", headers))[0]

    def test_numbers(self):
        """
        Each number is refused, or is one that a server can work with, in each place of a
        query and of a header.
        """
        self.server = Server()
        for number in map(quote, self.NUMBERS):
            for format in ("ndjson", "message"):
                for name in ("last", "heartbeat", "wait", "envelope", "raw", "since"):
                    query = f"format={format}&{name}={number}"
                    self.assertIn(self.ask(query), (200, 204, 400), query)
                for since in ("{}-1", "1-{}", "{0}-{0}", "{}s", "{}d"):
                    since = since.format(number)
                    self.assertIn(
                        self.ask(f"since={since}&format={format}"), (200, 204, 400)
                    )
                    answer = self.ask(f"format={format}", f"Last-Event-ID: {since}\n")
                    self.assertIn(answer, (200, 204, 400))
        for name in ("last", "heartbeat", "wait"):
            self.assertEqual(self.ask(f"{name}={2**63}"), 400)
