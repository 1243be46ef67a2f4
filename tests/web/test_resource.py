"""
Tests for `msgbus.web.resource`.
"""

from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from twisted.web.server import Site as ForeignSite
from zope.interface.verify import verifyObject

from msgbus.bus.bus import Bus
from msgbus.ids import format_id
from msgbus.match import Filter
from msgbus.message import Message, Receipt
from msgbus.web.origins import Origins
from msgbus.web.resource import BusResource

from ..memory import Peer, Server, parts, unchunked

SAFE = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}

HOST = "Host: localhost:8888\n"


def post(path="/msgbus/foo", body="hello", headers="Content-Type: text/plain\n", host=HOST):
    """
    A publication.
    """
    length = len(body.encode())
    return f"POST {path} HTTP/1.1\n{host}{headers}Content-Length: {length}\n\n{body}"


def get(path="/msgbus/foo", headers="", version="1.1", method="GET", host=HOST):
    """
    A subscription.
    """
    return f"{method} {path} HTTP/{version}\n{host}{headers}\n"


def basic(credentials):
    """
    The header of these credentials.
    """
    return f"Authorization: Basic {b64encode(credentials.encode()).decode()}\n"


class WebTestCase(SynchronousTestCase):
    """
    A server, and what is published on it.
    """

    options = {}

    def setUp(self):
        self.server = Server(**self.options)
        self.published = []
        self.server.bus.subscribe("", self.published.append)

    def assert_refused(self, request, code, sentence, address="127.0.0.1"):
        """
        The request gets this code, with one sentence of plain text that says
        this, and publishes nothing.
        """
        answer, headers, body = self.server.ask(request, address)
        self.assertEqual(answer, code, body)
        self.assertEqual(headers["Content-Type"], "text/plain; charset=utf-8")
        self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
        self.assertRegex(body.decode(), rf"(?i)\A[^\n]*{sentence}[^\n]*\.\n\Z")
        self.assertEqual(self.published, [])

    def subscribe(self, *args, **kwargs):
        """
        A peer that has subscribed, and the headers of the answer.
        """
        peer = self.server.connect()
        peer.send(get(*args, **kwargs))
        code, headers, body = peer.answer()
        self.assertEqual(code, 200, body)
        return peer, headers, body


class PublishTests(WebTestCase):
    """
    Publications.
    """

    def test_published(self):
        """
        A POST publishes its body under its type, and gets 204 without a body
        or its length.
        """
        code, headers, body = self.server.ask(post())
        self.assertEqual((code, body), (204, b""))
        self.assertNotIn("Content-Length", headers)
        self.assertNotIn("Content-Type", headers)
        self.assertEqual(self.published, [Message("foo", b"hello", "text/plain")])

    def test_put(self):
        """
        A PUT does as a POST.
        """
        code, _, _ = self.server.ask(post().replace("POST", "PUT"))
        self.assertEqual((code, len(self.published)), (204, 1))

    def test_verbatim(self):
        """
        The type is kept as it came, also that of a form, and a body of a
        multipart type is not parsed.
        """
        for content_type in (
            'Multipart/Form-Data ;boundary="x"',
            "application/x-www-form-urlencoded",
            "text/plain; charset=latin-1",
        ):
            self.server.ask(
                post(headers=f"Content-Type: {content_type}\n", body="a=%ff&b;;")
            )
            self.assertEqual(
                self.published.pop(), Message("foo", b"a=%ff&b;;", content_type)
            )

    def test_empty(self):
        """
        An empty body is a message, with its length or without.
        """
        head = "POST /msgbus/foo HTTP/1.1\nHost: localhost\nContent-Type: a/b\n"
        for request in (post(body=""), head + "\n"):
            self.assertEqual(self.server.ask(request)[0], 204)
            self.assertEqual(self.published.pop().body, b"")

    def test_http_1_0(self):
        """
        HTTP/1.0 publishes, without `Host` too, and its connection closes.
        """
        peer = self.server.connect()
        peer.send("POST /msgbus/foo HTTP/1.0\nContent-Type: a/b\nContent-Length: 1\n\nx")
        self.assertEqual(peer.answer()[0], 204)
        self.assertTrue(peer.closed)
        self.assertEqual(self.published, [Message("foo", b"x", "a/b")])

    def test_chunked(self):
        """
        A chunked body is put together.
        """
        head = get(method="POST", headers="Content-Type: a/b\nTransfer-Encoding: chunked\n")
        self.assertEqual(self.server.ask(head + "3\nabc\n2;x=y\nde\n0\nT: x\n\n")[0], 204)
        self.assertEqual(self.published, [Message("foo", b"abcde", "a/b")])

    def test_expect(self):
        """
        One who asks before sending is told to go on.
        """
        peer = self.server.connect()
        headers = "Content-Type: a/b\nContent-Length: 1\nExpect: 100-continue\n"
        peer.send(get(method="POST", headers=headers))
        self.assertEqual(peer.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.send("x")
        self.assertEqual(peer.answer()[0], 204)
        self.assertEqual(self.published, [Message("foo", b"x", "a/b")])

    def test_pipelined(self):
        """
        Publications behind each other on one connection are all answered, and
        in order.
        """
        peer = self.server.connect()
        for byte in (post(body="1") + post(body="2") + post(body="3")).replace(
            "\n", "\r\n"
        ):
            peer.send(byte.encode())
        self.assertEqual(peer.received().count(b"HTTP/1.1 204 No Content\r\n"), 3)
        self.assertEqual([m.body for m in self.published], [b"1", b"2", b"3"])

    def test_names(self):
        """
        The name is what follows the prefix, decoded, and without the query.
        """
        for path, name in (
            ("/msgbus/", ""),
            ("/msgbus/a/", "a/"),
            ("/msgbus/a%2Fb/%C3%A4", "a/b/ä"),
            ("/msgbus/a+b;c?x=/d/e", "a+b;c"),
            ("/msgbus/msgbus/", "msgbus/"),
            ("http://localhost/msgbus/foo?x", "foo"),
            ("HTTP://[::1]:8888/msgbus/foo", "foo"),
        ):
            self.assertEqual(self.server.ask(post(path))[0], 204, path)
            self.assertEqual(self.published.pop().channel, name)

    def test_sender(self):
        """
        The sender is the user of Basic authentication.
        """
        headers = "Content-Type: a/b\n" + basic("älice:x")
        self.assertEqual(self.server.ask(post(headers=headers))[0], 204)
        self.assertEqual(self.published[0].sender, "älice")

    def test_answered_when_in_order(self):
        """
        The 204 comes when the bus says that the message is in order, and to
        nobody if the publisher has gone by then.
        """
        waiting = []

        def publish(message, keep, require, key):
            waiting.append(Deferred())
            return waiting[-1]

        self.server.bus.publish = publish
        stays, goes = self.server.connect(), self.server.connect()
        for peer in (stays, goes):
            peer.send(post())
            self.assertEqual(peer.received(), b"")
        goes.leave(ConnectionLost())
        for published in waiting:
            published.callback(Receipt("1-2", 3))
        self.assertEqual(stays.answer()[0], 204)
        self.assertEqual(goes.received(), b"")


class ReceiptTests(WebTestCase):
    """
    What a publisher is told.
    """

    def test_receipt(self):
        """
        The answer has the message's id, and for how many subscribers it was put in
        order.
        """
        _, first, _ = self.server.ask(post())
        # The test itself is one.
        self.assertEqual(first["Msgbus-Subscribers"], "1")
        peers = [self.subscribe(path)[0] for path in ("/msgbus/foo", "/msgbus/")]
        peers += [self.subscribe(f"/msgbus/foo?type={type}")[0] for type in ("a/b", "*")]
        _, second, _ = self.server.ask(post())
        self.assertEqual(second["Msgbus-Subscribers"], "4")
        self.assertNotEqual(first["Msgbus-Id"], second["Msgbus-Id"])
        self.assertEqual(second["Msgbus-Id"], self.published[-1].id)

    def test_required(self):
        """
        A publication for somebody is refused if there is nobody, and not kept.
        """
        self.server.bus._subscriptions.clear()
        self.assert_refused(post("/msgbus/foo?require=1"), 409, "nobody")
        peer, _, _ = self.subscribe("/msgbus/foo?last=1")
        self.assertEqual(peer.received(), b"")
        code, headers, _ = self.server.ask(post("/msgbus/foo?require=1"))
        self.assertEqual((code, headers["Msgbus-Subscribers"]), (204, "1"))
        self.assertIn(b"hello", peer.received())
        self.assert_refused(post("/msgbus/foo?require=maybe"), 400, "require")

    def test_repeated(self):
        """
        A publication that is repeated with its key is answered as the first time,
        and published once; the key of another body is refused.
        """
        headers = "Content-Type: text/plain\nIdempotency-Key: k\n"
        first, second = (self.server.ask(post(headers=headers)) for _ in range(2))
        self.assertEqual(first[0], 204)
        for name in ("Msgbus-Id", "Msgbus-Subscribers"):
            self.assertEqual(first[1][name], second[1][name])
        self.assertEqual(len(self.published), 1)
        code, _, body = self.server.ask(post(headers=headers, body="other"))
        self.assertEqual(code, 422, body)
        self.assertEqual(self.server.ask(post("/msgbus/bar", headers=headers))[0], 204)
        later = self.server.bus._seconds() + 600
        self.server.bus._seconds = lambda: later
        self.assertEqual(self.server.ask(post(headers=headers))[0], 204)
        self.assertEqual(len(self.published), 3)

    def test_repeated_after_a_refusal(self):
        """
        A key that came with a publication that was refused is free.
        """
        self.server.bus._subscriptions.clear()
        headers = "Content-Type: text/plain\nIdempotency-Key: k\n"
        for path, code in (("?require=1", 409), ("", 204), ("?require=1", 204)):
            request = post(f"/msgbus/foo{path}", headers=headers)
            self.assertEqual(self.server.ask(request)[0], code)

    def test_not_kept(self):
        """
        What is not to be stored is delivered, and not kept.
        """
        for directive in ("no-store", "max-age=1, No-Store"):
            headers = f"Content-Type: a/b\nCache-Control: {directive}\n"
            self.assertEqual(self.server.ask(post(headers=headers))[0], 204)
        self.assertEqual(len(self.published), 2)
        self.assertEqual(self.server.bus.history.size, 0)
        self.server.ask(post(headers="Content-Type: a/b\nCache-Control: no-cache\n"))
        self.assertGreater(self.server.bus.history.size, 0)


class RefusalTests(WebTestCase):
    """
    Publications that cannot be.
    """

    def test_types(self):
        """
        A type is required, once, and must be one.
        """
        for headers, sentence in (
            ("", "needs a Content-Type"),
            ("Content-Type:\n", "needs a Content-Type"),
            ("Content-Type: a/b\nContent-Type: a/b\n", "once only"),
            ("Content-Type: text\n", "type/subtype"),
            ("Content-Type: a/b, c/d\n", "type/subtype"),
            ("Content-Type: a/b;\x01\n", "control character"),
            ("Content-Type: a/b;" + "x" * 1000 + "\n", "longer than 1000 bytes"),
        ):
            self.assert_refused(post(headers=headers), 400, sentence)
        request = post(headers="Content-Type: a/b;x=?\n").replace("\n", "\r\n").encode()
        self.assert_refused(request.replace(b"?", b"\xff"), 400, "not UTF-8")

    def test_names(self):
        """
        What is no name is refused, in one sentence.
        """
        for name in ("%", "%zz", "%ff", "%00", "%0a", "a//b", "/", ".", "..", "%2e%2e/x"):
            self.assert_refused(post("/msgbus/" + name), 400, "(name|segment)")
        self.assert_refused(post("/msgbus/.js/msgbus.js"), 400, "begins with a dot")
        self.assert_refused(post("/msgbus" + "/a" * 8000), 400, "longer than 1024 bytes")
        self.assert_refused(post("/msgbus" + "/a" * 33), 400, "more than 32 segments")
        self.assert_refused(get("/msgbus/a//b"), 400, "empty segment")

    def test_boundary(self):
        """
        A body that holds the boundary is refused.
        """
        self.assert_refused(post(body=f"--{self.server.bus.boundary}"), 400, "boundary")

    def test_sender(self):
        """
        A sender that could inject a header, or that nobody could filter for,
        is refused, and so is broken authentication.
        """
        for user in ("eve\nX-Evil: 1", "eve\r", " eve", "eve\t", "\x00"):
            headers = "Content-Type: a/b\n" + basic(f"{user}:")
            self.assert_refused(post(headers=headers), 400, "sender")
        headers = "Content-Type: a/b\nAuthorization: Basic eve\n"
        self.assert_refused(post(headers=headers), 400, "not Basic")

    def test_transfer_encoding_1_0(self):
        """
        HTTP/1.0 has no transfer encoding.
        """
        request = (
            "POST /msgbus/foo HTTP/1.0\nContent-Type: a/b\nTransfer-Encoding: chunked\n\n"
            "1\nx\n0\n\n"
        )
        self.assert_refused(request, 400, "no Transfer-Encoding")

    def test_truncated(self):
        """
        A publisher that vanishes in mid-body has published nothing.
        """
        chunked = get(
            method="POST", headers="Content-Type: a/b\nTransfer-Encoding: chunked\n"
        )
        for request in (post(body="hello")[:-1], chunked + "5\nhello\n"):
            for reason in (ConnectionDone(), ConnectionLost()):
                peer = self.server.connect()
                peer.send(request)
                peer.leave(reason)
                self.assertEqual(peer.received(), b"")
        self.assertEqual(self.published, [])

    def test_broken_chunks(self):
        """
        Broken chunking publishes nothing and ends the connection.
        """
        head = get(method="POST", headers="Content-Type: a/b\nTransfer-Encoding: chunked\n")
        for body in ("x\n", "-1\n", "3\nabcd\n0\n\n", "1\nx\n\n0\n\n", "0x1\nx\n0\n\n"):
            peer = self.server.connect()
            peer.send(head + body)
            self.assertTrue(peer.received().startswith(b"HTTP/1.1 400 "))
            self.server.clock.advance(2)
            self.assertTrue(peer.closed)
        self.assertEqual(self.published, [])

    def test_methods(self):
        """
        Other methods, unknown ones too, are not allowed.
        """
        for method in ("DELETE", "PATCH", "BREW", "get", "CONNECT", "TRACE"):
            self.assert_refused(get(method=method), 405, "POST or PUT")
        _, headers, _ = self.server.ask(get(method="BREW"))
        self.assertEqual(headers["Allow"], "GET, HEAD, POST, PUT, OPTIONS")

    def test_too_large_for_the_bus(self):
        """
        In a site that lets everything in, the bus still refuses what is too
        large.
        """
        self.server.site.max_body = 10_000_000
        self.server.bus.max_message = 4
        self.assert_refused(post(), 413, "at most 4 bytes")

    @given(st.binary(max_size=300))
    def test_any_bytes(self, data):
        """
        Any bytes get an answer or wait for more, and nothing is logged as a
        bug.
        """
        peer = Server().connect()
        peer.send(data)
        if received := peer.received():
            self.assertTrue(received.startswith(b"HTTP/1.1 4"), received)

    @given(
        st.binary(max_size=50).map(lambda b: b.hex("%")),
        st.text("=&%+;?*!,/a", max_size=50),
    )
    def test_any_target(self, path, query):
        """
        Any target gets 200, 400 or 308.
        """
        path = f"%{path}" if path else ""
        code, _, _ = Server().ask(get(f"/msgbus/{path}?{query}"))
        self.assertIn(code, (200, 400))


class SubscribeTests(WebTestCase):
    """
    Subscriptions.
    """

    def test_head(self):
        """
        The answer has these headers, and at once the first delimiter.
        """
        boundary = self.server.bus.boundary
        _, headers, body = self.subscribe()
        for name in ("Date", "Server"):
            del headers[name]
        self.assertEqual(
            headers,
            {
                **SAFE,
                "Content-Type": f"multipart/x-mixed-replace;boundary={boundary}",
                "Cache-Control": "no-store",
                "Vary": "Accept",
                "X-Accel-Buffering": "no",
                "Msgbus-Prefix": "/msgbus/",
                "Msgbus-Id": format_id(self.server.bus.newest),
                "Transfer-Encoding": "chunked",
            },
        )
        self.assertEqual(unchunked(body), [f"--{boundary}\r\n".encode()])

    def test_message(self):
        """
        A message is one chunk: a part, and the delimiter that closes it.
        """
        peer, _, _ = self.subscribe()
        _, answered, _ = self.server.ask(post())
        self.assertEqual(
            unchunked(peer.received()),
            [
                b"Content-Type: text/plain\r\n"
                b"Content-Length: 5\r\n"
                b"Content-Location: /msgbus/foo\r\n"
                b"Msgbus-Id: %s\r\n"
                b"\r\n"
                b"hello\r\n"
                b"--%s\r\n"
                % (answered["Msgbus-Id"].encode(), self.server.bus.boundary.encode())
            ],
        )

    def test_http_1_0(self):
        """
        HTTP/1.0 gets the same bytes without chunks.
        """
        boundary = self.server.bus.boundary
        new, _, _ = self.subscribe()
        old, headers, body = self.subscribe(version="1.0", host="")
        self.assertNotIn("Transfer-Encoding", headers)
        self.assertEqual(body, f"--{boundary}\r\n".encode())
        for text in "12":
            self.server.ask(post(body=text))
        received = old.received()
        self.assertEqual(received, b"".join(unchunked(new.received())))
        self.assertEqual([part.body for part in parts(received, boundary)], [b"1", b"2"])

    def test_forms(self):
        """
        Who asks for multipart/mixed gets the same parts under that type.
        """
        for path, headers, media_type in (
            ("/msgbus/foo", "Accept: image/png,*/*;q=0.8\n", "multipart/x-mixed-replace"),
            ("/msgbus/foo", "Accept: multipart/mixed\n", "multipart/mixed"),
            ("/msgbus/foo", "Accept: a/b\nAccept: multipart/mixed\n", "multipart/mixed"),
            ("/msgbus/foo?format=mixed", "", "multipart/mixed"),
            (
                "/msgbus/foo?format=multipart",
                "Accept: multipart/mixed\n",
                "multipart/x-mixed-replace",
            ),
        ):
            peer, answered, _ = self.subscribe(path, headers)
            self.assertEqual(
                answered["Content-Type"],
                f"{media_type};boundary={self.server.bus.boundary}",
            )
            self.server.ask(post())
            self.assertIn(b"hello", peer.received())

    def test_filtered(self):
        """
        The filters of the query hold.
        """
        peer, _, _ = self.subscribe("/msgbus/?type=image/svg+xml&channel=a/*")
        for path, content_type in (
            ("/msgbus/a/b", "image/svg+xml; q"),
            ("/msgbus/a/b", "image/png"),
            ("/msgbus/b", "image/svg+xml"),
        ):
            self.server.ask(post(path, headers=f"Content-Type: {content_type}\n"))
        self.assertEqual(len(unchunked(peer.received())), 1)

    def test_bad_filters(self):
        """
        Bad values of known parameters are refused, and subscribe nothing.
        """
        for query in (
            "type=!",
            "sender=%zz",
            "channel=%ff",
            "format=jpeg",
            "overflow=drop",
            "heartbeat=1",
        ):
            self.assert_refused(get(f"/msgbus/foo?{query}"), 400, "")
        self.assertEqual(list(self.server.bus._subscriptions), [""])

    def test_head_method(self):
        """
        HEAD gets the headers alone, subscribes nothing, and the connection
        goes on.
        """
        peer = self.server.connect()
        for _ in range(2):
            peer.send(get(method="HEAD"))
            code, headers, body = peer.answer()
            self.assertEqual((code, body), (200, b""))
            self.assertIn("boundary", headers["Content-Type"])
            self.assertNotIn("Transfer-Encoding", headers)
        self.assertEqual(list(self.server.bus._subscriptions), [""])

    def test_unsubscribed(self):
        """
        When a subscriber leaves, nothing of it is left.
        """
        for reason in (ConnectionDone(), ConnectionLost()):
            peer, _, _ = self.subscribe()
            self.server.ask(post())
            peer.leave(reason)
            self.assertEqual(list(self.server.bus._subscriptions), [""])
            self.server.turn()

    def test_backpressure(self):
        """
        What a full transport cannot take waits.
        """
        peer, _, _ = self.subscribe()
        peer.transport.producer.pauseProducing()
        self.server.ask(post())
        self.assertEqual(peer.received(), b"")
        peer.transport.producer.resumeProducing()
        self.assertIn(b"hello", peer.received())

    def test_overflow(self):
        """
        What a slow subscriber chose becomes of what waits for it.
        """
        peer, _, _ = self.subscribe("/msgbus/foo?overflow=latest", version="1.0")
        peer.transport.producer.pauseProducing()
        for number in range(3):
            self.server.ask(post(body=f"{number}"))
        peer.transport.producer.resumeProducing()
        (part,) = parts(peer.received(), self.server.bus.boundary)
        self.assertEqual((part.body, part.headers["msgbus-gap"]), (b"2", "2"))

    def test_heartbeat(self):
        """
        A stream is told to be alive, every so many seconds.
        """
        peer, _, _ = self.subscribe("/msgbus/foo?heartbeat=25")
        self.server.clock.pump([1] * 51)
        chunk = b"15\r\nMsgbus-Heartbeat: 1\r\n\r\n"
        self.assertEqual(peer.received(), chunk * 2)

    def test_replay(self):
        """
        Who comes late may have what was published, and who comes back, what he
        missed: each message once, in order, ahead of what comes now.
        """
        for number, (query, headers, expected) in enumerate(
            (
                ("since=all", "", b"0123"),
                ("last=1", "", b"23"),
                ("since=1h", "", b"0123"),
                ("since={0}", "", b"123"),
                ("last=1", "Last-Event-ID: {1}\n", b"23"),
                ("since=now", "", b"3"),
            )
        ):
            path = f"/msgbus/{number}"
            ids = [
                self.server.ask(post(path, body=f"{n}"))[1]["Msgbus-Id"] for n in range(3)
            ]
            query, headers = query.format(*ids), headers.format(*ids)
            peer, _, got = self.subscribe(f"{path}?{query}", headers, "1.0")
            self.server.ask(post(path, body="3"))
            found = parts(got + peer.received(), self.server.bus.boundary)
            self.assertEqual(b"".join(part.body for part in found), expected)
            self.assertFalse(any("msgbus-gap" in part.headers for part in found))

    def test_begins(self):
        """
        The answer to a subscription tells an id behind which all comes, so that one
        who is cut off before the first message misses nothing either.
        """
        for query in ("", "since=now", "last=1", "since=1s", "since=all"):
            with self.subTest(query):
                path = f"/msgbus/{query.replace('=', '')}"
                _, headers, _ = self.subscribe(f"{path}?{query}")
                self.server.ask(post(path, body="1"))
                _, again, got = self.subscribe(
                    path, f"Last-Event-ID: {headers['Msgbus-Id']}\n", "1.0"
                )
                self.assertEqual(again["Msgbus-Id"], headers["Msgbus-Id"])
                (part,) = parts(got, self.server.bus.boundary)
                self.assertEqual(part.body, b"1")
                self.assertNotIn("msgbus-gap", part.headers)
        _, headers, _ = self.subscribe("/msgbus/foo", "Last-Event-ID: 1-2\n")
        self.assertNotIn("Msgbus-Id", headers)

    def test_strange_id(self):
        """
        Behind an id that the bus does not know, what there is comes, and a gap is
        told first; what is no id is refused.
        """
        for request in (
            get("/msgbus/foo?since=yesterday"),
            get("/msgbus/foo", "Last-Event-ID: x\n"),
        ):
            self.assert_refused(request, 400, "no id of a message|does not begin at")
        self.server.ask(post())
        peer, _, body = self.subscribe("/msgbus/foo?since=1-2", version="1.0")
        (part,) = parts(body + peer.received(), self.server.bus.boundary)
        self.assertEqual(part.headers["msgbus-gap"], "unknown")

    def test_noise(self):
        """
        What a subscriber sends is discarded, and too much of it closes the
        connection; reading goes on until then, or its leaving would not be
        noticed.
        """
        for pieces in ([get() + "x" * 16384], [get(), "x" * 16384], [get(), *"x" * 99]):
            peer = self.server.connect()
            for piece in pieces:
                peer.send(piece)
            self.assertFalse(peer.closed)
            self.assertEqual(peer.transport.producerState, "producing")
            self.server.ask(post())
            self.assertIn(b"hello", peer.received())
        for pieces in ([get() + "x" * 20000], [get(), "x" * 16384, "x"]):
            peer = self.server.connect()
            for piece in pieces:
                peer.send(piece)
            self.assertTrue(peer.closed)

    def test_pipelined_behind_a_subscription(self):
        """
        What is pipelined behind a subscription is never a request.
        """
        peer, _, _ = self.subscribe()
        peer.send(post())
        self.assertEqual((peer.received(), self.published), (b"", []))

    def test_no_slash(self):
        """
        The bus without its slash is redirected, query and all.
        """
        for method in ("GET", "POST", "HEAD"):
            code, headers, _ = self.server.ask(get("/msgbus?type=a/*", method=method))
            self.assertEqual((code, headers["Location"]), (308, "/msgbus/?type=a/*"))


class BrowserTests(WebTestCase):
    """
    Strangers in browsers.
    """

    options = {"origins": Origins(allowed=["https://app.example"], hosts=["bus.example"])}

    def test_cross_site(self):
        """
        Pages of others may not publish; they may if their origin is allowed.
        """
        for headers in (
            "Origin: https://evil.example\n",
            "Origin: null\n",
            "Sec-Fetch-Site: cross-site\n",
            "Sec-Fetch-Site: same-site\n",
        ):
            self.assert_refused(
                post(headers="Content-Type: text/plain\n" + headers), 403, "--allow-origin"
            )
        for headers in (
            "Origin: https://app.example\nSec-Fetch-Site: cross-site\n",
            "Origin: http://localhost:8888\nSec-Fetch-Site: same-origin\n",
            "Origin: http://localhost:8888\n",
            "Origin: https://bus.example\n",
            "Sec-Fetch-Site: none\n",
        ):
            code, _, _ = self.server.ask(
                post(headers="Content-Type: text/plain\n" + headers)
            )
            self.assertEqual(code, 204, headers)

    def test_cors(self):
        """
        An allowed origin may read what is answered, others may not.
        """
        for origin, allowed in (
            ("https://app.example", True),
            ("https://evil.example", False),
        ):
            for request in (get, post):
                _, headers, _ = self.server.ask(
                    request(headers=f"Content-Type: a/b\nOrigin: {origin}\n")
                )
                self.assertEqual(headers["Vary"], "Accept, Origin")
                self.assertEqual(
                    headers.get("Access-Control-Allow-Origin"), origin if allowed else None
                )
                self.assertEqual(
                    headers["Cross-Origin-Resource-Policy"],
                    "cross-origin" if allowed else "same-origin",
                )

    def test_preflight(self):
        """
        A preflight of an allowed origin is granted, another is refused.
        """
        ask = "Access-Control-Request-Method: PUT\n"
        code, headers, _ = self.server.ask(
            get(method="OPTIONS", headers=f"Origin: https://app.example\n{ask}")
        )
        self.assertEqual(code, 204)
        self.assertEqual(headers["Access-Control-Allow-Origin"], "https://app.example")
        self.assertEqual(
            headers["Access-Control-Allow-Methods"], "GET, HEAD, POST, PUT, OPTIONS"
        )
        self.assertEqual(
            headers["Access-Control-Allow-Headers"],
            "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match,"
            " Last-Event-ID",
        )
        self.assert_refused(
            get(method="OPTIONS", headers=f"Origin: https://evil.example\n{ask}"),
            403,
            "--allow-origin",
        )

    def test_options(self):
        """
        OPTIONS tells the methods.
        """
        code, headers, _ = self.server.ask(get(method="OPTIONS"))
        self.assertEqual((code, headers["Allow"]), (204, "GET, HEAD, POST, PUT, OPTIONS"))

    def test_host(self):
        """
        On the loopback, a name that the bus does not have is refused, to
        publish, subscribe and all else; elsewhere it is not.
        """
        evil = "Host: evil.example\n"
        for address in ("127.0.0.1", "127.9.9.9"):
            for request in (
                get("/", host=evil),
                get("/x", host=evil),
                post(host=evil),
                get(host=evil),
                get("/msgbus", host=evil),
                get(method="OPTIONS", host=evil),
                get("http://evil.example/msgbus/foo"),
            ):
                self.assert_refused(request, 421, "--host", address)
        for host in (
            "localhost",
            "a.localhost:1",
            "[::1]:8888",
            "192.0.2.1",
            "bus.example",
        ):
            self.assertEqual(self.server.ask(get(host=f"Host: {host}\n"))[0], 200)
        self.assertEqual(self.server.ask(get(host=evil), "192.0.2.1")[0], 200)

    def test_no_host(self):
        """
        HTTP/1.1 must have a `Host`, and one only.
        """
        self.assert_refused(get(host=""), 400, "needs a Host")
        self.assert_refused(get(host=HOST * 2), 400, "once only")
        self.assert_refused(
            get("http://localhost/msgbus/foo", host=""), 400, "needs a Host"
        )
        self.assert_refused(get("http://localhost/msgbus/foo", host=HOST * 2), 400, "once")

    def test_safe(self):
        """
        Everything that the bus answers is safe to open in a browser.
        """
        for request in (
            get(),
            get(version="1.0"),
            post(),
            get("/msgbus"),
            post(headers=""),
        ):
            _, headers, _ = self.server.ask(request)
            self.assertEqual({name: headers[name] for name in SAFE}, SAFE)


class LogTests(WebTestCase):
    """
    What is logged.
    """

    def events(self, verbosity):
        """
        The lines of one subscription and one publication.
        """
        lines = []

        def observe(event):
            lines.append((event["log_level"], event["log_format"].format(**event)))

        self.server = Server(verbosity=verbosity)
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        peer, _, _ = self.subscribe("/msgbus/foo?sender=!secret")
        self.server.ask(post())
        peer.leave(ConnectionDone())
        globalLogPublisher.removeObserver(observe)
        self.assertTrue(all(level == LogLevel.info for level, _ in lines))
        return [line for _, line in lines]

    def test_silent(self):
        """
        Without -v, requests are not logged.
        """
        self.assertEqual(self.events(0), [])

    def test_verbose(self):
        """
        With -v, subscriptions are; with -vv, publications too; never a query.
        """
        subscribed = "192.0.2.1:4711 subscribes to 'foo'"
        left = "192.0.2.1:4711 leaves 'foo'"
        published = "192.0.2.1:4711 publishes 5 bytes of text/plain to 'foo' as ''"
        self.assertEqual(self.events(1), [subscribed, left])
        self.assertEqual(self.events(2), [subscribed, published, left])
        self.assertEqual(self.events(3), [subscribed, published, left])


class PasswordTests(WebTestCase):
    """
    A password for everything.
    """

    options = {
        "secret": "sécret: x".encode(),
        "origins": Origins(allowed=["https://app.example"]),
    }
    good = basic("álice:sécret: x")

    def test_asked_for(self):
        """
        Without the password, nothing is served, and the answer says how to
        give it.
        """
        bad = [
            basic("alice:"),
            basic("alice:secret"),
            basic("sécret: x:"),
            basic("a:sécret: xx"),
        ]
        bad += ["", "Authorization: Bearer x\n", basic("alice:x" + "y" * 5000)]
        for headers in bad:
            for request in (
                post(headers="Content-Type: a/b\n" + headers),
                get(headers=headers),
                get("/", headers=headers),
                get("/msgbus", headers=headers),
                get("/x", headers=headers, method="BREW"),
                get(headers=headers, method="OPTIONS"),
            ):
                self.assert_refused(request, 401, "asks for a password")
        _, answered, _ = self.server.ask(get())
        self.assertEqual(answered["WWW-Authenticate"], 'Basic realm="msgbus"')

    def test_given(self):
        """
        With it, everything is, under any name, none too; the name is the
        sender.
        """
        self.server.ask(post(headers="Content-Type: a/b\n" + self.good))
        self.server.ask(post(headers="Content-Type: a/b\n" + basic(":sécret: x")))
        self.assertEqual([m.sender for m in self.published], ["álice", ""])
        for path, code in (("/msgbus/foo", 200), ("/", 200), ("/x", 404), ("/msgbus", 308)):
            self.assertEqual(self.server.ask(get(path, headers=self.good))[0], code)

    def test_broken(self):
        """
        Credentials that cannot be read are said to be so.
        """
        self.assert_refused(get(headers="Authorization: Basic x\n"), 400, "not Basic")
        self.assert_refused(get(headers=self.good * 2), 400, "once only")

    def test_preflight(self):
        """
        A preflight is answered before the password is asked for, and a page
        that may read is let see that it is asked for.
        """
        origin = "Origin: https://app.example\n"
        ask = get(
            method="OPTIONS", headers=f"{origin}Access-Control-Request-Method: POST\n"
        )
        self.assertEqual(self.server.ask(ask)[0], 204)
        code, headers, _ = self.server.ask(get(headers=origin))
        self.assertEqual(code, 401)
        self.assertEqual(headers["Access-Control-Allow-Origin"], "https://app.example")

    def test_rebound(self):
        """
        A name that the bus does not have is not even asked for a password.
        """
        self.assert_refused(get(host="Host: evil.example\n"), 421, "--host")

    def test_keeps_the_connection(self):
        """
        A refusal leaves the connection for another try.
        """
        peer = self.server.connect()
        for headers, code in (("", 401), (self.good, 204)):
            peer.send(post(headers="Content-Type: a/b\n" + headers))
            self.assertEqual(peer.answer()[0], code)

    def test_gone(self):
        """
        One who subscribes with the password and leaves, leaves nothing.
        """
        peer, _, _ = self.subscribe(headers=self.good)
        peer.leave(ConnectionDone())
        self.assertEqual(list(self.server.bus._subscriptions), [""])


class GuardedDocumentTests(SynchronousTestCase):
    """
    Documents behind a password.
    """

    def test_pages(self):
        """
        A page behind the password is a page like any other: the headers that
        disarm messages are not for it.
        """
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        Path(folder.name, "void.html").write_bytes(b"")
        heads = []
        for secret in (None, b"x"):
            server = Server(documents=Path(folder.name), secret=secret)
            code, headers, _ = server.ask(
                get("/void.html", basic("alice:x"), method="HEAD")
            )
            self.assertEqual(code, 200)
            heads.append({name: value for name, value in headers.items() if name != "Date"})
        self.assertEqual(heads[0], heads[1])
        self.assertNotIn("Content-Security-Policy", heads[1])


class RootTests(WebTestCase):
    """
    What is beside the bus.
    """

    def test_root(self):
        """
        The root says where the bus is.
        """
        code, headers, body = self.server.ask(get("/"))
        self.assertEqual(code, 200)
        self.assertEqual(headers["Content-Type"], "text/plain; charset=utf-8")
        self.assertIn(b"/msgbus/CHANNEL", body)

    def test_published_to_the_root(self):
        """
        Who publishes there is told that he did not.
        """
        code, _, body = self.server.ask(post("/"))
        self.assertEqual(code, 404)
        self.assertIn(b"/msgbus/", body)

    def test_elsewhere(self):
        """
        Everywhere else is nothing.
        """
        for path in ("/x", "/msgbusx", "//msgbus/foo", "/x/../msgbus/foo", "/a" * 8000):
            self.assertEqual(self.server.ask(get(path))[0], 404, path[:20])
        self.assertEqual(self.published, [])


class MountedTests(SynchronousTestCase):
    """
    The resource in others' trees.
    """

    def test_resource(self):
        """
        It is a resource.
        """
        verifyObject(IResource, BusResource(Bus(), Server().clock))

    def test_elsewhere(self):
        """
        Mounted deeper and with its prefix, it serves there, and says so.
        """
        server = Server()
        bus = Bus()
        resource = BusResource(bus, server.clock, prefix="/a%20b/bus/")
        server.root.putChild(b"a b", parent := type(server.root)())
        parent.putChild(b"bus", resource)
        code, headers, _ = server.ask(get("/a%20b/bus"))
        self.assertEqual((code, headers["Location"]), (308, "/a%20b/bus/"))
        peer = server.connect()
        peer.send(get("/a%20b/bus/c/"))
        peer.received()
        bus.publish(Message("c/d", b""))
        self.assertIn(b"Content-Location: /a%20b/bus/c/d\r\n", peer.received())

    def test_foreign_site(self):
        """
        In a site of Twisted's own, it publishes and subscribes, and reads its
        parameters from the address alone, not from a form.
        """
        server = Server()
        server.site = ForeignSite(server.root, reactor=server.clock)
        for version, decode in (("1.0", lambda data: [data]), ("1.1", unchunked)):
            peer = Peer(server, "127.0.0.1")
            peer.send(get("/msgbus/foo?type=*/x-www-form-urlencoded", version=version))
            _, _, opening = peer.answer()
            self.assertEqual(decode(opening), [f"--{server.bus.boundary}\r\n".encode()])
            form = "Content-Type: application/x-www-form-urlencoded\n"
            self.assertEqual(server.ask(post(headers=form, body="sender=eve"))[0], 204)
            (data,) = decode(peer.received())
            (part,) = parts(data, server.bus.boundary)
            self.assertEqual(part.body, b"sender=eve")
            peer.leave(ConnectionDone())
        self.assertEqual(server.bus._subscriptions, {})
        server.site.stopFactory()

    def test_stalled_in_a_foreign_site(self):
        """
        There, too, the connection of one who takes nothing is cut, not closed: that would
        wait for him.
        """
        server = Server()
        server.site = ForeignSite(server.root, reactor=server.clock)
        body = "x" * 100_000
        server.ask(post(body=body))
        for path in ("/msgbus/foo?format=message", "/msgbus/foo"):
            peer = Peer(server, "127.0.0.1")
            peer.send(get(path))
            server.turn()
            peer.transport.producer.pauseProducing()
            server.bus.publish(Message("foo", body.encode()))
            for _ in range(11):
                server.clock.advance(30)
            self.assertTrue(peer.transport.disconnected)
            self.assertEqual(server.resource._mount.fanout.counters.waiting, 0)
            peer.leave(ConnectionAborted())
        server.site.stopFactory()

    def test_python_subscriber(self):
        """
        A callback gets what HTTP publishes, and HTTP what Python does.
        """
        server, got = Server(), []
        server.bus.subscribe("foo", got.append, Filter("text/*"))
        server.ask(post())
        self.assertEqual(got, [Message("foo", b"hello", "text/plain")])
