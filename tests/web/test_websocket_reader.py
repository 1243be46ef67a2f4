"""
Tests for `msgbus.web.websocket_reader`, over HTTP.
"""

import struct

from hypothesis import given
from hypothesis import strategies as st
from wsproto import events
from wsproto.frame_protocol import Opcode

from msgbus.message import Message
from msgbus.web import websocket_reader

from ..memory import Server
from .websocket_testcase import WebSocketTestCase, masked, text


class FrameTests(WebSocketTestCase):
    """
    Frames that a client sends: faulty ones, cut ones, and many at once.
    """

    def test_wrong(self):
        """
        A frame that breaks the protocol closes the connection, with the close code for that
        fault.
        """
        for data, code in (
            (b"\x81\x01x", 1002),
            (masked(3), 1002),
            (masked(11), 1002),
            (masked(Opcode.TEXT, reserved=0x40), 1002),
            (masked(Opcode.PING, fin=False), 1002),
            (masked(Opcode.PING, b"x" * 126), 1002),
            (masked(Opcode.CONTINUATION), 1002),
            (masked(Opcode.TEXT, fin=False) + masked(Opcode.TEXT), 1002),
            (masked(Opcode.CLOSE, b"\x03"), 1002),
            (masked(Opcode.CLOSE, struct.pack("!H", 1005)), 1002),
            (masked(Opcode.TEXT, b"\xff"), 1007),
            (masked(Opcode.TEXT, b"\xc3", fin=False) + masked(0, b"x"), 1007),
            (masked(Opcode.CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
        ):
            peer = self.open()
            peer.send(data)
            closed, reason = self.closed(peer)
            self.assertEqual((closed, bool(reason)), (code, True), data)
            self.assertFalse(peer.closed)
            peer.send(text(body="behind"))
            self.server.clock.advance(2)
            self.assertTrue(peer.closed, data)
        self.assertEqual(self.published, [])

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("ping"), st.binary(max_size=125)),
                st.tuples(st.just("pong"), st.binary(max_size=125)),
                st.tuples(st.just("text"), st.lists(st.text(max_size=30), min_size=1)),
                st.tuples(st.just("binary"), st.lists(st.binary(max_size=300), min_size=1)),
            ),
            max_size=8,
        ),
        st.lists(st.integers(0, 3000), max_size=10),
    )
    def test_sequences(self, sent, cuts):
        """
        Messages in fragments, with control frames between them, cut anywhere, are all
        published, and all pings answered, in order.
        """
        self.server = Server()
        published = []
        self.server.bus.subscribe("", lambda message: published.append(message.body))
        peer = self.open("/msgbus/foo?raw=1&type=none/*")
        data, bodies, pings = b"", [], []
        for kind, value in sent:
            if kind == "ping":
                data += masked(Opcode.PING, value)
                pings.append(value)
            elif kind == "pong":
                data += masked(Opcode.PONG, value)
            else:
                # A cut may lie within a character.
                whole = "".join(value).encode() if kind == "text" else b"".join(value)
                ends = {len(whole), len(whole) // 2, len(whole) // 3}
                begin, opcode = 0, Opcode.TEXT if kind == "text" else Opcode.BINARY
                for end in sorted(ends):
                    final = end == len(whole)
                    data += masked(opcode, whole[begin:end], fin=final)
                    data += masked(Opcode.PING, b"between")
                    pings.append(b"between")
                    begin, opcode = end, Opcode.CONTINUATION
                bodies.append(whole)
        begin = 0
        for end in [*sorted(cuts), len(data)]:
            peer.send(data[begin:end])
            begin = max(begin, end)
            self.server.turn()
        self.assertEqual(published, bodies)
        self.assertEqual([event.payload for event in self.events(peer)], pings)

    @given(st.lists(st.binary(max_size=40), max_size=10), st.booleans())
    def test_anything(self, pieces, raw):
        """
        Whatever bytes a client sends, what it is sent consists of whole frames, and other
        clients still get their messages.
        """
        self.server = Server()
        peer = self.open(f"/msgbus/foo?raw={raw:d}")
        other = self.open()
        for piece in pieces:
            peer.send(piece)
            self.server.turn()
        self.events(peer)
        before = len(self.events(other))
        self.assertLessEqual(before, 100)
        self.server.bus.publish(Message("foo", b"x"))
        self.assertEqual(len(self.events(other)), 1)

    def test_flood(self):
        """
        Of many frames that come at once, a few are taken in each turn of the reactor, and
        nothing more is read until all are taken.
        """
        peer = self.open("/msgbus/foo?type=none/*")
        peer.send(text() * 1000)
        self.assertEqual(len(self.published), websocket_reader.EVENTS_A_TURN)
        self.assertEqual(peer.transport.producerState, "paused")
        # Over TLS, bytes that were read before the pause may come during it.
        peer.send(text(body="last"))
        self.assertEqual(len(self.published), websocket_reader.EVENTS_A_TURN)
        self.settle()
        self.assertEqual(peer.transport.producerState, "producing")
        self.assertEqual(len(self.published), 1001)

    def test_unread(self):
        """
        While a client leaves many answers unread, none of its frames are taken.
        """
        peer = self.open("/msgbus/foo")
        peer.protocol.pauseProducing()
        count = 2 * websocket_reader.ANSWER_BYTES // 127
        peer.send(masked(Opcode.PING, b"x" * 125) * count)
        for _ in range(50):
            self.server.clock.advance(1)
        self.assertEqual(peer.transport.producerState, "paused")
        peer.protocol.resumeProducing()
        for _ in range(50):
            self.server.clock.advance(1)
        self.assertEqual(peer.transport.producerState, "producing")
        pongs = [event for event in self.events(peer) if isinstance(event, events.Pong)]
        self.assertEqual(len(pongs), count)
