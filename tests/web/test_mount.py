"""
Tests for `msgbus.web.mount`.
"""

from twisted.internet.error import ConnectionDone
from twisted.logger import LogLevel

from ..memory import Server, log_lines
from ..requests import post
from .testcase import WebTestCase


class LogTests(WebTestCase):
    """
    What is logged of requests.
    """

    def events(self, verbosity):
        """
        The lines that are logged while somebody subscribes, somebody publishes, and the
        subscriber leaves.
        """
        self.server = Server(verbosity=verbosity)
        lines = log_lines(self)
        peer, _, _ = self.subscribe("/msgbus/foo?sender=!secret")
        self.server.ask(post())
        peer.leave(ConnectionDone())
        self.assertTrue(all(level == LogLevel.info for level, _ in lines))
        return [line for _, line in lines]

    def test_silent(self):
        """
        Without `-v`, nothing is logged of requests.
        """
        self.assertEqual(self.events(0), [])

    def test_verbose(self):
        """
        With `-v`, subscriptions are logged; with `-vv`, publications too; but never a
        query.
        """
        subscribed = "192.0.2.1:4711 subscribes to 'foo'"
        left = "192.0.2.1:4711 leaves 'foo'"
        published = "192.0.2.1:4711 publishes 5 bytes of text/plain to 'foo' as ''"
        self.assertEqual(self.events(1), [subscribed, left])
        self.assertEqual(self.events(2), [subscribed, published, left])
        self.assertEqual(self.events(3), [subscribed, published, left])
