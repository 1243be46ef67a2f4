"""
Tests for `msgbus.formats.websocket_frames`.
"""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wsproto import events
from wsproto.connection import Connection, ConnectionType

from msgbus.formats.websocket_frames import WebSocketFraming, close
from msgbus.message import Message

from .samples import ID, body_of, numbered


class WebSocketFramingTests(SynchronousTestCase):
    """
    WebSocket frames.
    """

    def read(self, data):
        client = Connection(ConnectionType.CLIENT)
        client.receive_data(data)
        return list(client.events())

    @given(numbered(), st.booleans())
    def test_messages(self, drawn, raw):
        """
        A message is a frame with its envelope or its body.
        """
        framing = WebSocketFraming(raw)
        for message, event in zip(
            drawn, self.read(b"".join(map(framing.frame, drawn))), strict=True
        ):
            self.assertTrue(event.message_finished)
            if not raw:
                self.assertEqual(body_of(json.loads(event.data)), message.body)
            elif isinstance(event, events.TextMessage):
                self.assertEqual(event.data.encode(), message.body)
                self.assertIn("text/", message.content_type.lower())
            else:
                self.assertEqual(bytes(event.data), message.body)

    def test_sizes(self):
        """
        A frame may have any size.
        """
        for size in (0, 125, 126, 65535, 65536, 100_000):
            message = Message("foo", b"\xff" * size, "a/b").published(ID)
            (event,) = self.read(WebSocketFraming(raw=True).frame(message))
            self.assertEqual(bytes(event.data), message.body)

    def test_between(self):
        """
        A gap is an object, which cannot be taken for a body, and so is what tells where
        history ends; a heartbeat is a ping.
        """
        (told,) = self.read(WebSocketFraming().gap(3))
        self.assertEqual(json.loads(told.data), {"gap": 3})
        for last in False, True:
            (told,) = self.read(WebSocketFraming().live(last))
            self.assertEqual(json.loads(told.data), {"live": True})
            (ping,) = self.read(WebSocketFraming(raw=True).live(last))
            self.assertEqual(ping, events.Ping(payload=b'{"live": true}'))
        (ping,) = self.read(WebSocketFraming(raw=True).gap(None))
        self.assertEqual(ping, events.Ping(payload=b'{"gap": "unknown"}'))
        self.assertEqual(
            self.read(WebSocketFraming().heartbeat), [events.Ping(payload=b"")]
        )

    @given(st.text(max_size=200))
    def test_close(self, reason):
        """
        A close frame has a code, and as much of the reason as fits.
        """
        (closed,) = self.read(close(1008, reason))
        self.assertEqual(closed.code, 1008)
        self.assertTrue(reason.startswith(closed.reason or ""))
        self.assertGreaterEqual(len((closed.reason or "").encode()), min(len(reason), 120))
