"""
Many subscribers, and rude ones, over real sockets.
"""

import re

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from msgbus.formats.multipart import Decoder

from .blocking import GET, POST
from .peers import connect, publish, subscribe


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
