"""
Tests for `msgbus.formats.repeated_head`.
"""

from itertools import pairwise
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.multipart import Decoder, Malformed
from msgbus.formats.repeated_head import RepeatedHead

from ..strategies import splits

VALUES = ["0", "1", "2", "02", "10", "", "-1", "+1", "1 ", " 1", "1, 1", "1_0", "²", "x"]
VALUES += ["a b", "/msgbus/a", "ä", "\x7f", "\x01", "9" * 12, "9" * 25, "x" * 300, "1-2"]
NAMES = ["Content-Length", "content-length", "Content-Location", "Msgbus-Id", "X"]
NAMES += ["Msgbus-Origin", "Idempotency-Key", "IDEMPOTENCY-KEY", "Content-Type"]
NAMES += ["Msgbus-Gap", "Msgbus-Heartbeat", "Content-Length ", " Content-Length"]

line_ends = st.sampled_from(["\r\n"] * 8 + ["\n"])
lines = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    st.sampled_from(NAMES),
    st.sampled_from([": "] * 5 + [":", ":\t", ":  ", " : "]),
    st.sampled_from(VALUES),
    line_ends,
)
bodies = st.sampled_from([b"", b"a", b"ab", b"--B", b"\r\n", b"\r\n--B\r\n", b"x" * 10])


@st.composite
def streams(draw):
    """
    A stream of parts, most of which have almost the same head.
    """
    stream = b"--B\r\n"
    head = draw(st.lists(lines, max_size=4))
    for _ in range(draw(st.integers(2, 8))):
        match draw(st.sampled_from("rrrrrecd")):
            case "e":
                head = draw(st.lists(lines, max_size=4))
            case "c" if head:
                head = [*head]
                at = draw(st.integers(0, len(head) - 1))
                head[at] = draw(lines)
            case "d" if head:
                head = [*head, draw(st.sampled_from(head))]
        body = draw(bodies)
        right = draw(st.sampled_from([True] * 8 + [False]))
        length = f"Content-Length: {len(body)}\r\n" if right else ""
        first = draw(st.booleans())
        text = [length, *head] if first else [*head, length]
        stream += "".join(text).encode() + draw(line_ends).encode() + body
        stream += draw(
            st.sampled_from([b"\r\n--B\r\n"] * 8 + [b"\n--B\n", b"\r\n--B \r\n"])
        )
    return stream


def outcome(stream, cuts, learns=True):
    """
    The parts of a stream that is cut at these places, the complaint, and the state at the
    end; by a decoder that learns heads, or by one that does not.
    """
    parts = []
    learn = RepeatedHead.learn if learns else lambda *_: None
    with patch.object(RepeatedHead, "learn", learn):
        decoder = Decoder("B", max_body=1000)
        try:
            for start, stop in pairwise([0, *sorted(cuts), len(stream)]):
                for part in decoder.feed(stream[start:stop]):
                    parts.append((dict(part.headers), part.body))
        except Malformed as error:
            return parts, str(error), None
        return parts, "", (decoder.is_inside, dict(decoder.ahead))


class RepeatedHeadTests(SynchronousTestCase):
    """
    A decoder that learns heads, beside one that parses all of them.
    """

    @settings(max_examples=500)
    @given(streams(), st.data())
    def test_differential(self, stream, data):
        """
        Both read the same parts, and complain of the same, wherever the stream is cut.
        """
        expected = outcome(stream, (), learns=False)
        self.assertEqual(outcome(stream, ()), expected)
        self.assertEqual(outcome(stream, data.draw(splits(stream))), expected)
        self.assertEqual(outcome(stream, range(len(stream))), expected)

    def test_reads(self):
        """
        A head that differs only in its length, ids and location is read, and so is one that
        is equal.
        """
        repeated = RepeatedHead()
        head = b"\r\n--B\r\nContent-Length: 3\r\nA: b\r\nMsgbus-Id: 1-2\r\n\r\n"
        headers = {"content-length": "3", "a": "b", "msgbus-id": "1-2"}
        self.assertIsNone(repeated.read(head, 0))
        repeated.learn(head, headers)
        other = head.replace(b" 3", b" 1234").replace(b"1-2", b"3-45678")
        read = {"content-length": "1234", "a": "b", "msgbus-id": "3-45678"}
        for _ in range(2):
            self.assertEqual(repeated.read(b"x" + other, 1), (read, 1234, 1 + len(other)))
            self.assertEqual(repeated.read(head + b"abc", 0), (headers, 3, len(head)))

    def test_gap(self):
        """
        A head that tells a gap is not learned, because readers take the gap away from the
        headers, which equal heads would have in common.
        """
        repeated = RepeatedHead()
        head = b"\r\n--B\r\nMsgbus-Gap: 1\r\nContent-Length: 3\r\n\r\n"
        repeated.learn(head, {"msgbus-gap": "1", "content-length": "3"})
        self.assertIsNone(repeated.read(head, 0))
        head = head.replace(b"Msgbus-Gap", b"Msgbus-Live")
        repeated.learn(head, {"msgbus-live": "1", "content-length": "3"})
        self.assertIsNone(repeated.read(head, 0))

    def test_leaves(self):
        """
        A head that may have to be read in another way is left to the parser.
        """
        repeated = RepeatedHead()
        head = b"\r\n--B\r\nContent-Length: 3\r\nA: b\r\nMsgbus-Id: 1-2\r\n\r\n"
        repeated.learn(head, {"content-length": "3", "a": "b", "msgbus-id": "1-2"})
        for old, new in (
            (b" 3", b" -3"),
            (b" 3", b" "),
            (b" 3", b" 3 "),
            (b" 3", b" 12345678901"),
            (b" 3", b" 3\n"),
            (b" 3\r\n", b" 3\n"),
            (b"b\r\n", b"c\r\n"),
            (b"A: b\r\n", b""),
            (b"A: b\r\n", b"A: b\r\n c\r\n"),
            (b"A: b\r\n", b"A: b\r\nContent-Length: 4\r\n"),
            (b"A: b\r\n", b"A: b\r\nMsgbus-Gap: 1\r\n"),
            (b"1-2", b"1 2"),
            (b"1-2", b"\xc3\xa4"),
            (b"1-2", b"x" * 300),
            (b"1-2\r\n\r\n", b"1-2\r\n"),
            (b"--B", b"--C"),
        ):
            self.assertIsNone(repeated.read(head.replace(old, new), 0), new)
