"""
Tests for `msgbus.ids`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.ids import parse_id
from msgbus.message import Invalid


class IdTests(SynchronousTestCase):
    """
    Ids as text.
    """

    def test_parse(self):
        """
        An id is two numbers; other texts are refused.
        """
        self.assertEqual(parse_id("12-34"), (12, 34))
        for text in ("", "12", "-", "1-", "-1", "a-1", "1-2 ", "1-2-3", "²-1", "1" * 30):
            with self.assertRaises(Invalid, msg=text):
                parse_id(text)
