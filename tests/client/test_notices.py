"""
Tests for `msgbus.client.notices`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.notices import Live, Lost, Subscribed
from msgbus.ids import Gap


class NoticeTests(SynchronousTestCase):
    """
    What the `notify` callback of a subscription gets.
    """

    def test_shown(self):
        """
        As a string, a notice is a sentence or two.
        """
        for notice, shown in (
            (Subscribed(again=False), "Subscribed."),
            (Subscribed(again=True), "Subscribed again."),
            (Lost("It ended.", 0.25), "It ended. Trying again in 0.2 s."),
            (Lost("Is it there?", 1), "Is it there? Trying again in 1.0 s."),
            (Lost("It ended", 60), "It ended. Trying again in 60.0 s."),
            (Live(), "History ends here."),
            (Gap(2), "2 messages are missing here."),
            (Gap(None), "Messages are missing here; nobody knows how many."),
        ):
            self.assertEqual(str(notice), shown)
