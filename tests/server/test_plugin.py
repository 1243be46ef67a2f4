"""
Tests for `msgbus.server.plugin`.
"""

from twisted.application.service import IService
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from msgbus.server.plugin import Options, makeService


class PluginTests(SynchronousTestCase):
    """
    What `twistd` loads.
    """

    def test_make_service(self):
        """
        `makeService` makes a service of the options.
        """
        options = Options()
        options.parseOptions(["--max-message", "7"])
        verifyObject(IService, makeService(options))
