"""
Tests for what travels with a message, its headers and its time to live, by every way into a
server in memory and out of it.
"""

import json

from msgbus.headers import Headers
from msgbus.message import Message
from msgbus.web.origins import Origins

from ..memory import Server, parts, unchunked
from ..requests import get, post
from .websocket_testcase import WebSocketTestCase, text

TYPE = "Content-Type: text/plain\n"
SENT = (
    f"{TYPE}CE-Type: a\nX-B: ä\nX-B: c\nCookie: d\nAuthorization: e\nX-Forwarded-For: f\n"
)
HEADERS = {"ce-type": "a", "x-b": "ä, c"}
PAGE = "https://app.example"


def lines(count, size=1):
    """
    So many headers with values of this size.
    """
    return TYPE + "".join(f"X-{number}: {'v' * size}\n" for number in range(count))


class TravellingTests(WebSocketTestCase):
    """
    Headers of publications.
    """

    def parts(self, peer):
        """
        The parts that a subscriber has got since the last call.
        """
        data = b"".join(unchunked(peer.received()))
        return parts(data, self.server.bus.boundary)

    def stream(self, *heads):
        """
        Publish a stream of parts with these heads, and a body each; the status.
        """
        parts = "".join(f"--B\n{head}Content-Length: 1\n\nx\n" for head in heads)
        body = f"{parts}--B--\n".replace("\n", "\r\n").encode()
        kind = "Content-Type: multipart/x-mixed-replace; boundary=B\n"
        head = get(headers=f"{kind}Content-Length: {len(body)}\n", method="POST")
        return self.server.ask(head.replace("\n", "\r\n").encode() + body)[0]

    def test_request(self):
        """
        Those of a request that travel go with the message, and no other; so they do when
        the request repeats, and a `Date` tells when the message was published.
        """
        peer, _, _ = self.subscribe()
        for _ in range(4):
            self.assertEqual(self.server.ask(post(headers=SENT))[0], 204)
        self.server.turn()
        expected = Message("foo", b"hello", "text/plain", headers=HEADERS)
        self.assertEqual(self.published, [expected] * 4)
        for part in self.parts(peer):
            self.assertEqual((part.headers["ce-type"], part.headers["x-b"]), ("a", "ä, c"))
            self.assertRegex(part.headers["date"], r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT")
            self.assertFalse(part.headers.keys() & {"cookie", "authorization"})
            self.assertEqual(part.message(), expected)

    def test_mistakes(self):
        """
        Too many headers, too long ones, control characters and a `max-age` that is none are
        refused with a sentence, and nothing is published.
        """
        for headers, sentence in (
            (lines(33), "at most 32 headers"),
            (lines(9, 1000), "at most 8192 bytes"),
            (TYPE + "X-A: a\x01b\n", "control character"),
            (TYPE + "X-A: a\x7f\n", "control character"),
            (TYPE + "Cache-Control: max-age=soon\n", "max-age"),
            (TYPE + "Cache-Control: max-age=-1\n", "max-age"),
            (TYPE + "Cache-Control: max-age=1\nCache-Control: max-age=1\n", "max-age"),
        ):
            self.assert_refused(post(headers=headers), 400, sentence)
        request = post(headers=TYPE + "X-A: ").replace("X-A: ", "X-A: ä").encode("latin-1")
        self.assert_refused(request.replace(b"\n", b"\r\n"), 400, "UTF-8")
        boundary = f"{TYPE}X-A: {self.server.bus.boundary}\n"
        self.assert_refused(post(headers=boundary), 400, "boundary")
        self.assertEqual(self.server.ask(post(headers=lines(32, 200)))[0], 204)

    def test_parts(self):
        """
        The parts of a stream carry their headers and their `max-age`, of which the time
        since another bus has published them is taken away.
        """
        now = self.server.bus.milliseconds()
        aged = (
            f"Cache-Control: max-age=60\nMsgbus-Id: {now - age}-471100000000001{number}\n"
            for number, age in enumerate((20_500, 99_500, -99_500))
        )
        first = "ce-type: a\nx-b: ä, c\nCookie: d\nCache-Control: max-age=9\n"
        self.assertEqual(self.stream(*(TYPE + head for head in (first, *aged))), 200)
        made = [(dict(message.headers), message.max_age) for message in self.published]
        self.assertEqual(made, [(HEADERS, 9), ({}, 40), ({}, 0), ({}, 60)])

    def test_faulty_part(self):
        """
        A part that is refused ends the stream; those before it are published.
        """
        for head in (lines(33), TYPE + "X-A: \x01\n", TYPE + "Cache-Control: max-age=x\n"):
            self.assertEqual(self.stream(TYPE + "X-A: a\n", head), 400)
            self.assertEqual(len(self.published), 1)
            self.published.clear()

    def test_envelopes(self):
        """
        Lines of JSON carry them as `headers` and `max_age`.
        """
        sent = {"type": "text/plain", "body": "x", "headers": HEADERS, "max_age": 9}
        path = "/msgbus/foo?format=ndjson"
        ndjson = "Content-Type: application/x-ndjson\n"
        self.server.ask(post(path, json.dumps(sent) + "\n", ndjson))
        expected = Message("foo", b"x", "text/plain", headers=HEADERS, max_age=9)
        self.assertEqual(self.published, [expected])
        self.published.clear()
        for wrong in (
            {"headers": {"cookie": "a"}},
            {"headers": {"x-a": 1}},
            {"headers": []},
            {"headers": {"x-a": "\n"}},
            {"max_age": -1},
            {"max_age": "1"},
            {"max_age": 1.5},
            {"max_age": True},
        ):
            code, _, _ = self.server.ask(post(path, json.dumps(sent | wrong), ndjson))
            self.assertEqual((code, self.published), (400, []), wrong)

    def test_websocket(self):
        """
        So do the messages of a WebSocket, in both directions.
        """
        peer = self.open()
        peer.send(text(body="x", headers=HEADERS, max_age=9))
        self.server.turn()
        self.assertEqual(
            self.published, [Message("foo", b"x", "text/plain", headers=HEADERS, max_age=9)]
        )
        (told,) = self.told(peer)
        self.assertEqual((told["headers"], told["max_age"]), (HEADERS, 9))

    def test_formats(self):
        """
        Envelopes of all formats tell them.
        """
        self.server.ask(post(headers=SENT + "Cache-Control: max-age=9\n"))
        for path in ("?format=ndjson&last=1", "?format=event-stream&envelope=1&last=1"):
            _, _, body = self.subscribe("/msgbus/foo" + path)
            line = body[body.index(b'{"id') :].partition(b"\n")[0]
            told = json.loads(line)
            self.assertEqual((told["headers"], told["max_age"]), (HEADERS, 9))

    def test_one_message(self):
        """
        A message that is the whole answer has its headers in that, where pages of other
        sites may read them, but not in place of those that protect a browser.
        """
        self.server = Server(origins=Origins([PAGE]))
        sent = SENT + "Cache-Control: max-age=9\nContent-Encoding: gzip\n"
        sent += "X-Content-Type-Options: no\nX-Frame-Options: no\n"
        self.server.ask(post(headers=sent))
        _, headers, _ = self.server.ask(
            get("/msgbus/foo?format=message", f"Origin: {PAGE}\n")
        )
        told = {name.lower(): value for name, value in headers.items()}
        self.assertEqual((told["ce-type"], told["content-encoding"]), ("a", "gzip"))
        self.assertEqual(told["x-b"], "ä, c")
        self.assertEqual(told["cache-control"], "no-cache, max-age=9")
        self.assertEqual(told["x-content-type-options"], "nosniff")
        self.assertNotIn("x-frame-options", told)
        exposed = told["access-control-expose-headers"]
        self.assertTrue(exposed.endswith(", ce-type, Content-Encoding, X-B"), exposed)

    def test_preflight(self):
        """
        A page of another site that may publish may send them.
        """
        self.server = Server(origins=Origins([PAGE]))
        asked = "content-type, x-b,ce-type, cookie, x-forwarded-for, x-\N{KELVIN SIGN}"
        _, headers, _ = self.server.ask(
            get(
                method="OPTIONS",
                headers=f"Origin: {PAGE}\nAccess-Control-Request-Method: POST\n"
                f"Access-Control-Request-Headers: {asked}\n",
            )
        )
        allowed = headers["Access-Control-Allow-Headers"]
        self.assertTrue(allowed.endswith("Last-Event-ID, x-b, ce-type"), allowed)

    def test_user_header(self):
        """
        The header by which a proxy names a user does not travel.
        """
        self.server.root._user_header = "X-User"
        self.server.ask(post(headers=TYPE + "X-User: alice\nX-B: c\n"))
        self.assertEqual([m.headers for m in self.published], [Headers({"x-b": "c"})])

    def test_user_header_of_a_part(self):
        """
        Nor does it from a part or an envelope, whose reader could be believed if he copied
        the message with its headers.
        """
        self.server.resource.mount.private_header = "x-user"
        self.stream(TYPE + "X-User: alice\nX-B: c\n")
        peer = self.open()
        for headers in ({"X-User": "alice", "X-B": "c"}, {"x-user": "alice"}):
            peer.send(text(body="x", headers=headers))
        self.server.turn()
        self.assertEqual(
            [m.headers for m in self.published],
            [Headers({"x-b": "c"}), Headers({"x-b": "c"}), Headers()],
        )

    def test_filter(self):
        """
        `?header=` filters by them, several times, and refuses what is no filter.
        """
        query = "?header=ce-type:com.example.*&header=X-B:a&header=x-b:b"
        peer, _, _ = self.subscribe("/msgbus/foo" + query)
        for kind, value in (
            ("com.example.made", "a"),
            ("com.example.made", "b"),
            ("com.example.made", "c"),
            ("org.example.made", "a"),
            ("com.example.", "a"),
        ):
            self.server.ask(post(headers=f"{TYPE}ce-type: {kind}\nX-B: {value}\n"))
        self.server.ask(post())
        self.server.turn()
        got = [part.headers for part in self.parts(peer)]
        self.assertEqual(
            [(part["ce-type"], part["x-b"]) for part in got],
            [("com.example.made", "a"), ("com.example.made", "b"), ("com.example.", "a")],
        )
        self.published.clear()
        for value, sentence in (
            ("ce-type", "NAME:PATTERN"),
            ("cookie:a", "No message has a header"),
            (":a", "No message has a header"),
            ("x-a:!", "negates"),
            ("x-a:" + "*a" * 60, "too long to match"),
        ):
            self.assert_refused(get(f"/msgbus/foo?header={value}"), 400, sentence)
        without, _, _ = self.subscribe("/msgbus/foo?header=x-b:!*")
        self.server.ask(post())
        self.server.ask(post(headers=SENT))
        self.server.turn()
        self.assertEqual(without.received(), b"")
