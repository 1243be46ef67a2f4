"""
Tests for `msgbus.formats.caching`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.caching import cache_control, parse_cache_control
from msgbus.message import Invalid


class CachingTests(SynchronousTestCase):
    """
    The value of `Cache-Control`.
    """

    def test_directives(self):
        """
        `no-store` and `max-age` are read in any case and order, and all else is not.
        """
        for text, expected in (
            (None, (True, None)),
            ("", (True, None)),
            ("no-cache, private=max-age", (True, None)),
            ("no-store", (False, None)),
            ("No-Store , MAX-AGE=60", (False, 60)),
            ("max-age=0", (True, 0)),
            ('max-age="7"', (True, 7)),
        ):
            self.assertEqual(parse_cache_control(text), expected, text)

    def test_mistakes(self):
        """
        A `max-age` that is no number of seconds is refused.
        """
        for value in ("", "-1", "1.5", "1s", "a", "\u0661", "1 2", '"1', "1" * 21):
            with self.assertRaisesRegex(Invalid, "max-age"):
                parse_cache_control(f"max-age={value}")
        for text in ("max-age", "max-age=1, max-age=2"):
            with self.assertRaisesRegex(Invalid, "max-age"):
                parse_cache_control(text)

    def test_round_trip(self):
        """
        What is written is read.
        """
        for expected in ((True, None), (False, None), (True, 0), (False, 60)):
            self.assertEqual(parse_cache_control(cache_control(*expected)), expected)
        self.assertEqual(cache_control(True, None), "")
