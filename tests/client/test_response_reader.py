"""
Tests for `msgbus.client.response_reader`.
"""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.errors import Unreachable
from msgbus.client.response_reader import ResponseReader

CHUNKED = (
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nVia: a\r\nvia: b\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\nA\r\n, world\r\n.\r\n0\r\nTrailer: x\r\n\r\n"
)


class ResponseReaderTests(SynchronousTestCase):
    """
    Reading a response.
    """

    def read(self, *pieces):
        """
        The reader that was fed with these, and the body that it gave.
        """
        reader = ResponseReader()
        return reader, b"".join([reader.feed(piece) for piece in pieces])

    @given(st.lists(st.integers(0, len(CHUNKED))))
    def test_split_anywhere(self, places):
        """
        A response is the same in pieces of any size: interim responses are passed over, and
        chunks joined.
        """
        bounds = [0, *sorted(places), len(CHUNKED)]
        pairs = pairwise(bounds)
        reader, body = self.read(*(CHUNKED[a:b] for a, b in pairs))
        self.assertEqual((reader.status, body), (200, b"hello, world\r\n."))
        self.assertEqual(reader.head["content-type"], "a/b")
        self.assertEqual(reader.head["via"], "a,b")
        self.assertTrue(reader.ended)
        reader.end()

    def test_lengths(self):
        """
        A body ends with its length, or at once where there is none, or with the connection.
        """
        reader, body = self.read(b"HTTP/1.1 401 No\r\nContent-Length: 3\r\n\r\nabcdef")
        self.assertEqual((reader.status, body, reader.ended), (401, b"abc", True))
        for head in (b"204 No Content\r\n", b"200 OK\r\nContent-Length: 0\r\n"):
            reader, body = self.read(b"HTTP/1.1 " + head + b"\r\n")
            self.assertEqual((body, reader.ended), (b"", True))
        reader, body = self.read(b"HTTP/1.0 200 OK\r\n\r\nabc", b"def")
        self.assertEqual((body, reader.ended), (b"abcdef", False))
        reader.end()
        self.assertTrue(reader.ended)

    def test_cut(self):
        """
        A response that is cut, or that never came, is told apart from a complete one.
        """
        for text, sentence in (
            (b"", "does it ask for TLS"),
            (b"HTTP/1.1 200", "was cut"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "was cut"),
            (CHUNKED[:-2], "was cut"),
        ):
            reader, _ = self.read(text)
            with self.assertRaisesRegex(Unreachable, sentence):
                reader.end()

    def test_garbage(self):
        """
        What is no HTTP is refused, also before it is complete.
        """
        ok = b"HTTP/1.1 200 OK\r\n"
        chunked = ok + b"Transfer-Encoding: chunked\r\n\r\n"
        for text in (
            b"SSH-2.0-x\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"\r\n\r\n",
            ok + b"Content-Length: -1\r\n\r\n",
            ok + b"X: " + b"x" * 70000,
            chunked + b"x\r\n",
            chunked + b"1\r\nabc\r\n",
            chunked + b"1" * 9000,
        ):
            with self.assertRaisesRegex(Unreachable, "This is no HTTP"):
                self.read(text)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data):
        """
        Whatever comes is read, or is no HTTP.
        """
        try:
            reader, _ = self.read(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", data
            )
            reader.end()
        except Unreachable:
            pass
