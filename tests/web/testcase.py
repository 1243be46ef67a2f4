"""
A test case with a server in memory.
"""

from twisted.trial.unittest import SynchronousTestCase

from ..memory import Server
from ..requests import get

SAFE = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class WebTestCase(SynchronousTestCase):
    """
    A test with a server in memory, and a list of all messages that are published on it.
    """

    options = {}

    def setUp(self):
        self.server = Server(**self.options)
        self.published = []
        self.server.bus.subscribe("", self.published.append)

    def assert_refused(self, request, code, sentence, address="127.0.0.1"):
        """
        Assert that the request is answered with this code and with one sentence of plain
        text that matches the pattern, and that it publishes nothing.
        """
        answer, headers, body = self.server.ask(request, address)
        self.assertEqual(answer, code, body)
        self.assertEqual(headers["Content-Type"], "text/plain; charset=utf-8")
        self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
        self.assertRegex(body.decode(), rf"(?i)\A[^\n]*{sentence}[^\n]*\.\n\Z")
        self.assertEqual(self.published, [])

    def subscribe(self, *args, **kwargs):
        """
        A peer that has subscribed, with the headers and the beginning of the body of the
        answer.
        """
        peer = self.server.connect()
        peer.send(get(*args, **kwargs))
        code, headers, body = peer.answer()
        self.assertEqual(code, 200, body)
        return peer, headers, body
