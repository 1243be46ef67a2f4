"""
Many subscribers, and rude ones, over real sockets.
"""

import re
import socket
import struct

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from msgbus.multipart import Decoder

from .peers import check_gaps, connect, publish, subscribe


@pytest_twisted.ensureDeferred
async def test_thousand_subscribers(bus):
    """
    A thousand subscribers at once, of both versions of HTTP, get every
    message, each once and in order; and when they leave, nothing of them is
    left.
    """
    publisher = await connect(bus)
    # An answer shows that the server has accepted the connection.
    await publish(publisher, b"first")
    files = bus.open_files()
    peers = await gatherResults(
        [
            Deferred.fromCoroutine(subscribe(bus, version="1.1" if number % 2 else "1.0"))
            for number in range(1000)
        ]
    )
    bodies = [b"message %d" % number for number in range(20)]
    for body in bodies:
        await publish(publisher, body)
    streams = await gatherResults(
        [peer.read(rb"message 19\r\n--\w+\r\n") for peer in peers]
    )
    for stream in streams:
        assert re.findall(rb"message \d+", stream) == bodies
    for peer in peers:
        peer.transport.loseConnection()
    await deferToThread(bus.wait_for, r"leaves 'foo'", count=1000)
    await deferToThread(bus.wait_for_files, files)


@pytest_twisted.ensureDeferred
async def test_one_dozen_publishers(bus):
    """
    Whatever is published at once comes to all subscribers in one order, and
    to each publisher's in its own.
    """
    peers = [await subscribe(bus, "") for _ in range(3)]

    async def flood(name):
        publisher = await connect(bus)
        for number in range(50):
            await publish(publisher, b"<%s %d>" % (name, number), "a/b")

    names = [b"publisher-%d" % number for number in range(12)]
    await gatherResults([Deferred.fromCoroutine(flood(name)) for name in names])
    await publish(await connect(bus), b"end")
    streams = await gatherResults([peer.read(rb"end\r\n--\w+\r\n\r\n") for peer in peers])
    orders = [re.findall(rb"<(.*?) (\d+)>", stream) for stream in streams]
    assert orders[0] == orders[1] == orders[2]
    for name in names:
        assert [int(n) for who, n in orders[0] if who == name] == list(range(50))


def raw(bus, data):
    """
    A blocking connection that has sent this.
    """
    client = socket.create_connection(("127.0.0.1", bus.port), timeout=30)
    client.sendall(data)
    return client


GET = b"GET /msgbus/foo HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /msgbus/foo HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n"


@pytest_twisted.ensureDeferred
async def test_vanishing(start):
    """
    Subscribers that vanish, in mid-part, by a reset, and behind 20 KB of
    their own, and publishers that vanish in mid-body, leave nothing and take
    nothing from others.
    """
    # The witness shares a busy machine with the bus, and may be late itself.
    bus = start("-v", "--max-backlog", "20000000")
    witness = await subscribe(bus)
    publisher = await connect(bus)
    # An answer shows that the server has accepted the connection.
    await publish(publisher, b"first")
    files = bus.open_files()

    def vanish():
        rude = [raw(bus, GET) for _ in range(10)] + [raw(bus, GET + b"x" * 20_000)]
        rude += [raw(bus, POST + b"Content-Length: 10\r\n\r\nhalf")]
        rude += [raw(bus, POST + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf")]
        for client in rude[:10]:
            client.recv(10)
        return rude

    rude = await deferToThread(vanish)
    # More than a socket takes: part of it waits when they go.
    big = b"x" * 1_000_000
    for _ in range(10):
        await publish(publisher, big)

    reset = struct.pack("ii", 1, 0)
    for client in rude[::2]:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    for client in rude:
        client.close()
    await publish(publisher, b"last")
    stream = await witness.read(rb"last\r\n--\w+\r\n\r\n")
    assert stream.count(b"Content-Length: 1000000") == 10
    assert b"half" not in stream
    await deferToThread(bus.wait_for, r"leaves 'foo'", count=11)
    await deferToThread(bus.wait_for_files, files)


@pytest_twisted.ensureDeferred
async def test_reader_that_stops(bus):
    """
    A subscriber that stops reading holds nobody up; when it reads on, it gets
    whole parts in order, and is told how many it missed.
    """
    witness = await subscribe(bus)
    publisher = await connect(bus)
    lazy = await subscribe(bus)
    lazy.transport.pauseProducing()
    count, size = 1000, 10_000
    for number in range(count):
        await publish(publisher, b"%08d" % number + b"x" * size)
    stream = await witness.read(rb"%08dx+\r\n--\w+\r\n\r\n" % (count - 1))
    assert re.findall(rb"(\d{8})x", stream) == [b"%08d" % n for n in range(count)]

    lazy.transport.resumeProducing()
    # It is level again once something comes that was published after it read.
    while b"%08dx" % (count - 1) not in lazy.data:
        await publish(publisher, b"%08dx" % count)
        count += 1
        assert count < 3000
        await deferLater(reactor, 0.02)
    stream = lazy.data
    check_gaps(stream, count)


@pytest_twisted.ensureDeferred
async def test_boundary(bus):
    """
    The boundary that a subscriber learns is of no use to a forger.
    """
    peer = await connect(bus)
    peer.transport.write(GET)
    head = await peer.read(rb"--msgbus\w+\r\n\r\n")
    boundary = re.search(rb"boundary=(\w+)", head)[1]
    forger = await connect(bus)
    body = b"\r\n--%s\r\nContent-Type: text/evil\r\n\r\nforged" % boundary
    forger.transport.write(POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    assert (await forger.read(rb"\n\Z")).startswith(b"HTTP/1.1 400 ")
    await publish(await connect(bus), b"true")
    data = await peer.read(rb"true\r\n--\w+\r\n\r\n")
    assert b"forged" not in data
    chunk = data.partition(b"\r\n")[2][:-2]
    decoder = Decoder(boundary.decode())
    (part,) = decoder.feed(b"--%s\r\n%s" % (boundary, chunk))
    assert part.message().body == b"true"


@pytest_twisted.ensureDeferred
async def test_behind_haproxy(start):
    """
    Behind the PROXY protocol, the raw bytes of a stream are those of any
    other: nothing is sent past the wrapper.
    """
    bus = start("-v", "--listen", "haproxy:tcp:0:interface=127.0.0.1")

    async def connect_by_proxy():
        peer = await connect(bus)
        peer.transport.write(b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n")
        return peer

    reader = await connect_by_proxy()
    reader.transport.write(GET)
    head = await reader.read(rb"--msgbus\w+\r\n\r\n")
    assert b"\r\n2a\r\n--msgbus" in head
    publisher = await connect_by_proxy()
    for number in range(3):
        await publish(publisher, b"%d" % number)
        part = await reader.read(rb"--msgbus\w+\r\n\r\n")
        size, _, rest = part.partition(b"\r\n")
        assert len(rest) == int(size, 16) + 2
        assert rest.startswith(b"Content-Type: text/plain\r\nContent-Length: 1\r\n")
    assert "192.0.2.7:4711 subscribes to 'foo'" in bus.log


@pytest_twisted.ensureDeferred
async def test_stalled(start):
    """
    A subscriber that reads nothing while something waits for it is cut; one
    that has nothing to read is not.
    """
    bus = start("-v", "--stall-timeout", "1", "--max-backlog", "100000")
    idle = await subscribe(bus, "bar")
    stalled = await subscribe(bus)
    stalled.transport.pauseProducing()
    publisher = await connect(bus)
    # More than the sockets take.
    for _ in range(12):
        await publish(publisher, b"x" * 1_000_000)
    await deferToThread(
        bus.wait_for, r"Cut 1 subscribers that took nothing for 1.0 seconds"
    )
    await deferToThread(bus.wait_for, r"leaves 'foo'")
    await publish(publisher, b"still there", "bar")
    await idle.read(b"still there")
    stalled.transport.abortConnection()
