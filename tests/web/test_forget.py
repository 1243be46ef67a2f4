"""
Tests for `msgbus.web.forget`.
"""

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from msgbus.access.limits import Rate
from msgbus.bus.log import Unavailable
from msgbus.message import Message
from msgbus.web.origins import Origins
from msgbus.web.quotas import Quotas, QuotaSizes

from ..memory import Server, log_lines
from ..requests import get, post
from .testcase import WebTestCase


def delete(path="/msgbus/a/b", headers=""):
    """
    A request that has a channel forgotten.
    """
    return get(path, headers, method="DELETE")


class ForgetTests(WebTestCase):
    """
    Requests that have what is kept of a channel forgotten.
    """

    options = {"origins": Origins(allowed=["https://app.example"])}

    def keep(self):
        """
        Publish messages that are kept.
        """
        for channel in ("a/b", "a/c", "a/b"):
            self.server.bus.publish(Message(channel, b"x"))
        self.published.clear()

    def kept(self):
        """
        How many messages are kept of each channel.
        """
        history = self.server.bus.history
        return {name: history.last(name)[0] for name in history.names()}

    def test_forgotten(self):
        """
        A DELETE is answered with 204, whether or not anything was kept; only the messages
        of that channel are gone, and subscribers get nothing.
        """
        self.keep()
        peer, _, _ = self.subscribe("/msgbus/?format=ndjson")
        for _ in range(2):
            code, headers, body = self.server.ask(delete())
            self.assertEqual((code, body), (204, b""))
            self.assertNotIn("Msgbus-Id", headers)
            self.assertEqual(self.kept(), {"a/c": 1})
        self.assertEqual(peer.received(), b"")
        self.assertEqual(self.published, [])

    def test_gap(self):
        """
        Who resumes behind a message that was kept before is told of a gap, as if the others
        had been dropped.
        """
        self.keep()
        first = self.server.bus.history.last("a/b")[1].id
        self.server.bus.publish(Message("a/b", b"x"))
        self.server.ask(delete())
        _, _, body = self.subscribe("/msgbus/a/b", f"Last-Event-ID: {first}\n")
        self.assertIn(b"Msgbus-Gap: unknown", body)
        newest = self.subscribe("/msgbus/a/b")[1]["Msgbus-Id"]
        peer, _, body = self.subscribe("/msgbus/a/b", f"Last-Event-ID: {newest}\n")
        self.assertNotIn(b"Msgbus-Gap", body + peer.received())

    def test_refused(self):
        """
        A folder, a name that is not valid, and a page of another site are refused, and
        nothing is forgotten.
        """
        self.keep()
        evil = "Origin: https://evil.example\n"
        for request, code, sentence in (
            (delete("/msgbus/a/"), 400, "one channel: name one"),
            (delete("/msgbus/"), 400, "one channel: name one"),
            (delete("/msgbus/a//b"), 400, "name"),
            (delete("/msgbus/.js/msgbus.js"), 400, "begins with a dot"),
            (delete("/msgbus/%ff"), 400, "UTF-8"),
            (delete(headers=evil), 403, "allow-origin"),
        ):
            self.assert_refused(request, code, sentence)
            self.assertEqual(self.kept(), {"a/b": 2, "a/c": 1})
        headers = "Origin: https://app.example\n"
        code, headers, _ = self.server.ask(delete(headers=headers))
        self.assertEqual(code, 204)
        self.assertEqual(headers["Access-Control-Allow-Origin"], "https://app.example")

    def test_limited(self):
        """
        For limits, it is a publication.
        """
        sizes = QuotaSizes(Rate(2, 10), None, None)
        self.server = Server(quotas=Quotas(sizes, lambda: 0.0))
        far = {"address": "203.0.113.1"}
        self.assertEqual(self.server.ask(post(), **far)[0], 204)
        self.assertEqual(self.server.ask(delete(), **far)[0], 204)
        self.assert_refused(delete(), 429, "2 messages in 10 seconds", **far)
        self.assertEqual(self.server.ask(post(), **far)[0], 429)

    def test_waits(self):
        """
        If the log has to ask somebody else, the answer waits; it is 503 if that fails, and
        nothing if the client has gone.
        """
        for result, code in ((None, 204), (Failure(Unavailable("Not now.")), 503)):
            forgotten = Deferred()
            self.server.bus.log.forget = lambda _, waited=forgotten: waited
            peer, gone = self.server.connect(), self.server.connect()
            for each in (peer, gone):
                each.send(delete())
            self.assertEqual(peer.received(), b"")
            gone.leave(Failure(ConnectionError()))
            forgotten.callback(None) if result is None else forgotten.errback(result)
            self.assertEqual(peer.answer()[0], code)

    def test_logged(self):
        """
        Where publications are logged, it is, too.
        """
        lines = log_lines(self, "msgbus.web.journal")
        for verbosity in (1, 2):
            Server(verbosity=verbosity).ask(delete())
        sentence = "192.0.2.1:4711 has 'a/b' forgotten as ''"
        self.assertEqual([line for _, line in lines], [sentence])
