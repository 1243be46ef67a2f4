"""
Tests for `msgbus.formats.stream_formats` and `msgbus.formats.framing`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.framing import ChunkedFraming
from msgbus.formats.stream_formats import STREAM_FORMATS, FramingOptions
from msgbus.message import Message

from ..memory import unchunked
from .samples import ID


class FormatTests(SynchronousTestCase):
    """
    What all formats have in common.
    """

    def test_chunks(self):
        """
        A message, a gap and a heartbeat are a chunk each.
        """
        message = Message("foo", b"x" * 5000, "a/b").published(ID)
        for form in STREAM_FORMATS.values():
            framing = form.framing(FramingOptions("B", "/msgbus/", envelope=False))
            said = [
                framing.frame(message),
                framing.gap(3),
                framing.live(),
                framing.live(last=True),
                framing.heartbeat,
            ]
            chunked = ChunkedFraming(framing)
            sent = chunked.frame(message) + chunked.gap(3)
            sent += chunked.live() + chunked.live(last=True) + chunked.heartbeat
            self.assertEqual(unchunked(sent), said)

    def test_shared(self):
        """
        Framings with equal options are equal, so their subscribers are one group.
        """
        for form in STREAM_FORMATS.values():
            made = {
                form.framing(FramingOptions("B", "/", envelope))
                for envelope in (True, True)
            }
            self.assertEqual(len(made), 1)
