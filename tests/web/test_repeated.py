"""
Tests that remembering heads changes nothing: the same bytes, cut and timed alike, are sent
to two servers, one of which remembers no heads, and everything that can be seen of the two
is compared.
"""

import random
import re
from contextlib import contextmanager
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.id_sequence import zero_id
from msgbus.web import heads as heads_module
from msgbus.web import publish, stream
from msgbus.web.heads import MAX_SIZE
from msgbus.web.origins import Origins

from ..memory import ComeBefore, Peer, Server
from ..requests import authorization

LIFE = 7
BOUNDARY = "msgbus" + "b" * 32
MAX_MESSAGE = 200
SECRET = b"secret"
SLOTS = 3
ADDRESSES = ("127.0.0.1", "192.0.2.7")

_DATE = re.compile(rb"(?<=\r\nDate: )[^\r]*")


class Wire(StringTransport):
    """
    A transport that, as a socket does, can be closed twice, and sends nothing once it is
    aborted.
    """

    def unregisterProducer(self):
        self.producer = None

    def write(self, data):
        if not self.disconnected:
            super().write(data)

    def writeSequence(self, data):
        self.write(b"".join(data))


class Connection(Peer):
    """
    A connection over such a transport.
    """

    def __init__(self, server, address):
        self.server = server
        self.transport = Wire(
            hostAddress=IPv4Address("TCP", address, 8888),
            peerAddress=IPv4Address("TCP", "192.0.2.1", 4711),
            lenient=True,
        )
        self.protocol = server.site.buildProtocol(None)
        self.protocol.makeConnection(self.transport)


class Watched:
    """
    A server that makes the same ids and has the same boundary as each other one, and of
    which all that can be seen is collected.

    Args:
        remembers: Whether it remembers heads.
        saves: Whether answers to publications are owed until `save`.
        at_once: Whether a head is remembered when it comes for the first time.
    """

    def __init__(self, remembers, saves=False, secret=None, at_once=True):
        origins = Origins(allowed=["https://app.example"], hosts=["bus.example"])
        self.server = Server(MAX_MESSAGE, origins, secret=secret, verbosity=2)
        bus = self.server.bus
        bus.log.seconds = self.server.clock.seconds
        bus.log._ids.life, bus.log._ids.last = LIFE, zero_id(LIFE)
        bus.log.boundary = BOUNDARY
        if saves:
            bus.log.settle = self._settle
        if not remembers:
            self.server.site.heads.close()
        elif at_once:
            self.server.site.heads._once = ComeBefore()
        self.published = []
        self.log = []
        self.slots = [None] * SLOTS
        self._unsaved = []
        # It does not count as a subscriber.
        bus.subscribe("", self._keep, count=lambda: 0)

    def _keep(self, message):
        self.published.append(
            (
                message.id,
                message.channel,
                message.body,
                message.content_type,
                message.sender,
            )
        )

    def _settle(self, id, keep, fingerprint, receipt):
        if not keep:
            return receipt
        self._unsaved.append(Deferred())
        return self._unsaved[-1].addCallback(lambda _: receipt)

    def do(self, event, *arguments):
        """
        Let something happen.
        """
        # How soon subscribers reconnect is left to chance.
        random.seed(0)
        globalLogPublisher.addObserver(self._observe)
        try:
            getattr(self, event)(*arguments)
            self.server.turn()
        finally:
            globalLogPublisher.removeObserver(self._observe)

    def _observe(self, event):
        # A failure has its traceback, in which line numbers differ.
        text = event["log_format"] or str(event["log_failure"].value)
        self.log.append((event["log_level"].name, text.format(**event)))

    def seen(self):
        """
        What can be seen of it, and when it will do something next.
        """
        connections = [slot and self._seen_of(slot) for slot in self.slots]
        bus, site = self.server.bus, self.server.site
        return {
            "connections": connections,
            "published": self.published,
            "log": self.log,
            "timers": sorted(c.getTime() for c in self.server.clock.getDelayedCalls()),
            "open": (len(site.channels), len(site.streams)),
            "subscriptions": {
                name: len(all) for name, all in bus._subscriptions.by_name.items()
            },
            "waiting": self.server.resource.mount.fanout.counters.waiting,
            "kept": [entry.id for entry in bus.history.entries("")],
        }

    def _seen_of(self, connection):
        transport = connection.transport
        return {
            "got": _DATE.sub(b"", transport.value()),
            "closed": (transport.disconnecting, transport.disconnected),
            "reads": transport.producerState,
            "paused": connection.protocol.paused,
            "seconds": connection.protocol.timeOut,
        }

    # What can happen.

    def connect(self, slot, address):
        self.lose(slot)
        self.slots[slot] = Connection(self.server, address)

    def lose(self, slot, reason=ConnectionDone):
        connection, self.slots[slot] = self.slots[slot], None
        if connection is not None:
            connection.leave(reason())

    def send(self, slot, data):
        """
        Send bytes, on a new connection if there is none.
        """
        connection = self.slots[slot]
        if connection is None:
            self.connect(slot, ADDRESSES[0])
        elif connection.transport.disconnected:
            self.lose(slot, ConnectionAborted)
            self.connect(slot, ADDRESSES[0])
        self.slots[slot].send(data)

    def renew(self, slot):
        """
        A new connection if the server has closed the old one.
        """
        connection = self.slots[slot]
        if connection is not None and connection.closed:
            self.connect(slot, ADDRESSES[0])

    def pause(self, slot):
        # A transport pauses whoever has registered with it.
        if (slot := self.slots[slot]) is not None and slot.transport.producer is not None:
            slot.transport.producer.pauseProducing()

    def resume(self, slot):
        if (slot := self.slots[slot]) is not None and slot.transport.producer is not None:
            slot.transport.producer.resumeProducing()

    def advance(self, seconds):
        self.server.clock.advance(seconds)

    def save(self, count):
        for _ in range(min(count, len(self._unsaved))):
            self._unsaved.pop(0).callback(None)

    def drain(self):
        self.server.site.drain()

    def stop_waiting(self):
        self.server.resource.stop_waiting()

    def close(self):
        # Once only, as at a stop.
        if not self.server.resource.mount.closed:
            self.server.resource.close()

    def forget(self):
        self.server.site.heads.forget()


class Hits:
    """
    Counts how many requests are answered by a remembered head.
    """

    def __init__(self):
        self.count = 0

    @contextmanager
    def counted(self):
        """
        Count from now on.
        """
        with (
            patch.object(
                publish.RepeatedPublication,
                "repeat",
                self._counting(publish.RepeatedPublication),
            ),
            patch.object(
                stream.RepeatedSubscription,
                "repeat",
                self._counting(stream.RepeatedSubscription),
            ),
        ):
            yield self

    def _counting(self, meaning):
        repeat = meaning.repeat

        def counting(*arguments):
            done = repeat(*arguments)
            self.count += done
            return done

        return counting


def check(events, **options):
    """
    Let the same happen to both servers, and see that they are the same after each event.
    """
    off, on = Watched(False, **options), Watched(True, **options)
    for number, event in enumerate(events):
        for watched in (off, on):
            watched.do(*event)
        expected, seen = off.seen(), on.seen()
        for what, value in expected.items():
            assert seen[what] == value, (number, event, what, seen[what], value)
    assert not [line for line in on.log if line[0] in ("error", "critical")], on.log
    return on


# Requests.


def mostly(usual, *others):
    """
    One of these; the usual one four times out of five.
    """
    return st.sampled_from([usual] * 4 * len(others) + list(others))


TARGETS = mostly(
    b"/msgbus/a",
    b"/msgbus/a/b",
    b"/msgbus/%61",
    b"/msgbus/",
    b"/msgbus/a?require=1",
    b"/msgbus/a/?x=%25s",
    b"http://localhost/msgbus/a",
    b"HTTP://bus.example/msgbus/a",
    b"http://evil.example/msgbus/a",
    b"/msgbus/.bad",
    b"/msgbus/a%",
    b"/msgbus",
    b"/nothing",
)
QUERIES = st.sampled_from(
    [
        b"",
        b"?format=event-stream",
        b"?format=ndjson",
        b"?format=multipart&envelope=1",
        b"?since=all",
        b"?since=10s",
        b"?since=0-7000000000001",
        b"?since=0-9000000000001",
        b"?last=2",
        b"?last=2&type=a/*",
        b"?type=a/*&sender=!u",
        b"?overflow=latest",
        b"?heartbeat=5",
        b"?format=message",
        b"?format=message&wait=5",
        b"?format=nonsense",
    ]
)
HOSTS = mostly(
    b"Host: localhost\r\n",
    b"host: bus.example\r\n",
    b"Host: evil.example\r\n",
    b"Host: localhost\r\nHost: localhost\r\n",
    b"",
)
LENGTHS = mostly(
    b"Content-Length: {length}\r\n",
    b"content-length: {length}\r\n",
    b"CONTENT-LENGTH: {length}\r\n",
    b"Content-Length:{length}\r\n",
    b"Content-Length:  {length} \r\n",
    b"Content-Length: 0{length}\r\n",
    b"Content-Length: 00000000000{length}\r\n",
    b"Content-Length: +{length}\r\n",
    b"Content-Length: {length}\r\n \r\n",
    b"Content-Length: {length}\r\n\t0\r\n",
    b"Content-Length:\r\n {length}\r\n",
    b"Content-Length: {length}\r\nContent-Length: {length}\r\n",
    b"Content-Length: {length}\r\ncontent-length: {length}\r\n",
    b"X-Content-Length: 5\r\nContent-Length: {length}\r\n",
    b"Content-Length: \r\n",
    b"Content-Length: 4294967299\r\n",
    b"Content-Length: " + b"9" * 40 + b"\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\nContent-Length: {length}\r\n",
    b"Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n",
    b"",
)
PLAIN_LENGTHS = (b"Content-Length: {length}\r\n", b"content-length: {length}\r\n")
TYPES = mostly(
    b"Content-Type: a/b\r\n",
    b"content-type: text/plain; charset=utf-8\r\n",
    b"Content-Type: text/plain;\r\n x=y\r\n",
    b"Content-Type: a/b\r\nContent-Type: c/d\r\n",
    b"Content-Type: \xc3\xa4/\xc3\xa4\r\n",
    b"Content-Type: nonsense\r\n",
    b"",
)
KEYS = mostly(
    b"",
    b"Idempotency-Key: {key}\r\n",
    b"Idempotency-Key: {key}\r\n",
    b"idempotency-key: {key}\r\n",
    b"IDEMPOTENCY-KEY: {key}\r\n",
    b"Idempotency-Key:{key}\r\n",
    b"Idempotency-Key: {key}\r\n more\r\n",
    b"Idempotency-Key: {key}\r\nIdempotency-Key: {key}\r\n",
    b"Idempotency-Key: {key}\r\nidempotency-key: {key}\r\n",
    b"Idempotency-Key: \r\n",
)
LAST_IDS = mostly(
    b"",
    b"Last-Event-ID: {last}\r\n",
    b"last-event-id: {last}\r\n",
    b"LAST-EVENT-ID: {last}\r\n",
    b"Last-Event-ID: {last}\r\n 1\r\n",
    b"Last-Event-ID: {last}\r\nlast-event-id: {last}\r\n",
    b"Last-Event-ID: \r\n",
)
OTHERS = st.lists(
    st.sampled_from(
        [
            b"Cache-Control: no-store\r\n",
            authorization("u:secret").replace("\n", "\r\n").encode(),
            authorization("v:wrong").replace("\n", "\r\n").encode(),
            b"Authorization: Basic nonsense\r\n",
            b"Expect: 100-continue\r\n",
            b"Connection: close\r\n",
            b"Connection: keep-alive\r\n",
            b"Origin: https://app.example\r\n",
            b"Origin: https://evil.example\r\n",
            b"Sec-Fetch-Site: cross-site\r\n",
            b"Accept: text/event-stream\r\n",
            b"X: y\r\n folded\r\n",
            b"X: %s\r\n",
            b"X: " + b"y" * 4096 + b"\r\n",
            b"No colon\r\n",
        ]
    ),
    max_size=2,
)
ACCEPTED_OTHERS = mostly(
    b"",
    b"Connection: close\r\n",
    b"Cache-Control: no-store\r\n",
    b"Origin: https://app.example\r\n",
    b"X: y\r\n folded\r\n",
    b"X: %s\r\n",
)
BODIES = st.sampled_from(
    [
        b"",
        b"x",
        b"hello",
        b"h" * MAX_MESSAGE,
        b"h" * (MAX_MESSAGE + 1),
        BOUNDARY.encode(),
        b"\r\n",
        b"POST /msgbus/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n"
        b"Content-Length: 1\r\n\r\nx",
    ]
)


@st.composite
def heads(draw):
    """
    A head, with places for the values that may differ.
    """
    publishes = draw(st.integers(0, 2)) > 0
    if publishes:
        line = draw(mostly(b"POST", b"PUT")) + b" " + draw(TARGETS)
        fields = [draw(part) for part in (HOSTS, LENGTHS, TYPES, KEYS)]
        fields.append(draw(mostly(b"", b"Last-Event-ID: {last}\r\n")))
    else:
        line = draw(mostly(b"GET", b"HEAD")) + b" "
        line += draw(mostly(b"/msgbus/a", b"/msgbus/", b"/msgbus/a%")) + draw(QUERIES)
        fields = [
            draw(HOSTS),
            draw(LAST_IDS),
            draw(
                mostly(
                    b"", b"Content-Length: {length}\r\n", b"Transfer-Encoding: chunked\r\n"
                )
            ),
        ]
    version = draw(mostly(b"1.1", b"1.0"))
    fields += draw(OTHERS)
    if draw(st.booleans()):
        fields = draw(st.permutations(fields))
    lead = draw(mostly(b"", b"\r\n", b"\r\n\r\n"))
    return lead + line + b" HTTP/" + version + b"\r\n" + b"".join(fields) + b"\r\n"


def accepted():
    """
    A head, with places for the values that may differ, that is likely to be remembered.
    """
    publication = st.tuples(
        st.sampled_from([b"POST", b"PUT"]),
        st.sampled_from([b"a", b"b", b"b?require=1"]),
        mostly(b"1.1", b"1.0"),
        mostly(b"Host: localhost\r\n", b"Host: bus.example\r\n"),
        mostly(*PLAIN_LENGTHS),
        mostly(b"Content-Type: a/b\r\n", b"content-type: c/d\r\n"),
        st.sampled_from([b"", b"Idempotency-Key: {key}\r\n"]),
        ACCEPTED_OTHERS,
    ).map(lambda parts: b"%b /msgbus/%b HTTP/%b\r\n%b%b%b%b%b\r\n" % parts)
    subscription = st.tuples(
        st.sampled_from([b"a", b"", b"a?format=event-stream", b"?since=all"]),
        mostly(b"1.1", b"1.0"),
        mostly(b"", *PLAIN_LENGTHS),
        st.sampled_from([b"", b"Last-Event-ID: {last}\r\n"]),
        ACCEPTED_OTHERS,
    ).map(lambda parts: b"GET /msgbus/%b HTTP/%b\r\nHost: localhost\r\n%b%b%b\r\n" % parts)
    return st.one_of(publication, publication, subscription)


@st.composite
def requests(draw, pool):
    """
    The bytes of a request with one of these heads.
    """
    head, body = draw(st.sampled_from(pool)), draw(BODIES)
    length = len(body) + draw(mostly(0, 0, 0, 1, -1))
    for name, value in (
        (b"{length}", b"%d" % max(0, length)),
        (
            b"{key}",
            draw(st.sampled_from([b"k1", b"k2", b"k=3", b'"k"', b"k 4", b"k" * 201])),
        ),
        (
            b"{last}",
            draw(
                st.sampled_from(
                    [
                        b"0-7000000000000",
                        b"0-7000000000001",
                        b"0-7000000000002",
                        b"1-9000000000001",
                        b"nonsense",
                        b"9" * 17 + b"-1",
                    ]
                )
            ),
        ),
    ):
        head = head.replace(name, value)
    if b"chunked" in head:
        return head + draw(
            mostly(
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n",
                b"zz\r\n",
            )
        )
    return head + body if b"ontent-" in head or b"CONTENT" in head else head


@st.composite
def happenings(draw):
    """
    What happens beside requests.
    """
    slot = draw(st.integers(0, SLOTS - 1))
    return draw(
        st.sampled_from(
            [
                ("advance", 0.5),
                ("advance", 5),
                ("advance", 59),
                ("advance", 61),
                ("pause", slot),
                ("pause", slot),
                ("resume", slot),
                ("resume", slot),
                ("lose", slot),
                ("connect", slot, ADDRESSES[0]),
                ("connect", slot, ADDRESSES[1]),
                ("save", 1),
                ("save", 1),
                ("save", 3),
                ("forget",),
                ("drain",),
                ("stop_waiting",),
                ("close",),
            ]
        )
    )


@st.composite
def scripts(draw):
    """
    A sequence of events: requests with few different heads, cut and pipelined, and whatever
    else happens before, between and after the pieces.
    """
    pool = draw(
        st.lists(st.one_of(accepted(), accepted(), heads()), min_size=1, max_size=3)
    )
    if password := draw(mostly(b"", b"u:secret", b"u:wrong")):
        line = authorization(password).replace("\n", "\r\n").encode()
        pool = [head[:-2] + line + b"\r\n" for head in pool]
    events = []
    # Most heads have come once before.
    for head in pool:
        for _ in range(draw(st.integers(0, 2))):
            events += [("connect", 0, ADDRESSES[0]), ("send", 0, draw(requests([head])))]
            events.append(("save", 1))
    for _ in range(draw(st.integers(1, 8))):
        slot = draw(st.integers(0, SLOTS - 1))
        events.append(("renew", slot))
        burst = b"".join(draw(st.lists(requests(pool), min_size=1, max_size=4)))
        cuts = sorted(draw(st.lists(st.integers(0, len(burst)), max_size=3)))
        for begin, end in zip([0, *cuts], [*cuts, len(burst)], strict=True):
            events.append(("send", slot, burst[begin:end]))
            if draw(st.integers(0, 4)) == 0:
                events.append(draw(happenings()))
        if draw(st.integers(0, 2)) == 0:
            events.append(draw(happenings()))
    return events


@settings(max_examples=200)
@given(
    scripts(),
    st.booleans(),
    mostly(None, SECRET),
    st.sampled_from([MAX_SIZE, 3000]),
    mostly(True, False),
)
def test_any(events, saves, secret, size, at_once):
    """
    Whatever is sent, and whatever happens meanwhile, a server that remembers heads gives
    the same answers, publishes the same messages, logs the same and closes the same
    connections as one that does not.
    """
    with patch.object(heads_module, "MAX_SIZE", size):
        check(events, saves=saves, secret=secret, at_once=at_once)


def render(head, body=b"", **values):
    """
    A request with this head, whose places are filled, and body.
    """
    for name, value in {"length": b"%d" % len(body), **values}.items():
        head = head.replace(b"{%b}" % name.encode(), value)
    return head + body


POST = (
    b"POST /msgbus/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n"
    b"Content-Length: {length}\r\n\r\n"
)
POST_B = POST.replace(b"/a HTTP", b"/b HTTP")
POST_ONCE = POST.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: {key}\r\n\r\n")
POST_LAST = POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
POST_10 = POST.replace(b"1.1", b"1.0")
GET = b"GET /msgbus/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
RESUME = GET.replace(b"\r\n\r\n", b"\r\nLast-Event-ID: {last}\r\n\r\n")


class RepeatedTests(SynchronousTestCase):
    """
    Fixed sequences of events.
    """

    def check(self, *events, hits=None, **options):
        """
        See that both servers do the same, and that so many requests were repeated.
        """
        with Hits().counted() as counter:
            watched = check(events, **options)
        if hits is not None:
            self.assertEqual(counter.count, hits)
        return watched

    def test_every_cut(self):
        """
        Hits and misses that are pipelined mean the same, wherever they are cut in two, and
        if each byte comes alone.
        """
        burst = b"".join(
            [
                render(POST, b"1"),
                b"OPTIONS /msgbus/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
                render(POST, b"\r\n\r\n"),
                render(POST_ONCE, b"3", key=b"k2"),
                render(POST_ONCE, b"4", key=b"k2"),
                render(POST),
                b"\r\n" + render(POST, b"5"),
                render(GET),
            ]
        )
        known = [
            ("send", 0, render(POST)),
            ("send", 0, render(POST_ONCE, b"2", key=b"k")),
            ("send", 1, GET),
        ]
        whole = [("send", 0, burst)]
        self.check(*known, *whole, hits=4)
        for cut in range(1, len(burst)):
            self.check(*known, ("send", 0, burst[:cut]), ("send", 0, burst[cut:]))
        pieces = [burst[n : n + 1] for n in range(len(burst))]
        self.check(*known, *[("send", 0, piece) for piece in pieces], hits=0)

    def test_slow_first(self):
        """
        A request is not refused because the one before it, whose end came with it, took
        long.
        """
        first = render(POST, b"1")
        watched = self.check(
            ("send", 0, render(POST)),
            ("send", 0, first[:1]),
            ("advance", 55),
            ("send", 0, first[1:2]),
            ("advance", 59),
            ("send", 0, first[2:] + render(POST)),
            ("advance", 0.5),
        )
        self.assertEqual(len(watched.published), 3)

    def test_stopped_anywhere(self):
        """
        However much of a repeated request has come when the server stops, it is answered,
        or its connection is closed, as if it were the first.
        """
        burst = render(POST, b"hello")
        stops = [("drain",), ("stop_waiting",), ("close",)]
        for cut in range(len(burst) + 1):
            for begun in ([], [("send", 1, render(POST))]):
                for paused in ([], [("pause", 1)]):
                    self.check(
                        ("send", 0, render(POST)),
                        *begun,
                        ("send", 1, burst[:cut]),
                        *paused,
                        *stops[cut % 3 :],
                        ("advance", 0.5),
                        ("resume", 1),
                        ("send", 1, burst[cut:]),
                        ("advance", 70),
                    )

    def test_idle(self):
        """
        A connection with half a repeated body times out, and a stop waits no longer for it,
        as for half a first one.
        """
        known, half = ("send", 0, render(POST)), ("send", 1, render(POST, b"hello")[:-2])
        self.check(known, half, ("advance", 59), half, ("advance", 59), ("advance", 2))
        self.check(
            known, half, ("advance", 61), ("drain",), ("advance", 2), ("advance", 61)
        )
        self.check(known, half, ("advance", 61), ("send", 1, b"lo" + render(POST)))
        self.check(known, half, ("pause", 1), ("send", 1, b"lo"), ("drain",), ("resume", 1))
        self.check(known, half, ("lose", 1), ("send", 1, render(POST)), hits=1)

    def test_parsed_behind_a_repeated_one(self):
        """
        A request that is parsed once the peer reads on, behind one that was repeated, is
        not remembered by the head of that one.
        """
        watched = self.check(
            ("send", 0, render(POST)),
            ("send", 0, render(POST)),
            ("pause", 0),
            ("send", 0, render(POST_B)),
            ("forget",),
            ("resume", 0),
            ("send", 1, render(POST)),
        )
        self.assertEqual(
            [message[1] for message in watched.published], ["a", "a", "b", "a"]
        )

    def test_chunked_subscription(self):
        """
        The body of a subscription that comes in chunks is read before it is answered, each
        time.
        """
        chunked = GET.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.check(
            ("send", 0, chunked + b"0\r\n\r\n"),
            ("send", 1, chunked + b"5\r\nhello\r\n"),
            ("send", 2, chunked + b"nonsense\r\n"),
            ("send", 1, b"0\r\n\r\n"),
        )

    def test_hosts(self):
        """
        A `Host` that is accepted at one address of the server is not at another, though the
        heads are the same.
        """
        evil = render(POST).replace(b"localhost", b"evil.example")
        for connections in ((ADDRESSES[1], ADDRESSES[0]), ADDRESSES):
            self.check(
                ("connect", 0, connections[0]),
                ("connect", 1, connections[1]),
                *[("send", slot, evil) for slot in (0, 1, 0, 1)],
            )

    def test_password(self):
        """
        A head with the right password is remembered, and lets in neither one with a wrong
        password nor one with none.
        """
        right, wrong = (
            POST.replace(b"\r\n\r\n", f"\r\n{authorization(c).strip()}\r\n\r\n".encode())
            for c in ("u:secret", "u:wrong")
        )
        sent = [("send", 0, render(head)) for head in (right, wrong, POST) * 3]
        watched = self.check(*sent, secret=SECRET, hits=2)
        self.assertEqual(len(watched.published), 3)

    def test_refused_later(self):
        """
        A request whose head was accepted before is refused for its body, its key, or the
        lack of a subscriber.
        """
        required = POST.replace(b"/a", b"/a?require=1")
        self.check(
            ("send", 0, render(POST)),
            ("send", 0, render(POST_ONCE, b"1", key=b"k")),
            *[("send", 0, render(POST, body)) for body in (BOUNDARY.encode(), b"x")],
            ("send", 0, render(POST_ONCE, b"2", key=b"k") + render(POST, b"x")),
            ("send", 1, GET),
            ("send", 0, render(required)),
            ("send", 0, render(required)),
            ("lose", 1),
            ("send", 0, render(required)),
            ("send", 0, render(POST, b"x" * (MAX_MESSAGE + 1)) + render(POST)),
            ("connect", 0, ADDRESSES[0]),
            # Refused before its body comes.
            ("send", 0, render(POST, length=b"201")),
            hits=3,
        )

    def test_options(self):
        """
        Each repetition has its own key, is kept or not as its head says, and the connection
        is closed if that says so.
        """
        transient = POST.replace(b"\r\n\r\n", b"\r\nCache-Control: no-store\r\n\r\n")
        for head in (POST, POST_ONCE, POST_LAST, POST_10, transient):
            events = []
            for key in (b"k", b"l", b"l"):
                first = (
                    "send",
                    0,
                    render(head, b"1", key=key) + render(head, b"1", key=b"m"),
                )
                events += [("renew", 0), first]
            for saves in (False, True):
                saved = [e for event in events for e in (event, ("save", 2), ("save", 2))]
                self.check(*saved, ("send", 1, GET + b"x"), saves=saves)
        since = GET.replace(b"/a", b"/a?since=all")
        self.check(
            ("send", 0, render(transient, b"1")),
            ("send", 0, render(transient, b"2")),
            ("send", 0, render(POST, b"3")),
            ("send", 1, since),
            ("send", 2, since),
            ("connect", 1, ADDRESSES[0]),
            ("close",),
            ("send", 1, since),
            hits=2,
        )

    def test_empty_lines(self):
        """
        One empty line before a request is ignored, and two are not, also if they come
        apart from it.
        """
        empty = ("send", 0, b"\r\n")
        known, again = ("send", 0, render(POST)), ("send", 0, render(POST, b"x"))
        self.check(known, empty, again, empty, again, again, hits=1)
        self.check(known, empty, empty, again)
        self.check(known, empty, again, ("send", 0, b"\r\n" + render(POST)), empty, empty)

    def test_busy(self):
        """
        Each repeated request, and each piece of one, puts the idle time-out off.
        """
        known, again = ("send", 0, render(POST)), ("send", 0, render(POST, b"hello"))
        late = ("advance", 59)
        self.check(known, late, again, late, again, late, ("advance", 2), hits=2)
        head, body = render(POST, b"hello").partition(b"hello")[:2]
        # All of it has to come within a minute.
        short = ("advance", 11)
        pieces = [e for n in range(5) for e in (short, ("send", 0, body[n : n + 1]))]
        self.check(known, late, ("send", 0, head), *pieces, late, again, hits=2)

    def test_resumed(self):
        """
        A subscriber that comes back is sent what it has missed; one that names an id of
        another bus, or none, is answered as one that comes for the first time.
        """
        ids = (b"0-7000000000001", b"0-7000000000002", b"0-9000000000001", b"nonsense")
        self.check(
            *[("send", 0, render(POST, b"%d" % n)) for n in range(3)],
            ("send", 1, render(RESUME, last=ids[0])),
            ("send", 0, render(POST, b"3")),
            *[
                event
                for last in ids
                for event in (
                    ("connect", 2, ADDRESSES[0]),
                    ("send", 2, render(RESUME, last=last)),
                )
            ],
            ("send", 0, render(POST, b"4")),
        )

    def test_owed(self):
        """
        Requests that are repeated while their answers wait for the disk are answered one by
        one, in order, and what is pipelined behind them is read then.
        """
        burst = b"".join(render(POST, b"%d" % n) for n in range(5))
        watched = self.check(
            ("send", 0, render(POST)),
            ("save", 1),
            ("send", 0, burst + render(GET)),
            ("send", 1, render(POST, b"other") + render(POST_B)[:-3]),
            ("save", 1),
            ("save", 1),
            ("send", 1, b"\n\r\n"),
            *[("save", 1)] * 3,
            ("send", 0, b"behind a stream"),
            ("save", 3),
            saves=True,
            hits=6,
        )
        self.assertEqual(len(watched.published), 8)

    def test_owed_at_the_stop(self):
        """
        An answer that is owed when the server stops says, once, that the connection is
        closed.
        """
        for head in (POST, POST_LAST, POST_10):
            watched = self.check(
                ("send", 0, render(head)),
                ("save", 1),
                ("send", 1, render(head) + render(head)),
                ("drain",),
                ("close",),
                ("save", 1),
                ("advance", 61),
                saves=True,
                hits=1,
            )
            answer = watched.slots[1].transport.value()
            self.assertEqual(answer.count(b"Connection: close\r\n"), 1, answer)

    def test_owed_to_nobody(self):
        """
        A client that goes while an answer is owed does not hinder others.
        """
        self.check(
            ("send", 0, render(POST)),
            ("save", 1),
            ("send", 1, render(POST, b"1")),
            ("send", 2, render(POST, b"2")),
            ("lose", 1),
            ("save", 3),
            ("send", 2, render(POST, b"3")),
            ("lose", 2),
            ("close",),
            ("save", 1),
            saves=True,
            hits=3,
        )

    def test_owed_while_paused(self):
        """
        An answer that is owed goes out though the peer does not read, and the next request
        is not read before it does.
        """
        self.check(
            ("send", 0, render(POST)),
            ("save", 1),
            ("send", 0, render(POST) + render(POST)),
            ("pause", 0),
            ("save", 1),
            ("send", 0, render(POST_B)),
            ("forget",),
            ("resume", 0),
            *[("save", 1)] * 3,
            ("send", 0, render(POST)),
            ("save", 1),
            saves=True,
        )

    def test_behind_a_subscription(self):
        """
        A request that is pipelined behind a subscription, with or without a body, is
        discarded, also when the stream has ended.
        """
        with_body = GET.replace(b"\r\n\r\n", b"\r\nContent-Length: {length}\r\n\r\n")
        watched = self.check(
            ("send", 0, render(with_body, b"x") + render(POST)),
            ("send", 1, render(with_body, b"x") + render(POST)),
            ("send", 2, GET + render(POST)),
            ("close",),
            hits=1,
        )
        self.assertEqual(watched.published, [])
        for connection in watched.slots:
            self.assertEqual(connection.transport.value().count(b"HTTP/1.1 "), 1)

    def test_full(self):
        """
        Once an answer has filled the transport, no other request is begun until the peer
        has read it.
        """
        watched = Watched(True)
        once = render(POST_ONCE, b"1", key=b"k")
        for request in (once, render(POST)):
            watched.do("send", 0, request)
        transport = watched.slots[0].transport
        with patch.object(
            transport, "write", lambda _: transport.producer.pauseProducing()
        ):
            watched.do("send", 0, once + render(POST, b"2"))
        self.assertEqual([message[2] for message in watched.published], [b"1", b""])
        watched.do("resume", 0)
        self.assertEqual([message[2] for message in watched.published], [b"1", b"", b"2"])
