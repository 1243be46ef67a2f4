"""
Tests for `msgbus.poll`, over HTTP.
"""

import gc

from twisted.internet.error import ConnectionDone

from msgbus.bus.history import History, Keep
from msgbus.message import Message

from ..requests import get, post
from .testcase import SAFE, WebTestCase

PATH = "/msgbus/foo?format=message"


class PollTests(WebTestCase):
    """
    Requests for one message.
    """

    def publish(self, *bodies, channel="foo", keep=True):
        """
        Publish these bodies; returns the ids of the messages.
        """
        done = [
            self.successResultOf(
                self.server.bus.publish(Message(channel, body, "text/html", "al"), keep)
            )
            for body in bodies
        ]
        return [receipt.id for receipt in done]

    def poll(self, path=PATH, headers=""):
        """
        A peer that has sent a request for a message.
        """
        peer = self.server.connect()
        peer.send(get(path, headers))
        return peer

    def test_newest(self):
        """
        The newest message of a channel is the answer, with its own type, and with the
        headers that make it safe to open in a browser.
        """
        _, id = self.publish(b"old", b"new")
        self.publish(b"elsewhere", channel="bar")
        code, headers, body = self.server.ask(get(PATH))
        self.assertEqual((code, body), (200, b"new"))
        told = {name.title(): value for name, value in headers.items()}
        for name, value in {
            **SAFE,
            "Content-Type": "text/html",
            "Content-Length": "3",
            "Content-Location": "/msgbus/foo",
            "From": "al",
            "Msgbus-Id": id,
            "Etag": f'"{id}"',
            "Cache-Control": "no-cache",
        }.items():
            self.assertEqual(told[name.title()], value, name)

    def test_origin(self):
        """
        A message that has an origin is sent with it.
        """
        message = Message("foo", b"", origin="0/1764-1")
        self.server.bus.log.restore(7, "B", (0, 7 * 10**12))
        self.successResultOf(self.server.bus.publish(message))
        self.assertEqual(self.server.ask(get(PATH))[1]["Msgbus-Origin"], "0/1764-1")
        self.publish(b"")
        self.assertNotIn("Msgbus-Origin", self.server.ask(get(PATH))[1])

    def test_code(self):
        """
        A browser may show or fetch a message for a page, but not load it as a script or a
        style sheet.
        """
        self.publish(b"evil()")
        # So that a browser does not use what it has cached for one destination for another.
        self.assertIn(b"\r\nVary: Sec-Fetch-Dest\r\n", self.poll().received())
        for destination, expected in (
            ("script", 403),
            ("style", 403),
            ("serviceworker", 403),
            ("image", 200),
            ("empty", 200),
        ):
            code, _, body = self.server.ask(get(PATH, f"Sec-Fetch-Dest: {destination}\n"))
            self.assertEqual(code, expected, destination)
            self.assertEqual(body == b"evil()", expected == 200)

    def test_large(self):
        """
        A large body is sent as fast as its reader takes it, and the connection can be used
        again; nothing is held for a reader that has left.
        """
        large = bytes(200_000)
        self.publish(large)
        peer = self.poll()
        peer.transport.producer.pauseProducing()
        self.assertLess(len(peer.received()), len(large))
        peer.transport.producer.resumeProducing()
        peer.send(get("/msgbus/foo?format=nothing"))
        self.assertIn(bytes(1000) + b"HTTP/1.1 400 Bad Request\r\n", peer.received())
        leaving = self.poll()
        leaving.transport.producer.pauseProducing()
        leaving.received()
        leaving.leave(ConnectionDone())
        self.assertEqual(self.server.resource.mount.fanout.counters.waiting, 0)

    def test_where(self):
        """
        A request for one message may name a folder, a filter, and where in the history to
        begin.
        """
        self.publish(b"1", channel="a/b")
        self.publish(b"2", channel="a/c")
        for path, expected in (
            ("/msgbus/a/?format=message", b"2"),
            ("/msgbus/?format=message&channel=*b", b"1"),
            ("/msgbus/?format=message&last=2", b"1"),
            ("/msgbus/?format=message&since=all", b"1"),
        ):
            self.assertEqual(self.server.ask(get(path))[2], expected, path)
        self.assertEqual(self.server.ask(get("/msgbus/a/?format=message&type=a/b"))[0], 204)

    def test_none(self):
        """
        If there is no message, the answer is 204, with an id behind which the client can
        ask again.
        """
        code, headers, body = self.server.ask(get(PATH))
        self.assertEqual((code, body), (204, b""))
        (id,) = self.publish(b"1")
        answer = self.server.ask(get(f"{PATH}&since={headers['Msgbus-Id']}"))
        self.assertEqual((answer[1]["Msgbus-Id"], answer[2]), (id, b"1"))
        code, headers, _ = self.server.ask(get(f"{PATH}&since={id}"))
        self.assertEqual((code, headers["Msgbus-Id"]), (204, id))

    def test_not_modified(self):
        """
        A client whose `If-None-Match` names the newest message is answered with 304.
        """
        (id,) = self.publish(b"1")
        for tag, code in (
            (f'"{id}"', 304),
            (f'W/"x", "{id}"', 304),
            (f'"{id}","x"', 304),
            (f'W/"{id}" , "x"', 304),
            ("*", 304),
            ('"x"', 200),
        ):
            answer = self.server.ask(get(PATH, f"If-None-Match: {tag}\n"))
            self.assertEqual(answer[0], code, tag)
            self.assertEqual(answer[2], b"1" if code == 200 else b"")

    def test_head(self):
        """
        HEAD is answered with the headers of the message.
        """
        self.publish(b"123")
        code, headers, body = self.server.ask(get(PATH, method="HEAD"))
        self.assertEqual((code, headers["Content-Length"], body), (200, "3", b""))

    def test_wait(self):
        """
        With `?wait=`, a client gets the next message as soon as it is published, or 204
        when the time is over.
        """
        (id,) = self.publish(b"1")
        for query in (f"since={id}", "since=now"):
            peer = self.poll(f"{PATH}&{query}&wait=10")
            self.assertEqual(peer.received(), b"")
            self.publish(b"2", channel="bar")
            self.assertEqual(peer.received(), b"")
            # Two are published, and the first is the answer.
            _, last = self.publish(b"2", b"3")
            self.assertEqual(peer.answer()[2], b"2")
        peer = self.poll(f"{PATH}&since={last}&wait=10")
        self.server.clock.advance(9)
        self.assertEqual(peer.received(), b"")
        self.server.clock.advance(1)
        self.assertEqual(peer.answer()[0], 204)
        self.assertEqual(self.server.ask(get(f"{PATH}&wait=10"))[2], b"3")
        for wait in ("0", "301", "x", "1&wait=2"):
            self.assert_bad(f"{PATH}&wait={wait}", "wait")

    def assert_bad(self, path, sentence):
        code, _, body = self.server.ask(get(path))
        self.assertEqual(code, 400)
        self.assertIn(sentence, body.decode())

    def test_follow(self):
        """
        A client that asks again behind each message gets all that are kept, in order,
        whatever else is published, and is told of those that are missing.
        """
        self.server.bus.log.history = History(Keep(count=3))
        (id,) = self.publish(b"0")
        peer = self.server.connect()
        got = []
        for number in range(1, 30):
            self.publish(b"%d" % number, channel="foo" if number % 5 else "bar")
            if number < 10:
                self.publish(b"passing", keep=False)
            if number % 2:
                continue
            while True:
                peer.send(get(f"{PATH}&since={id}"))
                code, headers, body = peer.answer()
                id = headers["Msgbus-Id"]
                if code == 204:
                    break
                got.append((headers.get("Msgbus-Gap"), int(body)))
        kept = [n for n in range(1, 29) if n % 5]
        self.assertEqual([n for _, n in got], kept)
        self.assertEqual({gap for gap, _ in got}, {"unknown", None})

    def test_gap(self):
        """
        A gap is told in the head of the next answer, be it a message or a 204.
        """
        (id,) = self.publish(b"1")
        self.publish(b"2", keep=False)
        code, headers, _ = self.server.ask(get(f"/msgbus/?format=message&since={id}"))
        self.assertEqual((code, headers["Msgbus-Gap"]), (204, "1"))
        self.publish(b"3")
        code, headers, _ = self.server.ask(get(f"/msgbus/?format=message&since={id}"))
        self.assertEqual((code, headers["Msgbus-Gap"]), (200, "1"))

    def test_missed(self):
        """
        If the log says that messages may be missing while a request waits, the answer says
        so, too.
        """
        peer = self.poll(PATH + "&wait=10&since=now")
        self.assertEqual(peer.received(), b"")
        self.server.bus.log._follower.miss()
        self.publish(b"1")
        code, headers, body = peer.answer()
        self.assertEqual((code, headers["Msgbus-Gap"], body), (200, "unknown", b"1"))

    def test_long_look(self):
        """
        A message is found even if the search takes several turns of the reactor.
        """
        self.server.bus.log.history = History(Keep(count=10_000))
        self.publish(b"first", channel="a")
        self.publish(*[b"x"] * 5000, channel="b")
        peer = self.poll("/msgbus/?format=message&channel=a")
        self.assertEqual(peer.transport.value(), b"")
        self.assertEqual(peer.answer()[2], b"first")

    def test_leaves(self):
        """
        Nothing is left of a request whose client has left, or which has been answered.
        """
        self.server.bus.log.history = History(Keep(count=10_000))
        self.publish(*[b"x"] * 5000, channel="b")
        for query in ("&wait=10&since=now", "&wait=10", "&wait=10&since=1-1"):
            for peer in (self.poll(PATH + query), self.poll(PATH + query)):
                peer.received()
                peer.leave(ConnectionDone())
        self.poll("/msgbus/?format=message&channel=a").leave(ConnectionDone())
        answered = self.poll(f"{PATH}&wait=10&since=now")
        self.publish(b"1")
        self.assertEqual(answered.answer()[0], 200)
        for _ in range(20):
            self.server.turn()
        self.assertNotIn("foo", self.server.bus._subscriptions.by_name)
        self.assertEqual(self.server.bus.history._readers, set())
        self.assertEqual(self.server.resource._polls._requests, {})
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        waiting = [c for c in self.server.clock.getDelayedCalls() if "Poll" in repr(c.func)]
        self.assertEqual(waiting, [])

    def test_stop(self):
        """
        When the bus stops, requests that wait are answered with what is kept, or with 204,
        and searches that still go on at the end, with 503.
        """
        waiting, found = (
            self.poll(f"{PATH}&wait=10"),
            self.poll("/msgbus/bar?wait=9&format=message"),
        )
        self.publish(b"1", channel="bar")
        self.server.bus.log.history = History(Keep(count=10_000))
        self.publish(b"first", channel="a")
        self.publish(*[b"x"] * 5000, channel="b")
        looking = self.poll("/msgbus/?format=message&channel=a&since=all")
        slow = self.poll("/msgbus/?format=message&channel=z&since=all&wait=9")
        self.server.resource.stop_waiting()
        self.assertEqual(waiting.answer()[0], 204)
        self.assertEqual(found.answer()[2], b"1")
        self.assertEqual(looking.answer()[2], b"first")
        self.assertEqual(slow.answer()[0], 204)
        self.assertEqual(self.server.ask(get(f"{PATH}&wait=10"))[0], 204)
        looking = self.poll("/msgbus/?format=message&channel=z&since=all")
        self.server.resource.close()
        self.assertEqual(looking.answer()[0], 503)

    def test_chain(self):
        """
        If the answer to a request lets another request publish, on which a third waits, and
        so on, all are answered, however long the chain.
        """
        peers = []
        for number in range(300):
            peer = self.poll(f"/msgbus/c{number}?format=message&since=now&wait=30")
            peer.send(post(f"/msgbus/c{number + 1}"))
            peers.append(peer)
        self.server.ask(post("/msgbus/c0"))
        self.server.turn()
        for peer in peers:
            data = peer.received()
            self.assertEqual((data.count(b" 200 OK"), data.count(b" 204 No")), (1, 1))

    def test_pipelined(self):
        """
        Pipelined requests are answered only as their client reads; a client that sends much
        behind a request that waits is cut.
        """
        self.publish(b"x" * 100_000)
        peer = self.server.connect()
        peer.protocol.pauseProducing()
        peer.send(get(PATH) * 50)
        self.assertEqual(peer.received(), b"")
        peer.protocol.resumeProducing()
        self.assertEqual(peer.received().count(b" 200 OK"), 50)
        peer.send(get(f"{PATH}&since=now&wait=9"))
        peer.send(post() * 200)
        self.assertTrue(peer.transport.disconnected or peer.transport.aborting)
