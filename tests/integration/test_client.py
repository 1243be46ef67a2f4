"""
`msgbus.client` and `msgbus.blocking` against real buses, and against servers that are no
bus.
"""

import contextlib
import re
import signal
import ssl
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher

from msgbus import blocking
from msgbus.client.client import Client, Closed
from msgbus.client.errors import Refused, Unreachable, Untrusted
from msgbus.client.notices import Live, Lost, Subscribed
from msgbus.formats.multipart import Malformed
from msgbus.ids import Gap
from msgbus.message import Invalid, Message

from .certificates import Authority
from .ports import free_port

NOBODY = "http://localhost:9/msgbus/"
OK = b"HTTP/1.1 204 No Content\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed;boundary=B\r\n\r\n--B\r\n"
ONE = b"Content-Type: a/b\r\nContent-Length: 1\r\nMsgbus-Id: 1-1\r\n\r\nx\r\n--B\r\n"


class Twisted:
    """
    A client by Twisted that keeps what it gets.
    """

    def __init__(self, url, **options):
        options = {"timeout": 10, "patience": 60, **options}
        self.client = Client(reactor, url, **options)
        self.messages = []
        self.notices = []
        self.subscription = None

    def subscribe(self, name="foo", **options):
        """
        Subscribe, and keep messages and notices, and the error that ends it.
        """
        self.subscription = self.client.subscribe(
            name, self.messages.append, notify=self.notices.append, **options
        )
        self.subscription.done.addErrback(self.notices.append)

    def publish(self, body, channel="foo", content_type="text/plain"):
        """
        Publish one message.
        """
        return self.client.publish(channel, body, content_type)

    def forget(self, channel="foo"):
        """
        Have a channel forgotten.
        """
        return self.client.forget(channel)

    async def until(self, count):
        """
        Wait for so many messages.
        """
        await until(lambda: len(self.messages) >= count)

    async def told(self, kind, count=1):
        """
        Wait for so many notices of this kind.
        """
        await until(lambda: sum(isinstance(n, kind) for n in self.notices) >= count)

    async def ended(self):
        """
        Wait until the subscription has ended by itself.
        """
        await until(lambda: self.subscription.done.called)

    async def close(self):
        """
        Close the client.
        """
        await self.client.close()


class Blocking:
    """
    The same by `msgbus.blocking`, in threads of its own.
    """

    def __init__(self, url, **options):
        options = {"timeout": 10, **options}
        self._url = url
        self.messages = []
        self.notices = []
        self._stream = None
        self._publishers = {}
        self._patience = options.pop("patience", 60)
        self._options = options
        self._thread = None
        self._closed = False

    def subscribe(self, name="foo", **options):
        """
        Subscribe, and keep messages and notices, and the error that ends it.
        """
        self._stream = blocking.subscribe(
            f"{self._url}{quote(name)}",
            notify=self.notices.append,
            **self._options,
            **options,
        )
        # Nobody waits for it: a daemon may stay in a read.
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            for message in self._stream:
                if self._closed:
                    return
                self.messages.append(message)
        except Exception as error:
            self.notices.append(error)

    async def publish(self, body, channel="foo", content_type="text/plain"):
        """
        Publish one message.
        """
        if channel not in self._publishers:
            self._publishers[channel] = blocking.Publisher(
                f"{self._url}{quote(channel)}", patience=self._patience, **self._options
            )
        return await deferToThread(self._publishers[channel].publish, body, content_type)

    async def forget(self, channel="foo"):
        """
        Have a channel forgotten.
        """
        url = f"{self._url}{quote(channel)}"
        await deferToThread(blocking.forget, url, patience=self._patience, **self._options)

    until = Twisted.until
    told = Twisted.told

    async def ended(self):
        """
        Wait until the subscription has ended by itself.
        """
        await until(lambda: not self._thread.is_alive())

    async def close(self):
        """
        Close all publishers, and keep no more messages.
        """
        self._closed = True
        for publisher in self._publishers.values():
            publisher.close()


async def until(happens):
    """
    Wait until this function returns something true.
    """
    for _ in range(1500):
        if happens():
            return
        await deferLater(reactor, 0.02)
    raise AssertionError("It did not happen in 30 s.")


def value_of(notice):
    """
    A notice, or the error in a `Failure` that stands in its place.
    """
    return getattr(notice, "value", notice)


def with_both(test):
    """
    Run a test with each of the clients.
    """
    both = pytest.mark.parametrize("connect", [Twisted, Blocking])
    return both(pytest_twisted.ensureDeferred(test))


@with_both
async def test_both_ways(connect, bus):
    """
    Messages arrive unchanged, whatever their type, bytes and sender, in the order of the
    calls, each with the id that its publisher was told.
    """
    peer = connect(bus.url, user="älice")
    peer.subscribe()
    await peer.told(Subscribed)
    # The largest last: what comes behind it might exceed the backlog.
    bodies = [b"", bytes(range(256)), *(b"%d" % n for n in range(50)), b"x" * (1 << 20)]
    receipts = [await peer.publish(body, content_type="a/b;c=ä") for body in bodies]
    await peer.until(len(bodies))
    assert peer.messages == [Message("foo", body, "a/b;c=ä", "älice") for body in bodies]
    assert [message.id for message in peer.messages] == [r.id for r in receipts]
    assert {receipt.subscribers for receipt in receipts} == {1}
    assert peer.notices == [Subscribed(again=False)]
    await peer.close()


@with_both
async def test_filters(connect, bus):
    """
    Folders, filters and history are asked for as they are given.
    """
    peer = connect(bus.url)
    for channel, content_type in (
        ("a/b c", "text/plain"),
        ("a/d", "text/plain"),
        ("a/b c", "image/svg+xml"),
        ("a/b%", "text/plain"),
    ):
        await peer.publish(b"1", channel, content_type)
    peer.subscribe("a/", type="text/*,image/svg+xml", channel="a/b*", since="all")
    await peer.until(3)
    assert [(m.channel, m.content_type) for m in peer.messages] == [
        ("a/b c", "text/plain"),
        ("a/b c", "image/svg+xml"),
        ("a/b%", "text/plain"),
    ]
    await peer.close()


@with_both
async def test_live(connect, bus):
    """
    Where history ends is told, behind the messages that were kept.
    """
    peer = connect(bus.url)
    for body in b"1", b"2":
        await peer.publish(body)
    peer.subscribe(since="all")
    await peer.told(Live)
    assert [message.body for message in peer.messages] == [b"1", b"2"]
    await peer.publish(b"3")
    await peer.until(3)
    assert peer.notices == [Subscribed(again=False), Live()]
    await peer.close()


@with_both
async def test_forget(connect, bus):
    """
    A subscription may begin with the newest message of each channel; what was forgotten is
    not among them, and a folder cannot be forgotten.
    """
    peer = connect(bus.url)
    for n, channel in enumerate(("a/b c", "a/d", "a/b c", "a/e")):
        await peer.publish(b"%d" % n, channel)
    assert await peer.forget("a/d") is None
    assert await peer.forget("a/d") is None
    peer.subscribe("a/", last_of_each=True)
    await peer.until(2)
    await peer.publish(b"4", "a/b c")
    await peer.until(3)
    assert [message.body for message in peer.messages] == [b"2", b"3", b"4"]
    with pytest.raises(Refused, match="name one"):
        await peer.forget("a/")
    peer.subscribe("a/d", last_of_each=True)
    await until(lambda: any("give last=1" in str(notice) for notice in peer.notices))
    await peer.close()


@with_both
async def test_until_now(connect, bus):
    """
    A subscription can end where history does, and has all that was kept then.
    """
    peer = connect(bus.url)
    for number in range(100):
        await peer.publish(b"%d" % number + bytes(20_000))
    for wanted, count in (({"since": "1h"}, 100), ({"last": 3, "type": "text/*"}, 3)):
        peer.messages.clear()
        peer.notices.clear()
        peer.subscribe(until="now", **wanted)
        await peer.ended()
        numbers = [int(message.body.rstrip(b"\0")) for message in peer.messages]
        assert numbers == list(range(100 - count, 100))
        assert peer.notices == [Subscribed(again=False), Live()]
    peer.messages.clear()
    peer.subscribe("empty", since="all", until="now")
    await peer.ended()
    assert peer.messages == []
    await peer.close()


@with_both
async def test_until_now_refused(connect, bus):
    """
    What the bus refuses, it refuses at once.
    """
    for wanted in ({"until": "now"}, {"last": 1, "until": "today"}, {"interval": "2s"}):
        peer = connect(bus.url)
        peer.subscribe(**wanted)
        await peer.ended()
        assert value_of(peer.notices[-1]).status == 400
        await peer.close()


@with_both
async def test_until_now_cut(connect, scripted):
    """
    A stream that was cut before it came to the end of history is asked for again, and a
    server that has come to it may keep the connection.
    """
    two = ONE.replace(b"1-1", b"1-2")
    live = b"Msgbus-Live: 1\r\n"
    server = scripted(STREAM + ONE, STREAM + two + live, hold=False)
    peer = connect(server.url)
    peer.subscribe(since="all", until="now")
    await peer.ended()
    assert [message.id for message in peer.messages] == ["1-1", "1-2"]
    assert len(server.requests) == 2
    assert b"GET /msgbus/foo?since=all&until=now&" in server.requests[1]
    assert b"last-event-id: 1-1" in server.requests[1].lower()
    assert isinstance(peer.notices[1], Lost)
    assert peer.notices[-1] == Live()
    await peer.close()


@with_both
async def test_interval(connect, bus):
    """
    With an interval, a subscription gets the newest messages, and no gaps.
    """
    peer = connect(bus.url)
    peer.subscribe(overflow="latest", interval="1500ms")
    await peer.told(Subscribed)
    await peer.publish(b"0")
    await peer.until(1)
    for number in range(1, 20):
        await peer.publish(b"%d" % number)
    await until(lambda: peer.messages[-1].body == b"19")
    # Publications took their time, but no second for each.
    assert len(peer.messages) < 15
    assert peer.notices == [Subscribed(again=False)]
    await peer.close()


@with_both
async def test_forget_while_away(connect, start, tmp_path):
    """
    What is to be forgotten while the bus is away is forgotten once it is there again, for
    one who has patience.
    """
    listen = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    options = (*listen, "--history-file", tmp_path / "history.db")
    bus = start(*options)
    peer = connect(bus.url)
    await peer.publish(b"1")
    bus.kill()
    with pytest.raises(Unreachable):
        await connect(bus.url, patience=0).forget()
    forgotten = ensureDeferred(peer.forget())
    start(*options)
    await forgotten
    assert await deferToThread(lambda: [*blocking.channels(bus.url)]) == []
    await peer.close()


@with_both
async def test_killed(connect, start, tmp_path):
    """
    When a bus with a history file is killed and started again, no message is lost: neither
    one that is being published, nor one that a subscriber has not got yet, even if it has
    got none so far.  Only a message that was on its way may come twice.
    """
    # The publisher may be back before the subscriber.
    kept = ("--history-file", "history", "--history", "1000")
    bus = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1", *kept)
    daemon = start(*bus)
    peer, early = connect(daemon.url), connect(daemon.url)
    peer.subscribe()
    early.subscribe("bar")
    await peer.told(Subscribed)
    await early.told(Subscribed)

    def back(who, count):
        return ensureDeferred(who.told(Subscribed, count))

    for n in range(300):
        if n == 200:
            await gatherResults([back(peer, 2), back(early, 2)])
        published = ensureDeferred(peer.publish(b"%d" % n))
        if n in (100, 200):
            daemon.kill()
            await deferLater(reactor, 0.2)
            # In a thread, because this one has to try again meanwhile.
            daemon = await deferToThread(start, *bus)
        await published
    await gatherResults([back(peer, 3), back(early, 3)])
    await peer.publish(b"1", "bar")
    await peer.until(300)
    await early.until(1)
    bodies = [int(message.body) for message in peer.messages]
    # What was on its way when the bus was killed may have been delivered, but not written.
    for n in (100, 200):
        if bodies.count(n) == 2:
            bodies.remove(n)
    assert bodies == list(range(300))
    for notices in (peer.notices, early.notices):
        kinds = [type(notice) for notice in notices]
        assert kinds.count(Subscribed) == 3
        assert kinds.count(Lost) >= 2
        assert Gap not in kinds
    await peer.close()
    await early.close()


@with_both
async def test_killed_without_file(connect, start):
    """
    When a bus without a history file is killed and started again, the subscriber is told
    that messages may be missing.
    """
    bus = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    daemon = start(*bus)
    peer = connect(daemon.url)
    peer.subscribe()
    await peer.told(Subscribed)
    daemon.kill()
    start(*bus)
    await peer.publish(b"1")
    await peer.until(1)
    assert Gap(None) in peer.notices
    await peer.close()


@with_both
async def test_stopped(connect, start):
    """
    A publisher gives up a server that does not answer.  A subscriber notices that by the
    missing heartbeats, and comes back when the server does.
    """
    bus = start("-v")
    peer = connect(bus.url, timeout=3, patience=1)
    peer.subscribe(heartbeat=5)
    await peer.told(Subscribed)
    bus.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(Unreachable, match=r"no answer|silent for 3 seconds"):
            await peer.publish(b"1")
        await peer.told(Lost)
        assert "silent for 10 seconds" in peer.notices[1].reason
    finally:
        bus.process.send_signal(signal.SIGCONT)
    await peer.told(Subscribed, 2)
    await peer.publish(b"2")
    # The first was sent, only not answered.
    await until(lambda: peer.messages and peer.messages[-1].body == b"2")
    await peer.close()


@with_both
async def test_refused(connect, start, tmp_path):
    """
    A request that would be refused again is sent once: with a wrong password, with a
    message that is too large, and to a server that is no bus.
    """
    (tmp_path / "secret").write_text("geheim")
    bus = start("--secret-file", "secret")
    wrong = bus.url.replace("//", "//alice:falsch@")
    right = connect(bus.url, user="alice", password="geheim")
    await right.publish(b"1")
    for peer, name, body, status in (
        (connect(wrong), "foo", b"1", 401),
        (
            connect(bus.url.replace("msgbus/", "nothing/"), password="geheim"),
            "foo",
            b"1",
            404,
        ),
        (right, "foo", b"x" * ((1 << 20) + 1), 413),
    ):
        with pytest.raises(Refused) as refusal:
            await peer.publish(body, name)
        assert refusal.value.status == status
        assert "falsch" not in str(refusal.value)
        if status == 413:
            continue
        peer.subscribe(name)
        await until(lambda: peer.notices)  # noqa: B023  # at once
        told = value_of(peer.notices[0])
        assert isinstance(told, Refused)
        assert told.status == status
    # What was refused costs its publisher nothing else.
    await right.publish(b"2")
    await right.close()


@with_both
async def test_no_bus(connect, scripted):
    """
    A server that is no bus leads to another error than one that cannot be reached.
    """
    for answer, error, sentence in (
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>", Refused, "no bus"),
        (b"HTTP/1.1 301 x\r\nLocation: /\x1b[31m\r\n\r\n", Refused, r"It is at /.\[31m"),
        (b"SSH-2.0-OpenSSH\r\n", Unreachable, "."),
        (b"", Unreachable, "."),
        (b"HTTP/1.1 500 Oops\r\n\r\n", Unreachable, "500"),
    ):
        peer = connect(scripted(answer).url, patience=0)
        with pytest.raises(error, match=sentence):
            await peer.publish(b"1")
        peer.subscribe()
        await until(lambda: peer.notices)  # noqa: B023  # at once
        told = value_of(peer.notices[0])
        assert isinstance(told, Lost if error is Unreachable else error)
        assert re.search(sentence, str(told))
        assert "\x1b" not in str(told)
        if peer.__class__ is Twisted:
            peer.subscription.cancel()
        await peer.close()


@with_both
async def test_garbage(connect, scripted):
    """
    A malformed stream ends the subscription, after the messages before the error.
    """
    peer = connect(scripted(STREAM + ONE + b"no header\r\n\r\n", hold=True).url)
    peer.subscribe()
    await until(lambda: len(peer.notices) > 1)
    told = value_of(peer.notices[1])
    assert isinstance(told, Malformed)
    assert [message.body for message in peer.messages] == [b"x"]
    await peer.close()


@with_both
async def test_repeated(connect, scripted):
    """
    A publication that fails for now is sent again with the same key.  A stream that is lost
    is asked for again, from behind the last message.
    """
    server = scripted(
        b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 x\r\nContent-Length: 0\r\n\r\n",
        b"",
        OK,
    )
    peer = connect(server.url)
    receipt = await peer.publish(b"1")
    assert receipt.subscribers == -1
    keys = {re.search(rb"Idempotency-Key: (\w+)", r)[1] for r in server.requests}
    assert len(server.requests) == 4
    assert len(keys) == 1

    server = scripted(STREAM + ONE, STREAM, hold=False)
    await peer.close()
    peer = connect(server.url)
    peer.subscribe()
    await peer.told(Lost, 3)
    assert b"last-event-id" not in server.requests[0].lower()
    # Also behind an answer that tells of no id, and brings no message.
    for request in server.requests[1:3]:
        assert b"last-event-id: 1-1\r\n" in request.lower()
    await peer.close()


@with_both
async def test_cut_head(connect, scripted):
    """
    A response that is cut off anywhere in its head counts as no response.
    """
    head = b"HTTP/1.1 204 No Content\r\nMsgbus-Id: 1-1\r\nMsgbus-Subscribers: 3\r\n\r\n"
    server = scripted(*(head[:size] for size in range(len(head) + 1)))
    peer = connect(server.url, patience=0)
    for _ in range(len(head)):
        with pytest.raises(Unreachable):
            await peer.publish(b"1")
    assert (await peer.publish(b"1")).subscribers == 3
    await peer.close()


@with_both
async def test_slow_answers(connect, scripted):
    """
    A response whose body never ends is an error after the timeout at the latest.
    """
    for status, error in ((403, Refused), (503, Unreachable)):
        head = b"HTTP/1.1 %d x\r\nContent-Type: text/plain\r\n" % status
        server = scripted(head + b"Content-Length: 99\r\n\r\nNo.", hold=True)
        peer = connect(server.url, timeout=1, patience=0)
        with pytest.raises((error, Unreachable)):
            await peer.publish(b"1")
        await peer.close()


@with_both
@pytest.mark.parametrize(
    ("tls", "length"), [(False, b""), (True, b"Content-Length: 9999\r\n")]
)
async def test_silent(connect, scripted, tls, length, tmp_path):
    """
    The connection to a server that falls silent is closed, with and without TLS, and with
    and without a length of the response.
    """
    context, options = None, {}
    if tls:
        authority = Authority(tmp_path)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(authority.issue("localhost"))
        options = {"ca": str(authority.file)}
    head = STREAM.replace(b"\r\n\r\n", b"\r\nMsgbus-Prefix: /\r\n" + length + b"\r\n", 1)
    server = scripted(head, hold=True, context=context)
    peer = connect(server.url, **options)
    peer.subscribe(heartbeat=5)
    await peer.told(Lost)
    assert "silent for 10 seconds" in peer.notices[1].reason
    with contextlib.suppress(OSError):
        server.held[0].settimeout(10)
        assert server.held[0].recv(1) == b""
    await peer.close()


@with_both
async def test_wrong_use(connect):
    """
    Options that are not valid are refused before anything is sent.
    """
    for options in ({"heartbeat": -1}, {"heartbeat": 301}, {"type": ["a/b"]}):
        with pytest.raises(Invalid):
            connect(NOBODY).subscribe(**options)
    for options in ({"ca": "/nothing"}, {"certificate": "/nothing"}):
        with pytest.raises(Invalid, match="'/nothing' cannot be read"):
            await connect(NOBODY.replace("http", "https"), **options).publish(b"1")


@with_both
async def test_tls(connect, start, tmp_path):
    """
    The certificate of a server is verified, by the authorities of the system or by the
    given one.
    """
    authority = Authority(tmp_path)
    file = authority.issue("localhost", "127.0.0.1")
    bus = start("--listen", f"ssl:0:privateKey={file}:interface=127.0.0.1")
    url = f"https://localhost:{bus.port}/msgbus/"
    for address in (url, url.replace("localhost", "127.0.0.1")):
        peer = connect(address, ca=authority.file)
        peer.subscribe()
        await peer.told(Subscribed)
        await peer.publish(b"1")
        await peer.until(1)
        await peer.close()
    stranger = authority.issue("stranger.example")
    other = start("--listen", f"ssl:0:privateKey={stranger}:interface=127.0.0.1")
    for address, options in (
        (url, {}),
        (f"https://localhost:{other.port}/msgbus/", {"ca": authority.file}),
    ):
        peer = connect(address, **options)
        with pytest.raises(Untrusted):
            await peer.publish(b"1")
        peer.subscribe()
        await until(lambda: peer.notices)  # noqa: B023  # at once
        assert isinstance(value_of(peer.notices[0]), Untrusted)
        await peer.close()
    with pytest.raises(Invalid, match="certificate"):
        connect(url, ca=Path(__file__)).subscribe()


@with_both
async def test_client_certificate(connect, scripted, tmp_path):
    """
    A server that asks for a certificate gets the one that the client was given, and refuses
    a client without one.
    """
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.load_cert_chain(authority.issue("localhost"))
    context.verify_mode = ssl.CERT_REQUIRED
    server = scripted(OK, context=context)
    mine = authority.issue("alice")
    peer = connect(server.url, ca=authority.file, certificate=mine)
    await peer.publish(b"1")
    await peer.close()
    peer = connect(server.url, ca=authority.file, patience=0)
    with pytest.raises((Untrusted, Unreachable)):
        await peer.publish(b"1")
    await peer.close()


@with_both
async def test_unix(connect, start, tmp_path):
    """
    A bus at a Unix socket is reached by its path.
    """
    start("--listen", f"unix:{tmp_path}/bus.sock")
    path = f"{tmp_path}/bus.sock".replace("/", "%2F")
    peer = connect(f"http+unix://{path}/msgbus/")
    peer.subscribe()
    await peer.told(Subscribed)
    await peer.publish(b"1")
    await peer.until(1)
    await peer.close()


class TestTwisted:
    """
    What only `msgbus.client` does.
    """

    @pytest_twisted.ensureDeferred
    async def test_order(self, bus):
        """
        Publications arrive in the order of the calls, even if the caller does not wait for
        each.  One that is refused or cancelled does not affect the others.
        """
        peer = Twisted(bus.url)
        peer.subscribe()
        await peer.told(Subscribed)
        published = [peer.publish(b"%d" % n) for n in range(500)]
        refused = peer.publish(b"x" * ((1 << 20) + 1))
        cancelled = peer.publish(b"cancelled")
        published.append(peer.publish(b"500"))
        cancelled.addErrback(lambda _: None)
        cancelled.cancel()
        with pytest.raises(Refused):
            await refused
        await gatherResults(published)
        await peer.until(501)
        assert [m.body for m in peer.messages] == [b"%d" % n for n in range(501)]
        await peer.close()

    @pytest_twisted.ensureDeferred
    async def test_cancel_in_flight(self, scripted):
        """
        A publication that is cancelled while it waits for its answer is not sent again.
        """
        server = scripted(b"", hold=True)
        peer = Twisted(server.url)
        published = peer.publish(b"1")
        await until(lambda: server.requests)
        ended = []
        published.addErrback(ended.append)
        published.cancel()
        assert ended[0].check(CancelledError)
        # Nor is one that is cancelled while it connects.
        connecting = peer.publish(b"2")
        connecting.cancel()
        with pytest.raises(CancelledError):
            await connecting
        await deferLater(reactor, 1.5)
        assert len(server.requests) == 1
        await peer.close()

    @pytest_twisted.ensureDeferred
    async def test_push_back(self, bus):
        """
        If the callback is a coroutine function, the next message comes once it has ended.
        Meanwhile the server is paused, and the silence of a paused server is no reason to
        take it for lost.
        """
        client = Client(reactor, bus.url)
        going, got, gate = 0, [], Deferred()

        async def slow(message):
            nonlocal going
            going += 1
            assert going == 1
            if not got:
                await gate
            got.append(len(message.body))
            going -= 1

        notices = []
        subscription = client.subscribe(
            "foo", slow, heartbeat=5, overflow="drop-oldest", notify=notices.append
        )
        await until(lambda: notices)
        for _ in range(40):
            await client.publish("foo", bytes(1 << 20), "a/b")
        # More than two heartbeats' time.
        await deferLater(reactor, 11)
        assert notices == [Subscribed(again=False)]
        gate.callback(None)
        await until(lambda: any(isinstance(notice, Gap) for notice in notices))
        await client.publish("foo", b"last", "a/b")
        await until(lambda: got[-1] == 4)
        missed = sum(notice.count for notice in notices if isinstance(notice, Gap))
        # What was not pushed back was dropped, and told.
        assert missed > 20
        assert len(got) + missed == 41
        subscription.cancel()
        await subscription.done
        await client.close()

    @pytest_twisted.ensureDeferred
    async def test_callback_fails(self, bus):
        """
        A callback that fails, at once or later, is logged, and the next messages come.
        """
        logged = []
        globalLogPublisher.addObserver(logged.append)
        try:
            client = Client(reactor, bus.url)
            got = []

            def fails(message):
                got.append(message.body)
                raise ValueError(message.body)

            async def fails_later(message):
                await deferLater(reactor, 0)
                fails(message)

            begun = []
            client.subscribe("foo", fails, notify=begun.append)
            client.subscribe("foo", fails_later, notify=begun.append)
            await until(lambda: len(begun) == 2)
            for body in (b"1", b"2"):
                await client.publish("foo", body, "a/b")
            await until(lambda: sorted(got) == [b"1", b"1", b"2", b"2"])
            await client.close()
            failures = [event for event in logged if event.get("log_failure")]
            assert len(failures) == 4
        finally:
            globalLogPublisher.removeObserver(logged.append)

    @pytest_twisted.ensureDeferred
    async def test_cancel_inside(self, bus):
        """
        A subscription may be cancelled by its own callback or `notify`, and gets nothing
        after that.
        """
        client = Client(reactor, bus.url)
        got = []

        def once(message):
            got.append(message.body)
            first.cancel()

        begun = []
        first = client.subscribe("foo", once, notify=begun.append)
        second = client.subscribe(
            "foo", got.append, notify=lambda notice: second.cancel(), heartbeat=5
        )
        lost = Client(reactor, NOBODY)
        third = lost.subscribe("foo", got.append, notify=lambda notice: third.cancel())
        await until(lambda: begun)
        await gatherResults([second.done, third.done])
        await gatherResults([client.publish("foo", b"%d" % n, "a/b") for n in range(3)])
        await first.done
        assert got == [b"0"]
        bus.wait_for(r"leaves 'foo'", 2)
        await gatherResults([client.close(), lost.close()])

    @pytest_twisted.ensureDeferred
    async def test_close(self, bus):
        """
        Closing ends subscriptions, and waits for publications that were called for before.
        Later calls fail.
        """
        client = Client(reactor, bus.url)
        subscription = client.subscribe("foo", print)
        published = [client.publish("foo", b"1", "a/b") for _ in range(10)]
        closed = client.close()
        await closed
        assert all(one.called for one in published)
        await gatherResults(published)
        await subscription.done
        with pytest.raises(Closed):
            await client.publish("foo", b"1", "a/b")
        with pytest.raises(Closed):
            client.subscribe("foo", print)

    @pytest_twisted.ensureDeferred
    async def test_unheard(self, scripted):
        """
        Without `notify`, notices are logged.
        """
        logged = []
        globalLogPublisher.addObserver(logged.append)
        try:
            client = Client(reactor, scripted(STREAM + b"Msgbus-Gap: 3\r\n").url)
            client.subscribe("foo", print)
            await until(lambda: sum("notice" in event for event in logged) >= 3)
            notices = [event["notice"] for event in logged if "notice" in event]
            assert notices[:2] == [Subscribed(again=False), Gap(3)]
            assert isinstance(notices[2], Lost)
            await client.close()
        finally:
            globalLogPublisher.removeObserver(logged.append)


def test_blocking_stops(bus):
    """
    Closing the generator of messages closes the connection.
    """
    blocking.publish(f"{bus.url}foo", b"1", "a/b")
    with contextlib.closing(blocking.subscribe(f"{bus.url}foo", last=1)) as messages:
        for message in messages:
            assert message == Message("foo", b"1", "a/b")
            break
    bus.wait_for("leaves 'foo'")
