"""
Tests for `msgbus.client.blocking_http`.
"""

import ssl

from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.blocking_http import explained
from msgbus.client.errors import Unreachable, Untrusted


class ExplainedTests(SynchronousTestCase):
    """
    What the exceptions of the standard library mean.
    """

    def test_tls(self):
        """
        A connection over TLS that is cut can be made again, however OpenSSL tells it; a
        server that does not speak TLS cannot be trusted.
        """
        for kind, reason, expected in (
            (ssl.SSLEOFError, "UNEXPECTED_EOF_WHILE_READING", Unreachable),
            (ssl.SSLError, "UNEXPECTED_EOF_WHILE_READING", Unreachable),
            (ssl.SSLZeroReturnError, None, Unreachable),
            (ssl.SSLError, "WRONG_VERSION_NUMBER", Untrusted),
            (ssl.SSLError, None, Untrusted),
        ):
            error = kind(1, "told")
            error.reason = reason
            with self.assertRaises(expected) as caught, explained(1):
                raise error
            self.assertTrue(str(caught.exception).endswith("."))
