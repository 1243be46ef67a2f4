"""
Tests for `msgbus.access.links` and `.link_keys`.
"""

import base64
import hmac

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.channels import NO_CHANNELS, Channels
from msgbus.access.credentials import bearer_of, link_of
from msgbus.access.grant import INVALID_TOKEN, Grant
from msgbus.access.link_keys import BadKeys, Keys, format_key
from msgbus.access.links import (
    MAX_LINK,
    BadLink,
    is_link,
    sign,
    verify,
)
from msgbus.match import Filter
from msgbus.message import Invalid

from ..strategies import characters

NOW = 1_764_000_000
SECRET = bytes(range(32))
OTHER = bytes(range(1, 33))
KEYS = Keys.parse((format_key("k2", SECRET) + format_key("k1", OTHER)).encode(), "keys")
GRANT = Grant(
    subscribe=Channels(["public/cam"]),
    expires=NOW + 60,
    filter=Filter("image/jpeg"),
    key="k2",
)

texts = st.text(characters, max_size=6).map(str.strip)
globs = st.text(characters, min_size=1, max_size=6).filter(
    lambda g: "," not in g and not g.startswith("!")
)
channel_sets = st.lists(globs, max_size=3).map(Channels)
filters = st.builds(Filter, st.sampled_from(["", "a/b", "!a/*,*/b"]), globs)
grants = st.builds(
    Grant,
    channel_sets,
    channel_sets,
    st.integers(NOW + 1, NOW + 10**9),
    texts,
    filters,
    st.none() | st.integers(0, 10**12),
    st.just("k2"),
).filter(lambda g: g.publish.patterns or g.subscribe.patterns)


def encoded(data):
    """
    Base64url without padding.
    """
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(payload, secret=SECRET):
    """
    A link with this payload, signed in the way that the documentation describes.
    """
    mac = hmac.digest(secret, b"msgbus-link-1\0" + payload, "sha256")
    return f"{encoded(payload)}.{encoded(mac)}"


def netstrings(*fields):
    """
    A payload of these fields.
    """
    return b"".join(b"%d:%s," % (len(f), f) for f in fields)


FIELDS = (b"k2", b"%d" % (NOW + 60), b"", b"public/cam", b"image/jpeg", b"", b"", b"")


class SignTests(SynchronousTestCase):
    """
    Links that are signed and verified.
    """

    def assert_bad(self, link, why, keys=KEYS, now=NOW):
        with self.assertRaisesRegex(BadLink, why) as caught:
            verify(keys, link, now)
        self.assertEqual(caught.exception.code, INVALID_TOKEN)

    def test_form(self):
        """
        The link is what the documentation says, byte for byte.
        """
        self.assertEqual(sign(KEYS, GRANT), forged(netstrings(*FIELDS)))
        self.assertEqual(
            sign(KEYS, GRANT),
            "MjprMiwxMDoxNzY0MDAwMDYwLDA6LDEwOnB1YmxpYy9jYW0sMTA6aW1hZ2UvanBlZywwOiwwOiwwOiw"
            ".mfqIccbkQPiokxFgQWXK281u-kWs4dchQx80maV67xE",
        )

    @given(grants)
    def test_round_trip(self, grant):
        """
        Every grant comes back from its link, from a query and from a header.
        """
        link = sign(KEYS, grant)
        self.assertEqual(verify(KEYS, link, NOW), grant)
        self.assertEqual(bearer_of(f"Bearer {link}"), link)
        self.assertEqual(link_of(f"a=1&link={link}".encode()), link)
        self.assertTrue(is_link(link))

    @given(grants, grants)
    def test_injective(self, one, other):
        """
        Two grants have the same link only if they are equal.
        """
        self.assertEqual(sign(KEYS, one) == sign(KEYS, other), one == other)

    @given(st.data())
    def test_changed(self, data):
        """
        A link in which any character is changed, added or missing is refused.
        """
        link = sign(KEYS, GRANT)
        i = data.draw(st.integers(0, len(link)))
        new = data.draw(st.text("Aa0-_.=+/ %\n", max_size=2))
        changed = link[:i] + new + link[i + data.draw(st.integers(0, 1)) :]
        if changed != link:
            with self.assertRaises(BadLink):
                verify(KEYS, changed, NOW)

    @given(st.binary(max_size=100) | st.text(max_size=60).map(str.encode))
    def test_signed_garbage(self, payload):
        """
        Whatever was signed with the key but is no payload is refused.
        """
        with self.assertRaises(BadLink):
            verify(KEYS, forged(payload), NOW)

    @given(st.text(max_size=60))
    def test_garbage(self, link):
        """
        Any text is refused, and raises nothing else.
        """
        with self.assertRaises(BadLink):
            verify(KEYS, link, NOW)

    def test_other_base64(self):
        """
        Base64url that means the same in another form is refused: with bits that do not
        count, in the other alphabet, or padded.
        """
        payload, signature = sign(KEYS, GRANT).split(".")
        self.assertEqual(signature[-1], "E")
        for changed in (
            f"{payload}.{signature[:-1]}F",
            f"{payload[:-1]}x.{signature}",
            f"{payload}.{signature.replace('-', '+')}",
            f"{payload}.{signature}=",
            f"{payload}=.{signature}",
        ):
            if changed != f"{payload}.{signature}":
                self.assert_bad(changed, "not complete, or was changed")

    def test_expired(self):
        """
        A link holds until the second before its time.
        """
        link = sign(KEYS, GRANT)
        self.assertEqual(verify(KEYS, link, NOW + 59.9), GRANT)
        self.assert_bad(link, "expired at 2025-11-24 16:01:00 UTC", now=NOW + 60)

    def test_revoked(self):
        """
        A link holds for as long as its key is in the file; another key signs by then.
        """
        link = sign(KEYS, GRANT)
        rotated = Keys.parse(format_key("k3", bytes(32)).encode() + b"\n", "keys")
        self.assert_bad(link, "'k2' of this link is not known, or revoked", keys=rotated)
        both = Keys({**rotated.secrets, **KEYS.secrets}, "k3")
        self.assertEqual(verify(both, link, NOW).key, "k2")
        self.assertEqual(verify(both, sign(both, GRANT), NOW).key, "k3")

    def test_another_key(self):
        """
        A link that names a key is not verified with another one; nor is a signature of
        something else than links taken.
        """
        payload = netstrings(*FIELDS)
        self.assert_bad(forged(payload, OTHER), "signature does not fit")
        mac = hmac.digest(SECRET, payload, "sha256")
        self.assert_bad(f"{encoded(payload)}.{encoded(mac)}", "signature does not fit")
        self.assert_bad(f"{encoded(payload)}.", "signature does not fit")

    def test_other_forms(self):
        """
        A payload that means the same in another form is refused, even with a signature.
        """
        good = netstrings(*FIELDS)
        self.assertEqual(verify(KEYS, forged(good), NOW), GRANT)
        for i, field in (
            (1, b"0%d" % (NOW + 60)),
            (1, b"+%d" % (NOW + 60)),
            (1, b"%d.0" % (NOW + 60)),
            (1, b"1_764_000_060"),
            (1, "١٧٦٤٠٠٠٠٦٠".encode()),
            (1, b"9" * 15),
            (1, b""),
            (3, b"public/cam,public/cam"),
            (3, b",public/cam"),
            (3, b"b,a"),
            (3, b"a**"),
            (3, b"a,*"),
            (3, b"!a"),
            (4, b"Image/JPEG"),
            (4, b"image/jpeg;q=1"),
            (4, b"!"),
            (5, b"a,"),
            (6, b" alice"),
            (6, b"a\r\nb"),
            (6, b"\xff"),
            (7, b"007"),
            (7, b"-1"),
        ):
            fields = [*FIELDS[:i], field, *FIELDS[i + 1 :]]
            with self.assertRaises(BadLink, msg=field):
                verify(KEYS, forged(netstrings(*fields)), NOW)

    def test_other_fields(self):
        """
        Unknown, doubled and missing fields, and netstrings in another form, are refused.
        """
        good = netstrings(*FIELDS)
        for payload in (
            good + b"0:,",
            good + good,
            netstrings(*FIELDS[:-1]),
            good[:-1],
            good + b"x",
            b"0" + good,
            good.replace(b"0:,", b"00:,"),
            good.replace(b"2:k2,", b"2:k2;"),
            b"99999:" + good,
            b"",
        ):
            self.assert_bad(forged(payload), "complete|msgbus-sign")

    def test_too_long(self):
        """
        What is longer than 4,096 characters is refused before anything is computed, and is
        not signed.
        """
        self.assert_bad("A" * (MAX_LINK + 1), "longer than 4096")
        many = Channels("ä" * 250 + str(i) for i in range(3))
        grant = Grant(many, many, NOW + 1, "x" * 1000)
        with self.assertRaisesRegex(Invalid, "longer than 4096"):
            sign(KEYS, grant)

    def test_not_signed(self):
        """
        A grant that allows nothing, or does not expire at a whole second, has no link.
        """
        some = Channels(["a"])
        for grant in (
            Grant(expires=NOW),
            Grant(some),
            Grant(some, expires=NOW + 0.5),
            Grant(some, expires=10**12),
            Grant(some, NO_CHANNELS, NOW, filter=Filter(sender="\udc80")),
        ):
            with self.assertRaises(Invalid):
                sign(KEYS, grant)

    def test_no_link(self):
        """
        A query without a link has no grant.
        """
        self.assertIsNone(link_of(b"type=a"))


class KeysTests(SynchronousTestCase):
    """
    The file of keys.
    """

    LINE = format_key("k1", SECRET).encode()

    def test_file(self):
        """
        Comments and empty lines are skipped, lines may end in CRLF, and the first key
        signs.
        """
        text = (
            b"# mine\r\n\r\n" + self.LINE.replace(b"\n", b"\r\n") + b"a-B_9:" + b"ab+/" * 12
        )
        keys = Keys.parse(text, "f")
        self.assertEqual(list(keys.secrets), ["k1", "a-B_9"])
        self.assertEqual((keys.signing, keys.secrets["k1"]), ("k1", SECRET))
        self.assertNotIn(repr(SECRET)[2:-1], repr(keys))

    def test_broken(self):
        """
        A file that is not understood is refused, with its name and the line, and without
        what may be secret.
        """
        line = self.LINE
        for text, why in (
            (b"", "f: There is no key"),
            (b"\n# only a comment\n", "f: There is no key"),
            (b"\xef\xbb\xbf" + line, "f, line 1: .*byte order mark"),
            (line + b"\0", "f, line 2: It is not ID:SECRET"),
            (line + "kä".encode(), "f, line 2: It is not ASCII"),
            (line + b"\xff\xfe", "f, line 2: It is not ASCII"),
            (b"\n" + line[:-3], "f, line 2: The secret is not base64"),
            (line[:30] + b"\n", "f, line 1: The secret"),
            (b"k1:" + b"A" * 42 + b"B=", "f, line 1: The secret is not base64"),
            (b"k1:" + b"AA" * 10, "f, line 1: The secret has 15 bytes, not 32 to 1024"),
            (b"k1:" + b"AAAA" * 1000, "f, line 1: The secret has 3000 bytes"),
            (b"k 1" + line[2:], "f, line 1: It is not ID:SECRET"),
            (b":" + line[3:], "f, line 1: It is not ID:SECRET"),
            (line[3:], "f, line 1: It is not ID:SECRET"),
            (b"x" * 33 + line[2:], "f, line 1: It is not ID:SECRET"),
            (line + line, "f, line 2: An id and a secret"),
            (line + b"k2" + line[2:], "f, line 2: An id and a secret"),
            (line + format_key("k1", OTHER).encode(), "f, line 2: An id and a secret"),
            (b"-----BEGIN PUBLIC KEY-----\n", "f, line 1: It is not ID:SECRET"),
        ):
            with self.assertRaisesRegex(BadKeys, f"^{why}") as caught:
                Keys.parse(text, "f")
            self.assertNotIn(line[5:25].decode(), str(caught.exception))

    def test_too_many(self):
        """
        A file has at most 100 keys.
        """
        lines = [format_key(f"k{i}", bytes([i]) * 32) for i in range(101)]
        self.assertEqual(len(Keys.parse("".join(lines[:100]).encode(), "f").secrets), 100)
        with self.assertRaisesRegex(BadKeys, "more than 100"):
            Keys.parse("".join(lines).encode(), "f")

    @given(st.binary(max_size=200))
    def test_garbage(self, text):
        """
        Any bytes are refused, and raise nothing else.
        """
        with self.assertRaises(BadKeys):
            Keys.parse(text, "f")

    def test_format(self):
        """
        A key that could not be read again is not written.
        """
        for id, secret in (("a b", SECRET), ("", SECRET), ("a", b"short")):
            with self.assertRaises(ValueError):
                format_key(id, secret)
