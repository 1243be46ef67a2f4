"""
Tests for `msgbus.web.stream`.
"""

import json
import re
from email import message_from_bytes
from email.utils import formatdate

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from zope.interface import implementer

from msgbus.ids import format_id, parse_id
from msgbus.message import Message
from msgbus.web import Root
from msgbus.web.auth import _Realm

from ..memory import Server, parts, unchunked
from ..requests import authorization, get, post
from .test_rights import OTHER
from .testcase import SAFE, WebTestCase

# What is said in each format where history ends.
LIVE = {
    "multipart": b"Msgbus-Live: 1\r\n",
    "mixed": b"Msgbus-Live: 1\r\n",
    "event-stream": b'event: live\ndata: {"live": true}\n\n',
    "ndjson": b'{"live": true}\n',
}


@implementer(ICredentialsChecker)
class SlowChecker:
    """
    Lets everybody in, later.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self):
        self.asked = []

    def requestAvatarId(self, credentials):
        self.asked.append(Deferred())
        return self.asked[-1]


class SubscribeTests(WebTestCase):
    """
    Subscriptions to a multipart stream.
    """

    def test_gone_while_the_password_was_checked(self):
        """
        Nothing is left of a subscriber that goes while its password is checked.
        """
        checker = SlowChecker()
        root = Root(portal=Portal(_Realm(), [checker]))
        root.putChild(b"msgbus", self.server.resource)
        self.server.site.resource = root
        kinds = ("", "?last=1", "?format=message&wait=5")
        for kind in kinds:
            peer = self.server.connect()
            peer.send(get(f"/msgbus/foo{kind}", headers=authorization("a:b")))
            peer.leave(ConnectionLost())
        for asked in checker.asked:
            asked.callback("a")
        self.assertEqual(len(checker.asked), len(kinds))
        self.assertEqual(list(self.server.bus._subscriptions.by_name), [""])
        self.assertEqual(self.server.bus.history._readers, set())

    def test_ended_without_a_stop(self):
        """
        The connection of a stream is closed with it, since what its client has sent
        meanwhile was discarded.
        """
        peer, _, _ = self.subscribe()
        peer.send(post())
        self.server.resource.close()
        self.assertEqual(peer.received(), b"0\r\n\r\n")
        self.assertTrue(peer.closed)

    def test_told_when_to_come_back(self):
        """
        At a stop, a stream with heartbeats ends with the time after which its client is to
        come back: each client has another, and there is more time for more of them.
        """
        peers = []
        for query in ("?heartbeat=25", "?format=event-stream"):
            for _ in range(500):
                peers.append(self.server.connect())
                peers[-1].send(get(f"/msgbus/foo{query}"))
                peers[-1].received()
        self.server.resource.stop_waiting()
        self.server.resource.close()
        ends = [peer.received() for peer in peers]
        times = [float(b"".join(unchunked(end)).split()[1]) for end in ends]
        self.assertTrue(ends[0].startswith(b"13\r\nMsgbus-Retry: "), ends[0])
        self.assertTrue(ends[0].endswith(b"\r\n0\r\n\r\n"), ends[0])
        for told, unit in ((times[:500], 1), (times[500:], 1000)):
            # Of 0.5 to 1 second.
            self.assertGreaterEqual(min(told), 0.5 * unit)
            self.assertLess(min(told), 0.6 * unit)
            self.assertGreater(max(told), 0.9 * unit)
            self.assertLessEqual(max(told), unit)
        late = self.server.connect()
        late.send(get())
        status, headers, _ = late.answer()
        self.assertEqual(status, 503)
        self.assertEqual(headers["Retry-After"], "1")

    def test_live(self):
        """
        Where history ends, a stream says so once, in the way of its format, and messages
        follow; also if nothing was kept.
        """
        for form, live in LIVE.items():
            self.server.bus.publish(Message("foo", b"old", "text/plain"))
            for channel in "foo", "empty":
                path = f"/msgbus/{channel}?since=all&format={form}"
                peer, _, body = self.subscribe(path)
                self.server.bus.publish(Message(channel, b"new", "text/plain"))
                stream = b"".join(unchunked(body + peer.received()))
                before, told, behind = stream.partition(live)
                self.assertEqual(told, live, form)
                self.assertEqual(b"old" in before, channel == "foo")
                self.assertIn(b"new", behind)
                self.assertNotIn(b"ive", behind)
            self.setUp()

    def test_live_is_for_who_asks(self):
        """
        Who does not ask for history is not told where it ends; who asks for what comes from
        now on is, at once.
        """
        for query, told in (("", 0), ("&since=now", 1), ("&last=0", 1)):
            for _ in range(4):
                # The third request is not parsed.
                peer, _, body = self.subscribe("/msgbus/foo?format=ndjson" + query)
                stream = body + peer.received()
                self.assertEqual(unchunked(stream), [b'{"live": true}\n'] * told)

    def test_until_now(self):
        """
        With `?until=now`, a stream ends behind what is kept, in the way of its format, and
        with the last chunk.
        """
        self.server.bus.publish(Message("foo", b"old", "text/plain"))
        boundary = self.server.bus.boundary.encode()
        for form, live in LIVE.items():
            last = b"\r\n--%b--\r\n" % boundary if form in ("multipart", "mixed") else b""
            for channel in "foo", "empty":
                for _ in range(4):
                    path = f"/msgbus/{channel}?last=1&until=now&format={form}"
                    peer, _, body = self.subscribe(path)
                    stream = body + peer.received()
                    self.assertTrue(stream.endswith(b"\r\n0\r\n\r\n"), stream)
                    content = b"".join(unchunked(stream.removesuffix(b"0\r\n\r\n")))
                    self.assertTrue(content.endswith(live + last), content)
                    self.assertEqual(b"old" in content, channel == "foo")
                    self.assertTrue(peer.closed)
        self.assertEqual(self.server.resource.mount.subscribers, {})

    def test_until_now_of_a_part(self):
        """
        The last part of such a stream is one to readers of MIME, with nothing in it.
        """
        self.server.bus.publish(Message("foo", b"old", "text/plain"))
        peer = self.server.connect()
        peer.send(get("/msgbus/foo?last=1&until=now", version="1.0"))
        head, _, body = peer.received().partition(b"\r\n\r\n")
        kind = re.search(rb"Content-Type: [^\r]*", head)[0]
        read = message_from_bytes(kind + b"\r\n\r\n" + body)
        message, end = read.get_payload()
        self.assertEqual(message.get_payload(), "old")
        self.assertEqual((end.items(), end.get_payload()), ([("Msgbus-Live", "1")], ""))
        self.assertEqual(read.defects, [])
        self.assertTrue(peer.closed)

    def test_until_now_without_a_right(self):
        """
        Whoever may read nothing that is kept gets an empty stream.
        """
        self.server = Server(users={"alice": OTHER}, rules="alice subscribe * history=0\n")
        self.server.bus.publish(Message("foo", b"old", "text/plain"))
        peer = self.server.connect()
        path = "/msgbus/foo?since=all&until=now&format=ndjson"
        peer.send(get(path, authorization("alice:other")))
        _, _, body = peer.answer()
        self.assertEqual(unchunked(body), [b'{"live": true}\n', b""])

    def test_until_is_refused(self):
        """
        A stream that ends at another time, or that would be empty, is refused.
        """
        for query in (
            "until=now",
            "last=1&until=yesterday",
            "last=1&until=now&format=message",
        ):
            self.assert_refused(get(f"/msgbus/foo?{query}"), 400, "until")
        self.assert_refused(get("/msgbus/foo?interval=2s"), 400, "overflow=latest")

    def test_interval(self):
        """
        With `?interval=`, a stream has the newest messages every so many seconds.
        """
        path = "/msgbus/foo?format=ndjson&overflow=latest&interval=2s"
        peer, _, _ = self.subscribe(path)
        got = []
        for number in range(20):
            self.server.bus.publish(Message("foo", b"%d" % number, "text/plain"))
            got.append([json.loads(line)["body"] for line in unchunked(peer.received())])
            self.server.clock.advance(0.25)
        times = [number for number, bodies in enumerate(got) if bodies]
        self.assertEqual(times, [0, 8, 16])
        self.assertEqual([got[time] for time in times], [["0"], ["7"], ["15"]])

    def test_head(self):
        """
        A subscription is answered with exactly these headers, and at once with the first
        delimiter.
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
                "Incremental": "?1",
                "X-Accel-Buffering": "no",
                "Msgbus-Prefix": "/msgbus/",
                "Msgbus-Id": format_id(self.server.bus.newest),
                "Transfer-Encoding": "chunked",
            },
        )
        self.assertEqual(unchunked(body), [f"--{boundary}\r\n".encode()])

    def test_message(self):
        """
        On HTTP/1.1 a message is one chunk, which holds a part and the delimiter that closes
        it.
        """
        peer, _, _ = self.subscribe()
        _, answered, _ = self.server.ask(post())
        id = answered["Msgbus-Id"]
        self.assertEqual(
            unchunked(peer.received()),
            [
                b"Content-Type: text/plain\r\n"
                b"Content-Length: 5\r\n"
                b"Content-Location: /msgbus/foo\r\n"
                b"Date: %s\r\n"
                b"Msgbus-Id: %s\r\n"
                b"\r\n"
                b"hello\r\n"
                b"--%s\r\n"
                % (
                    formatdate(parse_id(id)[0] // 1000, usegmt=True).encode(),
                    id.encode(),
                    self.server.bus.boundary.encode(),
                )
            ],
        )

    def test_http_1_0(self):
        """
        An HTTP/1.0 client gets the same bytes, without chunks.
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
        A client that asks for multipart/mixed, by `Accept` or `?format=`, gets the same
        parts under that type.
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
        A subscriber gets only messages that match the filters of its query.
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
        A bad value of a known parameter is refused with 400, and subscribes to nothing.
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
        self.assertEqual(list(self.server.bus._subscriptions.by_name), [""])

    def test_head_method(self):
        """
        HEAD is answered with the headers alone and subscribes to nothing, and the
        connection can be used again.
        """
        peer = self.server.connect()
        for _ in range(2):
            peer.send(get(method="HEAD"))
            code, headers, body = peer.answer()
            self.assertEqual((code, body), (200, b""))
            self.assertIn("boundary", headers["Content-Type"])
            self.assertNotIn("Transfer-Encoding", headers)
        self.assertEqual(list(self.server.bus._subscriptions.by_name), [""])

    def test_unsubscribed(self):
        """
        A subscriber that closes its connection or loses it is unsubscribed.
        """
        for reason in (ConnectionDone(), ConnectionLost()):
            peer, _, _ = self.subscribe()
            self.server.ask(post())
            peer.leave(reason)
            self.assertEqual(list(self.server.bus._subscriptions.by_name), [""])
            self.server.turn()

    def test_backpressure(self):
        """
        Messages wait while the transport of their subscriber is full, and are sent when it
        has room.
        """
        peer, _, _ = self.subscribe()
        peer.transport.producer.pauseProducing()
        self.server.ask(post())
        self.assertEqual(peer.received(), b"")
        peer.transport.producer.resumeProducing()
        self.assertIn(b"hello", peer.received())

    def test_overflow(self):
        """
        With `?overflow=latest`, a subscriber that was slow gets the newest message, and is
        told how many it missed.
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
        With `?heartbeat=25`, a silent stream has a heartbeat every 25 seconds.
        """
        peer, _, _ = self.subscribe("/msgbus/foo?heartbeat=25")
        self.server.clock.pump([1] * 51)
        chunk = b"15\r\nMsgbus-Heartbeat: 1\r\n\r\n"
        self.assertEqual(peer.received(), chunk * 2)

    def test_replay(self):
        """
        `?since=`, `?last=` and `Last-Event-ID` begin a stream with kept messages, each once
        and in order, before those that are published from then on.
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

    def test_last_of_each(self):
        """
        `?last-of-each=1` on a folder begins a stream with the newest message of each
        channel below it, in each format; one who comes back gets what came since.
        """
        ids = [
            self.server.ask(post(f"/msgbus/s/{name}", body=f"{n}"))[1]["Msgbus-Id"]
            for n, name in enumerate("abacb")
        ]
        for form in ("multipart", "mixed", "event-stream", "ndjson"):
            for headers, expected in (
                ("", b"234"),
                (f"Last-Event-ID: {ids[1]}\n", b"234"),
                (f"Last-Event-ID: {ids[0]}\n", b"1234"),
            ):
                path = f"/msgbus/s/?last-of-each=1&format={form}"
                peer, head, got = self.subscribe(path, headers, "1.0")
                # Who is cut off before the first message has to ask for all again.
                self.assertEqual("Msgbus-Id" in head, bool(headers))
                self.server.turn()
                got += peer.received()
                bodies = re.findall(rb'(?m)^(?:data: |.*"body": ?")?(\d)(?:"|\r?$)', got)
                self.assertEqual(b"".join(bodies), expected, (form, headers, got))
        peer, _, got = self.subscribe("/msgbus/?last-of-each=1&channel=s/a", version="1.0")
        (part,) = parts(got + peer.received(), self.server.bus.boundary)
        self.assertEqual(part.body, b"2")

    def test_last_of_each_refused(self):
        """
        On a channel, and together with another beginning, it is refused.
        """
        for path, sentence in (
            ("a?last-of-each=1", "give last=1"),
            ("?last-of-each=0", "last-of-each '0' is not one of: 1"),
            ("?last-of-each=1&last=2", "begins at one point"),
            ("?last-of-each=1&format=message", "leave out last-of-each"),
        ):
            self.published.clear()
            self.assert_refused(get(f"/msgbus/{path}"), 400, sentence)

    def test_begins(self):
        """
        The `Msgbus-Id` of the answer is an id to resume behind, so that a client that is
        cut off before its first message misses nothing.
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
        A client that resumes behind an id of another bus is told of a gap and gets all that
        is kept; what is no id is refused.
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
        What a subscriber sends is read and discarded, because otherwise its leaving would
        go unnoticed; past 16 KiB its connection is closed.
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
        A request that is pipelined behind a subscription is discarded like other bytes.
        """
        peer, _, _ = self.subscribe()
        peer.send(post())
        self.assertEqual((peer.received(), self.published), (b"", []))


class FormatTests(WebTestCase):
    """
    Subscriptions in the other formats.
    """

    def test_forms(self):
        """
        A format can be asked for by `Accept`, and by its name or its media type in
        `?format=`.
        """
        for name, media, begin in (
            ("event-stream", "text/event-stream", b"retry: "),
            ("ndjson", "application/x-ndjson", b""),
        ):
            for headers, path in (
                (f"Accept: {media}\n", "/msgbus/foo"),
                ("", f"/msgbus/foo?format={name}"),
                ("Accept: text/html\n", f"/msgbus/foo?format={media}"),
            ):
                peer, head, body = self.subscribe(path, headers, version="1.0")
                self.assertEqual(head["Content-Type"], media)
                self.assertEqual(head["Cache-Control"], "no-store")
                self.assertTrue(body.startswith(begin), body)
                self.server.bus.publish(Message("foo", b"hello", "text/plain"))
                self.assertIn(b"hello", peer.received())

    def test_resumes(self):
        """
        An event stream goes on behind its `Last-Event-ID`, which may be that of the event
        with which every stream begins.
        """
        peer, head, body = self.subscribe(headers="Accept: text/event-stream\n")
        self.assertIn(f"id: {head['Msgbus-Id']}\n".encode(), body)
        peer.leave(ConnectionDone())
        self.server.bus.publish(Message("foo", b"missed", "text/plain"))
        headers = f"Accept: text/event-stream\nLast-Event-ID: {head['Msgbus-Id']}\n"
        peer, _, body = self.subscribe(headers=headers)
        self.assertIn(b"data: missed\n", body + peer.received())

    def test_unknown(self):
        """
        An unknown format is refused with a list of those that exist.
        """
        code, _, body = self.server.ask(get("/msgbus/foo?format=xml"))
        self.assertEqual(code, 400)
        for name in ("multipart", "mixed", "event-stream", "ndjson", "message"):
            self.assertIn(f" {name},", body.decode())

    def test_heads(self):
        """
        HEAD is answered, in every format, with the id behind which a stream would begin.
        """
        self.server.bus.publish(Message("foo", b"x"))
        for name in ("multipart", "event-stream", "ndjson"):
            _, headers, _ = self.server.ask(
                get(f"/msgbus/foo?format={name}", method="HEAD")
            )
            self.assertEqual(headers["Msgbus-Id"], self.published[0].id)

    def test_heartbeats(self):
        """
        An event stream has heartbeats by default; lines of JSON have them only if the
        client asks.
        """
        self.server = Server()
        events, *_ = self.subscribe("/msgbus/foo?format=event-stream")
        lines, *_ = self.subscribe("/msgbus/foo?format=ndjson")
        asked, *_ = self.subscribe("/msgbus/foo?format=ndjson&heartbeat=5")
        for _ in range(26):
            self.server.clock.advance(1)
        self.assertEqual(events.received(), b"2\r\n:\n\r\n")
        self.assertEqual(lines.received(), b"")
        self.assertEqual(asked.received(), b"1\r\n\n\r\n" * 5)
