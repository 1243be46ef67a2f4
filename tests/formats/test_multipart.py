"""
Tests for `msgbus.formats.multipart`.
"""

import contextlib
import json
import random
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.multipart import Decoder, Malformed, Part, boundary_of
from msgbus.formats.multipart_framing import MultipartFraming
from msgbus.message import Invalid, Message

from ..memory import unchunked
from ..strategies import messages, splits

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "multipart.json").read_text())

# What the original server was heard to send; to HTTP/1.0 with lengths, too.
ORIGINAL = [
    ({"content-type": "text/plain"}, b"message 0\n"),
    ({"from": "alice", "content-type": "text/html"}, b"message 1\n"),
    ({"content-type": "application/octet-stream"}, b"message 2\x00\xff"),
]


def recorded(version):
    """
    The boundary and the body of an answer that the original server gave.
    """
    answer = (Path(__file__).parents[1] / "data" / f"original-{version}.bin").read_bytes()
    head, _, body = answer.partition(b"\r\n\r\n")
    (content_type,) = (
        line.removeprefix("Content-Type: ")
        for line in head.decode().split("\r\n")
        if line.startswith("Content-Type: ")
    )
    return boundary_of(content_type), body


def decode(data, cuts=(), boundary="B", **limits):
    """
    All parts of a stream that comes cut at these places.
    """
    decoder = Decoder(boundary, **limits)
    edges = [0, *sorted(cuts), len(data)]
    parts = []
    for start, stop in pairwise(edges):
        parts += decoder.feed(data[start:stop])
    return parts, decoder


class VectorTests(SynchronousTestCase):
    """
    Streams and boundaries of tests/data/multipart.json, with which the decoder for browsers
    is tested too.
    """

    def test_streams(self):
        """
        Each stream has the parts that the file says, wherever it is cut.
        """
        for vector in VECTORS["streams"]:
            stream = b"".join(
                piece.encode("latin-1")
                if isinstance(piece, str)
                else piece["text"].encode("latin-1") * piece["times"]
                for piece in vector["stream"]
            )
            self.check(vector, stream, ())
            if len(stream) < 1000:
                self.check(vector, stream, range(len(stream)))
            for _ in range(30):
                self.check(vector, stream, random.choices(range(len(stream) + 1), k=8))

    def check(self, vector, stream, cuts):
        """
        Check one stream, cut at these places.
        """
        where = f"{vector['name']}, cut at {sorted(cuts)}"
        limits = {"max_body": vector["max_body"]} if "max_body" in vector else {}
        decoder = Decoder(vector.get("boundary", "B"), **limits)
        parts, complaint, ends = [], "", False
        try:
            for start, stop in pairwise([0, *sorted(cuts), len(stream)]):
                for part in decoder.feed(stream[start:stop]):
                    parts.append(part)
            ahead = decoder.ahead
        except Malformed as error:
            complaint = str(error)
        else:
            with contextlib.suppress(Malformed):
                decoder.end()
                ends = True
            self.assertEqual(ahead, vector.get("ahead", ahead), where)
        expected = [
            Part(part["headers"], part["body"].encode("latin-1"))
            for part in vector["parts"]
        ]
        self.assertEqual(parts, expected, where)
        if "malformed" in vector:
            self.assertIn(vector["malformed"], complaint, where)
        else:
            self.assertEqual((complaint, ends), ("", vector["ends"]), where)

    def test_boundaries(self):
        """
        A boundary may be quoted, and stand among other parameters; types that are not
        multipart, or have no valid boundary, are refused.
        """
        for content_type, boundary in VECTORS["boundaries"]:
            if boundary is None:
                with self.assertRaises(Malformed, msg=content_type):
                    boundary_of(content_type)
            else:
                self.assertEqual(boundary_of(content_type), boundary)


class DecoderTests(SynchronousTestCase):
    """
    Parts to messages.
    """

    @given(st.data(), st.lists(messages(), max_size=5))
    def test_round_trip(self, data, sent):
        """
        Messages that were framed are decoded, wherever the stream is cut.
        """
        encoder = MultipartFraming("msgbus0123456789abcdef")
        stream = encoder.preamble + b"".join(map(encoder.frame, sent))
        cuts = data.draw(splits(stream))
        parts, decoder = decode(stream, cuts, encoder.boundary)
        self.assertEqual([part.message() for part in parts], sent)
        decoder.end()

    @given(st.data(), st.lists(st.binary(max_size=30).filter(lambda b: b"--B" not in b)))
    def test_without_length(self, data, bodies):
        """
        Parts without a length end at their delimiter, wherever it is cut.
        """
        stream = b"--B" + b"".join(b"\r\nA: b\r\n\r\n%s\r\n--B" % body for body in bodies)
        stream += b"--\r\nepilogue\r\n--B\r\n"
        parts, decoder = decode(stream, data.draw(splits(stream)))
        self.assertEqual(parts, [Part({"a": "b"}, body) for body in bodies])
        decoder.end()

    @given(st.binary(max_size=200), st.data())
    def test_garbage(self, stream, data):
        """
        Any bytes are parts, wait for more, or are `Malformed`; and it does
        not matter how they are cut.
        """

        def outcome(cuts):
            parts = []
            decoder = Decoder("B", max_body=50)
            edges = [0, *sorted(cuts), len(stream)]
            try:
                for start, stop in pairwise(edges):
                    for part in decoder.feed(stream[start:stop]):
                        parts.append(part)
                decoder.end()
            except Malformed:
                return parts, "malformed"
            return parts, "clean"

        self.assertEqual(outcome(data.draw(splits(stream))), outcome(()))

    @given(st.data())
    def test_original_1_0(self, data):
        """
        To HTTP/1.0 the original server sends lengths, and its stream is read wherever it
        is cut.
        """
        boundary, stream = recorded("1.0")
        expected = [
            Part({**headers, "content-length": str(len(body))}, body)
            for headers, body in ORIGINAL
        ]
        for cuts in (range(len(stream)), data.draw(splits(stream))):
            parts, decoder = decode(stream, cuts, boundary)
            self.assertEqual(parts, expected)
            decoder.end()

    def test_original_1_1(self):
        """
        To HTTP/1.1 the original server sends no lengths, and no line end before the
        delimiter; each part, a chunk of its own, is complete with that chunk.
        """
        boundary, stream = recorded("1.1")
        opening, *chunks = unchunked(stream)
        decoder = Decoder(boundary)
        self.assertEqual(list(decoder.feed(opening)), [])
        for chunk, (headers, body) in zip(chunks, ORIGINAL, strict=True):
            self.assertEqual(list(decoder.feed(chunk)), [Part(headers, body)])
            decoder.end()

    def test_original_1_1_bounded(self):
        """
        Such a stream never makes the decoder hold more than a body of the largest size,
        and a chunk.
        """
        boundary, stream = recorded("1.1")
        opening, *_, chunk = unchunked(stream)
        decoder = Decoder(boundary, max_body=1000)
        list(decoder.feed(opening))
        for _ in range(1000):
            try:
                list(decoder.feed(chunk))
            except Malformed:
                break
            self.assertLessEqual(len(decoder._buffer), 1000 + len(chunk) + 256)
        else:
            self.assertEqual(len(decoder._buffer), 0)

    def test_lines_sent_ahead(self):
        """
        A header line may come long before the part that it belongs to.
        """
        decoder = Decoder("B")
        self.assertEqual(list(decoder.feed(b"--B\r\nMsgbus-Gap: 2\r\n")), [])
        self.assertEqual(decoder.ahead, {"msgbus-gap": "2"})
        parts = list(decoder.feed(b"Content-Length: 0\r\n\r\n"))
        self.assertEqual(parts, [Part({"msgbus-gap": "2", "content-length": "0"}, b"")])
        # Header lines behind the body belong to the next part.
        self.assertEqual(decoder.ahead, {})
        self.assertEqual(list(decoder.feed(b"\r\n--B\r\nMsgbus-Gap: 1\r\n")), [])
        self.assertEqual(decoder.ahead.pop("msgbus-gap"), "1")
        (part,) = decoder.feed(b"Content-Length: 0\r\n\r\n")
        self.assertEqual(part.headers, {"content-length": "0"})

    def test_heartbeats(self):
        """
        Heartbeats may come for years, and a stream may end behind one, and
        behind a gap.
        """
        decoder = Decoder("B")
        list(decoder.feed(b"--B\r\n"))
        for _ in range(20_000):
            self.assertEqual(list(decoder.feed(b"Msgbus-Heartbeat: 1\r\n")), [])
        decoder.end()
        list(decoder.feed(b"Msgbus-Gap: 1\r\n"))
        decoder.end()
        parts = list(decoder.feed(b"A: b\r\n\r\n\r\n--B\r\n"))
        self.assertEqual(parts, [Part({"msgbus-gap": "1", "a": "b"}, b"")])

    def test_bounded(self):
        """
        The decoder holds nothing of the parts that it has returned.
        """
        decoder = Decoder("B")
        part = b"Content-Length: 3\r\n\r\nabc\r\n--B\r\n"
        list(decoder.feed(b"--B\r\n"))
        for _ in range(1000):
            self.assertEqual(len(list(decoder.feed(part))), 1)
        self.assertEqual(len(decoder._buffer), 0)


class PartTests(SynchronousTestCase):
    """
    Parts that are messages, and parts that are not.
    """

    def test_elsewhere(self):
        """
        A part with a location that is not below the prefix is not a message of this bus.
        """
        part = Part({"content-location": "/other/foo", "content-type": "a/b"}, b"")
        with self.assertRaisesRegex(Invalid, "not below '/msgbus/'"):
            part.message()
        self.assertEqual(part.message("/other/"), Message("foo", b"", "a/b"))

    def test_origin(self):
        """
        The id and the origin of a message are read; an invalid origin is refused.
        """
        headers = {"content-location": "/msgbus/foo", "content-type": "a/b"}
        headers |= {"msgbus-id": "1-2", "msgbus-origin": "7/1-7000000000001"}
        message = Part(headers, b"").message()
        self.assertEqual((message.id, message.origin), ("1-2", "7/1-7000000000001"))
        with self.assertRaisesRegex(Invalid, "no origin"):
            Part({**headers, "msgbus-origin": "x"}, b"").message()

    def test_no_type(self):
        """
        A part without a type is not a message.
        """
        with self.assertRaisesRegex(Invalid, "content type"):
            Part({"content-location": "/msgbus/foo"}, b"").message()
