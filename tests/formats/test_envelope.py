"""
Tests for `msgbus.formats.envelope`.
"""

import json

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.envelope import envelope, published_at
from msgbus.message import Message

from .samples import body_of, numbered


class EnvelopeTests(SynchronousTestCase):
    """
    A message as a JSON object.
    """

    @given(numbered(1))
    def test_told(self, drawn):
        """
        The object has all that the message has, on one line of ASCII without control
        characters.
        """
        for message in drawn:
            data = envelope(message)
            self.assertRegex(data, rb"\A[\x20-\x7e]+\Z")
            told = json.loads(data)
            self.assertEqual(
                (told["channel"], told["sender"], told["type"], told["size"]),
                (message.channel, message.sender, message.content_type, len(message.body)),
            )
            self.assertEqual(body_of(told), message.body)
            self.assertEqual(told["time"], "2026-11-26T05:05:29.807+00:00")

    def test_origin(self):
        """
        The object has the origin, if the message has one.
        """
        for origin in ("7/1-7000000000001", ""):
            told = json.loads(envelope(Message("a", b"", origin=origin).published("1-2")))
            self.assertEqual(told.get("origin", ""), origin)
            self.assertEqual("origin" in told, bool(origin))

    def test_time(self):
        """
        An id that has no valid time gives none, and does no harm.
        """
        for id in ("", "1-", "9" * 16 + "-1", "99999999999999999-1"):
            self.assertIsNone(published_at(id))
            self.assertIsNone(json.loads(envelope(Message("a", b"").published(id)))["time"])
