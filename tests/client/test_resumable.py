"""
Tests for `msgbus.client.resumable`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.errors import Refused
from msgbus.client.notices import Lost, Subscribed
from msgbus.client.resumable import ResumableStream
from msgbus.client.url import BusURL
from msgbus.formats.multipart_framing import MultipartFraming
from msgbus.message import Invalid, Message

FOO = BusURL.parse("http://bus.example/msgbus/foo")
ORIGINAL_HEAD = {"content-type": "multipart/x-mixed-replace;boundary=B"}
HEAD = {**ORIGINAL_HEAD, "msgbus-prefix": "/msgbus/"}
FRAMING = MultipartFraming("B")


def resumable(**wanted):
    """
    A subscription to foo that has not begun.
    """
    return ResumableStream("foo", FOO, wanted, max_message=100)


class ResumableStreamTests(SynchronousTestCase):
    """
    One subscription over several streams.
    """

    def test_query(self):
        """
        The URL asks for what is wanted, and for heartbeats unless that is 0.  Options that
        concern the connection are left out.
        """
        for wanted, query in (
            ({}, "heartbeat=25"),
            ({"heartbeat": 0}, ""),
            ({"heartbeat": 5, "last": 2, "type": ""}, "heartbeat=5&last=2"),
            ({"user": "alice", "timeout": 3, "heartbeat": 0, "since": "all"}, "since=all"),
        ):
            self.assertEqual(resumable(**wanted).url.query, query)

    def test_ends(self):
        """
        A subscription ends where history does if its options say so, or its URL.
        """
        for query, wanted, ends in (
            ("", {}, False),
            ("", {"since": "1h"}, False),
            ("", {"since": "1h", "until": "now"}, True),
            ("?last=1&until=now", {}, True),
        ):
            url = BusURL.parse(f"{FOO}{query}")
            streams = ResumableStream("foo", url, wanted, max_message=100)
            self.assertEqual(streams.ends, ends)
            self.assertEqual("until=now" in streams.url.query, ends)

    def test_wrong_heartbeat(self):
        """
        A heartbeat that no server sends is refused.
        """
        for seconds in (-1, 1, 4, 301):
            with self.assertRaisesRegex(Invalid, f"every 5 to 300 seconds, not {seconds}"):
                resumable(heartbeat=seconds)

    def test_next_stream(self):
        """
        Each stream is asked for behind the last message of those before.
        """
        streams = resumable()
        self.assertNotIn("Last-Event-ID", streams.headers())
        stream, notice = streams.begin(200, HEAD)
        self.assertEqual(notice, Subscribed(again=False))
        self.assertEqual(streams.last_id, "")
        sent = Message("foo", b"x", "a/b").published("1-2")
        self.assertEqual(list(stream.feed(FRAMING.preamble + FRAMING.frame(sent))), [sent])
        self.assertEqual(streams.headers()["Last-Event-ID"], "1-2")
        _, notice = streams.begin(200, HEAD)
        self.assertEqual(notice, Subscribed(again=True))
        self.assertEqual(streams.last_id, "1-2")

    def test_refused(self):
        """
        After a response that is no stream, the subscription would go on where it was.
        """
        streams = resumable()
        streams.begin(200, {**HEAD, "msgbus-id": "1-2"})
        with self.assertRaises(Refused):
            streams.begin(200, {"content-type": "text/html"})
        self.assertEqual(streams.last_id, "1-2")

    def test_delays(self):
        """
        Delays grow with each failure, and are short again after a stream has begun.
        """
        streams = resumable()
        for _ in range(2):
            for shortest, longest in ((0.25, 0.5), (0.5, 1), (1, 2)):
                lost = streams.lost("Gone.")
                self.assertEqual(lost, Lost("Gone.", lost.seconds))
                self.assertTrue(shortest <= lost.seconds <= longest, lost)
            streams.begin(200, HEAD)

    def test_silence(self):
        """
        A server may be silent for two heartbeats, or for ever if it sends none.
        """
        for wanted, head, seconds in (
            ({}, HEAD, 50),
            ({"heartbeat": 5}, HEAD, 10),
            ({"heartbeat": 0}, HEAD, 0),
            ({"heartbeat": 5}, ORIGINAL_HEAD, 0),
        ):
            streams = resumable(**wanted)
            self.assertEqual(streams.silence_seconds, 0)
            streams.begin(200, head)
            self.assertEqual(streams.silence_seconds, seconds)
