"""
Tests for `msgbus.web.websocket`.
"""

import json
import struct

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from wsproto import events
from wsproto.frame_protocol import Opcode

from msgbus.bus.log import Unavailable
from msgbus.fanout.fanout import Limits
from msgbus.formats.envelope import LIVE
from msgbus.message import Message

from ..memory import Server
from .websocket_testcase import UPGRADE, WebSocketTestCase, masked, text


class SubscribeTests(WebSocketTestCase):
    """
    What a client of a WebSocket is sent.
    """

    def test_messages(self):
        """
        A client gets a frame for each message that matches its query; with `?raw=1`, a
        frame with the body alone.
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
            [
                events.TextMessage(data="x"),
                events.BytesMessage(data=b"x"),
                events.Ping(payload=LIVE),
            ],
        )

    def test_live(self):
        """
        Where history ends, the client gets a frame that says so.
        """
        self.server.bus.publish(Message("foo", b"x", "text/plain"))
        peer = self.open("/msgbus/foo?last=1")
        self.server.bus.publish(Message("foo", b"y", "text/plain"))
        bodies = [told.get("body", told) for told in self.told(peer)]
        self.assertEqual(bodies, ["x", {"live": True}, "y"])

    def test_until_now(self):
        """
        A client that wants no more than history is sent away there, as after a job that is
        done; whether or not anything was kept.
        """
        for kept in 0, 1:
            for raw in "", "&raw=1":
                peer = self.open("/msgbus/foo?since=all&until=now" + raw)
                *messages, told, closed = self.events(peer)
                self.assertEqual(len(messages), kept)
                self.assertEqual(told.payload if raw else told.data.encode(), LIVE)
                self.assertEqual((closed.code, closed.reason), (1000, ""))
            self.server.bus.publish(Message("foo", b"x", "text/plain"))

    def test_heartbeat(self):
        """
        A ping comes every 25 seconds, or as often as `?heartbeat=` asks.
        """
        silent, often = self.open(), self.open("/msgbus/foo?heartbeat=5")
        for _ in range(26):
            self.server.clock.advance(1)
        self.assertEqual(self.events(silent), [events.Ping(payload=b"")])
        self.assertEqual(len(self.events(often)), 5)

    def test_stop(self):
        """
        When the bus stops, the client gets what it is owed, and then a close frame with
        1012 and a reason that says when to come back.
        """
        peer = self.open()
        self.server.bus.publish(Message("foo", b"x", "a/b"))
        self.server.resource.close()
        message, closed = self.events(peer)
        self.assertEqual(json.loads(message.data)["body"], "x")
        self.assertEqual(
            (closed.code, closed.reason),
            (1012, "The bus is stopping; come back in 0.5 seconds."),
        )
        self.assertFalse(peer.closed)
        self.server.clock.advance(2)
        self.assertTrue(peer.closed)

    def test_stopping(self):
        """
        While a stopping bus still sends a client what it is owed, the client cannot
        publish.
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
        self.assertEqual(self.closed(raw)[0], 1012)
        peer.protocol.resumeProducing()
        told = [json.loads(event.data) for event in self.events(peer)[:-1]]
        self.assertEqual([t.get("status") for t in told], [503, None])

    def test_last_of_each(self):
        """
        A WebSocket may begin with the newest message of each channel below a folder.
        """
        for n, name in enumerate("abac"):
            self.server.bus.publish(Message(f"s/{name}", b"%d" % n, "text/plain"))
        peer = self.open("/msgbus/s/?last-of-each=1")
        self.settle()
        self.server.bus.publish(Message("s/a", b"4", "text/plain"))
        self.settle()
        told = [json.loads(event.data) for event in self.events_so_far(peer)]
        bodies = [each.get("body", "live") for each in told]
        self.assertEqual(bodies, ["1", "2", "3", "live", "4"])

    def test_answers_in_replay(self):
        """
        Answers that are given during a replay all come, in order, between its messages.
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
        # The last one tells that history has ended.
        self.assertEqual(sum(e.message_finished for e in got if "data" in vars(e)), 21)

    def events_so_far(self, peer):
        """
        The events that came since the last call; the last may be a part of a frame.
        """
        peer.client.receive_data(peer.received())
        return list(peer.client.events())

    def test_late(self):
        """
        With `?overflow=close`, a client that falls behind its backlog is closed with 1013.
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
        A client that joins a group in the moment in which its only member is found to be
        late gets what is published.
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
        Nothing is left of a client whose connection is lost, whatever it sent last.
        """
        for data in (b"", text(), masked(Opcode.TEXT, b"x", fin=False), b"\xff"):
            peer = self.open("/msgbus/left")
            peer.send(data)
            peer.leave(ConnectionDone())
        self.settle()
        self.assertNotIn("left", self.server.bus._subscriptions.by_name)
        self.assertEqual(self.server.site.channels, set())
        self.assertEqual(
            [c for c in self.server.clock.getDelayedCalls() if "WebSocket" in repr(c.func)],
            [],
        )


class PublishTests(WebSocketTestCase):
    """
    What a client of a WebSocket publishes.
    """

    def test_envelope(self):
        """
        A frame with an envelope is published as a POST would be, and acknowledged if it has
        an `ack`.
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
        The fields `keep`, `key` and `channel` of an envelope mean what they mean for a
        POST, and refusals have the same status.
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
        A publication with `require` is refused with 409 if nobody subscribes to its
        channel.
        """
        self.server = Server()
        peer = self.open()
        peer.send(text(channel="empty", require=True))
        (told,) = self.told(peer)
        self.assertEqual(told["status"], 409)

    def test_log_away(self):
        """
        If the log cannot be reached, the answer to a publication is 503.
        """
        peer = self.open()
        waiting = Deferred()
        self.server.bus.log.append = lambda *args: waiting
        peer.send(text(body="x", ack=1))
        self.assertEqual(self.told(peer), [])
        waiting.errback(Unavailable("Away."))
        self.assertEqual(self.told(peer), [{"error": "Away.", "status": 503, "ack": 1}])

    def test_mistakes(self):
        """
        A frame that is no envelope is refused with 400, and the connection stays open.
        """
        peer = self.open()
        peer.send(masked(Opcode.TEXT, b"hello"))
        (told,) = self.told(peer)
        self.assertEqual((told["status"], told["error"][-1]), (400, "."))
        peer.send(text(body="x"))
        self.assertEqual([m.body for m in self.published], [b"x"])

    def test_raw(self):
        """
        With `?raw=1`, a frame is a body, in both directions; a refusal closes the
        connection.
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
        A message that is too large is refused before all of it has come.
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

    def test_dribbles(self):
        """
        A message has 300 seconds, and one more for each KiB that has come; then the
        WebSocket is closed, also if nothing comes any more.  Between messages, it may be
        silent for ever.
        """
        sizes = []
        self.server.bus.subscribe("", lambda message: sizes.append(len(message.body)))
        clock, slow = self.server.clock, (1008, "The message comes too slowly.")
        idle, silent, dribbling, quick = (self.open("/msgbus/foo?raw=1") for _ in range(4))
        idle.send(masked(Opcode.TEXT, b"whole"))
        silent.send(masked(Opcode.TEXT, b"", fin=False))
        whole = masked(Opcode.TEXT, b"x" * 400_000)
        dribbling.send(whole[:20])
        quick.send(whole[:20])
        for second in range(300):
            dribbling.send(whole[20 + second : 21 + second])
            quick.send(whole[20 + second * 1200 : 20 + (second + 1) * 1200])
            self.assertFalse(silent.closed or dribbling.closed)
            clock.advance(1)
        self.assertEqual(self.closed(silent), slow)
        clock.advance(1)
        self.assertEqual(self.closed(dribbling), slow)
        clock.advance(300)
        quick.send(whole[20 + 300 * 1200 :])
        clock.advance(10_000)
        for peer in idle, quick:
            self.assertFalse(peer.closed)
        self.assertEqual(sizes, [5, 400_000])
        for peer in idle, silent, dribbling, quick:
            peer.leave(ConnectionDone())
        self.assertEqual(clock.getDelayedCalls(), [])


class CloseTests(WebSocketTestCase):
    """
    The end of a connection.
    """

    def test_close(self):
        """
        A close frame is answered with its own code, nothing behind it is read, and the
        connection is closed.
        """
        for payload, code in ((b"", 1005), (struct.pack("!H", 1000) + b"bye", 1000)):
            peer = self.open()
            peer.send(masked(Opcode.CLOSE, payload) + text(body="behind"))
            self.assertEqual(self.closed(peer)[0], code)
            self.assertTrue(peer.closed)
        self.assertEqual(self.published, [])
