"""
Tests for `msgbus.formats.multipart`: streams that cameras, encoders and scripts get wrong,
and are read all the same.
"""

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.multipart import Decoder, Malformed, declared_boundary

JPEG = b"\xff\xd8\r\n--B\r\n\xff\n\xd9"
TEXT = b"\xff\xd8 \r\n-- \r\n\xd9"


def read(stream, cuts, boundary, **limits):
    """
    The bodies of the parts of a whole stream that is cut at these places.
    """
    decoder = Decoder(boundary, **limits)
    bodies = []
    for start, stop in pairwise([0, *cuts, len(stream)]):
        bodies += [part.body for part in decoder.feed(stream[start:stop])]
    last = decoder.last()
    return bodies + ([] if last is None else [last.body])


def sized(body, head=b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"):
    """
    A head with the length of a body, and the body.
    """
    return head % len(body) + body


class SenderTests(SynchronousTestCase):
    """
    What senders put on the wire, each with the boundary that their `Content-Type` names.
    """

    def check(self, content_type, stream, *expected):
        """
        Assert that a stream has these bodies, wherever it is cut in two, and cut at every
        byte.
        """
        boundary = declared_boundary(f"multipart/x-mixed-replace{content_type}")
        for cuts in ([], range(len(stream)), *([at] for at in range(len(stream)))):
            got = read(stream, cuts, boundary)
            self.assertEqual(got, list(expected), (content_type, cuts))

    def test_right(self):
        """
        As the standard has it, with preamble, padding and epilogue.
        """
        stream = b"preamble\r\n--B \t\r\n" + sized(JPEG) + b"\r\n--B\r\n" + sized(b"")
        self.check("; boundary=B", stream + b"\r\n--B--\r\nepilogue\r\n--B\r\n", JPEG, b"")

    def test_dashes(self):
        """
        The boundary carries its hyphens: those of the delimiter are then counted in, or
        not.
        """
        for delimiter in (b"--X", b"----X"):
            stream = (b"%b\r\n" % delimiter).join((b"", sized(JPEG) + b"\r\n", sized(b"2")))
            for content_type in ("; boundary=--X", ';boundary="--X"', "; Boundary=--X"):
                self.check(content_type, stream + b"\r\n", JPEG, b"2")
            # Without lengths, the delimiter has to be found.
            stream = (b"\r\n%b\r\n" % delimiter).join((b"", b"A: b\r\n\r\n" + TEXT) * 2)
            self.check("; boundary=--X", stream[2:] + b"\r\n", TEXT, b"", TEXT)

    def test_no_boundary(self):
        """
        The type names no boundary, or an empty one: the first line tells it.
        """
        stream = (
            b"--cam era\r\n" + sized(JPEG) + b"\r\n--cam era\r\n" + sized(b"2") + b"\r\n"
        )
        for content_type in ("", ";", "; boundary=", '; boundary=""', "; charset=utf-8"):
            self.check(content_type, stream, JPEG, b"2")
            self.check(content_type, b"\r\n\n" + stream, JPEG, b"2")

    def test_no_first_delimiter(self):
        """
        The stream begins with the headers of its first part.
        """
        for start in (b"", b"\r\n", b"\n"):
            stream = start + sized(JPEG) + b"\r\n--B\r\n" + sized(b"2") + b"\r\n--B\r\n"
            self.check("; boundary=B", stream, JPEG, b"2")
        stream = b"content-length:1\r\n\r\n1\r\n--B\r\n" + sized(b"2")
        self.check("; boundary=B", stream, b"1", b"2")

    def test_line_feeds(self):
        """
        Lines end with LF alone.
        """
        stream = b"--B\n" + sized(JPEG, b"Content-Type: a/b\nContent-Length: %d\n\n")
        stream += b"\n--B\nContent-Type: a/b\n\n" + TEXT + b"\n--B--\n"
        self.check("; boundary=B", stream, JPEG, TEXT)

    def test_no_space(self):
        """
        No space stands behind the colon, or too many, also before it.
        """
        for head in (
            b"Content-Length:%d\r\n\r\n",
            b"Content-Length: \t %d \t\r\n\r\n",
            b"content-length :%d\r\n\r\n",
            b"CONTENT-LENGTH: %d\r\n\r\n",
        ):
            stream = b"--B\r\n" + sized(JPEG, head) + b"\r\n--B\r\n" + sized(JPEG, head)
            self.check("; boundary=B", stream, JPEG, JPEG)

    def test_no_length(self):
        """
        Parts have no length, and the last one no delimiter behind it.
        """
        part = b"--B\r\nContent-Type: image/jpeg\r\n\r\n"
        stream = part + TEXT + b"\r\n" + part + b"\r\n" + part + TEXT
        for end in (b"", b"\r\n", b"\n", b"\r\n--B\r\n", b"\r\n--B--", b"\r\n--B--\r\n"):
            expected = [TEXT, b"", TEXT]
            self.check("; boundary=B", stream + end, *expected)

    def test_doubled_delimiter(self):
        """
        A delimiter stands behind each part and before each, so that two follow each other.
        """
        part = b"--B\r\n" + sized(JPEG) + b"\r\n--B\r\n"
        self.check("; boundary=B", part + part, JPEG, JPEG)
        part = b"--B\r\nA: b\r\n\r\n" + TEXT + b"\r\n--B\r\n"
        self.check("; boundary=B", part + part, TEXT, TEXT)

    def test_empty_lines(self):
        """
        Empty lines stand between a part and the delimiter, and between the delimiter and
        the headers; or no line end at all stands before the delimiter.
        """
        for between in (b"", b"\r\n", b"\n\n", b"\r\n" * 4):
            stream = b"--B\r\n" + sized(JPEG) + between + b"--B\r\n" + sized(b"2")
            self.check("; boundary=B", stream, JPEG, b"2")
        for before in (b"", b"\r\n", b"\n"):
            stream = (
                b"--B\r\n" + before + sized(JPEG) + b"\r\n--B\r\n" + before + sized(b"2")
            )
            self.check("; boundary=B", stream, JPEG, b"2")

    def test_ffmpeg(self):
        """
        The muxer `mpjpeg` of ffmpeg; it writes no closing delimiter.
        """
        head = b"--ffmpeg\r\nContent-type: image/jpeg\r\nContent-length: %d\r\n\r\n"
        stream = sized(JPEG, head) + b"\r\n" + sized(b"2", head) + b"\r\n"
        for content_type in ("; boundary=ffmpeg", ";boundary=--ffmpeg", ""):
            self.check(content_type, stream, JPEG, b"2")

    def test_old_ffmpeg(self):
        """
        Old versions of it: LF, and no lengths.
        """
        head = b"--ffserver\nContent-type: image/jpeg\n\n"
        stream = head + TEXT + b"\n" + head + b"2" + b"\n"
        self.check(";boundary=ffserver", stream, TEXT, b"2")

    def test_gstreamer(self):
        """
        The `multipartmux` of GStreamer: the delimiter stands before each part only.
        """
        head = (
            b"--ThisRandomString\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        )
        stream = sized(JPEG, head) + b"\r\n" + sized(b"2", head) + b"\r\n"
        self.check(";boundary=ThisRandomString", stream, JPEG, b"2")

    def test_cameras(self):
        """
        What cameras send: mjpg-streamer (with a header of its own), ESP32 (a line end
        before each delimiter), Axis (hyphens in the parameter), motion.
        """
        stamped = (
            b"--boundarydonotcross\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n"
            b"X-Timestamp: 0.000000\r\n\r\n"
        )
        stream = sized(JPEG, stamped) + b"\r\n" + sized(b"2", stamped) + b"\r\n"
        self.check(";boundary=boundarydonotcross", stream, JPEG, b"2")
        esp = (
            b"\r\n--123456789000000000000987654321\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: %d\r\n\r\n"
        )
        stream = sized(JPEG, esp) + sized(b"2", esp)
        self.check(";boundary=123456789000000000000987654321", stream, JPEG, b"2")
        axis = b"--myboundary\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        stream = sized(JPEG, axis) + b"\r\n" + sized(b"2", axis) + b"\r\n"
        self.check(";boundary=--myboundary", stream, JPEG, b"2")
        motion = (
            b"--BoundaryString\r\nContent-type: image/jpeg\r\nContent-Length: %9d\r\n\r\n"
        )
        stream = sized(JPEG, motion) + b"\r\n" + sized(b"2", motion) + b"\r\n"
        self.check("; boundary=BoundaryString", stream, JPEG, b"2")

    def test_odd_boundaries(self):
        """
        A boundary may have 200 characters, those of patterns too, and begin as others do.
        """
        for boundary in (
            "x" * 200,
            "a.*b",
            "[",
            "(?:",
            "B--",
            "-",
            "a b",
            "'()+_,-./:=?",
        ):
            delimiter = f"--{boundary}\r\n".encode()
            stream = delimiter + sized(JPEG) + b"\r\n" + delimiter + sized(b"2") + b"\r\n"
            self.check(f'; boundary="{boundary}"', stream, JPEG, b"2")

    def test_hyphens(self):
        """
        A boundary of hyphens alone is none.
        """
        stream = b"--B\r\n" + sized(b"1") + b"\r\n"
        self.check('; boundary="----"', stream, b"1")
        with self.assertRaisesRegex(Malformed, "begins with none"):
            read(b"-----\r\n" + stream, [], None)

    def test_line_at_end(self):
        """
        A stream may end with empty lines behind a delimiter.
        """
        for end in (b"\r\n", b"\n", b"\r\n\r\n"):
            stream = b"--B\r\n" + sized(b"1") + b"\r\n--B\r\n" + end
            self.check("; boundary=B", stream, b"1")

    def test_nested(self):
        """
        The delimiter of a nested stream that begins with that of the outer one is no
        delimiter of it.
        """
        inner = b"--B2\r\nA: b\r\n\r\nx\r\n--B2--\r\n--Bx"
        stream = b"--B\r\nA: b\r\n\r\n" + inner + b"\r\n--B--\r\n"
        self.check("; boundary=B", stream, inner)


class LimitTests(SynchronousTestCase):
    """
    What is refused.
    """

    def test_boundaries(self):
        """
        A boundary of more than 200 characters, or with one that is not ASCII, is refused,
        in the type and in the first line.
        """
        for boundary in ("x" * 201, "ä", "a\x01"[:1] + "ö"):
            with self.assertRaises(Malformed):
                declared_boundary(f'multipart/x-mixed-replace; boundary="{boundary}"')
            with self.assertRaises(Malformed):
                read(f"--{boundary}\r\n".encode(), [], None)
        for line in (b"x", b"--", b"-", sized(b"x")):
            with self.assertRaises(Malformed):
                read(line + b"\r\n", [], None)

    def test_types(self):
        """
        Any type names a boundary, or none, or is refused as `Malformed`.
        """
        for tail in (
            "; boundary",
            "; boundary*=utf-8''B",
            "; boundary*0=B; boundary*1=C",
            '; boundary="',
            '; boundary="B',
            "; boundary=B; boundary=C",
            ";;;",
            "; =",
            "; boundary=\x00",
            "; boundary=\t",
            "\n",
            "; boundary==?utf-8?q?=20?=",
            "; boundary*=utf-8'",
            "; boundary*=",
            ";" * 10_000,
        ):
            try:
                boundary = declared_boundary("multipart/x-mixed-replace" + tail)
            except Malformed:
                continue
            self.assertIsInstance(boundary, str | None, tail)

    def test_many(self):
        """
        Ten thousand empty parts are read, with lengths and without.
        """
        for part in (b"--B\r\nContent-Length: 0\r\n\r\n\r\n", b"--B\r\nA: b\r\n\r\n\r\n"):
            self.assertEqual(len(read(part * 10_000, [], "B")), 10_000)

    def test_large_head(self):
        """
        The headers of a part have at most 16 KiB, in many lines, in one, or in continued
        ones.
        """
        for line in (b"A: b\r\n", b"A: " + b"x" * 20_000, b"A: b\r\n c\r\n"):
            for cuts in ([], range(20_480)):
                with self.assertRaisesRegex(Malformed, "16 KiB"):
                    read(b"--B\r\n" + line * (20_480 // len(line) + 1), cuts, "B")

    def test_preamble_in_pieces(self):
        """
        A delimiter is found behind a preamble, and none within a line of it, however the
        preamble is cut; and a long preamble is not searched again and again.
        """
        stream = (
            b"preamble --B\r\nx--B\r\n" + b"y" * 1000 + b"--B\r\n--B \r\n" + sized(b"1")
        )
        for size in (1, 2, 7, 150, 1000):
            cuts = range(0, len(stream), size)
            self.assertEqual(read(stream, cuts, "B"), [b"1"])
        with self.assertRaisesRegex(Malformed, "in sight"):
            read(b"x\n" + b"y" * 70_000, range(70_000), "B")
