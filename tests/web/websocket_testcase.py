"""
A test case for WebSockets, whose client is wsproto, and the frames that it sends.
"""

import json
import struct

from wsproto import events
from wsproto.connection import Connection, ConnectionType
from wsproto.frame_protocol import Opcode

from ..requests import get
from .testcase import WebTestCase

# The example of RFC 6455, section 1.2.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "Upgrade: websocket\nConnection: keep-alive, Upgrade\n"
    f"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: {KEY}\n"
)


def masked(opcode, payload=b"", fin=True, reserved=0):
    """
    A frame as a client sends it, which is masked.
    """
    mask = b"\x01\x02\x03\x04"
    first = (0x80 if fin else 0) | reserved | opcode
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 2**16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def text(**told):
    """
    A text frame with an envelope of these fields, as a client sends it.
    """
    told = {"type": "text/plain", **told}
    if "base64" not in told:
        told.setdefault("body", "")
    return masked(Opcode.TEXT, json.dumps(told).encode())


class WebSocketTestCase(WebTestCase):
    """
    A test with clients that open WebSockets to a server in memory.
    """

    def open(self, path="/msgbus/foo", headers=UPGRADE):
        """
        A peer whose WebSocket is open; read what it gets by `events`.
        """
        peer = self.server.connect()
        peer.send(get(path, headers))
        code, self.head, rest = peer.answer()
        self.assertEqual(code, 101)
        peer.client = Connection(ConnectionType.CLIENT, trailing_data=rest)
        return peer

    def events(self, peer):
        """
        The events that came since the last call, which have to be whole frames.
        """
        peer.client.receive_data(peer.received())
        found = list(peer.client.events())
        self.assertEqual(len(peer.client._proto._frame_decoder.buffer), 0)
        return found

    def told(self, peer):
        """
        The JSON objects that came since the last call.
        """
        return [json.loads(event.data) for event in self.events(peer)]

    def closed(self, peer):
        """
        The code and the reason of the close frame that came last.
        """
        *_, event = self.events(peer)
        self.assertIsInstance(event, events.CloseConnection)
        return event.code, event.reason

    def settle(self):
        """
        Let the server finish all work that it has put off to later turns.
        """
        for _ in range(1000):
            self.server.turn()
