"""
Tests for who may do what at each door of a bus: `msgbus.web.visitor`, and all who ask it.
"""

import ast
import inspect
import textwrap
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from twisted.internet import task
from twisted.internet.task import Cooperator
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.channels import Channels
from msgbus.access.grant import Grant
from msgbus.access.link_keys import Keys, format_key
from msgbus.access.links import sign
from msgbus.message import Message
from msgbus.web import publication_stream, query, resource, root
from msgbus.web.grants import Grants

from ..memory import Server
from ..requests import HOST, authorization
from .websocket_testcase import UPGRADE, masked, text

# bcrypt of "other".
OTHER = "$2y$04$DCpTBZ7BAjsCTMML9083zusGO/nknOniItVtr687uY3SFxQEsuMhu"
# bcrypt of "secret".
SECRET = "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"

USERS = {"alice": OTHER, "bob": OTHER, "carol": OTHER, "dave": OTHER}
RULES = """
alice  publish,subscribe,relay  *
carol  subscribe                foo
dave   publish                  foo a/*
"""

# The keys of links, others, and the time.
KEYS, REMOVED = (
    Keys.parse(format_key(id, id.encode() * 32).encode(), "links.key") for id in "ab"
)
NOW = 1000


def link(*patterns, expires=2 * NOW, keys=KEYS):
    """
    A link for alice to publish to such channels, and to read them.
    """
    channels = Channels(patterns)
    return sign(keys, Grant(channels, channels, expires, "alice"))


FOREIGN = "Origin: https://evil.example\nSec-Fetch-Site: cross-site\n"
WHO = {
    "nobody": "",
    "wrong password": authorization("alice:wrong"),
    "no password": authorization("alice:"),
    "unknown user": authorization("mallory:other"),
    "no name": authorization(":other"),
    "a token": "Authorization: Bearer alice\n",
    "a link in the header that expired": f"Authorization: Bearer {link('*', expires=9)}\n",
    "without the right": authorization("bob:other"),
    "a link for something else in the header": f"Authorization: Bearer {link('x')}\n",
    "with the right": authorization("alice:other"),
    "a link in the header": f"Authorization: Bearer {link('*')}\n",
    "a foreign page": authorization("alice:other") + FOREIGN,
}
# Links in the query.
LINKS = {
    "an expired link": link("*", expires=9),
    "a link by a key that was removed": link("*", keys=REMOVED),
    "a link that was changed": link("*")[:-4] + "AAAA",
    "a link for something else": link("x"),
    "a link": link("*"),
}
ALLOWED = ("with the right", "a link in the header", "a link")
# Those whom the bus knows, but who may not do what they ask for.
FORBIDDEN = (
    "without the right",
    "a link for something else in the header",
    "a link for something else",
)

# Bodies that only those with the right may get: one that is kept, and one that is published
# after the request.
KEPT, LIVE = b"-kept secret-", b"-live secret-"
SECRETS = (KEPT, LIVE, b"a/kept", b"a/live", b"From: eve", b'"eve"')


def ask(method, path, headers="", body=b""):
    """
    The bytes of a request.
    """
    if body:
        headers += f"Content-Length: {len(body)}\n"
    head = f"{method} {path} HTTP/1.1\n{HOST}{headers}\n"
    return head.replace("\n", "\r\n").encode() + body


USER = "user"


class Door(NamedTuple):
    """
    A kind of request.

    Attributes:
        verb: What one has to be allowed; None if anybody may ask it, and `USER` if every
            user may.
        by: What in the bus answers it, by the names in the code.
        rest: What is sent once an answer has begun.
        answer: The status for those who may.
        gets: Which secrets come to those who may.
    """

    verb: str | None
    by: str
    method: str
    path: str
    headers: str = ""
    body: bytes = b""
    rest: bytes = b""
    answer: int = 200
    gets: tuple = ()

    @property
    def is_root(self):
        """
        Is it a request for the root of the bus, below which every channel is?
        """
        return self.path.partition("?")[0] == "/msgbus/"

    def is_open_to(self, who):
        """
        Is it open to somebody who may do nothing with the channels of this test?
        """
        # Whoever may read any channel may load documents.
        return self.verb == USER or (self.by == "Document" and "something else" in who)

    def request(self, who, more=""):
        """
        The bytes of the request, as somebody of `WHO` or `LINKS` sends it.
        """
        path = self.path
        if who in LINKS:
            path += f"{'&' if '?' in path else '?'}link={LINKS[who]}"
        headers = WHO.get(who, "") + more + self.headers
        return ask(self.method, path, headers, self.body)


def _doors():
    """
    All of them, by name.
    """
    doors = {}
    both = (KEPT, LIVE)
    for form in query._NAMES:
        live = () if form == query.MESSAGE else (LIVE,)
        by = "self._polls.poll" if form == query.MESSAGE else "stream"
        path = f"/msgbus/foo?format={form}"
        if live:
            doors[f"{form}"] = Door("subscribe", by, "GET", path, gets=live)
            kept = f"{path}&since=all&overflow=latest&heartbeat=30&envelope=0"
            doors[f"{form} since"] = Door("subscribe", by, "GET", kept, gets=both)
            until = f"{path}&since=all&until=now"
            doors[f"{form} until"] = Door("subscribe", by, "GET", until, gets=(KEPT,))
            paced = f"{path}&overflow=latest&interval=2s"
            doors[f"{form} paced"] = Door("subscribe", by, "GET", paced, gets=live)
        else:
            doors[f"{form}"] = Door("subscribe", by, "GET", path, gets=(KEPT,))
        doors[f"{form} HEAD"] = Door("subscribe", by, "HEAD", f"{path}&last=1")
        doors[f"{form} last"] = Door(
            "subscribe", by, "GET", f"{path}&last=1", gets=(KEPT, *live)
        )
        doors[f"{form} resumed"] = Door(
            "subscribe", by, "GET", path, "Last-Event-ID: 1-1\n", gets=(KEPT, *live)
        )
        for name in ("", "a/"):
            if live:
                doors[f"{form} of each of {name!r}"] = Door(
                    "subscribe",
                    by,
                    "GET",
                    f"/msgbus/{name}?format={form}&last-of-each=1",
                    gets=both,
                )
            patterns = "channel=a/*&sender=eve&type=*/*&header=x-a:*"
            folder = f"/msgbus/{name}?format={form}&last=9&{patterns}"
            doors[f"{form} of {name!r}"] = Door(
                "subscribe", by, "GET", folder, gets=(KEPT, *live)
            )
    for kind in ("text/event-stream", "application/x-ndjson", "multipart/mixed"):
        accept = f"Accept: {kind}\n"
        doors[f"Accept {kind}"] = Door(
            "subscribe", "stream", "GET", "/msgbus/foo", accept, gets=(LIVE,)
        )
    poll = "/msgbus/foo?format=message"
    doors["poll"] = Door(
        "subscribe", "self._polls.poll", "GET", poll + "&since=now&wait=9", gets=(LIVE,)
    )
    doors["tag"] = Door(
        "subscribe", "self._polls.poll", "GET", poll, "If-None-Match: *\n", answer=304
    )
    page = "Accept: text/html\n"
    doors["page"] = Door("subscribe", "live_page", "GET", "/msgbus/foo", page)
    doors["page HEAD"] = Door("subscribe", "live_page", "HEAD", "/msgbus/foo", page)
    doors["page of a folder"] = Door("subscribe", "live_page", "GET", "/msgbus/a/", page)
    for method, path in (("GET", ""), ("HEAD", ""), ("GET", "a/")):
        doors[f"list of {path!r} {method}"] = Door(
            "subscribe", "self._lists.list", method, f"/msgbus/{path}?list&limit=9"
        )
        doors[f"page of the list of {path!r} {method}"] = Door(
            "subscribe", "list_page", method, f"/msgbus/{path}?list", page
        )
    socket = ("subscribe", "open_websocket", "GET")
    for raw in (0, 1):
        path = f"/msgbus/foo?last=1&raw={raw}"
        frame = masked(1, b"hello") if raw else text(body="hello", ack=1)
        doors[f"WebSocket raw={raw}"] = Door(
            *socket, path, UPGRADE, rest=frame, answer=101, gets=both
        )
    to_bob = text(channel="foo", body="hello")
    doors["WebSocket of a folder"] = Door(
        *socket, "/msgbus/a/?last=1", UPGRADE, rest=to_bob, answer=101, gets=both
    )
    return doors | _ways_to_publish() | _others()


def _ways_to_publish():
    plain = "Content-Type: text/plain\n"
    doors = {}
    for method in ("POST", "PUT"):
        for query_string in ("", "?require=1"):
            path = "/msgbus/foo" + query_string
            door = Door("publish", "publish", method, path, plain, b"hello", answer=204)
            doors[method + query_string] = door
    doors["DELETE"] = Door("publish", "forget", "DELETE", "/msgbus/foo", answer=204)
    doors["POST to a folder"] = doors["POST"]._replace(path="/msgbus/a/")
    doors["POST once"] = doors["POST"]._replace(headers=plain + "Idempotency-Key: x\n")
    doors["POST unkept"] = doors["POST"]._replace(
        headers=plain + "Cache-Control: no-store\n"
    )
    part = b"--b\r\nContent-Type: text/plain\r\n%b\r\nhello\r\n--b--\r\n"
    parts = "Content-Type: multipart/x-mixed-replace; boundary=b\n"
    lines = "Content-Type: application/x-ndjson\n"
    receipts = "Accept: application/x-ndjson\n"
    line = b'{"type": "text/plain", "body": "hello", "channel": "%b"}\n'
    bodies = {
        "parts": (parts, "foo", part % b""),
        "parts to a folder": (parts, "a/", part % b"Content-Location: x\r\n"),
        "parts to the root": (parts, "", part % b"Content-Location: /msgbus/foo\r\n"),
        "envelopes": (lines, "foo?format=ndjson", line % b"foo"),
        "envelopes to a folder": (lines, "a/?format=ndjson", line % b"a/x"),
        "raw lines": (lines, "foo?format=ndjson&raw=1", b"hello\n"),
        "raw lines to a folder": (lines, "a/?format=ndjson&raw=1", b"hello\n"),
    }
    for name, (kind, path, body) in bodies.items():
        door = Door("publish", "publish_stream", "POST", "/msgbus/" + path, kind, body)
        doors[name] = door
        doors[name + ", receipts"] = door._replace(headers=kind + receipts)
        doors[name + ", required"] = door._replace(
            method="PUT", path=f"{door.path}{'&' if '?' in path else '?'}require=1"
        )
    return doors


def _others():
    preflight = "Access-Control-Request-Method: POST\n"
    return {
        "document": Door("subscribe", "Document", "GET", "/x.txt", gets=(KEPT,)),
        "document HEAD": Door("subscribe", "Document", "HEAD", "/x.txt"),
        "no document": Door("subscribe", "Document", "GET", "/y.txt", answer=404),
        "module": Door(None, "module", "GET", "/msgbus/.js/msgbus.js"),
        "OPTIONS": Door(None, "self._options", "OPTIONS", "/msgbus/foo", answer=204),
        "preflight": Door(
            None, "self._options", "OPTIONS", "/msgbus/foo", preflight, answer=403
        ),
        "sign in": Door(USER, "sign_in", "GET", "/msgbus/.sign-in", answer=204),
        "no slash": Door(None, "self._redirect", "GET", "/msgbus", answer=308),
        "unknown": Door(None, "", "PATCH", "/msgbus/foo", answer=405),
    }


DOORS = _doors()


def _called(function):
    """
    The names of what a function returns the results of.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        ast.unparse(node.value.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Call)
    }


class DoorTests(SynchronousTestCase):
    """
    Every door, and everybody who comes to it.
    """

    def setUp(self):
        folder = Path(self.enterContext(TemporaryDirectory()))
        (folder / "x.txt").write_bytes(KEPT)
        self.server = Server(
            documents=folder,
            users=USERS,
            rules=RULES,
            grants=Grants(KEYS, None, lambda: NOW),
        )
        for channel in ("foo", "a/kept"):
            self.server.bus.publish(Message(channel, KEPT, "text/plain", "eve"))
        # Twisted reads files in steps, which a global cooperator schedules.
        steps = Cooperator(
            scheduler=lambda step: self.server.clock.callLater(0, step),
            terminationPredicateFactory=lambda: lambda: False,
        )
        self.patch(task, "_theCooperator", steps)
        self.number = 0
        self.published = []
        # A required subscriber is there, but none of the bus's own.
        self.server.bus.subscribe("", self.published.append)

    def come(self, door, who, more=""):
        """
        All bytes that somebody gets at a door, also of what is published afterwards.
        Everybody comes from an address of their own, so that none has to wait because
        another one gave a wrong password.
        """
        self.number += 1
        peer = self.server.connect(client=str(ip_address("198.18.0.0") + self.number))
        peer.send(door.request(who, more))
        # The password is checked in a thread.
        data = peer.received() + peer.received()
        peer.send(door.rest)
        data += peer.received()
        self.mine = [m for m in self.published if m.body not in (KEPT, LIVE)]
        self.published.clear()
        for channel in ("foo", "a/live"):
            self.server.bus.publish(Message(channel, LIVE, "text/plain", "eve"))
        for _ in range(3):
            data += peer.received()
        return data

    def assert_told_nothing(self, data, name):
        """
        Assert that it is one answer of 401 or 403, in one sentence, that tells nothing.
        """
        head, _, body = data.partition(b"\r\n\r\n")
        self.assertRegex(head, rb"\AHTTP/1.1 40[13] ", name)
        self.assertEqual(b" 401 " in head[:15], b"WWW-Authenticate: Basic" in head, name)
        if "HEAD" not in name:
            self.assertRegex(body, rb"\A[A-Z][^\n]*\.\n\Z", name)
        self.assertNotRegex(
            head, rb"(?i)\r\n(msgbus-(id|gap|sub|orig)|etag|from|content-location)", name
        )
        for secret in SECRETS:
            self.assertNotIn(secret, data, name)
        self.assertEqual(self.mine, [], name)

    def assert_only_empty(self, data, name):
        """
        Assert that a request for the root tells nothing, and has published nothing.
        """
        for secret in SECRETS:
            self.assertNotIn(secret, data, name)
        self.assertNotRegex(data, rb"(?i)\r\n(msgbus-gap|etag|from|content-location)", name)
        self.assertEqual(self.mine, [], name)

    def test_refused(self):
        """
        Whoever may not, is told so in one sentence, whatever the door; nothing is published
        or delivered, or told of what there is.
        """
        for name, door in DOORS.items():
            for who in (*WHO, *LINKS):
                if who in (*ALLOWED, "a foreign page") or door.verb is None:
                    continue
                if who in FORBIDDEN and door.is_open_to(who):
                    continue
                data = self.come(door, who)
                if "something else" in who and door.is_root:
                    # It is below the root.
                    self.assert_only_empty(data, f"{name} by {who}")
                    continue
                self.assert_told_nothing(data, f"{name} by {who}")
                code = 403 if who in FORBIDDEN else 401
                self.assertIn(b" %d " % code, data[:15], (name, who, data))

    def test_allowed(self):
        """
        Whoever may, gets what the door is for; so the table is right about the doors.
        """
        for who in ALLOWED:
            for name, door in DOORS.items():
                self.setUp()
                data = self.come(door, who)
                told = (name, who, data)
                self.assertEqual(data[9:12], b"%d" % door.answer, told)
                for secret in (KEPT, LIVE):
                    self.assertEqual(secret in data, secret in door.gets, told)
                publishes = door.verb == "publish" or door.by == "open_websocket"
                publishes = publishes and door.by != "forget"
                self.assertEqual([m.sender for m in self.mine], ["alice"] * publishes, told)

    def test_foreign_pages(self):
        """
        A page of another site neither publishes nor opens a WebSocket, whoever has loaded
        it, and is not let read anything.
        """
        for name, door in DOORS.items():
            data = self.come(door, "a foreign page")
            self.assertEqual(self.mine, [], name)
            self.assertNotIn(b"Access-Control-Allow", data, name)
            if door.verb == "publish" or door.by == "open_websocket":
                self.assertIn(b" 403 ", data[:15], name)
                self.assert_told_nothing(data, name)
            elif door.by in ("stream", "self._polls.poll"):
                self.assertIn(b"Cross-Origin-Resource-Policy: same-origin", data, name)

    def test_open(self):
        """
        What anybody may ask tells nothing, and a password that is wrong is not ignored.
        """
        for name, door in DOORS.items():
            if door.verb is None:
                data = self.come(door, "nobody")
                self.assertEqual(data[9:12], b"%d" % door.answer, name)
                self.assertEqual(self.mine, [])
                if name != "preflight":
                    data = self.come(door, "wrong password")
                    self.assertEqual(data[9:12], b"401", name)

    def test_without_rules(self):
        """
        Without rules, users may do everything, and others nothing.
        """
        self.server.allow(USERS, None)
        for name, door in DOORS.items():
            if door.verb is not None:
                for who in ("nobody", "wrong password", "unknown user"):
                    self.assert_told_nothing(self.come(door, who), name)
                data = self.come(door, "without the right")
                self.assertEqual(data[9:12], b"%d" % door.answer, name)

    def test_repeated(self):
        """
        A head that is remembered for one is not for another who sends it alike but for the
        name; and one without a right is asked each time.
        """
        for name, door in DOORS.items():
            for _ in range(3):
                for who in ALLOWED:
                    self.come(door, who)
                for who in FORBIDDEN:
                    if door.verb is not None and not door.is_open_to(who):
                        data = self.come(door, who)
                        if "something else" in who and door.is_root:
                            self.assert_only_empty(data, name)
                        else:
                            self.assert_told_nothing(data, name)

    def test_told_to_one_who_only_reads(self):
        """
        One who may only read publishes by no door, a WebSocket that is open included.
        """
        for name, door in DOORS.items():
            request = door.request("nobody", authorization("carol:other"))
            peer = self.server.connect()
            peer.send(request)
            data = peer.received() + peer.received()
            peer.send(door.rest)
            data += peer.received()
            self.assertEqual(self.published, [], name)
            if door.by == "open_websocket" and "foo" in door.path:
                self.assertIn(b"101", data[:15])
                self.assertIn(b"No line of the access file lets", data)
                self.assertIn(b"\x03\xf0" if "raw=1" in name else b'"status": 403', data)
            elif door.verb == "publish":
                self.assertIn(b" 403 ", data[:15], name)

    def test_told_to_one_who_only_publishes(self):
        """
        One who may only publish reads by no door, and is told no number of subscribers,
        nor by `require` whether there are any.
        """
        for name, door in DOORS.items():
            data = self.come(door, "nobody", authorization("dave:other"))
            for secret in SECRETS:
                self.assertNotIn(secret, data, name)
            if door.verb == "subscribe":
                self.assertRegex(data[:15], b"40[34]", name)
            elif door.verb == "publish" and "require" not in door.path:
                self.assertNotRegex(data, rb'ubscribers"?: [1-9]', name)
            elif door.verb == "publish":
                self.assertIn(b"To require a subscriber", data, name)
                self.assertEqual(self.mine, [], name)

    def test_no_other_door(self):
        """
        All that answers requests is in the table: formats, methods, parameters, and what
        the bus, the root of the site and streams of publications are made of.
        """
        doors = DOORS.values()
        by = {door.by for door in doors}
        self.assertEqual(
            _called(resource.BusResource._render_method)
            | _called(resource.BusResource._subscribe),
            by - {"Document", ""} | {"self._subscribe"},
        )
        self.assertEqual(_called(root.Root.getChild), {"Document", "Front", "_Page"})
        self.assertEqual(
            _called(root.Root.getChildWithDefault),
            {"self._behind", "_Page", "DeferredResource"},
        )
        self.assertEqual(
            _called(publication_stream._source), {"Parts", "Envelopes", "RawLines"}
        )
        methods = resource._METHODS.decode().split(", ")
        self.assertEqual({door.method for door in doors}, {*methods, "PATCH"})
        paths = " ".join(door.path for door in doors)
        for parameter in query._KNOWN:
            self.assertRegex(paths, rf"[?&]{parameter}=")
        renders = [n for n in vars(resource.BusResource) if n.startswith("render")]
        self.assertEqual(renders, ["render"])
