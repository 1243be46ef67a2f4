"""
Tests for `msgbus.websocket`, with wsproto as the client.
"""

import json
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.web.server import Site as ForeignSite
from wsproto import events
from wsproto.connection import Connection, ConnectionType
from wsproto.frame_protocol import Opcode

from msgbus.bus.bus import Bus
from msgbus.fanout.fanout import Limits
from msgbus.message import Message
from msgbus.web import websocket_reader
from msgbus.web.origins import Origins
from msgbus.web.resource import BusResource

from ..memory import Server
from .test_resource import HOST, WebTestCase, get

# That of RFC 6455, section 1.2.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "Upgrade: websocket\nConnection: keep-alive, Upgrade\n"
    f"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: {KEY}\n"
)


def masked(opcode, payload=b"", fin=True, reserved=0):
    """
    A frame as a client sends it.
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
    An envelope as a client sends it.
    """
    told = {"type": "text/plain", **told}
    if "base64" not in told:
        told.setdefault("body", "")
    return masked(Opcode.TEXT, json.dumps(told).encode())


class WebSocketTestCase(WebTestCase):
    """
    A client of a server in memory.
    """

    def open(self, path="/msgbus/foo", headers=UPGRADE):
        """
        A connection that is open, whose events are read by `events`.
        """
        peer = self.server.connect()
        peer.send(get(path, headers))
        code, self.head, rest = peer.answer()
        self.assertEqual(code, 101)
        peer.client = Connection(ConnectionType.CLIENT, trailing_data=rest)
        return peer

    def events(self, peer):
        """
        What came since the last call; it must be whole frames.
        """
        peer.client.receive_data(peer.received())
        found = list(peer.client.events())
        self.assertEqual(len(peer.client._proto._frame_decoder.buffer), 0)
        return found

    def told(self, peer):
        """
        The same, of objects.
        """
        return [json.loads(event.data) for event in self.events(peer)]

    def closed(self, peer):
        """
        The code and the reason with which it was closed.
        """
        *_, event = self.events(peer)
        self.assertIsInstance(event, events.CloseConnection)
        return event.code, event.reason

    def settle(self):
        """
        Let the server do all that it has begun.
        """
        for _ in range(1000):
            self.server.turn()


class HandshakeTests(WebSocketTestCase):
    """
    How one opens.
    """

    def test_open(self):
        """
        The answer shows that it was understood, and where the stream begins.
        """
        self.server.bus.publish(Message("foo", b""))
        self.open()
        self.assertEqual(self.head["Sec-Websocket-Accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.assertEqual(self.head["Upgrade"], "websocket")
        self.assertEqual(self.head["Msgbus-Id"], self.published[0].id)
        self.assertEqual(self.head["Msgbus-Prefix"], "/msgbus/")
        self.assertNotIn("Transfer-Encoding", self.head)
        self.assertNotIn("Content-Length", self.head)

    def test_mistakes(self):
        """
        One that is wrong is refused, and told why.
        """
        for old, new, code, sentence in (
            ("Connection: keep-alive, Upgrade", "Connection: close", 400, "Connection"),
            ("Version: 13", "Version: 8", 426, "13"),
            ("Sec-WebSocket-Version: 13\n", "", 426, "13"),
            (KEY, "AAAA", 400, "16 bytes"),
            (KEY, "ä" * 24, 400, "16 bytes"),
            (f"Sec-WebSocket-Key: {KEY}\n", "", 400, "16 bytes"),
            (KEY, f"{KEY}\nSec-WebSocket-Key: {KEY}", 400, "once"),
        ):
            self.assertIn(old, UPGRADE)
            request = get(headers=UPGRADE.replace(old, new))
            self.assert_refused(request, code, sentence)
        body = get(headers=UPGRADE + "Content-Length: 5\n") + "hello"
        self.assert_refused(body, 400, "body")
        self.assert_refused(get("/msgbus/..", UPGRADE), 400, "dot")
        self.assert_refused(get("/msgbus/foo?raw=2", UPGRADE), 400, "raw")

    def test_none(self):
        """
        Where none can be, but is meant, that is said; else the request is what it is.
        """
        for request in (
            get(headers=UPGRADE, version="1.0"),
            get(headers=UPGRADE.replace("Upgrade: websocket", "X: y")),
        ):
            self.assert_refused(request, 426, "proxy")
        code, headers, _ = self.server.ask(get(headers="Upgrade: h2c\n"))
        self.assertEqual(code, 200)
        self.assertIn("multipart/", headers["Content-Type"])
        post = f"POST /msgbus/foo HTTP/1.1\n{HOST}{UPGRADE}Content-Type: a/b\n\n"
        self.assertEqual(self.server.ask(post)[0], 204)

    def test_foreign_pages(self):
        """
        A page of another origin may not read, and so not open one.
        """
        for headers in ("Origin: http://evil.example\n", "Sec-Fetch-Site: cross-site\n"):
            self.assert_refused(get(headers=UPGRADE + headers), 403, "allow-origin")
        self.open(headers=UPGRADE + "Origin: http://localhost:8888\n")
        self.server = Server(origins=Origins(["https://app.example"]))
        self.open(headers=UPGRADE + "Origin: https://app.example\n")

    def test_foreign_site(self):
        """
        In a site of others there is none.
        """
        resource = BusResource(Bus(), self.server.clock)
        root = self.server.root
        root.putChild(b"other", resource)
        protocol = ForeignSite(root, reactor=self.server.clock).buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(get("/other/foo", UPGRADE).replace("\n", "\r\n").encode())
        self.assertIn(b" 501 ", transport.value())


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


class FrameTests(WebSocketTestCase):
    """
    Frames of all sorts.
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

    def test_wrong(self):
        """
        What is no frame of a client closes the connection, with a code that says so.
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
        Fragments, with control frames between them, cut anywhere: each message is
        published, each ping answered, in order.
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
                # A character may be cut too.
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
        Whatever comes, what goes out is frames, and nobody else is harmed.
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
        Of much that comes at once a part is taken in a turn, and no more is read before
        all of it is.
        """
        peer = self.open("/msgbus/foo?type=none/*")
        peer.send(text() * 1000)
        self.assertEqual(len(self.published), websocket_reader.EVENTS_A_TURN)
        self.assertEqual(peer.transport.producerState, "paused")
        # TLS may have had it already.
        peer.send(text(body="last"))
        self.settle()
        self.assertEqual(peer.transport.producerState, "producing")
        self.assertEqual(len(self.published), 1001)

    def test_unread(self):
        """
        One that does not read what it asks for is not read from.
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
