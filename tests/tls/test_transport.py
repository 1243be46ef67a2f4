"""
Tests for `msgbus.tls.transport`, with real sockets and a TLS client that forgives nothing.
"""

import random
import select
import socket
import ssl
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from OpenSSL import SSL
from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from msgbus.fanout.outlet import outlet_for
from msgbus.tls.openssl import RECORD_BYTES
from msgbus.tls.transport import TlsTransport, hasten

from ..integration.certificates import Authority
from .key_updates import RecordWriter


@pytest.fixture(scope="module")
def authority():
    """
    Who signs the certificate of the server, and the file of that.
    """
    with tempfile.TemporaryDirectory() as folder:
        signer = Authority(Path(folder))
        yield signer, str(signer.issue("localhost"))


class Reactor(Clock):
    """
    Knows which descriptors want to read and to write, and lets them write when told to.
    """

    def __init__(self):
        super().__init__()
        self.readers, self.writers = set(), set()

    def addReader(self, descriptor):
        self.readers.add(descriptor)

    def removeReader(self, descriptor):
        self.readers.discard(descriptor)

    def addWriter(self, descriptor):
        self.writers.add(descriptor)

    def removeWriter(self, descriptor):
        self.writers.discard(descriptor)

    def write(self):
        """
        One turn in which sockets may have room.
        """
        self.advance(0)
        for writer in tuple(self.writers):
            if (reason := writer.doWrite()) is not None:
                writer.connectionLost(Failure(reason))


@implementer(IHandshakeListener)
class Application(Protocol):
    """
    What is behind TLS: a producer that notes what happens to it.
    """

    def __init__(self):
        self.got = b""
        self.lost = None
        self.is_paused = self.is_secured = False

    def handshakeCompleted(self):
        self.is_secured = True

    def dataReceived(self, data):
        self.got += data

    def connectionLost(self, reason):
        self.lost = reason

    def pauseProducing(self):
        self.is_paused = True

    def resumeProducing(self):
        self.is_paused = False

    def stopProducing(self):
        pass


class Peers:
    """
    A transport with an application behind it, and a client at the other end of its socket.

    Args:
        room: About how many bytes the sockets take.
        setting: Changes the context of the client.
        shakes: Is the handshake done?
    """

    def __init__(self, authority, room=0, setting=lambda context: None, shakes=True):
        signer, file = authority
        here, self.socket = socket.socketpair()
        if room:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        for each in (here, self.socket):
            each.setblocking(False)
        self.reactor = Reactor()
        self.application = Application()
        factory = Factory.forProtocol(lambda: self.application)
        contexts = DefaultOpenSSLContextFactory(file, file, sslmethod=SSL.TLS_SERVER_METHOD)
        served = hasten(TLSMemoryBIOFactory(contexts, False, factory))
        served._clock = self.reactor
        # As a port does it.
        protocol = served.buildProtocol(None)
        address = ("127.0.0.1", 1)
        self.transport = tcp.Server(here, protocol, address, None, 1, self.reactor)
        protocol.makeConnection(self.transport)
        self.transport.startReading()
        context = ssl.create_default_context(cafile=signer.file)
        setting(context)
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.into, self.out, server_hostname="localhost")
        self.got = b""
        if shakes:
            for _ in range(4):
                self.exchange(self.client.do_handshake)
            assert self.application.is_secured
        self.transport.registerProducer(self.application, True)

    def exchange(self, act=lambda: None):
        """
        The client does this, if it can, and what it has to send arrives.
        """
        try:
            return act()
        except ssl.SSLWantReadError:
            pass
        finally:
            if self.out.pending:
                self.send(self.out.read())
            self.reactor.write()
            self.fetch()

    def send(self, data):
        """
        The client sends these bytes, and they arrive, as far as they are read.
        """
        self.socket.sendall(data)
        self.receive()

    def receive(self):
        """
        What has been sent is read, as far as that is wanted.
        """
        while self.reactor.readers and select.select([self.transport], (), (), 0)[0]:
            if (reason := self.transport.doRead()) is not None:
                self.transport.connectionLost(Failure(reason))

    def fetch(self, size=1 << 20):
        """
        The client gets so many encrypted bytes at most.
        """
        with suppress(BlockingIOError):
            self.into.write(self.socket.recv(size))

    def read(self):
        """
        The client reads all that it has got.
        """
        try:
            while data := self.client.read(1 << 20):
                self.got += data
        except ssl.SSLWantReadError:
            pass

    def close(self):
        """
        Both ends are closed.
        """
        self.socket.close()
        if self.application.lost is None:
            self.transport.abortConnection()


@pytest.fixture
def peers(authority):
    """
    Make peers, which are closed after the test.
    """
    made = []

    def make(*arguments, **keywords):
        made.append(Peers(authority, *arguments, **keywords))
        return made[-1]

    yield make
    for each in made:
        each.close()


def only_1_2(context):
    """
    The version of TLS before the present one.
    """
    context.maximum_version = ssl.TLSVersion.TLSv1_2


VERSIONS = pytest.mark.parametrize("setting", [only_1_2, lambda context: None])


@VERSIONS
def test_at_once(peers, setting):
    """
    Without a turn of the reactor, bytes are with the client, and a request with the
    application.
    """
    peer = peers(setting=setting)
    assert type(peer.transport) is TlsTransport
    assert peer.transport.send_at_once(b"hello") == 5
    assert peer.transport.is_idle
    peer.fetch()
    peer.read()
    assert peer.got == b"hello"
    peer.client.write(b"GET")
    peer.send(peer.out.read())
    assert peer.application.got == b"GET"


@VERSIONS
def test_large(peers, setting):
    """
    What is larger than a record is sent as far as there is room, and resumed.
    """
    peer = peers(room=4 * RECORD_BYTES, setting=setting)
    data = random.randbytes(50 * RECORD_BYTES)
    taken = peer.transport.send_at_once(data)
    assert 0 < taken < len(data)
    with pytest.raises(BlockingIOError):
        peer.transport.send_at_once(b"x")
    while taken < len(data):
        outlet_for(peer.transport, 1, False).ask()
        peer.application.is_paused = True
        while peer.application.is_paused:
            peer.fetch()
            peer.reactor.write()
        taken += peer.transport.send_at_once(memoryview(data)[taken:])
    while not peer.transport.is_idle:
        peer.fetch()
        peer.reactor.write()
    peer.fetch()
    peer.read()
    assert peer.got == data


def test_behind_others(peers):
    """
    What was written before goes out before.
    """
    peer = peers()
    peer.transport.write(b"head")
    with pytest.raises(BlockingIOError):
        peer.transport.send_at_once(b"body")
    peer.reactor.write()
    assert peer.transport.send_at_once(b"body") == 4
    peer.fetch()
    peer.read()
    assert peer.got == b"headbody"


@VERSIONS
@pytest.mark.parametrize("seed", range(20))
def test_any_order(peers, setting, seed):
    """
    However writes, refusals, pauses, requests and small reads follow each other, all bytes
    arrive once and in order, and the producer is always resumed.
    """
    chance = random.Random(seed)
    peer = peers(room=chance.choice((2000, 20_000, 200_000)), setting=setting)
    transport, application = peer.transport, peer.application
    sent, asked = b"", b""

    def send():
        nonlocal sent
        if application.is_paused:
            return
        size = chance.choice((1, 300, RECORD_BYTES, RECORD_BYTES + 1, 70_000))
        data = chance.randbytes(size)
        try:
            taken = transport.send_at_once(chance.choice((bytes, memoryview))(data))
        except BlockingIOError:
            taken = 0
        sent += data[:taken]
        if taken < size:
            application.is_paused = True
            outlet_for(transport, 1, False).ask()

    def write():
        nonlocal sent
        data = chance.randbytes(chance.randrange(1, 2000))
        transport.write(data)
        sent += data

    def request():
        nonlocal asked
        data = chance.randbytes(chance.randrange(1, 30_000))
        asked += data
        peer.client.write(data)
        encrypted = peer.out.read()
        while encrypted:
            size = chance.randrange(1, 20_000)
            peer.send(encrypted[:size])
            encrypted = encrypted[size:]

    def fetch():
        peer.fetch(chance.randrange(1, 100_000))
        peer.read()

    for _ in range(300):
        chance.choices((send, write, request, fetch, peer.reactor.write), (6, 1, 2, 4, 4))[
            0
        ]()
    for _ in range(10_000):
        peer.fetch()
        peer.reactor.write()
        if transport.is_idle and not peer.reactor.getDelayedCalls():
            break
    peer.fetch()
    peer.read()
    assert peer.got == sent
    assert application.got == asked
    assert not application.is_paused


@pytest.mark.parametrize("garbage", [b"x" * 100, struct.pack("!BHH", 23, 0x303, 40) * 9])
def test_garbage(peers, garbage):
    """
    A client that sends no record loses its connection, which is told an alert and the
    application the reason; to another client, of which nothing was read meanwhile, that
    does not matter.
    """
    bad, good = peers(), peers()
    bad.send(garbage)
    # What OpenSSL remembers of an error, it would tell of the next connection.
    assert good.transport.send_at_once(b"hello") == 5
    good.exchange(lambda: good.client.write(b"GET"))
    assert good.application.got == b"GET"
    good.read()
    assert good.got == b"hello"
    assert good.transport.send_at_once(b" world") == 6
    assert isinstance(bad.application.lost.value, SSL.Error)
    with pytest.raises(OSError, match="ended"):
        bad.transport.send_at_once(b"hello")
    bad.fetch()
    with pytest.raises(ssl.SSLError, match="ALERT"):
        bad.read()
    good.exchange(lambda: good.client.write(b" it"))
    assert good.application.got == b"GET it"
    good.read()
    assert good.got == b"hello world"
    assert good.application.lost is None


def keys_to(folder):
    """
    A setting by which the client writes down its secrets, and the file with them.
    """
    file = folder / "keys"

    def setting(context):
        context.keylog_filename = file

    return setting, file


@pytest.mark.parametrize("is_requested", [False, True])
def test_key_updates(peers, tmp_path, is_requested):
    """
    However many key updates come, what is behind them is read, and what was sent arrives.
    """
    setting, keys = keys_to(tmp_path)
    peer = peers(setting=setting)
    assert peer.client.cipher()[0] == "TLS_AES_256_GCM_SHA384"
    writer = RecordWriter(keys)
    for number in range(50):
        updates = b"".join(writer.key_update(is_requested) for _ in range(20))
        peer.send(updates + writer.record(b"%d " % number))
        assert peer.transport.send_at_once(b"%d " % number) > 0
        peer.reactor.write()
        peer.fetch()
        peer.read()
    expected = b"".join(b"%d " % number for number in range(50))
    assert peer.application.got == peer.got == expected


@pytest.mark.parametrize("is_paused", [False, True])
def test_no_room_for_answer(peers, tmp_path, is_paused):
    """
    While the answer to a key update has no room, the reactor is not asked to read, which
    would be in vain again and again; what is paused meanwhile stays so.
    """
    setting, keys = keys_to(tmp_path)
    peer = peers(setting=setting)
    transport, readers = peer.transport, peer.reactor.readers
    writer = RecordWriter(keys)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += transport.socket.send(bytes(4096))
    peer.send(writer.key_update(True))
    assert transport.send_at_once(b"hello") == 5
    peer.send(writer.record(b"more"))
    assert not readers
    transport.startReading()
    assert not readers
    if is_paused:
        transport.stopReading()
    peer.reactor.write()
    assert not readers
    while filled:
        filled -= len(peer.socket.recv(filled))
    peer.reactor.write()
    peer.receive()
    assert bool(readers) != is_paused
    assert peer.application.got == (b"" if is_paused else b"more")
    transport.startReading()
    peer.receive()
    assert peer.application.got == b"more"
    peer.fetch()
    peer.read()
    assert peer.got == b"hello"


def test_no_handshake(peers):
    """
    A client that is refused may still do its handshake, to be told so, until the second
    close.
    """
    peer = peers(shakes=False)
    peer.transport.unregisterProducer()
    peer.transport.write(b"no")
    peer.transport.loseConnection()
    peer.reactor.write()
    assert peer.application.lost is None
    peer.transport.loseConnection()
    peer.reactor.write()
    assert peer.application.lost is not None


def test_refused(peers):
    """
    What is written before the handshake, and closed, arrives after it.
    """
    peer = peers(shakes=False)
    peer.transport.unregisterProducer()
    peer.transport.write(b"no")
    peer.transport.loseConnection()
    for _ in range(4):
        peer.exchange(peer.client.do_handshake)
    peer.read()
    assert peer.got == b"no"
    peer.exchange(peer.client.unwrap)
    assert peer.application.lost.check(ConnectionDone)


def test_closing(peers):
    """
    Behind a close, nothing is sent; and a client that closes first is answered.
    """
    ours, theirs = peers(), peers()
    ours.transport.unregisterProducer()
    ours.transport.loseConnection()
    ours.reactor.write()
    with pytest.raises(OSError, match="ended"):
        ours.transport.send_at_once(b"late")
    ours.transport.write(b"late")
    ours.reactor.write()
    ours.fetch()
    assert ours.client.read(10) == b""
    assert ours.application.lost is None
    ours.client.write(b"more")
    ours.exchange()
    assert ours.application.got == b"more"
    ours.exchange(ours.client.unwrap)
    assert ours.application.lost.check(ConnectionDone)
    theirs.exchange(theirs.client.unwrap)
    theirs.client.unwrap()
    assert theirs.application.lost is not None
    with pytest.raises(OSError, match="ended"):
        theirs.transport.send_at_once(b"late")


def test_gone(peers):
    """
    A client that has gone is found out.
    """
    peer = peers()
    peer.socket.close()
    assert peer.transport.send_at_once(b"hello") == 5
    peer.reactor.write()
    assert peer.application.lost is not None
