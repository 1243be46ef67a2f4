"""
Tests for `msgbus.web.heads`, and for what may be remembered in it.
"""

import random
import string
import tracemalloc
from functools import partial

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from msgbus.web import BusResource, Root, Site
from msgbus.web.auth import _Realm
from msgbus.web.heads import MAX_HEAD, MAX_SIZE, Head

from ..memory import ComeBefore, Server
from ..requests import authorization, get, post

# What the table costs at most beyond the bytes that it counts.
FACTOR = 1.5


def split(*lines):
    """
    `Head.split` of a request with these header lines.
    """
    return Head.split(b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""]))


class SplitTests(SynchronousTestCase):
    """
    Which values are cut out of a head.
    """

    def test_values(self):
        """
        The values of three headers are cut out, and heads that differ only in them have
        the same rest.
        """
        one = split(
            b"Content-Length: 5", b"A: b", b"Idempotency-Key: k", b"Last-Event-ID: 1-2"
        )
        two = split(
            b"Content-Length: 0", b"A: b", b"Idempotency-Key: l", b"Last-Event-ID: x"
        )
        self.assertEqual(one[1:], (b"5", b"k", b"1-2"))
        self.assertEqual(one.rest, two.rest)
        self.assertEqual(split(b"a: b")[1:], (b"", b"", b""))

    def test_spellings(self):
        """
        Heads with different spellings or orders of these headers have different rests, and
        so have those with one of them and without.
        """
        heads = [
            split(b"Content-Length: 5", b"A: b"),
            split(b"content-length: 5", b"A: b"),
            split(b"CONTENT-LENGTH: 5", b"A: b"),
            split(b"Content-Length:5", b"A: b"),
            split(b"A: b", b"Content-Length: 5"),
            split(b"Content-Length: 5", b"A: b", b"Content-Length: 5"),
            split(b"Content-Length: 5", b" 6", b"A: b"),
            split(b"A: b"),
        ]
        self.assertEqual(len({head.rest for head in heads}), len(heads))

    def test_not_plain(self):
        """
        A length with a sign, spaces, needless zeros or ten digits, or a key or id with
        anything that could have a meaning, is left to the parser.
        """
        lengths = (b"", b" 5", b"5 ", b"+5", b"-5", b"05", b"00", b"5,5", b"0x5", b"1" * 10)
        for value in (*lengths, b"\xd9\xa5"):
            self.assertIsNone(split(b"Content-Length: " + value), value)
        for value in (
            b"",
            b" k",
            b"k ",
            b'"k"',
            b"k,l",
            b"k;l",
            b"k\tl",
            b"\xe4",
            b"k" * 201,
        ):
            self.assertIsNone(split(b"Idempotency-Key: " + value), value)
            self.assertIsNone(split(b"Last-Event-ID: " + value), value)


def remembering():
    """
    A server that remembers heads when they come for the first time.
    """
    server = Server()
    server.site.heads._once = ComeBefore()
    return server


class RememberTests(SynchronousTestCase):
    """
    What is remembered, and until when.
    """

    def setUp(self):
        self.server = remembering()

    def remembered(self, *requests, server=None):
        """
        How many heads a server remembers after these requests.
        """
        server = server or self.server
        for request in requests:
            server.ask(request)
        return len(server.site.heads._meanings or ())

    def test_remembered(self):
        """
        Publications and subscriptions that are accepted are remembered, each head once,
        when it comes for the second time.
        """
        server = Server()
        self.assertEqual(self.remembered(post(), get(), server=server), 0)
        self.assertEqual(self.remembered(post(body="x"), get(), get(), server=server), 2)
        heads = server.site.heads
        self.assertGreater(heads.size, 0)
        heads.forget()
        self.assertEqual((heads.size, self.remembered(server=server)), (0, 0))

    def test_not_remembered(self):
        """
        Whatever else is asked for is not, nor what is refused, nor what has another body
        than its length tells.
        """
        plain = "Content-Type: a/b\n"
        chunked = "Transfer-Encoding: chunked\n"
        requests = (
            get(method="HEAD"),
            get(method="OPTIONS"),
            get("/msgbus/foo?format=message"),
            get("/msgbus/.bad"),
            get(host="Host: evil.example\n"),
            get(headers=chunked) + "0\n\n",
            post(headers=plain + chunked[:-1] + "\n"),
            post(headers=plain + "Expect: 100-continue\n"),
            post(headers=plain + "Origin: https://evil.example\n"),
            post(headers=plain + "Idempotency-Key: k\n l\n"),
            post(headers=plain + "Idempotency-Key: k\nidempotency-key: k\n"),
            post(headers=plain + "Content-Length: 05\n"),
            post(headers=plain + f"X: {'x' * MAX_HEAD}\n"),
            post(headers="Content-Type: nonsense\n"),
            post(headers=""),
        )
        for request in requests:
            self.assertEqual(self.remembered(request), 0, request)

    def test_judged_before_forgetting(self):
        """
        A publication that was judged before all was forgotten, and is answered after that,
        is not remembered.
        """
        owed = Deferred()
        self.server.bus.log.settle = lambda *rest: owed.addCallback(lambda _: rest[-1])
        peer = self.server.connect()
        peer.send(post())
        self.server.site.heads.forget()
        owed.callback(None)
        self.assertEqual(peer.answer()[0], 204)
        self.assertEqual(self.remembered(), 0)

    def test_changed(self):
        """
        Once all is forgotten, the next request is judged anew: on the connection that had
        the last one, too, and if half of it has come.
        """
        peer, half = self.server.connect(), self.server.connect()
        peer.send(post() * 2)
        half.send(post()[:-1])
        peer.received()
        self.server.root.putChild(b"msgbus", Resource())
        self.server.site.heads.forget()
        peer.send(post())
        half.send(post()[-1:])
        self.assertEqual(peer.answer()[0], 404)
        self.assertEqual(half.answer()[0], 404)

    def test_percent(self):
        """
        Percent signs in the headers of an answer are repeated as they are.
        """
        bus = BusResource(self.server.bus, self.server.clock, prefix="/a%20b/")
        self.server.root.putChild(b"a b", bus)
        first, second = (self.server.ask(get("/a%20b/c"))[1] for _ in range(2))
        self.assertEqual(first.pop("Date")[:3], second.pop("Date")[:3])
        self.assertEqual(first, second)
        self.assertEqual(second["Msgbus-Prefix"], "/a%20b/")
        self.assertEqual(self.remembered(), 1)

    def test_closed(self):
        """
        Nothing is remembered once the table is closed, as it is at a stop.
        """
        for stop in (lambda s: s.site.heads.close(), lambda s: s.site.drain()):
            server = remembering()
            self.assertEqual(self.remembered(post(), server=server), 1)
            stop(server)
            self.assertEqual(self.remembered(post(), get(), server=server), 0)
            self.assertEqual(server.site.heads.size, 0)
            server.site.heads.forget()
            self.assertEqual(self.remembered(post(), server=server), 0)

    def test_youngest(self):
        """
        A head that comes again and again stays in a table that is full.
        """
        for number in range(2500):
            self.server.ask(post(headers=f"Content-Type: a/b\nX: {number}\n"))
            self.server.ask(post())
        rests = [rest for _, rest in self.server.site.heads._meanings]
        self.assertFalse(any(b"X: 0\r\n" in rest for rest in rests))
        self.assertEqual(sum(b"X: " not in rest for rest in rests), 1)

    def test_stopped(self):
        """
        A bus that has stopped refuses requests that it has accepted before.
        """
        peer = self.server.connect()
        peer.send(post())
        peer.received()
        self.server.resource.close()
        for request in (post(), get()):
            peer.send(request)
            self.assertEqual(peer.answer()[0], 503)

    def test_others_have_a_say(self):
        """
        Nothing is remembered where a resource of another program, or a checker of
        credentials other than the password, could decide otherwise the next time.
        """

        class MyRoot(Root):
            pass

        class MyBus(BusResource):
            pass

        database = InMemoryUsernamePasswordDatabaseDontUse(u=b"p")
        above, below = Resource(), Root()
        above.putChild(b"below", below)
        roots = [
            ("/msgbus/foo", MyRoot(), BusResource),
            ("/msgbus/foo", Root(), MyBus),
            ("/msgbus/foo", Root(portal=Portal(_Realm(), [database])), BusResource),
            ("/msgbus/foo", Resource(), BusResource),
        ]
        headers = "Content-Type: a/b\n" + authorization("u:p")
        for path, root, kind in roots:
            root.putChild(b"msgbus", kind(self.server.bus, self.server.clock))
            self.server.site = Site(root, reactor=self.server.clock)
            self.assertEqual(self.server.ask(post(path, headers=headers))[0], 204)
            self.assertEqual(self.remembered(post(path, headers=headers)), 0)
        below.putChild(b"msgbus", BusResource(self.server.bus, self.server.clock))
        self.server.site = Site(above, reactor=self.server.clock)
        self.assertEqual(self.server.ask(post("/below/msgbus/foo"))[0], 204)
        self.assertEqual(self.remembered(), 0)
        wrapper = Resource()
        wrapper.putChild(b"bus", BusResource(self.server.bus, self.server.clock))
        root = Root()
        root.putChild(b"msgbus", wrapper)
        self.server.site = Site(root, reactor=self.server.clock)
        self.assertEqual(self.server.ask(post("/msgbus/bus/foo"))[0], 204)
        self.assertEqual(self.remembered(), 0)


class BoundTests(SynchronousTestCase):
    """
    The memory that remembered heads take.
    """

    def flood(self, request, count):
        """
        Send so many requests, made of their numbers; return how many bytes of memory are
        free once all is forgotten, and how many the table had counted.
        """
        server = remembering()
        heads = server.site.heads
        tracemalloc.start()
        try:
            for number in range(count):
                peer = server.connect()
                peer.send(request(number))
                peer.received()
                peer.leave(ConnectionDone())
            counted = heads.size
            before, _ = tracemalloc.get_traced_memory()
            heads.forget()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return before - after, counted

    def test_size(self):
        """
        The table counts at least two thirds of what each remembered head takes: a short or
        long one, or one with the longest fields, or one that was used with many types of
        messages.
        """

        def padded(size, number):
            return post(headers=f"Content-Type: a/b\nX: {number:0{size}}\n")

        def typed(number):
            return post(headers=f"Content-Type: a/b;{number}{'😀' * 240}\n")

        def named(number):
            return post(f"/msgbus/{number}/{'x' * 900}")

        def filtered(number):
            letters = random.Random(number).choices(string.ascii_letters, k=600)
            globs = ",".join(
                f"?*{''.join(letters[n : n + 20])}*" for n in range(0, 600, 20)
            )
            return get(f"/msgbus/a?type={globs}&sender={globs}")

        requests = (partial(padded, 1), partial(padded, 3900), typed, named, filtered)
        for request in requests:
            taken, counted = self.flood(request, 60)
            self.assertLess(taken, FACTOR * counted + 20_000, request)

    def test_used_with_many_types(self):
        """
        A remembered subscription holds nothing of the messages that were delivered by it.
        """
        server = remembering()
        tracemalloc.start()
        try:
            for number in range(20):
                path = f"/msgbus/{number}"
                peer = server.connect()
                peer.send(get(path))
                for kind in range(64):
                    headers = (
                        f"Content-Type: a/b;{number}-{kind}{'x' * 900}\n"
                        "Cache-Control: no-store\nTransfer-Encoding: chunked\n"
                    )
                    server.ask(get(path, headers, method="POST") + "0\n\n")
                peer.leave(ConnectionDone())
            self.assertEqual(len(server.site.heads._meanings), 20)
            before, _ = tracemalloc.get_traced_memory()
            server.site.heads.forget()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess(before - after, 200_000)

    def test_flood(self):
        """
        However many different heads come, the table stays within its size; those of 16 KB
        are not remembered at all.
        """
        server = remembering()
        heads = server.site.heads
        for size, count in ((16_000, 20), (3900, 1200), (1, 3500)):
            for number in range(count):
                headers = f"Content-Type: a/b\nX: {number:0{size}}\n"
                server.ask(post(headers=headers))
                self.assertLessEqual(heads.size, MAX_SIZE)
            if size == 16_000:
                self.assertEqual(heads.size, 0)
        self.assertGreater(heads.size, MAX_SIZE * 0.99)
        counted = heads.size
        heads.forget()
        self.assertGreater(counted, 0)
        self.assertEqual(heads.size, 0)
