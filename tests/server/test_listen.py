"""
Tests for `msgbus.server.listen`.
"""

from unittest import mock

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.server.listen import endpoint


class EndpointTests(SynchronousTestCase):
    """
    Endpoint strings, and what we add to them.
    """

    def listen(self, text):
        reactor = MemoryReactorClock()
        endpoint(reactor, text).listen(mock.sentinel.factory)
        return reactor

    def test_backlog(self):
        """
        An endpoint that names no backlog gets a long one.
        """
        for text, backlog in (
            ("tcp:1", 1024),
            ("tcp:1:backlog=7", 7),
            ("tcp:1:interface=\\:\\:1", 1024),
        ):
            self.assertEqual(self.listen(text).tcpServers[0][2], backlog)

    def test_unix(self):
        """
        A socket file is for its owner and group, unless it says otherwise.
        """
        for text, mode in (("unix:/x", 0o660), ("unix:/x:mode=666", 0o666)):
            _, _, backlog, given, _ = self.listen(text).unixServers[0]
            self.assertEqual((backlog, given), (1024, mode))
