"""
Tests for `msgbus.server.listen`.
"""

from unittest import mock

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.server.listen import endpoint


class EndpointTests(SynchronousTestCase):
    """
    Endpoint strings, and the defaults that are added to them.
    """

    def listen(self, text):
        reactor = MemoryReactorClock()
        endpoint(reactor, text).listen(mock.sentinel.factory)
        return reactor

    def test_backlog(self):
        """
        An endpoint string without a backlog gets one of 1,024 connections.
        """
        for text, backlog in (
            ("tcp:1", 1024),
            ("tcp:1:backlog=7", 7),
            ("tcp:1:interface=\\:\\:1", 1024),
        ):
            self.assertEqual(self.listen(text).tcpServers[0][2], backlog)

    def test_unix(self):
        """
        A socket file can be used by its owner and group, unless the endpoint string says
        otherwise.
        """
        for text, mode in (("unix:/x", 0o660), ("unix:/x:mode=666", 0o666)):
            _, _, backlog, given, _ = self.listen(text).unixServers[0]
            self.assertEqual((backlog, given), (1024, mode))
