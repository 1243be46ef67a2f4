"""
Tests for `msgbus.headers`.
"""

from itertools import count

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from msgbus.headers import (
    MAX_BYTES,
    MAX_HEADERS,
    NO_HEADERS,
    Headers,
    _does_travel,
    does_travel,
    headers_from_json,
    headers_of,
    headers_to_json,
    shown_name,
)
from msgbus.message import Invalid

from . import strategies


class HeadersTests(SynchronousTestCase):
    """
    The headers that travel with a message.
    """

    def test_which(self):
        """
        What says something about the message travels; passwords, what belongs to one hop,
        and what a proxy or a browser would obey, does not.
        """
        for name in (
            *("Content-Encoding", "content-LANGUAGE", "Content-Disposition", "Link"),
            *("Reply-To", "Traceparent", "Tracestate", "Signature", "Signature-Input"),
            *("Content-Digest", "ce-type", "Ce-Id", "X-Anything", "x-request-id"),
            *("X-Hub-Signature-256", "X-Token-Count", "X-Routing-Key"),
        ):
            self.assertTrue(does_travel(name), name)
            Headers({name: "a"})
        for name in (
            *("Cookie", "Set-Cookie", "Authorization", "Proxy-Authorization", "Connection"),
            *("Transfer-Encoding", "Content-Length", "Content-Type", "From", "Date"),
            *("Msgbus-Id", "Host", "Origin", "X-Forwarded-For", "X-Real-IP", "X-Sendfile"),
            *(
                "X-Accel-Redirect",
                "X-Content-Type-Options",
                "X-Frame-Options",
                "X-Auth-Token",
            ),
            *("X-Access-Token", "X-Gitlab-Token", "X-MS-TOKEN-AAD-ID-TOKEN", "x-apikey"),
            *("X-Goog-IAP-JWT-Assertion", "X-Hook-Secret", "X-Vouch-User", "X-Userinfo"),
            *("X-Reproxy-URL", "X-Archive-Files", "X-ARR-ClientCert", "X-Consumer-Name"),
            # Whose last letter is not ASCII, but is in lower case.
            *("lin\N{KELVIN SIGN}", "x-\N{KELVIN SIGN}"),
            *("x-a\r\nb", "x-a:", "x-ä", "x-a b", "ce-", "x-" + "a" * 200, ""),
        ):
            if name != "ce-":
                self.assertFalse(does_travel(name), name)
                with self.assertRaisesRegex(Invalid, "does not travel"):
                    Headers({name: "a"})
        found = headers_of([("Cookie", "a"), ("X-B", "b"), ("Authorization", "c")])
        self.assertEqual(found, Headers({"x-b": "b"}))

    def test_long_names(self):
        """
        Names that are too long, which may have megabytes, are not remembered.
        """
        before = _does_travel.cache_info().currsize
        for name in ("x-" + "a" * 199, "x-" + "b" * 10**6, "x-\N{GRINNING FACE}"):
            self.assertFalse(does_travel(name))
        self.assertEqual(_does_travel.cache_info().currsize, before)
        self.assertTrue(does_travel("x-" + "a" * 198))

    def test_too_many(self):
        """
        Those who give far too many headers, or one in many spellings, are refused before
        all are looked at.
        """
        for pairs, sentence in (
            (((f"x-{n}", "") for n in count()), "at most 32"),
            (((("X-A", "x-a")[n % 2], "") for n in count()), "at most 8192"),
        ):
            with self.assertRaisesRegex(Invalid, sentence):
                Headers(pairs)

    def test_values(self):
        """
        Names are found in any case, values of the same name are one list, and the order
        does not matter.
        """
        headers = Headers([("X-B", " b "), ("ce-a", "ä"), ("x-b", "c")])
        self.assertEqual(dict(headers), {"ce-a": "ä", "x-b": "b, c"})
        self.assertEqual((headers["X-B"], headers["CE-A"]), ("b, c", "ä"))
        self.assertEqual(headers.get("x-c"), None)
        self.assertEqual(headers, Headers({"x-b": "b, c", "CE-A": "ä"}))
        self.assertEqual(hash(headers), hash(Headers({"x-b": "b, c", "CE-A": "ä"})))
        self.assertEqual(list(map(shown_name, headers)), ["ce-a", "X-B"])
        self.assertEqual(headers.size, len("ce-aäx-bb, c".encode()))
        self.assertEqual(headers.without("x-b"), Headers({"ce-a": "ä"}))
        self.assertFalse(NO_HEADERS)

    def test_bounds(self):
        """
        There are at most so many headers and bytes, without control characters.
        """
        many = {f"x-{number}": "" for number in range(MAX_HEADERS)}
        Headers(many)
        with self.assertRaisesRegex(Invalid, "at most 32 headers"):
            Headers({**many, "x-more": ""})
        Headers({"x-a": "a" * (MAX_BYTES - 3)})
        with self.assertRaisesRegex(Invalid, "at most 8192 bytes"):
            Headers({"x-a": "a" * (MAX_BYTES - 2)})
        for value in ("\n", "a\rb", "\0", "\x7f", "\x9f", "\t"):
            with self.assertRaisesRegex(Invalid, "control character"):
                Headers({"x-a": value})
        with self.assertRaisesRegex(Invalid, "half of a character"):
            Headers({"x-a": "\ud800"})
        for values in ({"x-a": 1}, {1: "a"}):
            with self.assertRaisesRegex(Invalid, "strings"):
                Headers(values)

    @given(strategies.headers)
    def test_stored(self, headers):
        """
        What is stored is read again, without what travels no longer.
        """
        read = headers_from_json('{"cookie": "a", "x-b": "c"}')
        self.assertEqual(read, Headers({"x-b": "c"}))
        self.assertEqual(headers_from_json(headers_to_json(headers)), headers)
        for wrong in ("[]", "3", '{"x-a": 5}', "{"):
            self.assertRaises(ValueError, headers_from_json, wrong)
