"""
Tests for `msgbus.formats.ndjson`.
"""

import json

from hypothesis import example, given
from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.ndjson import NdjsonFraming
from msgbus.message import Message

from .samples import ID, NASTY, body_of, numbered


class NdjsonFramingTests(SynchronousTestCase):
    """
    Lines of JSON.
    """

    @given(numbered())
    @example([Message("foo", b, "a/b").published(ID) for b in NASTY])
    def test_messages(self, drawn):
        """
        A message is a line, and so is a gap, and where history ends; a heartbeat is an
        empty line.
        """
        framing = NdjsonFraming()
        stream = b"".join(framing.frame(m) + framing.heartbeat for m in drawn)
        lines = [line for line in stream.splitlines() if line]
        self.assertEqual(
            [body_of(json.loads(line)) for line in lines], [m.body for m in drawn]
        )
        self.assertEqual(framing.gap(3), b'{"gap": 3}\n')
        self.assertEqual(framing.live(), b'{"live": true}\n')
        self.assertEqual(framing.live(last=True), framing.live())
        self.assertEqual(framing.retry(1.5), b"")
        self.assertEqual(framing.gap(None), b'{"gap": "unknown"}\n')
