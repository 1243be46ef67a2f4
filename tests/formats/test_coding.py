"""
Tests for `msgbus.formats.coding`.
"""

import gzip
import os
import tracemalloc
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.coding import decoded
from msgbus.message import Invalid, Message


def coded(body, coding, **headers):
    """
    A message that says that its body is coded.
    """
    return Message("a", body, headers={"Content-Encoding": coding, **headers})


class DecodedTests(SynchronousTestCase):
    """
    Bodies without their content codings.
    """

    @given(st.binary(max_size=300))
    def test_codings(self, body):
        """
        Each coding that is known is undone, the last one first, and is no longer told.
        """
        for coding, made in (
            ("gzip", gzip.compress(body)),
            ("X-GZIP", gzip.compress(body) + gzip.compress(b"")),
            ("deflate", zlib.compress(body)),
            ("identity", body),
            ("", body),
            ("deflate, gzip", gzip.compress(zlib.compress(body))),
        ):
            message = decoded(coded(made, coding, **{"x-a": "b"}), 300)
            self.assertEqual(message, Message("a", body, headers={"x-a": "b"}))

    def test_mistakes(self):
        """
        What is not coded as it says, or by something else, is refused.
        """
        whole = gzip.compress(b"hello")
        for body, coding in (
            (whole[:-1], "gzip"),
            (whole + b"x", "gzip"),
            (b"hello", "gzip"),
            (whole, "deflate"),
            (whole, "br"),
            (whole, "gzip, gzip"),
            (whole, "gzip, gzip, gzip, gzip"),
        ):
            self.assertRaises(Invalid, decoded, coded(body, coding), 1000)

    def test_bomb(self):
        """
        Bodies that would be too large are refused before they are.
        """
        bomb = gzip.compress(bytes(10**8))
        twice = gzip.compress(bomb)
        many = gzip.compress(bytes(600)) * 9
        tracemalloc.start()
        for body, coding in ((bomb, "gzip"), (twice, "gzip, gzip"), (many, "gzip")):
            self.assertRaises(Invalid, decoded, coded(body, coding), 1000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertLess(peak, 10**6)

    def test_many_streams(self):
        """
        A body may be many streams, larger and smaller ones, but not millions of empty ones:
        that would take hours.
        """
        large = bytes(10**6) + os.urandom(10_000)
        body = b"".join(map(gzip.compress, (b"", large, b"a", large, b"")))
        message = decoded(coded(body, "gzip"), 10**8)
        self.assertEqual(message.body, large + b"a" + large)
        many = gzip.compress(zlib.compress(b"") * 10**6)
        self.assertLess(len(many), 15_000)
        with self.assertRaisesRegex(Invalid, "streams"):
            decoded(coded(many, "deflate, gzip"), 10**8)
