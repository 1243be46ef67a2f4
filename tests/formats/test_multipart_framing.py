"""
Tests for `msgbus.formats.multipart_framing`.
"""

from email import message_from_bytes
from email.policy import HTTP

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.multipart_framing import MultipartFraming
from msgbus.message import Message

from ..strategies import messages

JPEG = Message("foo", b"\xff\xd8...", "image/jpeg", "alice")


class MultipartFramingTests(SynchronousTestCase):
    """
    How messages become parts.
    """

    def test_preamble(self):
        """
        A stream begins with the delimiter that opens the first part.
        """
        self.assertEqual(MultipartFraming("B").preamble, b"--B\r\n")

    def test_part(self):
        """
        A part has its headers, its body, and the delimiter that closes it.
        """
        self.assertEqual(
            MultipartFraming("B").frame(JPEG.published("1-2")),
            b"Content-Type: image/jpeg\r\n"
            b"Content-Length: 5\r\n"
            b"Content-Location: /msgbus/foo\r\n"
            b"From: alice\r\n"
            b"Msgbus-Id: 1-2\r\n"
            b"\r\n"
            b"\xff\xd8...\r\n"
            b"--B\r\n",
        )

    def test_anonymous(self):
        """
        A message without a sender has no `From`.
        """
        part = MultipartFraming("B").frame(Message("foo", b""))
        self.assertNotIn(b"From", part)
        self.assertNotIn(b"Msgbus", part)

    def test_origin(self):
        """
        A message with an origin has a line for it behind that of the id.
        """
        message = Message("foo", b"", origin="7/1-7000000000001").published("1-2")
        self.assertIn(
            b"\r\nMsgbus-Id: 1-2\r\nMsgbus-Origin: 7/1-7000000000001\r\n\r\n",
            MultipartFraming("B").frame(message),
        )

    def test_location(self):
        """
        The location is the prefix and the name, percent-encoded.
        """
        part = MultipartFraming("B", "/a%20bus/").frame(Message("x y/ä%2F/@:", b""))
        self.assertIn(b"Content-Location: /a%20bus/x%20y/%C3%A4%252F/@:\r\n", part)

    @given(st.lists(messages()))
    def test_as_the_standard_library_reads_it(self, sent):
        """
        Python's own MIME parser finds as many parts, and their types.
        """
        encoder = MultipartFraming("msgbus0123456789abcdef")
        stream = encoder.preamble + b"".join(map(encoder.frame, sent))
        head = b"Content-Type: multipart/mixed;boundary=msgbus0123456789abcdef\r\n\r\n"
        parts = message_from_bytes(head + stream, policy=HTTP).get_payload()
        # Behind the last delimiter, the parser finds one more part, which is empty.
        self.assertEqual(len(parts[: len(sent)]), len(sent))
        for part, message in zip(parts, sent, strict=False):
            self.assertEqual(int(part["Content-Length"]), len(message.body))
