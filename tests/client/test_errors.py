"""
Tests for `msgbus.client.errors`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.errors import printable


class PrintableTests(SynchronousTestCase):
    """
    Text from a server, as it is shown.
    """

    def test_shown(self):
        """
        Each character that is not printable becomes a replacement character; spaces at the
        ends are dropped.
        """
        for text, shown in (
            ("", ""),
            ("  ä b€\U0001f4e8 ", "ä b€\U0001f4e8"),
            (
                "a\nb\r\tc\x00\x1b[2J\x7f\x9b",
                "a\ufffdb\ufffd\ufffdc\ufffd\ufffd[2J\ufffd\ufffd",
            ),
            ("\u202etxt\u2028\udcff", "\ufffdtxt\ufffd\ufffd"),
            ("x" * 1_000_000, "x" * 300),
            (" " * 300 + "x", ""),
        ):
            self.assertEqual(printable(text), shown, text[:20])

    @given(st.text(st.characters()))
    def test_any(self, text):
        """
        The result is always short, and on one line.
        """
        shown = printable(text)
        self.assertTrue(shown.isprintable())
        self.assertLessEqual(len(shown), min(len(text), 300))
        self.assertEqual(printable(shown), shown)
