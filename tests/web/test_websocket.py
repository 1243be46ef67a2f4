"""
Tests for `msgbus.web.websocket`.
"""

import json
import struct

from twisted.internet.error import ConnectionDone
from wsproto import events
from wsproto.frame_protocol import Opcode

from msgbus.fanout.fanout import Limits
from msgbus.message import Message

from ..memory import Server
from .websocket_testcase import UPGRADE, WebSocketTestCase, masked, text


class SubscribeTests(WebSocketTestCase):
    """
    What a client gets.
    """

    def test_messages(self):
        """
        A frame a message, as the query wants it.
        """
        peer = self.open("/msgbus/?type=text/*")
        for kind in ("text/plain", "a/b"):
            self.server.bus.publish(Message("foo", b"x", kind, "al"))
        (told,) = self.told(peer)
        self.assertEqual(
            (told["channel"], told["sender"], told["body"]), ("foo", "al", "x")
        )
        raw = self.open("/msgbus/foo?raw=1&last=2")
        self.assertEqual(
            self.events(raw),
            [events.TextMessage(data="x"), events.BytesMessage(data=b"x")],
        )

    def test_heartbeat(self):
        """
        Pings come every 25 seconds, or as one asks.
        """
        silent, often = self.open(), self.open("/msgbus/foo?heartbeat=5")
        for _ in range(26):
            self.server.clock.advance(1)
        self.assertEqual(self.events(silent), [events.Ping(payload=b"")])
        self.assertEqual(len(self.events(often)), 5)

    def test_stop(self):
        """
        A bus that stops says so, behind what it owes.
        """
        peer = self.open()
        self.server.bus.publish(Message("foo", b"x", "a/b"))
        self.server.resource.close()
        message, closed = self.events(peer)
        self.assertEqual(json.loads(message.data)["body"], "x")
        self.assertEqual((closed.code, closed.reason), (1001, "The bus is stopping."))
        self.assertFalse(peer.closed)
        self.server.clock.advance(2)
        self.assertTrue(peer.closed)

    def test_stopping(self):
        """
        Who is owed something when the bus stops publishes nothing more.
        """
        peer, raw = self.open(), self.open("/msgbus/foo?raw=1")
        for slow in (peer, raw):
            slow.protocol.pauseProducing()
        self.server.bus.publish(Message("foo", b"x", "a/b"))
        self.server.turn()
        self.published.clear()
        self.server.resource.close()
        peer.send(text(ack=1))
        raw.send(masked(Opcode.TEXT, b"x"))
        self.assertEqual(self.published, [])
        self.assertEqual(self.closed(raw)[0], 1001)
        peer.protocol.resumeProducing()
        told = [json.loads(event.data) for event in self.events(peer)[:-1]]
        self.assertEqual([t.get("status") for t in told], [503, None])

    def test_answers_in_replay(self):
        """
        What is answered in a replay comes in order, between messages, and is kept within
        its bound.
        """
        for _ in range(20):
            self.server.bus.publish(Message("foo", b"x" * 100_000, "a/b"))
        peer = self.open("/msgbus/foo?since=all")
        sent, got = 0, []
        for step in range(400):
            if peer.transport.producerState == "producing" or not step:
                peer.send(masked(Opcode.PING, b"%03d" % (sent % 1000)))
                sent += 1
            (peer.protocol.pauseProducing, peer.protocol.resumeProducing)[step % 2]()
            got += self.events_so_far(peer)
        self.settle()
        got += self.events_so_far(peer)
        pongs = [int(e.payload) for e in got if isinstance(e, events.Pong)]
        self.assertEqual(pongs, list(range(sent)))
        self.assertEqual(sum(e.message_finished for e in got if "data" in vars(e)), 20)

    def events_so_far(self, peer):
        """
        What came since the last call, of which a frame may be a part.
        """
        peer.client.receive_data(peer.received())
        return list(peer.client.events())

    def test_late(self):
        """
        One that is past its backlog, and wants to know, is told.
        """
        self.server = Server(limits=Limits(backlog=100))
        peer = self.open("/msgbus/foo?overflow=close")
        peer.protocol.pauseProducing()
        for _ in range(5):
            self.server.bus.publish(Message("foo", b"x" * 100, "a/b"))
            self.server.turn()
        self.assertEqual(self.closed(peer)[0], 1013)

    def test_last_is_late(self):
        """
        Who joins as the only other one is found to be late gets what is published.
        """
        self.server = Server(limits=Limits(backlog=100))
        late = self.open("/msgbus/foo?overflow=close")
        late.protocol.pauseProducing()
        for _ in range(3):
            self.server.bus.publish(Message("foo", b"x" * 100, "a/b"))
        peer = self.open("/msgbus/foo?overflow=close")
        self.assertEqual(self.closed(late)[0], 1013)
        self.server.bus.publish(Message("foo", b"y", "a/b"))
        self.assertEqual([told["body"] for told in self.told(peer)], ["y"])

    def test_leaves(self):
        """
        Nothing is left of one who leaves.
        """
        for data in (b"", text(), masked(Opcode.TEXT, b"x", fin=False), b"\xff"):
            peer = self.open("/msgbus/left")
            peer.send(data)
            peer.leave(ConnectionDone())
        self.settle()
        self.assertNotIn("left", self.server.bus._subscriptions)
        self.assertEqual(self.server.site.channels, set())
        self.assertEqual(
            [c for c in self.server.clock.getDelayedCalls() if "WebSocket" in repr(c.func)],
            [],
        )


class PublishTests(WebSocketTestCase):
    """
    What a client sends.
    """

    def test_envelope(self):
        """
        It is published by the rules of a POST, and acknowledged if that is asked for.
        """
        sender = "Authorization: Basic YWw6\n"
        peer = self.open("/msgbus/foo", UPGRADE + sender)
        peer.send(text(body="1") + text(base64="/w==", channel="a/b", ack="x"))
        first, second = self.published
        self.assertEqual(first, Message("foo", b"1", "text/plain", "al"))
        self.assertEqual(second, Message("a/b", b"\xff", "text/plain", "al"))
        told = self.told(peer)
        self.assertIn({"ack": "x", "id": second.id, "subscribers": 1}, told)
        self.assertEqual([t["id"] for t in told if "type" in t], [first.id])

    def test_rules(self):
        """
        The rules: keep, require, key.
        """
        peer = self.open("/msgbus/foo?type=none/*")
        for told in (
            {"keep": False, "ack": 1},
            {"key": "k", "ack": 2},
            {"key": "k", "ack": 3},
            {"key": "k", "body": "other", "ack": 4},
            {"channel": "..", "ack": 5},
            {"type": "x", "ack": 6},
        ):
            peer.send(text(**told))
        answers = {told["ack"]: told for told in self.told(peer)}
        self.assertEqual(answers[2]["id"], answers[3]["id"])
        self.assertEqual(
            {n: a.get("status") for n, a in answers.items()},
            {1: None, 2: None, 3: None, 4: 422, 5: 400, 6: 400},
        )
        self.assertEqual(len(self.published), 2)
        self.assertEqual(len(self.server.bus.history.entries("foo")), 1)

    def test_nobody(self):
        """
        If one is required, there must be a subscriber.
        """
        self.server = Server()
        peer = self.open()
        peer.send(text(channel="empty", require=True))
        (told,) = self.told(peer)
        self.assertEqual(told["status"], 409)

    def test_mistakes(self):
        """
        A mistake is told, and the connection stays.
        """
        peer = self.open()
        peer.send(masked(Opcode.TEXT, b"hello"))
        (told,) = self.told(peer)
        self.assertEqual((told["status"], told["error"][-1]), (400, "."))
        peer.send(text(body="x"))
        self.assertEqual([m.body for m in self.published], [b"x"])

    def test_raw(self):
        """
        A frame is a body, either way.
        """
        peer = self.open("/msgbus/foo?raw=1")
        peer.send(masked(Opcode.TEXT, "ä".encode()) + masked(Opcode.BINARY, b"\xff"))
        self.assertEqual(
            self.published,
            [
                Message("foo", "ä".encode(), "text/plain; charset=utf-8"),
                Message("foo", b"\xff", "application/octet-stream"),
            ],
        )
        self.assertEqual(
            self.events(peer),
            [events.TextMessage(data="ä"), events.BytesMessage(data=b"\xff")],
        )
        peer.send(masked(Opcode.BINARY, self.server.bus.boundary.encode()))
        self.assertEqual(self.closed(peer)[0], 1008)

    def test_too_large(self):
        """
        What is too large is refused as soon as that shows.
        """
        self.server = Server(max_message=100)
        raw = self.open("/msgbus/foo?raw=1")
        raw.send(masked(Opcode.BINARY, b"x" * 101, fin=False))
        self.assertEqual(self.closed(raw), (1009, "A frame has at most 100 bytes."))
        peer = self.open()
        peer.send(text(body="x" * 101))
        (told,) = self.told(peer)
        self.assertEqual(told["status"], 413)
        peer.send(text(body="x" * 20_000))
        self.assertEqual(self.closed(peer)[0], 1009)


class CloseTests(WebSocketTestCase):
    """
    The end of a connection.
    """

    def test_close(self):
        """
        A client that closes is answered with its code, and the connection ends.
        """
        for payload, code in ((b"", 1005), (struct.pack("!H", 1000) + b"bye", 1000)):
            peer = self.open()
            peer.send(masked(Opcode.CLOSE, payload) + text(body="behind"))
            self.assertEqual(self.closed(peer)[0], code)
            self.assertTrue(peer.closed)
        self.assertEqual(self.published, [])
