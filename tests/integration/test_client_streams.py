"""
Streams of publications by `msgbus.client` and `msgbus.blocking`, against a server that
fails where it is told to.
"""

import contextlib
import random
import socket
import ssl
import threading
import time

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread

from msgbus import blocking
from msgbus.client import (
    Client,
    Closed,
    Lost,
    Refused,
    Unreachable,
    Untrusted,
    blocking_stream,
    stream_connection,
)
from msgbus.client.publication_stream import MAX_UNANSWERED
from msgbus.message import Invalid, Receipt

from .certificates import Authority
from .ports import free_port
from .stream_bus import StreamBus
from .test_client import NOBODY


class Answers:
    """
    What a stream is told.
    """

    def __init__(self):
        self.answers = []
        self.notices = []

    def answered(self, number, answer):
        """
        Keep an answer.
        """
        self.answers.append((number, answer))


class Twisted(Answers):
    """
    A stream of `msgbus.client`, used by a thread like the other.
    """

    def __init__(self, url, *, told=True, **options):
        super().__init__()
        bus, _, name = url.partition("/msgbus/")
        options = {"timeout": 10, "patience": 20, **options}
        self.client = Client(reactor, f"{bus}/msgbus/", **options)
        told = {"answered": self.answered} if told else {}
        self.stream = self.client.stream(name, notify=self.notices.append, **told)

    def publish(self, *arguments, **options):
        """
        Publish, and wait for room.
        """
        return blockingCallFromThread(reactor, self.stream.publish, *arguments, **options)

    def idle(self, seconds):
        """
        Do nothing else for a while.
        """
        time.sleep(seconds)

    def close(self):
        """
        Wait for all answers.
        """
        blockingCallFromThread(reactor, self.stream.close)


class Blocking(Answers):
    """
    A stream of `msgbus.blocking`.
    """

    def __init__(self, url, *, told=True, **options):
        super().__init__()
        options = {"timeout": 10, "patience": 20, **options}
        told = {"answered": self.answered} if told else {}
        self.stream = blocking.stream(url, notify=self.notices.append, **told, **options)
        self.publish = self.stream.publish
        self.close = self.stream.close

    def idle(self, seconds):
        """
        Wait for a file that stays empty for a while.
        """
        mine, other = socket.socketpair()
        threading.Timer(seconds, other.close).start()
        self.stream.wait_for(mine)
        mine.close()


def with_both(test):
    """
    Run a test with each of the clients, in a thread.
    """

    @pytest.mark.parametrize("connect", [Twisted, Blocking])
    @pytest_twisted.inlineCallbacks
    def threaded(connect, serve, monkeypatch, tmp_path):
        given = {"monkeypatch": monkeypatch, "tmp_path": tmp_path}
        names = test.__code__.co_varnames[2 : test.__code__.co_argcount]
        yield deferToThread(test, connect, serve, **{name: given[name] for name in names})

    threaded.__name__, threaded.__doc__ = test.__name__, test.__doc__
    return threaded


@pytest.fixture
def serve():
    """
    Start a server that takes streams.
    """
    servers = []

    def serve(*arguments, **options):
        servers.append(StreamBus(*arguments, **options))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def send(peer, *bodies):
    """
    Publish these, and close.
    """
    for body in bodies:
        peer.publish(body, "a/b")
    peer.close()


def numbers(count):
    """
    Bodies that are numbers.
    """
    return [b"%d" % n for n in range(count)]


@with_both
def test_in_order(connect, serve):
    """
    Messages arrive unchanged and in order by one connection, and each is answered.
    """
    bus = serve()
    peer = connect(f"{bus.url}a/".replace("//", "//alice:secret@"))
    bodies = [*numbers(5000), b"", b"x" * 3_000_000]
    for number, body in enumerate(bodies, 1):
        options = {"channel": f"c{number % 3}", "keep": number % 2 == 0}
        assert peer.publish(body, "text/plain", **options) == number
    peer.close()
    assert [part.body for part in bus.parts] == bodies
    assert bus.parts[3].headers["content-location"] == "c1"
    assert "cache-control" in bus.parts[0].headers
    assert peer.answers == [(n, Receipt(f"1-{n}", 1)) for n in range(1, len(bodies) + 1)]
    assert len(bus.heads) == 1
    assert "Authorization: Basic YWxpY2U6c2VjcmV0\r\n" in bus.heads[0]
    with pytest.raises(Closed):
        peer.publish(b"x", "text/plain")
    peer.close()


@with_both
def test_nothing(connect, serve):
    """
    A stream without a message does not connect, and nor does one whose only message cannot
    be sent.
    """
    bus = serve()
    peer = connect(f"{bus.url}foo")
    for options in ({"content_type": "x"}, {"content_type": "a/b", "origin": "x"}):
        with pytest.raises(Invalid):
            peer.publish(b"x", **options)
    peer.close()
    assert bus.heads == []


@with_both
def test_cuts(connect, serve):
    """
    Fifty times the connection is cut, before or after a message is answered: each is
    published once, in order, and answered once.
    """
    bus = serve(cuts=[random.randint(1, 40) for _ in range(50)])
    peer = connect(f"{bus.url}foo", patience=60)
    bodies = numbers(3000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msgbus.client.retry.delay", lambda *_: 0.01)
        for body in bodies:
            peer.publish(body, "text/plain")
        peer.close()
    assert [part.body for part in bus.parts] == bodies
    assert [number for number, _ in peer.answers] == list(range(1, 3001))
    assert len(bus.heads) == 51
    assert len(peer.notices) == 50
    assert isinstance(peer.notices[0], Lost)


def await_rest(growing, least):
    """
    Wait until a list has more than so many elements, and gets no more for a second.
    """
    deadline = time.monotonic() + 60
    before, since = 0, time.monotonic()
    while len(growing) <= least or time.monotonic() - since < 1:
        assert time.monotonic() < deadline, len(growing)
        if len(growing) != before:
            before, since = len(growing), time.monotonic()
        time.sleep(0.02)


@with_both
def test_push_back(connect, serve):
    """
    While the server does not read, a limited number of messages is taken, and a limited
    number of bytes.
    """
    for size, most in ((10, MAX_UNANSWERED), (100_000, 50)):
        bus = serve()
        bus.gate.clear()
        peer = connect(f"{bus.url}foo")
        published = []

        def publish(peer=peer, published=published, size=size):
            for _ in range(1200):
                published.append(peer.publish(bytes(size), "a/b"))

        thread = threading.Thread(target=publish, daemon=True)
        thread.start()
        await_rest(published, 10)
        assert len(published) < most
        bus.gate.set()
        thread.join(30)
        peer.close()
        assert len(bus.parts) == len(published) == 1200


@with_both
def test_refused_message(connect, serve):
    """
    A message that is refused concerns no other, also if the bus ends the stream with it.
    Without a function that is told, it ends the stream.
    """

    def refuse(part):
        if part.body == b"3":
            return {"status": 400, "error": "It is bad."}
        if part.body == b"5":
            return {"published": 4, "id": "1-4", "status": 413, "error": "It is large."}
        return None

    bus = serve(refuse=refuse)
    peer = connect(f"{bus.url}foo")
    for body in numbers(8):
        peer.publish(body, "a/b")
    peer.close()
    refused = {n: a.status for n, a in peer.answers if isinstance(a, Refused)}
    assert refused == {4: 400, 6: 413}
    assert [part.body for part in bus.parts] == [b"0", b"1", b"2", b"4", b"6", b"7"]
    peer = connect(f"{bus.url}foo", told=False)
    with pytest.raises(Refused, match="It is bad"):
        send(peer, *numbers(4))
    for again in (lambda: peer.publish(b"x", "a/b"), peer.close):
        with pytest.raises(Refused, match="It is bad"):
            again()


@with_both
def test_unreachable(connect, serve):
    """
    Where nothing listens, and where nothing answers, it is tried for so long.
    """
    peer = connect(f"{NOBODY}foo", patience=0)
    with pytest.raises(Unreachable, match="does a bus run there"):
        send(peer, b"x")
    with pytest.raises(Unreachable, match="does a bus run there"):
        peer.close()
    peer = connect(f"{NOBODY}foo", patience=1)
    with pytest.raises(Unreachable, match="does a bus run there"):
        send(peer, b"x")
    assert peer.notices
    bus = serve()
    bus.gate.clear()
    peer = connect(f"{bus.url}foo", patience=0, timeout=1)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="silent for 1 second"):
        send(peer, b"x")
    assert 0.5 < time.monotonic() - began < 5


@with_both
def test_comes_back(connect, serve):
    """
    A message waits until the bus is there.
    """
    port = free_port()
    peer = connect(f"http://localhost:{port}/msgbus/foo")

    def answer():
        time.sleep(1)
        with socket.create_server(("127.0.0.1", port)) as listener:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nNot you."
            )
            connection.close()

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(Refused, match="403: Not you"):
        send(peer, b"x")
    assert peer.notices


@with_both
def test_idle(connect, serve, monkeypatch):
    """
    An idle connection is kept by heartbeats, and not taken for silent.
    """
    for module in (stream_connection, blocking_stream):
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.2)
    bus = serve()
    peer = connect(f"{bus.url}foo", timeout=1)
    for body in numbers(3):
        peer.publish(body, "a/b")
        peer.idle(1.5)
    peer.close()
    assert [part.body for part in bus.parts] == numbers(3)
    assert len(bus.heads) == 1


@with_both
def test_cut_while_idle(connect, serve):
    """
    A connection that is cut while nothing is unanswered is no loss; the next message gets
    another.
    """
    bus = serve(refuse=lambda part: {"published": 0, "id": None} if part.body else None)
    peer = connect(f"{bus.url}foo")
    peer.publish(b"", "a/b")
    peer.idle(0.5)
    assert len(peer.answers) == 1
    peer.close()
    assert peer.notices == []


@with_both
def test_tls(connect, serve, tmp_path):
    """
    It all works over TLS; a server that proves nothing is refused.
    """
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.issue("localhost"))
    bus = serve(cuts=[30, 200], context=context)
    peer = connect(f"{bus.url}foo", ca=authority.file)
    bodies = [*numbers(2000), b"x" * 3_000_000, *numbers(100)]
    for body in bodies:
        peer.publish(body, "a/b")
    peer.close()
    assert [part.body for part in bus.parts] == bodies
    assert len(peer.answers) == len(bodies)
    peer = connect(f"{bus.url}foo")
    with pytest.raises(Untrusted):
        send(peer, b"x")


@pytest_twisted.ensureDeferred
async def test_impatient_caller(serve):
    """
    A caller of Twisted's stream that does not wait is told so, before memory runs out; one
    that has stopped waiting changes nothing.
    """
    bus = serve()
    bus.gate.clear()
    client = Client(reactor, bus.url)
    stream = client.stream("foo")
    waits = []

    def hurry():
        while True:
            waits.append(stream.publish(b"x", "a/b"))

    with pytest.raises(RuntimeError, match="Wait for the Deferred"):
        hurry()
    assert MAX_UNANSWERED < len(waits) < 2001
    waits[-1].addErrback(lambda _: None)
    waits[-1].cancel()
    bus.gate.set()
    for wait in waits[:-1]:
        await wait
    await client.close()
    assert len(bus.parts) == len(waits)


@pytest_twisted.ensureDeferred
async def test_callback_publishes(serve):
    """
    The function that is told the answers may publish, and one that fails is logged only.
    """
    bus = serve()
    client = Client(reactor, bus.url)
    done = Deferred()

    def answered(number, answer):
        if number == 50:
            done.callback(None)
        else:
            ensureDeferred(stream.publish(b"%d" % number, "a/b"))

    stream = client.stream("foo", answered)
    await stream.publish(b"0", "a/b")
    await done
    await stream.close()
    assert [part.body for part in bus.parts] == numbers(50)
    with contextlib.suppress(Closed):
        client.stream("foo")
    await client.close()
    with pytest.raises(Closed):
        client.stream("foo")
    await deferLater(reactor, 0)
