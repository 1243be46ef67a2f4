"""
Tests for `msgbus.ids`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.ids import origin_of, parse_id, parse_origin
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

    def test_origin(self):
        """
        The origin of a message is the life in its id, and its id.
        """
        for id, origin in (
            ("1764-4711000000000017", "4711/1764-4711000000000017"),
            ("01764-04711000000000017", "4711/1764-4711000000000017"),
            ("1-999999999999999999", "999999/1-999999999999999999"),
            ("1-2", "0/1-2"),
        ):
            self.assertEqual(origin_of(id), origin)
            self.assertEqual(parse_origin(origin), parse_id(id))
        for id in ("", "x", "1-1000000000000000000"):
            with self.assertRaises(Invalid, msg=id):
                origin_of(id)

    def test_no_origin(self):
        """
        An origin names the life that is in its id, and is spelled in one way only.
        """
        for text in (
            "",
            "/",
            "4711",
            "1764-4711000000000017",
            "4712/1764-4711000000000017",
            "04711/1764-4711000000000017",
            "4711/01764-4711000000000017",
            "4711/1764-4711000000000017 ",
            "4711/1764-4711000000000017/",
            "4711/4711/1764-4711000000000017",
            "1000000/1-1000000000000000000",
            "\u0664/1-4000000000000",
            "4711/x",
        ):
            with self.assertRaises(Invalid, msg=text) as caught:
                parse_origin(text)
            self.assertRegex(str(caught.exception), r"\A.+\.\Z")
