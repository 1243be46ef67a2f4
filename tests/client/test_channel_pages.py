"""
Tests for `msgbus.client.channel_pages`.
"""

import json

from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.channel_pages import Channel, ChannelPages, LastMessage
from msgbus.client.errors import Refused, Unreachable
from msgbus.client.url import BusURL
from msgbus.message import Invalid

JSON = {"content-type": "application/json"}
URL = "http://localhost:8888/msgbus/a/"


class ChannelPagesTests(SynchronousTestCase):
    """
    Reading a list, page by page.
    """

    def pages(self, channel=""):
        return ChannelPages(BusURL.parse(URL), channel)

    def page(self, next, *channels):
        return json.dumps({"channels": channels, "next": next}).encode()

    def test_pages(self):
        """
        Each page tells where the next one begins; the last has none.
        """
        pages = self.pages("*x*")
        self.assertEqual(str(pages.url), f"{URL}?list=1&channel=*x*")
        last = {"id": "1-1", "time": "2025-11-28T04:12:33.007+00:00", "type": "a/b"}
        one = {"name": "a/x&", "subscribers": 2, "last": last}
        got = pages.read(200, JSON, self.page("a/x&", one))
        self.assertEqual(got, [Channel("a/x&", 2, LastMessage(*last.values()))])
        self.assertEqual(str(pages.url), f"{URL}?list=1&channel=*x*&after=a/x%26")
        two = {"name": "a/xx", "subscribers": 0, "last": None, "more": 1}
        self.assertEqual(
            pages.read(200, JSON, self.page(None, two)), [Channel("a/xx", 0, None)]
        )
        self.assertIsNone(pages.url)

    def test_no_list(self):
        """
        What is no list, or has no end, is refused.
        """
        for text in (
            b"",
            b"[]",
            b"{}",
            b"[" * 100_000,
            self.page(None, {"name": "a"}),
            self.page(None, {"name": "a", "subscribers": "x", "last": None}),
            self.page(None, {"name": "a", "subscribers": 1, "last": {}}),
            self.page(None, 1),
            self.page(1),
            self.page(""),
        ):
            with self.assertRaisesRegex(Refused, "This is no bus"):
                self.pages().read(200, JSON, text)
        pages = self.pages()
        pages.read(200, JSON, self.page("b"))
        for again in ("b", "a"):
            with self.assertRaises(Refused):
                pages.read(200, JSON, self.page(again))

    def test_refused(self):
        """
        A refusal has the sentence of the bus; one that may pass is told apart.
        """
        head = {"content-type": "text/plain; charset=utf-8"}
        with self.assertRaisesRegex(Refused, "403: You may not."):
            self.pages().read(403, head, b"You may not.\n")
        with self.assertRaises(Unreachable):
            self.pages().read(503, head, b"Later.\n")
        with self.assertRaisesRegex(Refused, "no bus"):
            self.pages().read(200, {"content-type": "text/html"}, b"<p>")

    def test_pattern(self):
        """
        A pattern that cannot be sent is refused at once.
        """
        with self.assertRaises(Invalid):
            self.pages("\udc80")
