"""
Tests for `msgbus.formats.lines`.
"""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.lines import LineDecoder
from msgbus.formats.multipart import TooLarge

from ..strategies import splits

streams = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b"\x00", b"\x85", b"\xff"])
).map(b"".join)


def reference(stream, max_line):
    """
    The lines of a stream, the last one too if it has no end, and whether all of them are
    short enough; what is behind the first that is too long is missing.
    """
    lines = [line.removesuffix(b"\r") for line in stream.split(b"\n")]
    if not stream.rpartition(b"\n")[2]:
        lines.pop()
    for number, line in enumerate(lines):
        if len(line) > max_line:
            return lines[:number], False
    return lines, True


class LineDecoderTests(SynchronousTestCase):
    """
    Streams of lines.
    """

    @given(streams, st.integers(0, 4), st.data())
    def test_reference(self, stream, max_line, data):
        """
        The lines are the same wherever the stream is cut, and however many of them are
        taken between two pieces; a line that is too long ends the stream.
        """
        cuts = data.draw(st.one_of(splits(stream), st.just([*range(len(stream))])))
        edges = [0, *sorted(cuts), len(stream)]
        decoder = LineDecoder(max_line)
        lines, whole = [], True
        try:
            for start, stop in pairwise(edges):
                coming = decoder.feed(stream[start:stop])
                for _ in range(data.draw(st.integers(0, 5))):
                    lines += [line for line in [next(coming, None)] if line is not None]
            lines += decoder.feed(b"")
            last = decoder.last()
            lines += [] if last is None else [last]
        except TooLarge:
            whole = False
        expected, expected_whole = reference(stream, max_line)
        self.assertEqual((lines, whole), (expected, expected_whole))

    def test_inside(self):
        """
        A line has begun with its first byte, and is complete with its end.
        """
        decoder = LineDecoder(10)
        for data, inside in ((b"", False), (b"a", True), (b"\n", False), (b"\nb", True)):
            list(decoder.feed(data))
            self.assertEqual(decoder.is_inside, inside)
        self.assertEqual(decoder.last(), b"b")
        self.assertFalse(decoder.is_inside)
        self.assertIsNone(decoder.last())

    def test_too_large(self):
        """
        A line that grows too long is refused before its end; its CR does not count.
        """
        for data in (b"abcd", b"abcd\n", b"abc\rd", b"abcd\r\n"):
            with self.assertRaisesRegex(TooLarge, "more than 3 bytes"):
                list(LineDecoder(3).feed(b"abc\r\n" + data))
        decoder = LineDecoder(3)
        self.assertEqual(list(decoder.feed(b"abc\r\nab")), [b"abc"])
        self.assertEqual(list(decoder.feed(b"c\r\n")), [b"abc"])
        self.assertEqual(list(decoder.feed(b"abc\r")), [])
        self.assertEqual(list(decoder.feed(b"\n")), [b"abc"])
