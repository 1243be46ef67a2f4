"""
Tests for `msgbus.client.responses`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.errors import BusError, Refused, Unreachable
from msgbus.client.responses import receipt, refusal
from msgbus.message import Receipt

PLAIN = {"content-type": "text/plain"}


class ResponseTests(SynchronousTestCase):
    """
    What the response of a bus means.
    """

    def refused(self, kind, sentence, status, head=None, text=b""):
        """
        Check that this response is the same error for a publication and for any other
        request.
        """
        with self.assertRaises(BusError) as caught:
            receipt(status, head or {}, text)
        for error in (caught.exception, refusal(status, head or {}, text)):
            self.assertIs(type(error), kind)
            self.assertEqual(str(error), sentence)
            if kind is Refused:
                self.assertEqual(error.status, status)

    def test_receipt(self):
        """
        A receipt has the id and the number of subscribers.  Where the bus does not tell
        them, or tells nonsense, they are empty and -1.
        """
        for head, expected in (
            ({"msgbus-id": "1-2", "msgbus-subscribers": "3"}, Receipt("1-2", 3)),
            ({"msgbus-id": "1-2", "msgbus-subscribers": "0"}, Receipt("1-2", 0)),
            ({}, Receipt("", -1)),
            ({"msgbus-subscribers": ""}, Receipt("", -1)),
            ({"msgbus-subscribers": "-5"}, Receipt("", -1)),
            ({"msgbus-subscribers": "1,1"}, Receipt("", -1)),
            ({"msgbus-subscribers": "²"}, Receipt("", -1)),
            ({"msgbus-subscribers": "٣"}, Receipt("", -1)),
        ):
            self.assertEqual(receipt(204, head, b"ignored"), expected, head)

    def test_huge_count(self):
        """
        A number too large for any bus counts as none.
        """
        head = {"msgbus-subscribers": "1" * 5000}
        self.assertEqual(receipt(204, head, b""), Receipt("", -1))

    def test_no_bus(self):
        """
        A server whose response is a success, but not that of a bus, is told to be none.
        """
        for status, head, kind in (
            (200, {"content-type": "text/html"}, "text/html"),
            (200, {}, "nothing"),
            (200, {"content-type": ""}, "nothing"),
            (201, PLAIN, "text/plain"),
            (299, {"content-type": "a\x1b[2J"}, "a\ufffd[2J"),
            (200, {"content-type": "x" * 1_000_000}, "x" * 300),
        ):
            sentence = (
                f"This is no bus: it answered {status} with {kind}; the address of one"
                " looks like http://HOST:8888/msgbus/CHANNEL."
            )
            self.refused(Refused, sentence, status, head, b"Hello.")

    def test_sentence(self):
        """
        The error quotes the first line of the body, if that is plain text.
        """
        for content_type in ("text/plain", "text/plain; charset=utf-8"):
            head = {"content-type": content_type, "location": "/x"}
            sentence = "The answer is 400: ä is wrong."
            self.refused(Refused, sentence, 400, head, "ä is wrong.\nmore".encode())
        for head, text in (
            ({"content-type": "text/html"}, b"<h1>No.</h1>"),
            ({}, b"No."),
            (PLAIN, b""),
            (PLAIN, b"\nNo."),
            (PLAIN, b"  \n"),
        ):
            self.refused(Refused, "The answer is 404.", 404, head, text)

    def test_redirect(self):
        """
        Redirects are not followed, but the error says where they lead.
        """
        for status in (301, 302, 303, 307, 308):
            self.refused(
                Refused,
                f"The answer is {status}: It is at https://h/x\ufffd.",
                status,
                {"content-type": "text/html", "location": "https://h/x\x07"},
            )
        self.refused(Refused, "The answer is 304.", 304, {"location": ""})

    def test_passing(self):
        """
        Another try may change an error of the server, a timeout, and too many requests,
        but no other refusal.
        """
        for status in (408, 429, 500, 502, 503, 504, 599, 999):
            self.refused(Unreachable, f"The answer is {status}.", status)
            sentence = f"The answer is {status}: Later."
            self.refused(Unreachable, sentence, status, PLAIN, b"Later.\n")
        for status in (0, 100, 199, 300, 400, 401, 403, 407, 409, 413, 422, 428, 430, 499):
            self.refused(Refused, f"The answer is {status}.", status)

    def test_hostile_sentence(self):
        """
        Little is shown of what a server says, and no control character.
        """
        for status, kind in ((400, Refused), (500, Unreachable)):
            text = b"\x1b]0;x\x07\x00\xff\xc2\x9b" + b"x" * 1_000_000
            shown = "\ufffd]0;x" + "\ufffd" * 4 + "x" * 291
            sentence = f"The answer is {status}: {shown}"
            self.refused(kind, sentence, status, PLAIN, text)
            sentence = f"The answer is {status}: It is at {'y' * 300}."
            self.refused(kind, sentence, status, {"location": "y" * 1_000_000})

    def test_carriage_return(self):
        """
        A carriage return before the line feed is no part of the line.
        """
        self.refused(Refused, "The answer is 400: No.", 400, PLAIN, b"No.\r\nmore")

    def test_case_of_type(self):
        """
        Types are compared without regard to case (RFC 9110, section 8.3.1).
        """
        head = {"content-type": "Text/Plain"}
        self.refused(Refused, "The answer is 400: No.", 400, head, b"No.")

    @given(st.integers(-1, 1000), st.text(max_size=20), st.binary(max_size=50))
    def test_total(self, status, value, text):
        """
        Any answer is a receipt, or an error that is one printable line.
        """
        for name in ("content-type", "location", "msgbus-id", "msgbus-subscribers"):
            for head in ({name: value}, {**PLAIN, name: value}):
                try:
                    told = receipt(status, head, text)
                except BusError as error:
                    self.assertTrue(str(error).isprintable())
                    self.assertIs(isinstance(error, Refused), hasattr(error, "status"))
                else:
                    self.assertEqual(status, 204)
                    self.assertIsInstance(told, Receipt)
