"""
Tests for `msgbus.server.listen`.
"""

from unittest import mock

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.server.listen import endpoint, is_private, on_loopback


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

    def test_loopback(self):
        """
        An endpoint string that names no address gets one of the loopback, of its own
        family; it is known which ports only this machine can reach.
        """
        for text, address in (
            ("tcp:1", "127.0.0.1"),
            ("tcp6:1", "::1"),
            ("tcp:1:interface=192.0.2.1", "192.0.2.1"),
        ):
            text = on_loopback(text)
            self.assertEqual(self.listen(text).tcpServers[0][3], address)
            self.assertEqual(is_private(text), address != "192.0.2.1")
        self.assertTrue(is_private("unix:/x"))
        self.assertFalse(is_private("tcp:1"))
        self.assertFalse(is_private("haproxy:tcp:1:interface=127.0.0.1"))
