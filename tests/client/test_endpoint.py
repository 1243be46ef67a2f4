"""
Tests for `msgbus.client.endpoint`.
"""

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface.verify import verifyObject

from msgbus.client.endpoint import BusEndpoint
from msgbus.client.url import BusURL

URL = BusURL.parse("http+unix://%2Frun%2Fmsgbus.sock/msgbus/")


class BusEndpointTests(SynchronousTestCase):
    """
    Connections to a bus.
    """

    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.endpoint = BusEndpoint(self.reactor, URL, None)

    def connect(self, endpoint):
        """
        Connect, and return the transport.
        """
        connected = endpoint.connect(Factory.forProtocol(Protocol))
        path, factory, *_ = self.reactor.unixClients.pop()
        self.assertEqual(path, "/run/msgbus.sock")
        transport = StringTransport()
        factory.buildProtocol(None).makeConnection(transport)
        self.successResultOf(connected)
        return transport

    def test_interfaces(self):
        """
        An `Agent` can use it.
        """
        verifyObject(IAgentEndpointFactory, self.endpoint)
        verifyObject(IStreamClientEndpoint, self.endpoint)
        self.assertIs(self.endpoint.endpointForURI(None), self.endpoint)

    def test_abort(self):
        """
        The latest connection can be aborted; without one, that does nothing.
        """
        self.endpoint.abort()
        first, second = (self.connect(self.endpoint) for _ in range(2))
        self.endpoint.abort()
        self.assertFalse(first.disconnecting)
        self.assertTrue(second.disconnecting)

    def test_another(self):
        """
        A second endpoint never aborts the connection of the first, also before it has one
        of its own.
        """
        transport = self.connect(self.endpoint)
        other = self.endpoint.another()
        other.abort()
        self.assertFalse(transport.disconnecting)
        self.connect(other)
        other.abort()
        self.assertFalse(transport.disconnecting)
