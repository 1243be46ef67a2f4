"""
Tests for what becomes of streams, polls and publications when users or rules change, and
for what subscribers learn of channels that they may not read.
"""

import json
import re

from twisted.web import server

from msgbus.bus.history import History, Keep
from msgbus.formats.envelope import LIVE
from msgbus.ids import Since, origin_of
from msgbus.match import EVERYTHING
from msgbus.message import Message

from ..memory import unchunked
from ..requests import authorization, get, post
from .test_rights import OTHER, SECRET, USERS
from .websocket_testcase import UPGRADE, WebSocketTestCase, text

ALICE = authorization("alice:other")
BOB = authorization("bob:other")
ALL = "alice publish,subscribe,relay *\nbob publish,subscribe *\n"
PARTS = "Content-Type: multipart/x-mixed-replace; boundary=b\n"


class RightsTestCase(WebSocketTestCase):
    """
    A bus with users and rules.
    """

    options = {"users": USERS, "rules": ALL}

    def send(self, request, client="192.0.2.1"):
        """
        A peer that has sent a request, whose password has been checked.
        """
        peer = self.server.connect(client=client)
        peer.send(request)
        peer.begun = peer.received() + peer.received()
        return peer

    def read(self, query, who, path=""):
        """
        What comes to a subscriber of lines of JSON.
        """
        peer = self.send(get(f"/msgbus/{path}?format=ndjson&{query}", who))
        self.assertIn(b" 200 ", peer.begun[:15], peer.begun)
        return peer, self.lines(peer.begun.partition(b"\r\n\r\n")[2])

    def lines(self, data):
        """
        The messages in chunks of lines of JSON.
        """
        lines = b"".join(unchunked(data)).splitlines()
        return [json.loads(line) for line in lines if line and line != LIVE]

    def publish(self, channel, body=b"x", **options):
        self.server.bus.publish(Message(channel, body, "text/plain"), **options)


class ReloadTests(RightsTestCase):
    """
    Rights and passwords that change while requests are open.
    """

    changes = (
        ({"alice": OTHER}, ALL, 401),
        ({**USERS, "bob": SECRET}, ALL, 401),
        (USERS, "bob nothing foo bar a/* b/*\n" + ALL, 403),
        (USERS, "alice publish,subscribe *\n", 403),
    )

    def setUp(self):
        super().setUp()
        self.warm()

    def warm(self):
        """
        Have the passwords hashed.
        """
        for who in (ALICE, BOB):
            self.send(get("/msgbus", who))

    def begun(self):
        """
        Peers of bob that have begun something, by what it is.
        """
        stream = get("/msgbus/foo?format=ndjson", BOB)
        part = (
            "--b\nContent-Type: a/b\nContent-Location: x\nContent-Length: 3\n\none\n--b\n"
        )
        chunked = f"{PARTS}{BOB}Transfer-Encoding: chunked\n"
        peers = {
            "stream": self.send(stream),
            "again": self.send(stream),
            "remembered": self.send(stream),
            "folder": self.send(get("/msgbus/a/", BOB)),
            "WebSocket": self.open(headers=UPGRADE + BOB),
        }
        peers["poll"] = self.send(get("/msgbus/foo?format=message&since=now&wait=99", BOB))
        size = len(part.replace("\n", "\r\n"))
        for path in ("bar", "b/"):
            request = get("/msgbus/" + path, chunked, method="POST") + f"{size:x}\n{part}\n"
            peers[f"published to {path!r}"] = self.send(request)
        return peers

    def test_lost(self):
        """
        Whatever was begun ends at once: by a refusal where there is no answer yet, by a
        close frame that says why, and otherwise by the end of the connection.  Nobody
        else's ends.
        """
        for users, rules, code in self.changes:
            self.server.allow(USERS, ALL)
            self.warm()
            peers = self.begun()
            mine = self.send(get("/msgbus/foo", ALICE))
            self.assertEqual(len(self.published), 2)
            self.published.clear()
            for _ in range(2):
                self.server.allow(users, rules)
            for name, peer in peers.items():
                data = peer.received()
                if name == "poll" or "publish" in name:
                    self.assertIn(b"%d" % code, data[:15], (name, data))
                    self.assertEqual(data.count(b"HTTP/1.1"), 1)
                elif name == "WebSocket":
                    # 1008 is a violation of policy (RFC 6455, section 7.4.1).
                    self.assertRegex(data, rb"(?s)\A\x88.\x03\xf0[A-Z].*\.\Z", code)
                    peer.send(text(channel="bar", body="published by a WebSocket"))
                else:
                    self.assertTrue(peer.closed, (name, code))
            self.publish("foo", b"for alice")
            self.assertIn(b"for alice", mine.received())
            for name, peer in peers.items():
                self.assertNotIn(b"for alice", peer.received(), name)
            self.assertEqual(len(self.published), 1)
            self.published.clear()
            self.assertEqual(len(self.server.resource.mount.publication_streams), 0)
            self.assertEqual(len(self.server.resource._polls._requests), 0)

    def test_history(self):
        """
        Messages that are kept stay when their publisher loses every right, for those who
        may read them.  Whoever loses the right to read them gets none of them, in any way.
        """
        self.send(post("/msgbus/foo", "kept", "Content-Type: text/plain\n" + BOB))
        self.server.allow(USERS, "alice subscribe *\nbob subscribe a/*\n")
        told = self.read("since=all", ALICE, "foo")[1]
        self.assertEqual([(x["sender"], x["body"]) for x in told], [("bob", "kept")])
        id = told[0]["id"].partition("-")[0] + "-1"
        for query in ("since=all", "last=1", "since=1h", f"since={id}"):
            for form in ("ndjson", "multipart", "event-stream", "message"):
                path = f"?{query}&format={form}"
                self.assertIn(b" 403 ", self.send(get("/msgbus/foo" + path, BOB)).begun)
                peer = self.send(get("/msgbus/" + path, BOB))
                self.assertRegex(peer.begun, b" 20[04] ")
                self.assertNotIn(b"kept", peer.begun)

    def test_after_a_refused_poll(self):
        """
        A connection on which a poll was refused can be used again.
        """
        poll = self.send(get("/msgbus/foo?format=message&since=now&wait=99", BOB))
        self.server.allow(USERS, "bob subscribe b\n")
        self.assertIn(b" 403 ", poll.received()[:15])
        self.assertFalse(poll.protocol.waits)
        poll.send(get("/msgbus/b?format=message", BOB))
        self.assertIn(b" 204 ", poll.received()[:15])

    def test_kept(self):
        """
        What may go on does, and learns nothing of the change.
        """
        peers = self.begun()
        self.server.allow(USERS, "# As before.\n" + ALL)
        for name, peer in peers.items():
            self.assertFalse(peer.closed, name)
        self.publish("foo", b"for bob")
        for name in ("stream", "again", "remembered", "WebSocket", "poll"):
            self.assertIn(b"for bob", peers[name].received(), name)

    def test_added(self):
        """
        A folder's subscriber that may read more now comes again, and gets it.
        """
        self.server.allow(USERS, "bob subscribe a/1\n")
        peer, _ = self.read("", BOB)
        self.server.allow(USERS, "bob subscribe a/1 a/2\n")
        self.assertTrue(peer.closed)
        peer, _ = self.read("", BOB)
        self.publish("a/2")
        (told,) = self.lines(peer.received())
        self.assertEqual(told["channel"], "a/2")

    def test_remembered_heads(self):
        """
        A head that was remembered means nothing any more.
        """
        for request in (
            post(headers="Content-Type: a/b\n" + BOB),
            get("/msgbus/foo", BOB),
        ):
            for users, rules, code in self.changes:
                self.server.allow(USERS, ALL)
                self.warm()
                for _ in range(4):
                    self.assertIn(b" 20", self.send(request).begun[:15])
                self.assertGreater(self.server.site.heads.size, 0)
                self.server.allow(users, rules)
                self.assertIn(b" %d " % code, self.send(request).begun[:15])
        self.assertEqual(len(self.published), 16)

    def test_while_it_is_hashed(self):
        """
        A password that is hashed while the users change is judged by the new ones.
        """
        for users, rules, code in self.changes:
            self.server.allow({"alice": OTHER}, ALL)
            self.server.allow(USERS, ALL)
            self.server.pool.held = held = []
            peer = self.send(get("/msgbus/foo", BOB))
            self.assertEqual((peer.begun, len(held)), (b"", 1))
            self.server.allow(users, rules)
            self.server.pool.held = None
            for done, call, *args in held:
                done(True, call(*args))
            self.assertIn(b" %d " % code, (peer.received() + peer.received())[:15])

    def test_others_do_not_wait(self):
        """
        While as many passwords from many addresses are hashed as may be, those whose
        passwords are remembered publish and read, and further ones are told to come again.
        """
        self.server.pool.held = []
        wrong = [
            self.send(get(headers=authorization(f"bob:{n}")), f"192.0.2.{100 + n % 8}")
            for n in range(40)
        ]
        busy = [peer.begun for peer in wrong if peer.begun]
        self.assertEqual(len(busy), 8)
        for data in busy:
            self.assertIn(b" 503 ", data[:15])
            self.assertIn(b"Retry-After: 2", data)
        for _ in range(3):
            sent = self.send(post(headers="Content-Type: a/b\n" + BOB))
            self.assertIn(b" 204 ", sent.begun[:15])
        self.assertEqual(len(self.published), 3)

    def test_relays_no_more(self):
        """
        A stream whose publisher may not relay any more names no other sender, and no
        origin, from then on.
        """
        part = (
            "--b\nContent-Type: a/b\nFrom: eve\nMsgbus-Id: 1795804124554-1\n"
            "Content-Length: 1\n\nx\n"
        )
        size = len(part.replace("\n", "\r\n"))
        chunk = f"{size:x}\n{part}\n"
        headers = f"{PARTS}{ALICE}Transfer-Encoding: chunked\n"
        peer = self.send(get("/msgbus/foo", headers, method="POST"))
        for rules in (ALL, "alice publish *\n"):
            self.server.allow(USERS, rules)
            for _ in range(2):
                peer.send(chunk)
            peer.received()
        peer.send("5\n--b--\n0\n\n")
        # The first two are one message, by its origin.
        senders = [(m.sender, bool(m.origin)) for m in self.published]
        self.assertEqual(senders, [("eve", True), ("alice", False), ("alice", False)])


class LeakTests(RightsTestCase):
    """
    Nobody learns of a channel that they may not read.
    """

    rules = (
        "alice publish,subscribe,relay *\n"
        "bob nothing a/secret/*\nbob subscribe a/*\n"
        "carol publish a/secret/*\n"
    )

    def setUp(self):
        super().setUp()
        self.server.allow(USERS, self.rules)
        self.secret = "a/secret/x"

    def test_folders(self):
        """
        A folder gives what may be read, live and replayed, in every format.
        """
        for channel in (self.secret, "a/1", "b"):
            self.publish(channel, channel.encode())
        for path in ("", "a/"):
            for query in ("since=all", "last=9", "since=1h"):
                peer, told = self.read(query, BOB, path)
                self.assertEqual([line["channel"] for line in told], ["a/1"])
                self.publish(self.secret, b"-")
                self.publish("b", b"-")
                self.assertEqual(peer.received(), b"")
                self.publish("a/2", b"-")
                self.assertIn(b"a/2", peer.received())
                self.server.bus.history.__init__()
                self.publish(self.secret, self.secret.encode())
                self.publish("a/1", b"a/1")
        for query in ("", "&wait=9"):
            peer = self.send(get("/msgbus/?format=message&since=all" + query, BOB))
            self.assertIn(b"\r\n\r\na/1", peer.begun)
        poll = self.send(get("/msgbus/a/?format=message&since=now&wait=9", BOB))
        self.publish(self.secret)
        self.assertEqual(poll.received(), b"")

    def test_refused_folders(self):
        """
        A folder of which nothing may be read is refused; it does not matter whether there
        are such channels.
        """
        self.publish(self.secret)
        for path, who in (
            ("a/secret/", BOB),
            ("nothing/", BOB),
            ("a/", authorization("carol:other")),
        ):
            peer = self.send(get("/msgbus/" + path, who))
            self.assertIn(b" 403 ", peer.begun[:15], path)
        peer = self.send(get("/msgbus/a/", PARTS + BOB, method="POST"))
        self.assertIn(b" 403 ", peer.begun[:15])

    def test_gaps(self):
        """
        Messages that are dropped from channels that may not be read are no gap: neither
        before a replay, nor during it.
        """
        self.server.bus.log.history = History(Keep(count=2))
        self.publish("a/1")
        id = self.server.bus.history.after((0, 0)).__next__()[1].id
        for _ in range(9):
            self.publish(self.secret)
            self.publish(self.secret, keep=False)
            self.publish("b")
        for path in ("", "a/"):
            for query in (f"since={id}", "since=1h", "since=all"):
                told = self.read(query, BOB, path)[1]
                self.assertEqual([x for x in told if "gap" in x], [], (path, query))
        peer = self.send(get("/msgbus/?format=message", BOB + f"Last-Event-ID: {id}\n"))
        self.assertNotIn(b"Msgbus-Gap", peer.begun)
        for _ in range(3):
            self.publish("a/1")
        for query in (f"since={id}", "since=1h"):
            told = self.read(query, BOB, "a/")[1]
            self.assertEqual([x for x in told if "gap" in x], [{"gap": "unknown"}], told)

    def test_dropped_meanwhile(self):
        """
        What is dropped while a replay reads is told of only if it might have been read.
        """
        bus = self.server.bus
        bus.log.history = History(Keep(count=2))
        filter = EVERYTHING.within(self.server.access.rules.readable("bob"))
        cursor = bus.replay("", filter, Since())
        for _ in range(5):
            self.publish(self.secret)
        self.assertEqual(cursor.read(0), None)
        cursor = bus.replay("", filter, Since())
        for _ in range(5):
            self.publish("a/1")
        self.assertEqual(
            [type(x).__name__ for x in cursor.read(0)], ["Gap", "Message", "Message"]
        )

    def test_counts(self):
        """
        Who may not read a channel is not told how many do, also not by `require`, and not
        if the answer is that of a repetition.
        """
        carol = authorization("carol:other")
        headers = f"Content-Type: a/b\nIdempotency-Key: k\n{carol}"
        for query, code in (("", 204), ("?require=1", 403), ("", 204)):
            peer = self.send(post(f"/msgbus/{self.secret}{query}", headers=headers))
            self.assertIn(b" %d " % code, peer.begun[:15])
            self.assertNotRegex(peer.begun, rb"Subscribers: [1-9]")
        self.assertEqual(len(self.published), 1)

    def test_same_answers(self):
        """
        What one may not read is answered alike whether it is there or not, but for its
        name.
        """
        self.publish(self.secret)
        for query in ("", "?format=message", "?format=message&wait=1", "?last=1"):
            for headers in ("", "If-None-Match: *\n", "Last-Event-ID: 1-1\n"):
                told = [
                    # A second may pass between the two.
                    re.sub(rb"Date: [^\r]*", b"", answer.begun)
                    for answer in (
                        self.send(get(f"/msgbus/{name}{query}", BOB + headers))
                        for name in (self.secret, "a/secret/y")
                    )
                ]
                self.assertIn(b" 403 ", told[0][:15])
                self.assertEqual(told[0].replace(b"secret/x", b"secret/y"), told[1])


class GroupTests(RightsTestCase):
    """
    Which subscribers share a group.
    """

    def groups(self, rules, *names):
        """
        How many groups these users are in, who subscribe to the root.
        """
        self.server.allow(USERS, rules)
        for name in names:
            self.read("", authorization(f"{name}:other"))
        count = len(self.server.resource.mount.fanout._groups)
        self.server.allow({"x": OTHER}, "x nothing *\n")
        self.server.turn()
        self.assertEqual(len(self.server.resource.mount.fanout._groups), 0)
        return count

    def test_shared(self):
        """
        Users with the same rights share a group, others do not, also if their rights are
        alike once they are written behind each other.
        """
        pair = ("alice", "bob")
        self.assertEqual(self.groups("* subscribe *\n", *pair), 1)
        self.assertEqual(self.groups("alice subscribe a/*\nbob subscribe a/*\n", *pair), 1)
        for one, other in (
            ("a/*", "a/*b"),
            ("a b", "a%20b"),
            ("a/b c", "a b/c"),
            ("ab c", "a bc"),
            ("a/* b", "a/*b"),
            ("a/%u", "a/%u"),
            ("a_b", "a%5Fb c"),
        ):
            rules = f"alice subscribe {one}\nbob subscribe {other}\n"
            self.assertEqual(self.groups(rules, *pair), 2, rules)
        rules = "bob nothing a/secret\n* subscribe a/*\n"
        self.assertEqual(self.groups(rules, *pair), 2)


class OtherSiteTests(RightsTestCase):
    """
    A site of Twisted's, whose requests are not ours.
    """

    def test_refused(self):
        """
        The rules hold there, too.
        """
        self.server.allow(USERS, "bob publish,subscribe foo\n")
        self.server.site = server.Site(self.server.root, reactor=self.server.clock)
        for headers, code in (("", 401), (ALICE, 403), (BOB, 204)):
            peer = self.send(post(headers="Content-Type: a/b\n" + headers))
            self.assertIn(b" %d " % code, peer.begun[:15])
            peer = self.send(get("/msgbus/foo", headers))
            self.assertIn(b" %d " % min(code, 403 if code > 400 else 200), peer.begun[:15])
            peer = self.send(get("/", headers))
        self.assertEqual([m.sender for m in self.published], ["bob"])


class ClaimTests(RightsTestCase):
    """
    What a client says of itself, and names that mean something elsewhere.
    """

    HOSTILE = ("*", "..", "%u", "-", "[a-z]", "a%2Fb", "?", "a.b", "+", "%", "sensors")

    def test_names(self):
        """
        A user's name is compared, and is no pattern: each has its own channels only.
        """
        users = dict.fromkeys((*self.HOSTILE, "a", "b"), OTHER)
        self.server.allow(users, "* publish,subscribe sensors/%u/*\n")
        segments = ["a", "b", "%2A", "..", "%25u", "-", "[a-z]", "a%252Fb", "%3F", "a.b"]
        segments += ["+", "%25", "sensors", "%2e%2e", "a%2Fb", "a/b"]
        meant = {
            "a": {"a", "a%2Fb", "a/b"},
            "b": {"b"},
            "*": {"%2A"},
            "%u": {"%25u"},
            "-": {"-"},
            "[a-z]": {"[a-z]"},
            "a%2Fb": {"a%252Fb"},
            "?": {"%3F"},
            "a.b": {"a.b"},
            "+": {"+"},
            "%": {"%25"},
            "sensors": {"sensors"},
            "..": set(),
        }
        for name in users:
            who = authorization(f"{name}:other")
            may = set()
            for segment in segments:
                for request in (
                    get(f"/msgbus/sensors/{segment}/x?format=message", who),
                    post(
                        f"/msgbus/sensors/{segment}/x", headers="Content-Type: a/b\n" + who
                    ),
                ):
                    code = int(self.send(request).begun[9:12])
                    self.assertIn(code, (200, 204, 400, 403))
                    if code < 300:
                        may.add(segment)
            self.assertEqual(may, meant[name], name)
        for name in (
            b"a/b:other",
            b"a\0:other",
            b"*\n:other",
            b"@users:other",
            b"a :other",
        ):
            begun = self.send(get(headers=authorization(name))).begun
            self.assertIn(b" 401 ", begun[:15], name)
        self.assertIn(
            b" 400 ", self.send(get(headers=authorization(b"\xff:other"))).begun[:15]
        )

    def test_headers(self):
        """
        Nothing of what a client says of itself is believed.
        """
        claims = (
            "From: alice\nMsgbus-Origin: 1795804124554-1\nMsgbus-Prefix: /\n"
            "Msgbus-Id: 1795804124554-1\nForwarded: for=127.0.0.1;by=alice\n"
            "X-Forwarded-For: 127.0.0.1\nX-Forwarded-User: alice\nRemote-User: alice\n"
            "X-Remote-User: alice\nMsgbus-Sender: alice\n"
        )
        self.server.allow(USERS, "alice publish,subscribe,relay *\n* publish open\n")
        begun = self.send(post(headers="Content-Type: a/b\n" + claims)).begun
        self.assertIn(b" 401 ", begun[:15])
        for who, sender in (("", ""), (BOB, "bob")):
            headers = "Content-Type: a/b\n" + who + claims
            self.assertIn(b" 204 ", self.send(post("/msgbus/open", headers=headers)).begun)
            message = self.published.pop()
            self.assertEqual((message.sender, message.origin), (sender, ""))

    def test_relays(self):
        """
        One who may not relay cannot say that a message of another's is already known: the
        other's is published all the same.
        """
        self.server.allow(USERS, "alice relay,publish *\nbob publish *\n")
        origin = origin_of("1795804124554-42")
        body = (
            f"--b\r\nContent-Type: a/b\r\nFrom: %s\r\nMsgbus-Origin: {origin}\r\n"
            "Content-Length: 1\r\n\r\nx\r\n--b--\r\n"
        )
        told = {"type": "a/b", "body": "x", "sender": "carol", "origin": origin}
        line = json.dumps(told) + "\n"
        for who in (BOB, ALICE):
            for kind, path, data in (
                (PARTS, "foo", body % "carol"),
                ("Content-Type: application/x-ndjson\n", "foo?format=ndjson", line),
            ):
                head = get(
                    "/msgbus/" + path,
                    f"{kind}{who}Content-Length: {len(data)}\n",
                    method="POST",
                )
                peer = self.server.connect()
                peer.send(head.replace("\n", "\r\n").encode() + data.encode())
                data = b"".join(peer.received() for _ in range(4))
                self.assertIn(b" 200 ", data[:15], data)
        told = [(m.sender, m.origin) for m in self.published]
        self.assertEqual(told, [("bob", ""), ("bob", ""), ("carol", origin)])

    def test_websockets(self):
        """
        An envelope that names a sender or an origin over a WebSocket is refused.
        """
        peer = self.open(headers=UPGRADE + BOB)
        for claim in ({"sender": "alice"}, {"origin": "1/1-1"}):
            peer.send(text(body="x", **claim))
            (told,) = self.told(peer)
            self.assertEqual(told["status"], 400)
        self.assertEqual(self.published, [])
