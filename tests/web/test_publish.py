"""
Tests for `msgbus.web.publish`.
"""

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost

from msgbus.bus.log import Unavailable
from msgbus.message import Message, Receipt
from msgbus.web.origins import Origins

from ..memory import ComeBefore, Server
from ..requests import authorization, get, post
from .testcase import WebTestCase


class PublishTests(WebTestCase):
    """
    Requests that publish.
    """

    def test_published(self):
        """
        A POST publishes its body with its content type, and is answered with 204, without a
        body and without `Content-Length`.
        """
        code, headers, body = self.server.ask(post())
        self.assertEqual((code, body), (204, b""))
        self.assertNotIn("Content-Length", headers)
        self.assertNotIn("Content-Type", headers)
        self.assertEqual(self.published, [Message("foo", b"hello", "text/plain")])

    def test_put(self):
        """
        A PUT publishes as a POST does.
        """
        code, _, _ = self.server.ask(post().replace("POST", "PUT"))
        self.assertEqual((code, len(self.published)), (204, 1))

    def test_verbatim(self):
        """
        The content type is kept as it was sent, that of an HTML form too, and a multipart
        body is not parsed.
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
        An empty body is a message, whether its length of 0 is declared or not.
        """
        head = "POST /msgbus/foo HTTP/1.1\nHost: localhost\nContent-Type: a/b\n"
        for request in (post(body=""), head + "\n"):
            self.assertEqual(self.server.ask(request)[0], 204)
            self.assertEqual(self.published.pop().body, b"")

    def test_http_1_0(self):
        """
        An HTTP/1.0 client can publish, even without `Host`, and its connection is closed
        after the answer.
        """
        peer = self.server.connect()
        peer.send("POST /msgbus/foo HTTP/1.0\nContent-Type: a/b\nContent-Length: 1\n\nx")
        self.assertEqual(peer.answer()[0], 204)
        self.assertTrue(peer.closed)
        self.assertEqual(self.published, [Message("foo", b"x", "a/b")])

    def test_chunked(self):
        """
        The chunks of a body are joined to one message.
        """
        head = get(method="POST", headers="Content-Type: a/b\nTransfer-Encoding: chunked\n")
        self.assertEqual(self.server.ask(head + "3\nabc\n2;x=y\nde\n0\nT: x\n\n")[0], 204)
        self.assertEqual(self.published, [Message("foo", b"abcde", "a/b")])

    def test_expect(self):
        """
        A publisher that sends `Expect: 100-continue` is told to go on before it sends the
        body.
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
        Publications pipelined on one connection are published and answered in order,
        however their bytes are split.
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
        The channel is the path behind the prefix, percent-decoded and without the query.
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
        The sender of a message is the user of Basic authentication.
        """
        headers = "Content-Type: a/b\n" + authorization("älice:x")
        self.assertEqual(self.server.ask(post(headers=headers))[0], 204)
        self.assertEqual(self.published[0].sender, "älice")

    def test_answered_when_in_order(self):
        """
        The 204 is sent when the bus says that the message is in order; if the publisher has
        gone by then, nothing is sent.
        """
        waiting = []

        def submit(message, body, keep, require, key):
            waiting.append(Deferred())
            return waiting[-1]

        self.server.bus.submit = submit
        stays, goes = self.server.connect(), self.server.connect()
        for peer in (stays, goes):
            peer.send(post())
            self.assertEqual(peer.received(), b"")
        goes.leave(ConnectionLost())
        for published in waiting:
            published.callback(Receipt("1-2", 3))
        self.assertEqual(stays.answer()[0], 204)
        self.assertEqual(goes.received(), b"")

    def test_log_away(self):
        """
        If the log cannot be reached, the answer is 503, and says when to try again; the
        connection stays open.  This is so for a request that repeats, too.
        """
        self.server.site.heads._once = ComeBefore()
        peer = self.server.connect()
        peer.send(post())
        self.assertEqual(peer.answer()[0], 204)
        waiting = []

        def append(*args):
            waiting.append(Deferred())
            return waiting[-1]

        self.server.bus.log.append = append
        for request in (post(), post(headers="Content-Type: a/b\nX-New: 1\n")):
            peer.send(request)
            self.assertEqual(peer.received(), b"")
            waiting.pop().errback(Unavailable("Away."))
            code, headers, body = peer.answer()
            self.assertEqual((code, headers["Retry-After"], body), (503, "5", b"Away.\n"))
            self.assertNotIn("Connection", headers)
        self.assertFalse(peer.closed)

    def test_log_away_from_page(self):
        """
        A page of another site can read that, too, if it may publish: the answer to a
        request that repeats has the same headers as the first.
        """
        server = Server(origins=Origins(["https://a.example"]))
        server.site.heads._once = ComeBefore()
        peer = server.connect()
        from_page = post(headers="Content-Type: a/b\nOrigin: https://a.example\n")
        waiting = []

        def append(*args):
            waiting.append(Deferred())
            return waiting[-1]

        server.bus.log.append = append
        told = []
        for error in Unavailable("Away."), None, Unavailable("Away."):
            peer.send(from_page)
            if error is None:
                waiting.pop().callback(Receipt("1-2", 3))
                self.assertEqual(peer.answer()[0], 204)
                continue
            waiting.pop().errback(error)
            lines = peer.received().splitlines()
            told.append(sorted(line for line in lines if not line.startswith(b"Date: ")))
        first, repeated = told
        self.assertEqual(repeated, first)
        self.assertIn(b"Access-Control-Allow-Origin: https://a.example", first)


class ReceiptTests(WebTestCase):
    """
    What the answer to a publication says, and what a publisher may require.
    """

    def test_receipt(self):
        """
        The answer has the id of the message, and the number of subscribers for which the
        message was put in order.
        """
        _, first, _ = self.server.ask(post())
        # The test case itself subscribes to everything.
        self.assertEqual(first["Msgbus-Subscribers"], "1")
        peers = [self.subscribe(path)[0] for path in ("/msgbus/foo", "/msgbus/")]
        peers += [self.subscribe(f"/msgbus/foo?type={type}")[0] for type in ("a/b", "*")]
        _, second, _ = self.server.ask(post())
        self.assertEqual(second["Msgbus-Subscribers"], "4")
        self.assertNotEqual(first["Msgbus-Id"], second["Msgbus-Id"])
        self.assertEqual(second["Msgbus-Id"], self.published[-1].id)

    def test_required(self):
        """
        A publication with `?require=1` is refused with 409, and not kept, if nobody
        subscribes to its channel.
        """
        self.server.bus._subscriptions.by_name.clear()
        self.assert_refused(post("/msgbus/foo?require=1"), 409, "nobody")
        peer, _, _ = self.subscribe("/msgbus/foo?last=1")
        self.assertEqual(peer.received(), b"")
        code, headers, _ = self.server.ask(post("/msgbus/foo?require=1"))
        self.assertEqual((code, headers["Msgbus-Subscribers"]), (204, "1"))
        self.assertIn(b"hello", peer.received())
        self.assert_refused(post("/msgbus/foo?require=maybe"), 400, "require")

    def test_repeated(self):
        """
        A publication that is repeated with the same `Idempotency-Key` within ten minutes is
        published once, and answered as the first time; the same key with another body is
        refused with 422.
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
        later = self.server.bus.log.seconds() + 600
        self.server.bus.log.seconds = lambda: later
        self.assertEqual(self.server.ask(post(headers=headers))[0], 204)
        self.assertEqual(len(self.published), 3)

    def test_repeated_after_a_refusal(self):
        """
        The `Idempotency-Key` of a publication that was refused may be used again.
        """
        self.server.bus._subscriptions.by_name.clear()
        headers = "Content-Type: text/plain\nIdempotency-Key: k\n"
        for path, code in (("?require=1", 409), ("", 204), ("?require=1", 204)):
            request = post(f"/msgbus/foo{path}", headers=headers)
            self.assertEqual(self.server.ask(request)[0], code)

    def test_not_kept(self):
        """
        A message sent with `Cache-Control: no-store` is delivered, but not kept in the
        history.
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
    Publications that are refused.
    """

    def test_types(self):
        """
        A publication needs exactly one valid `Content-Type`.
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
        A path that is no valid name is refused, with one sentence that says what is wrong.
        """
        for name in ("%", "%zz", "%ff", "%00", "%0a", "a//b", "/", ".", "..", "%2e%2e/x"):
            self.assert_refused(post("/msgbus/" + name), 400, "(name|segment)")
        self.assert_refused(post("/msgbus/.js/msgbus.js"), 400, "begins with a dot")
        self.assert_refused(post("/msgbus" + "/a" * 8000), 400, "longer than 1024 bytes")
        self.assert_refused(post("/msgbus" + "/a" * 33), 400, "more than 32 segments")
        self.assert_refused(get("/msgbus/a//b"), 400, "empty segment")

    def test_boundary(self):
        """
        A body that contains the boundary of the bus is refused.
        """
        self.assert_refused(post(body=f"--{self.server.bus.boundary}"), 400, "boundary")

    def test_sender(self):
        """
        A sender with control characters or outer spaces, and a malformed `Authorization`,
        are refused.
        """
        for user in ("eve\nX-Evil: 1", "eve\r", " eve", "eve\t", "\x00"):
            headers = "Content-Type: a/b\n" + authorization(f"{user}:")
            self.assert_refused(post(headers=headers), 400, "sender")
        headers = "Content-Type: a/b\nAuthorization: Basic eve\n"
        self.assert_refused(post(headers=headers), 400, "not Basic")

    def test_transfer_encoding_1_0(self):
        """
        `Transfer-Encoding` in an HTTP/1.0 request is refused.
        """
        request = (
            "POST /msgbus/foo HTTP/1.0\nContent-Type: a/b\nTransfer-Encoding: chunked\n\n"
            "1\nx\n0\n\n"
        )
        self.assert_refused(request, 400, "no Transfer-Encoding")

    def test_truncated(self):
        """
        Nothing is published if the connection is lost in the middle of a body.
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
        A body with malformed chunks is answered with 400 and not published, and the
        connection is closed.
        """
        head = get(method="POST", headers="Content-Type: a/b\nTransfer-Encoding: chunked\n")
        for body in ("x\n", "-1\n", "3\nabcd\n0\n\n", "1\nx\n\n0\n\n", "0x1\nx\n0\n\n"):
            peer = self.server.connect()
            peer.send(head + body)
            self.assertTrue(peer.received().startswith(b"HTTP/1.1 400 "))
            self.server.clock.advance(2)
            self.assertTrue(peer.closed)
        self.assertEqual(self.published, [])

    def test_too_large_for_the_bus(self):
        """
        The bus refuses a message that is too large even if the site has let the request in.
        """
        self.server.site.max_body = 10_000_000
        self.server.bus.max_message = 4
        self.assert_refused(post(), 413, "at most 4 bytes")
