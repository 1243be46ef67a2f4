"""
Tests for `msgbus.web.publication_stream`, `publication_source` and `streamed_body`:
requests whose bodies are streams of messages.
"""

import json
import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.web import server
from twisted.web.resource import Resource

from msgbus.bus.log import Unavailable
from msgbus.formats.framing import HEARTBEAT_SECONDS
from msgbus.message import Message
from msgbus.web.publication_stream import MESSAGES_A_TURN

from ..memory import unchunked
from ..requests import authorization, get, post
from ..strategies import splits
from .testcase import WebTestCase

MULTIPART = "Content-Type: multipart/x-mixed-replace; boundary=B\n"
CHUNKED = "Transfer-Encoding: chunked\n"
NDJSON = "Content-Type: application/x-ndjson\n"
TOLD = "Accept: application/x-ndjson\n"


def part(body=b"", *headers, length=True):
    """
    One part, with the delimiter before it.
    """
    lines = [line.encode() if isinstance(line, str) else line for line in headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    head = b"".join(line + b"\r\n" for line in lines)
    return b"--B\r\n%s\r\n%s\r\n" % (head, body)


def head(path="/msgbus/foo", headers=CHUNKED, type=MULTIPART, version="1.1", method="POST"):
    """
    The head of a request that publishes a stream.
    """
    return get(path, type + headers, version, method).replace("\n", "\r\n").encode()


def chunk(data):
    """
    The same bytes as one chunk; the last chunk if there are none.
    """
    return b"%x\r\n%s\r\n" % (len(data), data)


class StreamTestCase(WebTestCase):
    """
    A test with a server in memory, and publishers of streams.
    """

    def open(self, path="/msgbus/foo", headers="", **kwargs):
        """
        A peer that has sent the head of a request with a chunked body.
        """
        peer = self.server.connect()
        peer.send(head(path, CHUNKED + headers, **kwargs))
        return peer

    def publish(self, body, path="/msgbus/foo", headers="", **kwargs):
        """
        The status, and the object in the answer, to a request with this body, of which the
        length is given.
        """
        peer = self.server.connect()
        length = f"Content-Length: {len(body)}\n"
        peer.send(head(path, length + headers, **kwargs) + body)
        self.turn()
        code, answered, told = peer.answer()
        self.assertEqual(answered["Content-Type"], "application/json")
        peer.leave(ConnectionDone())
        return code, json.loads(told)

    def turn(self, times=50):
        """
        Let so many turns of the reactor pass.
        """
        for _ in range(times):
            self.server.turn()

    def bodies(self):
        """
        The bodies that were published since the last call.
        """
        bodies = [message.body for message in self.published]
        self.published.clear()
        return bodies

    def lines(self, peer):
        """
        The objects in the lines that came since the last call, in chunks.
        """
        data = b"".join(unchunked(peer.received()))
        return [json.loads(line) for line in data.splitlines()]

    def told(self, *args, **kwargs):
        """
        A publisher that is told at once what becomes of each message, and has received the
        head of the answer.
        """
        kwargs["headers"] = TOLD + kwargs.get("headers", "")
        peer = self.open(*args, **kwargs)
        code, answered, rest = peer.answer()
        self.assertEqual((code, rest), (200, b""))
        self.assertEqual(answered["Content-Type"], "application/x-ndjson")
        self.assertEqual(answered["Incremental"], "?1")
        return peer


class PlainTests(StreamTestCase):
    """
    Streams that are answered once, at their end.
    """

    def test_at_once(self):
        """
        Each part is published as soon as it is complete, without the delimiter behind it,
        and nothing is answered before the end of the body.
        """
        peer = self.open()
        peer.send(chunk(part(b"1", "Content-Type: text/plain")[:-2]))
        self.assertEqual(self.published, [Message("foo", b"1", "text/plain")])
        peer.send(chunk(b"\r\n" + part(b"2")))
        self.assertEqual(
            self.published[1], Message("foo", b"2", "application/octet-stream")
        )
        self.assertEqual(peer.received(), b"")
        peer.send(chunk(b""))
        code, headers, body = peer.answer()
        self.assertEqual((code, headers["Content-Type"]), (200, "application/json"))
        self.assertNotIn("Connection", headers)
        expected = {"published": 2, "repeated": 0, "id": self.published[1].id}
        self.assertEqual(json.loads(body), expected)

    def test_split_everywhere(self):
        """
        A request is answered alike wherever its bytes are cut.
        """
        request = head("/msgbus/foo?require=1") + chunk(part(b"a")) + chunk(b"--B--")
        request += chunk(b"")
        for cut in range(1, len(request)):
            peer = self.server.connect()
            peer.send(request[:cut])
            peer.send(request[cut:])
            self.assertEqual(peer.answer()[0], 200, cut)
            self.assertEqual(self.bodies(), [b"a"])
        peer = self.server.connect()
        for at in range(len(request)):
            peer.send(request[at : at + 1])
        self.assertEqual(peer.answer()[0], 200)
        self.assertEqual(self.bodies(), [b"a"])

    def test_until_now(self):
        """
        A stream of a bus that ends where history does is published without the part that
        says so, wherever it is split; and one that goes on, with all its messages.
        """
        boundary = self.server.bus.boundary
        type = f"Content-Type: multipart/x-mixed-replace;boundary={boundary}\n"
        for body in b"old", b"":
            self.server.bus.publish(Message("foo", body, "text/plain"))
        for query in "", "&until=now":
            peer = self.server.connect()
            peer.send(get(f"/msgbus/foo?since=all{query}", version="1.0"))
            stream = peer.received().partition(b"\r\n\r\n")[2]
            self.server.bus.publish(Message("foo", b"new", "text/plain"))
            stream += peer.received()
            stream = re.sub(rb"Msgbus-Id: [^\r]*\r\n", b"", stream)
            bodies = [b"old", b""] + [b"new"] * (not query)
            end = stream.rindex(b"Msgbus-Live")
            for at in (0, *range(end, len(stream))):
                publisher = self.open("/msgbus/bar", type=type)
                self.bodies()
                publisher.send(chunk(stream[:at]) if at else b"")
                publisher.send(chunk(stream[at:]) + chunk(b""))
                self.turn(2)
                code, _, _ = publisher.answer()
                self.assertEqual((code, self.bodies()), (200, bodies))
            self.server.bus.history.__init__()
            for body in b"old", b"":
                self.server.bus.publish(Message("foo", body, "text/plain"))

    def test_put(self):
        """
        A PUT is as good as a POST.
        """
        self.assertEqual(self.publish(part(b"a"), method="PUT")[0], 200)
        self.assertEqual(self.bodies(), [b"a"])

    def test_nothing(self):
        """
        A body without a message is a stream of none; one with no bytes is malformed.
        """
        none = {"published": 0, "repeated": 0, "id": None}
        for body in (b"--B--\r\n", b"--B\r\n", b"--B\r\nMsgbus-Heartbeat: 1\r\n"):
            self.assertEqual(self.publish(body), (200, none))
        for length in ("", "Content-Length: 0\n"):
            peer = self.server.connect()
            peer.send(head(headers=length))
            code, _, body = peer.answer()
            self.assertEqual(code, 400)
            self.assertIn("before the first delimiter", json.loads(body)["error"])

    def test_last_without_length(self):
        """
        The end of the body completes a part without a length.  The line end before it does
        not belong to the part; a lone CR does.
        """
        for end, body in ((b"", b"a"), (b"\r\n", b"a"), (b"\n", b"a"), (b"\r", b"a\r")):
            stream = b"--B\r\nA: b\r\n\r\na" + end
            self.assertEqual(self.publish(stream)[0], 200)
            self.assertEqual(self.bodies(), [body])

    def test_many_at_once(self):
        """
        Many parts that come together are published in order, over some turns of the
        reactor, during which the publisher waits.
        """
        peer = self.open()
        sent = [b"%d" % number for number in range(1000)]
        peer.send(chunk(b"".join(map(part, sent))) + chunk(b""))
        self.assertEqual(len(self.published), MESSAGES_A_TURN)
        self.assertEqual(peer.transport.producerState, "paused")
        self.turn()
        self.assertEqual(self.bodies(), sent)
        self.assertEqual(peer.transport.producerState, "producing")
        self.assertEqual(json.loads(peer.answer()[2])["published"], 1000)

    def test_behind_large(self):
        """
        Messages that come together with the end of a large one are published although
        nothing comes behind them, and so is the end of the body.
        """
        large = b"x" * 300_000
        for end in (b"", chunk(b"")):
            peer = self.open()
            sent = [large, large, b"1", large, b"2"]
            peer.send(chunk(b"".join(map(part, sent))) + end)
            self.turn()
            self.assertEqual(self.bodies(), sent)
            self.assertEqual(peer.transport.producerState, "producing")
            self.assertEqual(peer.received().startswith(b"HTTP/1.1 200 "), bool(end))

    def test_faulty_in_the_middle(self):
        """
        With the first faulty part, the stream ends: all before it are published, and the
        answer tells which it was and has the connection closed.
        """
        boundary = self.server.bus.boundary.encode()
        for faulty, status, sentence in (
            (part(b"", "Content-Type: text"), 400, "type/subtype"),
            (part(boundary), 400, "boundary"),
            (part(b"", "Idempotency-Key:"), 400, "Idempotency-Key"),
            (part(b"", "Msgbus-Origin: x"), 400, "no origin"),
            (b"--B\r\ngarbage\r\n\r\n", 400, "no header line"),
            (b"--B\r\nContent-Length: -1\r\n\r\n", 400, "no length"),
            (b"--B\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, "no length"),
            (b"--B\r\nContent-Length: 1048577\r\n\r\n", 413, "at most 1048576 bytes"),
            (b"--B\r\n\r\n" + b"x" * 1_100_000, 413, "at most 1048576 bytes"),
            (b"--B\r\n" + b"A: b\r\n" * 4000, 400, "16 KiB"),
            (part(b"ab").replace(b": 2", b": 1") + b"x" * 1000, 400, "No delimiter"),
        ):
            peer = self.open()
            peer.send(chunk(part(b"1") + part(b"2") + faulty + part(b"3")))
            self.turn()
            code, headers, body = peer.answer()
            self.assertEqual((code, headers["Connection"]), (status, "close"), sentence)
            told = json.loads(body)
            self.assertIn(sentence, told.pop("error"))
            number = 4 if "No delimiter" in sentence else 3
            bodies = self.published[: number - 1]
            self.assertEqual([m.body for m in bodies[:2]], [b"1", b"2"])
            self.assertEqual(
                told,
                {
                    "published": number - 1,
                    "repeated": 0,
                    "id": self.published[-1].id,
                    "part": number,
                    "status": status,
                },
            )
            self.bodies()
            # What comes then is discarded, and not read as a request.
            peer.send(post())
            self.server.clock.advance(3)
            self.assertEqual((self.published, peer.received()), ([], b""))
            self.assertTrue(peer.closed)

    def test_cut_part(self):
        """
        A body that ends within a part with a length is refused, and that part is not
        published.
        """
        code, told = self.publish(part(b"1") + part(b"23")[:-3])
        self.assertEqual((code, told["part"], self.bodies()), (400, 2, [b"1"]))
        self.assertIn("inside a part", told["error"])

    def test_other_boundary(self):
        """
        A stream with no delimiter in sight is refused, whatever pieces it comes in.
        """
        for piece in (b"x" * 100, b"x" * 99 + b"\n", b"x\r\n" * 10_000):
            peer = self.open()
            for _ in range(70_000 // len(piece) + 1):
                peer.send(chunk(piece))
            code, _, body = peer.answer()
            self.assertEqual(code, 400)
            self.assertIn("no delimiter in sight", json.loads(body)["error"])

    def test_broken_chunks(self):
        """
        If the chunks of the body are malformed, the one answer tells what was published.
        """
        for garbage in (b"x\r\n", b"-1\r\n", b"1\r\nab\r\n"):
            peer = self.open()
            peer.send(chunk(part(b"1")) + garbage)
            self.turn()
            received = peer.received()
            self.assertEqual(received.count(b"HTTP/1.1 "), 1, received)
            self.assertTrue(received.startswith(b"HTTP/1.1 400 "), received)
            self.assertIn(b"\r\nConnection: close\r\n", received)
            told = json.loads(received.partition(b"\r\n\r\n")[2])
            self.assertEqual((told["published"], told["status"]), (1, 400))
            self.server.clock.advance(3)
            self.assertTrue(peer.closed)
            self.assertEqual(peer.received(), b"")
            peer.leave(ConnectionDone())
        self.assertEqual(self.bodies(), [b"1"] * 3)

    def test_broken_chunks_behind_fault(self):
        """
        Malformed chunks behind a part that was refused get no answer of their own.
        """
        peer = self.open()
        peer.send(chunk(part(b"", "Content-Type: x")) + b"garbage\r\n")
        received = peer.received()
        self.assertEqual(received.count(b"HTTP/1.1 "), 1, received)

    def test_discards(self):
        """
        A publisher that goes on and on after it was refused is cut.
        """
        peer = self.open()
        peer.send(chunk(part(b"", "Content-Type: x")))
        self.assertEqual(peer.answer()[0], 400)
        for _ in range(9):
            peer.send(chunk(b"x" * 1_000_000))
        self.assertTrue(peer.transport.disconnected)

    def test_required(self):
        """
        With `?require=1`, the first message without a subscriber ends the stream with 409.
        """
        self.server.bus._subscriptions.by_name.clear()
        code, told = self.publish(part(b"1"), "/msgbus/foo?require=1")
        self.assertEqual((code, told["status"], told["part"]), (409, 409, 1))
        self.assertEqual(told["id"], None)

    def test_stop(self):
        """
        When the bus stops, what is complete is published, and the publisher is answered
        with 503.
        """
        peer = self.open()
        peer.send(chunk(part(b"1") * 100 + part(b"2")[:-3]))
        self.server.resource.stop_waiting()
        self.turn()
        code, headers, body = peer.answer()
        self.assertEqual((code, headers["Connection"]), (503, "close"))
        told = json.loads(body)
        self.assertEqual((told["published"], told["status"]), (100, 503))
        self.assertNotIn("part", told)
        self.assertEqual(len(self.published), 100)

    def test_begun_during_stop(self):
        """
        A stream that begins while the bus stops is refused, because it might have no end.
        """
        self.server.resource.stop_waiting()
        peer = self.open()
        peer.send(chunk(part(b"1")))
        self.assertEqual(peer.answer()[0], 503)
        self.assertEqual(self.published, [])

    def test_stop_lingers(self):
        """
        When the site drains, the connection of a publisher that was answered while it sends
        is not closed at once, because a reset would destroy the answer.
        """
        peer = self.open()
        peer.send(chunk(part(b"1")))
        self.server.resource.stop_waiting()
        self.server.site.drain()
        self.assertEqual(peer.answer()[0], 503)
        self.assertFalse(peer.closed)
        self.server.clock.advance(3)
        self.assertTrue(peer.closed)


class ToldTests(StreamTestCase):
    """
    Publishers that are told at once what becomes of each message.
    """

    def test_heartbeats(self):
        """
        While there is nothing to tell, an empty line comes from time to time; none comes to
        a publisher that reads no receipts, and none behind the end.
        """
        silent, peer = self.open(), self.told()
        self.server.clock.advance(HEARTBEAT_SECONDS)
        self.assertEqual(peer.received(), b"1\r\n\n\r\n")
        self.assertEqual(silent.received(), b"")
        peer.leave(ConnectionDone())
        silent.leave(ConnectionDone())
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_receipts(self):
        """
        The head of the answer comes at once, then a line for each message, and a last one
        that sums up.
        """
        peer = self.told()
        peer.send(chunk(part(b"1") + part(b"2", "Idempotency-Key: k")))
        ids = [message.id for message in self.published]
        self.assertEqual(
            self.lines(peer),
            [
                {"part": 1, "id": ids[0], "subscribers": 1},
                {"part": 2, "id": ids[1], "subscribers": 1},
            ],
        )
        peer.send(chunk(part(b"2", "Idempotency-Key: k")) + chunk(b""))
        received = peer.received()
        self.assertTrue(received.endswith(b"0\r\n\r\n"))
        lines = b"".join(unchunked(received[:-5])).splitlines()
        self.assertEqual(
            [json.loads(line) for line in lines],
            [
                {"part": 3, "id": ids[1], "subscribers": 1, "repeated": True},
                {"published": 2, "repeated": 1, "id": ids[1]},
            ],
        )
        self.assertTrue(peer.closed)

    def test_refused_alone(self):
        """
        A part that is faulty in itself is refused alone, and the stream goes on.
        """
        peer = self.told(path="/msgbus/a/")
        location = "Content-Location: "
        peer.send(
            chunk(
                part(b"1")
                + part(b"2", "Content-Type: x")
                + part(b"3", location + "/msgbus/b")
                + part(b"4", location + "http://[")
                + part(b"5", "Msgbus-Origin:")
                + part(b"6", "Idempotency-Key: k")
                + part(b"7", "Idempotency-Key: k")
            )
        )
        lines = self.lines(peer)
        self.assertEqual([line["part"] for line in lines], [1, 2, 3, 4, 5, 6, 7])
        statuses = [line.get("status") for line in lines]
        self.assertEqual(statuses, [None, 400, 400, 400, None, None, 422])
        for line in lines:
            self.assertTrue(line.get("error", ".").endswith("."))
        self.assertEqual(self.bodies(), [b"1", b"5", b"6"])

    def test_required(self):
        """
        A message that nobody subscribes to is refused alone.
        """
        self.server.bus._subscriptions.by_name.clear()
        peer = self.told(path="/msgbus/foo?require=1")
        peer.send(chunk(part(b"1")))
        ((line),) = self.lines(peer)
        self.assertEqual((line["part"], line["status"]), (1, 409))

    def test_broken(self):
        """
        What breaks the stream is told in the last line, behind which the response and the
        connection end.
        """
        for broken, status, number in (
            (chunk(b"--B\r\ngarbage\r\n"), 400, 2),
            (chunk(b"--B\r\nContent-Length: 9999999\r\n\r\n"), 413, 2),
            (b"x\r\n", 400, None),
        ):
            peer = self.told()
            peer.send(chunk(part(b"1")) + broken)
            received = peer.received()
            self.assertTrue(received.endswith(b"0\r\n\r\n"), received)
            self.assertNotIn(b"HTTP/", received)
            first, last = b"".join(unchunked(received[:-5])).splitlines()
            self.assertEqual(json.loads(first)["part"], 1)
            last = json.loads(last)
            self.assertEqual((last["status"], last.get("part")), (status, number))
            self.assertEqual(last["published"], 1)
            self.server.clock.advance(3)
            self.assertTrue(peer.closed)

    def test_stop(self):
        """
        When the bus stops, the last line says so.
        """
        peer = self.told()
        peer.send(chunk(part(b"1")))
        self.server.resource.stop_waiting()
        lines = b"".join(unchunked(peer.received().removesuffix(b"0\r\n\r\n"))).splitlines()
        last = json.loads(lines[-1])
        self.assertEqual((last["published"], last["status"]), (1, 503))

    def test_http_1_0(self):
        """
        Over HTTP/1.0 the lines come without chunks, and the connection is closed behind
        them.
        """
        peer = self.server.connect()
        body = part(b"1")
        peer.send(
            head(headers=f"{TOLD}Content-Length: {len(body)}\n", version="1.0") + body
        )
        _, _, answer = peer.received().partition(b"\r\n\r\n")
        first, last = map(json.loads, answer.splitlines())
        self.assertEqual((first["part"], last["published"]), (1, 1))
        self.assertTrue(peer.closed)


class TargetTests(StreamTestCase):
    """
    Which channel a part is published to, and under whose name.
    """

    def channel(self, location, path="/msgbus/a/", headers=""):
        """
        The channel of a part with this location, or the error with which it is refused.
        """
        line = location if isinstance(location, bytes) else location.encode()
        code, told = self.publish(part(b"", b"Content-Location: " + line), path, headers)
        if code != 200:
            self.assertEqual((code, self.published), (400, []))
            return told["error"]
        (message,) = self.published
        self.published.clear()
        return message.channel

    def test_in_folder(self):
        """
        A location is a path below the bus, a URL with such a path, or relative to the
        folder; a query is no part of it.
        """
        for location, channel in (
            ("foo", "a/foo"),
            ("./foo", "a/foo"),
            ("b/c", "a/b/c"),
            ("b/", "a/b/"),
            ("", "a/"),
            ("/msgbus/a/foo", "a/foo"),
            ("/msgbus/a/", "a/"),
            ("http://elsewhere:99/msgbus/a/foo", "a/foo"),
            ("/msgbus/a%2Ffoo", "a/foo"),
            ("b%2Fc", "a/b/c"),
            ("%C3%A4", "a/ä"),
            ("ä", "a/ä"),
            ("foo?t=1", "a/foo"),
            ("/msgbus/a/foo?t=1", "a/foo"),
            ("http://elsewhere/msgbus/a/foo?t=1#x", "a/foo"),
            ("%3Ft=1", "a/?t=1"),
        ):
            self.assertEqual(self.channel(location), channel)

    def test_in_root(self):
        """
        The root is the folder of all channels.
        """
        for location, channel in (("foo", "foo"), ("/msgbus/a/foo", "a/foo"), ("", "")):
            self.assertEqual(self.channel(location, "/msgbus/"), channel)

    def test_outside(self):
        """
        A location that is not in the folder, or that is no valid name, is refused.
        """
        for location in (
            "/msgbus/b/foo",
            "/msgbus/a",
            "/msgbus/",
            "/msgbus/ab/c",
            "/other/a/foo",
            "/msgbusa/foo",
            "//evil/msgbus/a/foo",
            "///",
            "/",
            "http://elsewhere/",
            "http://elsewhere",
            "http://[",
            "..",
            "../b/foo",
            "b/../../b",
            "/msgbus/a/../b",
            "%2e%2e/b",
            "/msgbus/a/%2E%2E/b",
            "%2Fb",
            "b//c",
            "/msgbus//a/foo",
            "/msgbus/a//foo",
            "%",
            "%zz",
            "%ff",
            "%00",
            "b\\c",
            "b\tc",
            "http://elsewhere/msgbus/a/b\tc",
            ".js/x",
            "x" * 1024,
            "/x" * 40,
        ):
            answer = self.channel(location)
            self.assertTrue(answer.endswith("."), (location, answer))

    def test_other_prefix(self):
        """
        `Msgbus-Prefix` tells the prefix of the bus from which the stream comes; it leads
        out of the folder no more than others do.
        """
        headers = "Msgbus-Prefix: /other/bus/\n"
        for location, channel in (
            ("/other/bus/a/foo", "a/foo"),
            ("/msgbus/a/foo", "a/foo"),
            ("foo", "a/foo"),
        ):
            self.assertEqual(self.channel(location, headers=headers), channel)
        for location in ("/other/bus/b/foo", "/other/a/foo", "/other/bus/../a/foo"):
            self.assertTrue(self.channel(location, headers=headers).endswith("."))
        headers = "Msgbus-Prefix: /\n"
        self.assertEqual(self.channel("/a/foo", headers=headers), "a/foo")

    def test_channel(self):
        """
        On a channel, locations are ignored.
        """
        for location in ("bar", "/msgbus/bar", "../x", "%zz"):
            self.assertEqual(self.channel(location, "/msgbus/foo"), "foo")

    def test_sender(self):
        """
        Where no password is asked for, a part names its sender; by default it is the user
        of the request.
        """
        stream = part(b"", "From: älice") + part() + part(b"", "From:")
        self.publish(stream, headers=authorization("bob:"))
        self.assertEqual([m.sender for m in self.published], ["älice", "bob", "bob"])

    def test_sender_control(self):
        """
        A sender that cannot be one is refused.
        """
        for sender in (b"\x01", b"a\x7f", b"x" * 2000):
            code, _ = self.publish(part(b"", b"From: " + sender))
            self.assertEqual(code, 400, sender)
        self.assertEqual(self.published, [])

    def test_options(self):
        """
        A part may forbid to keep it, and has the origin that it names.
        """
        origin = "4711/1764-4711000000000017"
        self.publish(
            part(b"1", "Cache-Control: No-Store")
            + part(b"2", f"Msgbus-Origin: {origin}", "Msgbus-Id: 1764-4712000000000001")
            + part(b"3", "Msgbus-Id: 1764-4711000000000018")
            + part(b"4", "Msgbus-Id: x")
            + part(b"5", "Msgbus-Gap: 3", "Msgbus-Heartbeat: 1")
        )
        origins = [m.origin for m in self.published]
        self.assertEqual(origins, ["", origin, "4711/1764-4711000000000018", "", ""])
        kept = [entry.message.body for entry in self.server.bus.history.entries("")]
        self.assertEqual(kept, [b"2", b"3", b"4", b"5"])

    def test_own_life(self):
        """
        What the bus has published itself, or has seen, is not published again.
        """
        self.publish(part(b"1"))
        (own,) = self.published
        origin = "4711/1764-4711000000000017"
        seen = part(b"2", f"Msgbus-Origin: {origin}")
        stream = part(b"1", f"Msgbus-Id: {own.id}") + seen + seen
        code, told = self.publish(stream)
        self.assertEqual((code, told["published"], told["repeated"]), (200, 1, 2))
        self.assertEqual(told["id"], self.published[1].id)
        self.assertEqual(self.bodies(), [b"1", b"2"])


class PasswordTests(StreamTestCase):
    """
    A bus that asks for a password.
    """

    options = {"secret": b"secret"}

    def test_sender(self):
        """
        A part cannot name its sender.
        """
        self.publish(part(b"", "From: eve"), headers=authorization("bob:secret"))
        self.assertEqual([m.sender for m in self.published], ["bob"])

    def test_refused(self):
        """
        Who has no password is refused at once, without `100 Continue`, and nothing of the
        body is read as a request.
        """
        body = post()
        for headers in ("Expect: 100-continue\n", ""):
            for length in (CHUNKED, f"Content-Length: {len(body)}\n"):
                peer = self.server.connect()
                peer.send(head(headers=headers + length))
                code, answered, _ = peer.answer()
                self.assertEqual((code, answered["Connection"]), (401, "close"))
                self.assertEqual(answered["Content-Type"], "text/plain; charset=utf-8")
                peer.send(body)
                peer.send(post(headers="Content-Type: a/b\n" + authorization("a:secret")))
                self.assertEqual(peer.received(), b"")
                self.server.clock.advance(3)
                self.assertTrue(peer.closed)
        self.assertEqual(self.published, [])

    def test_refused_without_body(self):
        """
        What comes behind a request without a body that was refused is not read.
        """
        behind = get().replace("\n", "\r\n").encode()
        for length in ("", "Content-Length: 0\n"):
            peer = self.server.connect()
            peer.send(head(headers=length) + behind)
            self.assertEqual(peer.received().count(b"HTTP/1.1 "), 1)
            peer.send(behind)
            self.assertEqual(peer.received(), b"")


class LateLoginTests(StreamTestCase):
    """
    A portal that takes its time.
    """

    options = {"secret": b"secret"}

    def setUp(self):
        super().setUp()
        self.logins = []
        portal = self.server.root._portal
        login = portal.login

        def later(*args):
            waiting = Deferred()
            self.logins.append((waiting, args))
            return waiting.addCallback(lambda _: login(*args))

        portal.login = later

    def let_in(self):
        """
        Answer those who wait.
        """
        for waiting, _ in self.logins:
            waiting.callback(None)
        self.logins.clear()

    def test_waits(self):
        """
        The body waits until the password is checked.
        """
        for end in (b"", chunk(b"")):
            peer = self.open(headers=authorization("bob:secret"))
            peer.send(chunk(part(b"1")))
            peer.send(chunk(part(b"2")) + end)
            self.assertEqual((peer.received(), self.published), (b"", []))
            self.assertEqual(peer.transport.producerState, "paused")
            self.let_in()
            self.assertEqual(self.bodies(), [b"1", b"2"])
            self.assertEqual(peer.transport.producerState, "producing")
            if not end:
                peer.send(chunk(b""))
            self.assertEqual(json.loads(peer.answer()[2])["published"], 2)

    def test_denied(self):
        """
        The body of one who is denied is discarded.
        """
        for end in (b"", chunk(b"")):
            peer = self.open(headers=authorization("bob:wrong"))
            peer.send(chunk(part(b"1")) + end)
            self.let_in()
            self.assertEqual(peer.answer()[0], 401)
            self.assertEqual(self.published, [])

    def test_gone(self):
        """
        Nothing of a publisher that has gone by then is published.
        """
        peer = self.open(headers=authorization("bob:secret"))
        peer.send(chunk(part(b"1")))
        peer.leave(ConnectionLost())
        self.let_in()
        self.assertEqual(peer.received(), b"")
        self.assertEqual(self.server.resource.mount.publication_streams, set())

    def test_broken(self):
        """
        If the chunks are malformed before the password is checked, there is one answer.
        """
        for headers in ("", TOLD):
            peer = self.open(headers=headers + authorization("bob:secret"))
            peer.send(chunk(part(b"1")) + b"x\r\n")
            self.let_in()
            received = peer.received()
            self.assertEqual(received.count(b"HTTP/1.1 "), 1, received)
            self.server.clock.advance(3)
            self.assertTrue(peer.closed)
            peer.leave(ConnectionDone())
            self.assertEqual(self.server.resource.mount.publication_streams, set())

    def test_continue(self):
        """
        `100 Continue` is sent when the password is checked.
        """
        peer = self.open(headers="Expect: 100-continue\n" + authorization("bob:secret"))
        self.assertEqual(peer.received(), b"")
        self.let_in()
        self.assertEqual(peer.received(), b"HTTP/1.1 100 Continue\r\n\r\n")


class ConnectionTests(StreamTestCase):
    """
    Where a body ends, and what may come before and behind it on a connection.
    """

    def test_pipelined(self):
        """
        Requests before and behind a stream are answered in order, and nothing of the body
        is read as a request.
        """
        inner = post(body="inner").replace("\n", "\r\n").encode()
        before, behind = (
            post(body=body).replace("\n", "\r\n").encode() for body in ("first", "last")
        )
        body = part(inner) + part(b"", "Idempotency-Key: k")
        fixed = head(headers=f"Content-Length: {len(body)}\n") + body
        trailer = b"0\r\nPOST /msgbus/x HTTP/1.1: x\r\nA: b\r\n\r\n"
        chunked = head() + chunk(body[:50]) + chunk(body[50:]) + trailer
        for stream in (fixed, chunked):
            data = before + stream + behind + stream + behind + behind
            for size in (1, 7, 100, 1000, len(data)):
                peer = self.server.connect()
                for at in range(0, len(data), size):
                    peer.send(data[at : at + size])
                self.turn()
                received = peer.received()
                codes = re.findall(rb"HTTP/1\.1 (\d+) ", received)
                self.assertEqual(codes, b"204 200 204 200 204 204".split(), size)
                bodies = self.bodies()
                bodies = [b for b in bodies if b]
                expected = [b"first", inner, b"last", inner, b"last", b"last"]
                self.assertEqual(bodies, expected)

    def test_behind_many(self):
        """
        A request behind a stream that takes several turns is answered after it.
        """
        peer = self.server.connect()
        body = part(b"x") * 300
        peer.send(
            head(headers=f"Content-Length: {len(body)}\n")
            + body
            + post(body="last").replace("\n", "\r\n").encode()
        )
        self.turn()
        self.assertEqual(self.bodies(), [b"x"] * 300 + [b"last"])
        received = peer.received()
        self.assertLess(received.index(b"HTTP/1.1 200"), received.index(b"HTTP/1.1 204"))
        peer.send(post(body="again"))
        self.assertEqual(peer.answer()[0], 204)

    def test_http_1_0(self):
        """
        Over HTTP/1.0 a body has a length; the connection is closed behind the answer.
        """
        peer = self.server.connect()
        body = part(b"1")
        length = f"Content-Length: {len(body)}\n"
        peer.send(head(headers=length, version="1.0") + body)
        self.assertEqual(peer.answer()[0], 200)
        self.assertTrue(peer.closed)
        self.assertEqual(self.bodies(), [b"1"])

    def test_transfer_encoding_1_0(self):
        """
        `Transfer-Encoding` in an HTTP/1.0 request is refused.
        """
        request = head(version="1.0") + chunk(part(b"1")) + chunk(b"")
        self.assert_refused(request, 400, "no Transfer-Encoding")

    def test_two_lengths(self):
        """
        A request with `Transfer-Encoding` and `Content-Length`, or two lengths, is refused.
        """
        for headers in (
            CHUNKED + "Content-Length: 5\n",
            "Content-Length: 5\n" + CHUNKED,
            "Content-Length: 5\nContent-Length: 5\n",
            CHUNKED + CHUNKED,
            "Transfer-Encoding: gzip, chunked\n",
        ):
            peer = self.server.connect()
            peer.send(head(headers=headers) + chunk(part(b"1")) + chunk(b""))
            self.assertTrue(peer.received().startswith(b"HTTP/1.1 400 "))
        self.assertEqual(self.published, [])

    def test_two_types(self):
        """
        A request with two content types is refused, whichever of them is that of a stream.
        """
        for headers in (MULTIPART + NDJSON, "Content-Type: a/b\n" + MULTIPART):
            self.assert_refused(
                head(type=headers, headers="Content-Length: 1\n") + b"x", 400, "once only"
            )

    def test_continue(self):
        """
        `100 Continue` is sent before the body comes, once, and before the lines of
        receipts.
        """
        for headers, rest in (("", b""), (TOLD, b"HTTP/1.1 200 OK")):
            peer = self.open(headers="Expect: 100-continue\n" + headers)
            received = peer.received()
            expected = b"HTTP/1.1 100 Continue\r\n\r\n" + rest
            self.assertEqual(received[: len(expected)], expected)
            self.assertEqual(received.count(b" 100 "), 1)
            peer.send(chunk(part(b"1")))
        self.assertEqual(self.bodies(), [b"1", b"1"])

    def test_no_continue(self):
        """
        A publisher that is refused is not told to go on.
        """
        for path, headers, code in (
            ("/msgbus/..", "", 400),
            ("/nothing", "", 404),
            ("/msgbus/foo?require=x", "", 400),
            ("/msgbus/foo", "Origin: http://evil\n", 403),
        ):
            peer = self.open(path, "Expect: 100-continue\n" + headers)
            answered, headers, _ = peer.answer()
            self.assertEqual((answered, headers["Connection"]), (code, "close"))

    def test_gone_within_part(self):
        """
        Of a publisher that vanishes in the middle of a part, that part is not published.
        """
        for reason in (ConnectionDone(), ConnectionLost()):
            for stream in (part(b"12")[:-3], part(b"12", length=False)):
                peer = self.open()
                peer.send(chunk(part(b"1") + stream))
                peer.leave(reason)
                self.turn()
                self.assertEqual(self.bodies(), [b"1"])
        self.assertEqual(self.server.resource.mount.publication_streams, set())

    def test_gone_while_queued(self):
        """
        If a publisher vanishes, its parts that are complete are still published.
        """
        large = b"x" * 300_000
        for sent in ([b"x"] * 300, [large, large, b"1", large]):
            for headers in ("", TOLD):
                peer = self.open(headers=headers)
                peer.send(chunk(b"".join(map(part, sent))))
                peer.leave(ConnectionLost())
                self.turn()
                self.assertEqual(self.bodies(), sent)

    def test_stalled(self):
        """
        A stream that stalls in the middle of a part is answered with 408; between parts it
        may be silent for as long as it likes.
        """
        seconds = self.server.resource.mount.fanout.limits.stall_seconds
        peer = self.open()
        peer.send(chunk(part(b"1")))
        for _ in range(5):
            self.server.clock.advance(seconds + 1)
        peer.send(chunk(b"--B\r\nMsgbus-Heartbeat: 1\r\n"))
        self.server.clock.advance(seconds + 1)
        self.assertEqual(peer.received(), b"")
        peer.send(chunk(part(b"23")[5:-3]))
        self.server.clock.advance(seconds - 1)
        self.assertEqual(peer.received(), b"")
        self.server.clock.advance(2)
        code, headers, body = peer.answer()
        told = json.loads(body)
        self.assertEqual((code, headers["Connection"]), (408, "close"))
        self.assertEqual((told["published"], told["part"], told["status"]), (1, 2, 408))
        self.server.clock.advance(3)
        self.assertTrue(peer.closed)
        self.assertEqual(self.bodies(), [b"1"])

    def test_dribbles(self):
        """
        A part of which a byte comes now and then is answered with 408, once it has taken as
        long as it may stall, and a second for each KiB.  Parts that come one by one, each
        in time, may come for as long as they like.
        """
        seconds = self.server.resource.mount.fanout.limits.stall_seconds
        peer = self.open()
        for _ in range(5):
            for piece in (b"--B\r\nContent-Type: a/b\r\n", b"Content-Length: 1\r\n\r\n1"):
                peer.send(chunk(piece))
                self.server.clock.advance(seconds / 2)
            peer.send(chunk(b"\r\n"))
            self.server.clock.advance(seconds / 2)
        self.assertEqual(self.bodies(), [b"1"] * 5)

        peer.send(chunk(b"--B\r\nContent-Type: a/b\r\nContent-Length: 9999\r\n\r\n"))
        peer.send(chunk(b"x" * 4096))
        for _ in range(int(seconds) + 4):
            self.server.clock.advance(1)
            peer.send(chunk(b"x"))
        self.assertEqual(peer.received(), b"")
        self.server.clock.advance(1)
        peer.send(chunk(b"x"))
        code, _, body = peer.answer()
        told = json.loads(body)
        self.assertEqual((code, told["published"], told["part"]), (408, 5, 6))
        self.assertIn("too slowly", told["error"])

    def test_idle_for_ever(self):
        """
        A stream that is only idle between its messages, but for heartbeats, is never cut.
        """
        peer = self.open()
        peer.send(chunk(b"--B\r\n"))
        for _ in range(100):
            peer.send(chunk(b"Msgbus-Heartbeat: 1\r\n"))
            self.server.clock.advance(59)
        peer.send(chunk(part(b"1")[5:]))
        self.assertEqual(peer.received(), b"")
        self.assertEqual(self.bodies(), [b"1"])

    def test_stalled_told(self):
        """
        The last line tells that the rest of a part has not come.
        """
        peer = self.told()
        peer.send(chunk(b"--B\r\nA"))
        self.server.clock.advance(
            self.server.resource.mount.fanout.limits.stall_seconds + 1
        )
        answered = b"".join(unchunked(peer.received().removesuffix(b"0\r\n\r\n")))
        self.assertEqual(json.loads(answered.splitlines()[-1])["status"], 408)

    def test_idle_behind(self):
        """
        Behind a stream, the connection is closed when it has been idle for as long as any
        other.
        """
        self.server.site.timeOut = 60
        peer = self.open()
        peer.send(chunk(part(b"1")) + chunk(b""))
        self.assertEqual(peer.answer()[0], 200)
        self.server.clock.advance(59)
        self.assertFalse(peer.closed)
        self.server.clock.advance(2)
        self.assertTrue(peer.closed)


class DiskTests(StreamTestCase):
    """
    Messages that have to be written to the disk before they are acknowledged.
    """

    def setUp(self):
        super().setUp()
        self.waiting = []
        bus = self.server.bus
        submit = bus.submit

        def later(*args):
            receipt = submit(*args)
            if not args[2]:
                # It is not kept.
                return receipt
            waiting = Deferred()
            self.waiting.append((waiting, receipt))
            return waiting

        bus.submit = later

    def write(self, count=None):
        """
        Have the first messages written, or all.
        """
        written, self.waiting = self.waiting[:count], self.waiting[count:] if count else []
        for waiting, receipt in written:
            waiting.callback(receipt)

    def test_receipts_in_order(self):
        """
        Receipts come when the messages are on the disk, in order, those of refused parts
        too, whatever is written first.
        """
        peer = self.told()
        transient = part(b"3", "Cache-Control: no-store")
        refused = part(b"", "Content-Type: x")
        peer.send(chunk(part(b"1") + refused + part(b"2") + transient))
        self.assertEqual(self.lines(peer), [])
        first, second = self.waiting
        second[0].callback(second[1])
        self.assertEqual(self.lines(peer), [])
        first[0].callback(first[1])
        self.assertEqual([line["part"] for line in self.lines(peer)], [1, 2, 3, 4])

    def test_refused_late(self):
        """
        A message that had to wait may be refused.  A publisher that gets receipts is told
        so in its place; for another one, the stream ends there.
        """
        peer = self.told()
        peer.send(chunk(part(b"1") + part(b"2") + part(b"3")))
        (first, receipt), (second, _), (third, last) = self.waiting
        second.errback(Unavailable("Away."))
        third.callback(last)
        first.callback(receipt)
        told = [line.get("error") for line in self.lines(peer)]
        self.assertEqual(told, [None, "Away.", None])
        self.waiting = []
        peer = self.open()
        peer.send(chunk(part(b"1") + part(b"2")))
        (first, receipt), (second, _) = self.waiting
        first.callback(receipt)
        second.errback(Unavailable("Away."))
        code, _, body = peer.answer()
        told = json.loads(body)
        self.assertEqual((code, told["published"], told["part"]), (503, 1, 2))
        count = len(self.published)
        peer.send(chunk(part(b"3")))
        self.assertEqual(len(self.published), count)

    def test_answer_waits(self):
        """
        The answer comes when all is on the disk.
        """
        for end, status in ((chunk(b""), 200), (chunk(b"--B\r\nx\r\n"), 400)):
            peer = self.open()
            peer.send(chunk(part(b"1") * 3) + end)
            self.assertEqual(peer.received(), b"")
            self.write(2)
            self.assertEqual(peer.received(), b"")
            self.write()
            code, _, body = peer.answer()
            self.assertEqual((code, json.loads(body)["published"]), (status, 3))

    def test_back_pressure(self):
        """
        While 1,024 messages wait for the disk, no more are published, whatever comes, and
        the publisher waits.
        """
        peer = self.told()
        peer.send(chunk(part(b"x") * 3000))
        self.turn(200)
        self.assertEqual(len(self.published), 1024)
        self.assertEqual(peer.transport.producerState, "paused")
        # Over TLS, some more may come; and the transport resumes the connection when the
        # publisher has read its receipts.
        peer.protocol.resumeProducing()
        for _ in range(5):
            peer.send(chunk(part(b"x") * 100))
            self.turn()
        self.assertEqual(len(self.published), 1024)
        self.assertEqual(peer.transport.producerState, "paused")
        self.write(100)
        self.turn()
        self.assertLess(len(self.waiting), 1024 + MESSAGES_A_TURN)
        while self.waiting:
            self.write()
            self.turn()
        self.assertEqual(len(self.published), 3500)
        self.assertEqual(peer.transport.producerState, "producing")
        peer.send(chunk(b""))
        last = json.loads(
            b"".join(unchunked(peer.received().removesuffix(b"0\r\n\r\n"))).splitlines()[-1]
        )
        self.assertEqual(last["published"], 3500)

    def test_end_while_full(self):
        """
        A stream whose end, or whose loss, comes while too many messages wait is published
        whole.
        """
        for gone in (False, True):
            peer = self.open()
            peer.send(chunk(part(b"x") * 2000))
            self.turn()
            if gone:
                peer.leave(ConnectionLost())
            else:
                peer.send(chunk(b""))
            for _ in range(10):
                self.turn()
                self.write()
            self.assertEqual(len(self.bodies()), 2000)

    def test_stalled_while_full(self):
        """
        A publisher that has to wait for the disk does not stall.
        """
        peer = self.open()
        peer.send(chunk(part(b"x") * 1000))
        self.turn()
        peer.send(chunk(part(b"x") * 30 + part(b"xy")[:-3]))
        self.assertEqual(peer.transport.producerState, "paused")
        self.server.clock.advance(100_000)
        self.assertEqual(peer.received(), b"")
        self.write()
        self.turn()
        self.assertEqual(peer.transport.producerState, "producing")
        self.server.clock.advance(100_000)
        self.assertEqual(peer.answer()[0], 408)

    def test_gone(self):
        """
        If the publisher has gone when its messages are on the disk, nothing fails.
        """
        peer = self.told()
        peer.send(chunk(part(b"1")))
        peer.leave(ConnectionLost())
        self.write()
        self.assertEqual(peer.received(), b"")


class LineTests(StreamTestCase):
    """
    Streams of lines.
    """

    def lines_published(self, body, path="/msgbus/foo?format=ndjson", **kwargs):
        """
        The status, and the object in the answer, to a request with these lines.
        """
        return self.publish(body, path, type=NDJSON, **kwargs)

    def test_raw(self):
        """
        With `?raw=1`, each line is a body of the type that the query gives; an empty line
        is a message, too.
        """
        path = "/msgbus/foo?format=ndjson&raw=1&type=text/plain"
        code, told = self.lines_published(b"a\r\n\n b \nc", path)
        self.assertEqual((code, told["published"]), (200, 4))
        expected = [
            Message("foo", body, "text/plain") for body in (b"a", b"", b" b ", b"c")
        ]
        self.assertEqual(self.published, expected)

    def test_raw_limits(self):
        """
        A line has as many bytes as a message, and a line that grows larger is refused
        before its end.
        """
        path = "/msgbus/foo?format=ndjson&raw=1"
        limit = self.server.bus.max_message
        self.assertEqual(self.lines_published(b"x" * limit, path)[0], 200)
        self.assertEqual(self.lines_published(b"x" * limit + b"\r\n", path)[0], 200)
        self.bodies()
        for line in (b"x" * (limit + 1) + b"\n", b"x" * (limit + 2)):
            code, told = self.lines_published(b"a\n" + line, path)
            self.assertEqual((code, told["part"], self.bodies()), (413, 2, [b"a"]))

    def test_envelopes(self):
        """
        A line is an envelope as a subscriber gets it, with what publishers may add; empty
        lines and gaps are ignored.
        """
        origin = "4711/1764-4711000000000017"
        lines = [
            {"type": "a/b", "body": "ä", "channel": "x/a", "sender": "eve"},
            {"gap": 3},
            {"live": True},
            {"type": "a/b", "base64": "/w==", "keep": False},
            {"type": "a/b", "body": "", "id": origin[5:], "time": None, "size": 0},
        ]
        body = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n\n \r\n"
        code, told = self.lines_published(body, "/msgbus/x/?format=ndjson")
        self.assertEqual((code, told["published"]), (200, 3), told)
        self.assertEqual(
            self.published,
            [
                Message("x/a", "ä".encode(), "a/b", "eve"),
                Message("x/", b"\xff", "a/b"),
                Message("x/", b"", "a/b", origin=origin),
            ],
        )
        self.assertEqual(len(self.server.bus.history.entries("")), 2)

    def test_faulty_envelopes(self):
        """
        A line that is no envelope, or leads out of the folder, is refused.
        """
        for line in (
            b"x",
            b"[]",
            b'{"type": "a/b"}',
            b'{"type": "a/b", "body": "", "channel": "y"}',
            b'{"type": "a/b", "body": "", "channel": "x/../y"}',
            b'{"type": "a/b", "body": "", "origin": "x"}',
            b'{"type": "a/b", "body": "", "x": 1}',
            b'{"type": "a/b", "body": "\\ud800"}',
            b'{"type": "a/b", "base64": "?"}',
            b'{"type": 1, "body": ""}',
            b'{"type": "a/b", "body": "", "size": ' + b"9" * 5000 + b"}",
            b"[" * 100_000,
            b"\xff",
            b"\x00",
        ):
            code, told = self.lines_published(line, "/msgbus/x/?format=ndjson")
            self.assertEqual((code, told["part"], self.published), (400, 1, []), line)

    def test_required(self):
        """
        An envelope may require a subscriber.
        """
        self.server.bus._subscriptions.by_name.clear()
        for required, code in (("true", 409), ("false", 200)):
            line = b'{"type": "a/b", "body": "", "require": %s}' % required.encode()
            self.assertEqual(self.lines_published(line)[0], code)

    def test_stalled(self):
        """
        A line that does not end is answered with 408.
        """
        peer = self.open("/msgbus/foo?format=ndjson&raw=1", type=NDJSON)
        peer.send(chunk(b"a\nb"))
        self.server.clock.advance(
            self.server.resource.mount.fanout.limits.stall_seconds + 1
        )
        self.assertEqual(peer.answer()[0], 408)
        self.assertEqual(self.bodies(), [b"a"])

    def test_refused(self):
        """
        Queries that are not valid are refused before the stream begins.
        """
        for query in ("raw=2", "raw=1&type=x", "raw=1&type=%zz"):
            peer = self.open(f"/msgbus/foo?format=ndjson&{query}", type=NDJSON)
            code, headers, _ = peer.answer()
            self.assertEqual((code, headers["Connection"]), (400, "close"), query)

    def test_not_a_stream(self):
        """
        Without `?format=ndjson`, such a body is one message.
        """
        code, _, _ = self.server.ask(post(body="a b", headers=NDJSON))
        self.assertEqual((code, self.bodies()), (204, [b"a b"]))


LENGTHS = [b"Content-Length: 2\r\n\r\nab\r\n", b"Content-Length: 0\r\n\r\n\r\n"]
HEADERS = [b"A: b\r\n", b"Content-Type: x\r\n", b"Idempotency-Key: k\r\n", b" c\r\n"]
HEADERS += [b"Content-Location: /msgbus/a/b\r\n", b"Content-Location: http://[\r\n"]
HEADERS += [b"From: \x01\r\n", b"Msgbus-Origin:\r\n", b"Msgbus-Gap: 1\r\n"]
PARTS = [
    part(b"1"),
    part(b"23"),
    part(b"4", "Msgbus-Id: 1-2"),
    part(b"", "Content-Type: x"),
]
PARTS += [part(b"6", "Msgbus-Id: 1-4711000000000017"), part(b"7", "Idempotency-Key: k")]
PIECES = [
    b"--B\r\n",
    b"\r\n--B\r\n",
    b"--B--",
    b"\r\n\r\n",
    b"\n",
    b"\xff",
    b"x" * 70,
    b":",
]
ENVELOPES = [
    b'{"type": "a/b", "body": "1"}\n',
    b'{"gap": 1}\n',
    b"{}\n",
    b"[1]\n",
    b"}\r\n",
]
ENVELOPES += [
    b'{"type": "a/b"',
    b', "base64": "YQ=="',
    b', "channel": "/"',
    b', "id": "1-2"',
]
fragments = st.sampled_from(LENGTHS + HEADERS + PARTS + PIECES + ENVELOPES)


class FuzzTests(StreamTestCase):
    """
    Bodies of anything.
    """

    @settings(max_examples=200)
    @given(
        st.lists(fragments, max_size=12).map(b"".join),
        st.sampled_from(["", TOLD]),
        st.sampled_from([MULTIPART, "Content-Type: multipart/x-mixed-replace\n", NDJSON]),
        st.sampled_from(["", "&raw=1"]),
        st.data(),
    )
    def test_anything(self, body, told, content_type, query, data):
        """
        Any body is answered once, and alike wherever it is cut, in pieces or in chunks; and
        so is the request behind it, if the connection stays open.
        """
        path = f"/msgbus/a/?format=ndjson{query}"
        answers = []
        cuts = [0, *sorted(data.draw(splits(body))), len(body)]
        pieces = [body[start:stop] for start, stop in pairwise(cuts)]
        behind = post(body="behind").replace("\n", "\r\n").encode()
        for chunked, split in ((False, [body]), (False, pieces), (True, pieces)):
            # No ids are remembered.
            self.setUp()
            length = CHUNKED if chunked else f"Content-Length: {len(body)}\n"
            sent = [chunk(piece) if chunked else piece for piece in split if piece]
            peer = self.server.connect()
            peer.send(head(path, told + length, type=content_type))
            for piece in [*sent, chunk(b"") if chunked else b"", behind]:
                peer.send(piece)
            self.turn()
            received = peer.received()
            codes = re.findall(rb"HTTP/1\.1 (\d+) ", received)
            bodies = self.bodies()
            # Refused streams differ in whether the connection is closed.
            self.assertIn(len(codes), (1, 2), received)
            if len(codes) == 2 or b"behind" in bodies:
                self.assertEqual((codes[1], bodies.pop()), (b"204", b"behind"))
            else:
                self.assertTrue(told or codes != [b"200"])
            summary = re.findall(rb'{"published.*}', received)
            self.assertEqual(len(summary), 1, received)
            summary = json.loads(summary[0])
            summary.pop("id")
            answers.append((codes[0], bodies, summary))
        self.assertEqual(answers, [answers[0]] * 3)
        self.assertEqual(self.server.resource.mount.publication_streams, set())


class OtherSiteTests(StreamTestCase):
    """
    The bus in a site of Twisted's, which has read the whole body before.
    """

    def test_whole(self):
        """
        All messages of the body are published, over some turns, and answered.
        """
        site = server.Site(_tree(self.server.resource), reactor=self.server.clock)
        self.server.site = site
        large = b"x" * 300_000
        for sent in ([b"1"], [b"x"] * 200, [large, large, b"1", large]):
            code, told = self.publish(
                b"".join(part(body, "From: eve") for body in sent),
                headers=authorization("bob:"),
            )
            self.assertEqual((code, told["published"]), (200, len(sent)))
            self.assertEqual({message.sender for message in self.published}, {"bob"})
            self.assertEqual(self.bodies(), sent)
        code, told = self.publish(part(b"1") + part(b"", "Content-Type: x"))
        self.assertEqual((code, told["part"]), (400, 2))


def _tree(bus):
    """
    A tree of resources with the bus in it.
    """
    root = Resource()
    root.putChild(b"msgbus", bus)
    return root
