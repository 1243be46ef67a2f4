"""
Subscribers that do not read, read slowly, or vanish, over real sockets.
"""

import os
import re
import select
import socket
import ssl
import struct
import subprocess
import threading
import time
from contextlib import suppress
from http.client import HTTPResponse

import pytest

from msgbus.formats.multipart import Decoder

from .blocking import GET, POST, publish, raw, rest_of
from .certificates import Authority

CROWD = 1000
LISTEN = "tcp:0:interface=127.0.0.1"


class Bus:
    """
    A bus over TCP or TLS, and connections to it.
    """

    def __init__(self, start, folder, scheme, *arguments):
        listen = LISTEN
        self._context = None
        if scheme == "https":
            authority = Authority(folder)
            file = authority.issue("localhost")
            listen = f"ssl:0:privateKey={file}:interface=127.0.0.1"
            self._context = ssl.create_default_context(cafile=authority.file)
        self.daemon = start("-v", "--listen", listen, *arguments)
        self.publisher = self.connect()

    def connect(self, data=b"", **options):
        """
        A connection that has sent this.
        """
        client = raw(self.daemon)
        for option, value in options.items():
            client.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
        if self._context:
            client = self._context.wrap_socket(client, server_hostname="localhost")
        client.sendall(data)
        return client

    def subscribe(self, query="", version="1.1", **options):
        """
        A connection that has subscribed.
        """
        get = GET.replace(b"foo", f"foo{query}".encode())
        return self.connect(get.replace(b"1.1", version.encode()), **options)

    def publish(self, body):
        """
        Publish, and wait for the 204.
        """
        publish(self.publisher, body)

    def wait_for(self, count):
        """
        Wait until there were so many subscriptions.
        """
        self.daemon.wait_for("subscribes to", count=count)

    def stop(self):
        """
        Stop it, so that all streams end; what is owed still comes.
        """
        # One that does not read does not agree to the end of TLS.
        self.publisher.close()
        self.daemon.process.terminate()


@pytest.fixture(params=["http", "https"])
def serve(request, start, tmp_path):
    """
    Make a bus, over TCP and over TLS.
    """

    def serve(*arguments):
        return Bus(start, tmp_path, request.param, *arguments)

    serve.scheme = request.param
    return serve


class Reader(threading.Thread):
    """
    Reads all that comes to a subscriber, and keeps the numbers of messages.
    """

    def __init__(self, client):
        super().__init__()
        self._client = client
        self.numbers = []
        self.start()

    def run(self):
        """
        Read to the end.
        """
        rest = b""
        while data := self._client.recv(1 << 20):
            data = rest + data
            self.numbers += map(int, re.findall(rb"(\d{8})x", data))
            # No number is found twice, or cut.
            rest = data[-8:] if not data.endswith(b"x") else b""

    def keep_up(self, published):
        """
        Wait until all but the last 40 of so many messages have come: to publish is faster
        than to read, and what waits for this one must not exceed its backlog either.
        """
        deadline = time.monotonic() + 30
        while published - len(self.numbers) > 40:
            assert time.monotonic() < deadline, f"{len(self.numbers)} of {published} came"
            time.sleep(0.001)


def number(count, size):
    """
    A message with a number.
    """
    return (b"%08d" % count).ljust(size, b"x")


def parts_of(stream):
    """
    The gaps and numbers of a whole answer.
    """
    head, _, body = stream.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        chunks = []
        while body:
            size, _, body = body.partition(b"\r\n")
            length = int(size, 16)
            chunks.append(body[:length])
            body = body[length + 2 :]
        body = b"".join(chunks)
    boundary = re.search(rb"boundary=(\w+)", head)[1].decode()
    # A gap behind which no message comes is told ahead of a part all the same.
    end = b"Content-Length: 0\r\n\r\n\r\n--%s--\r\n" % boundary.encode()
    for part in Decoder(boundary).feed(body + end):
        missed = sum(map(int, part.headers.get("msgbus-gap", "0").split(",")))
        yield missed, int(part.body[:8]) if part.body else None


def check(stream, count):
    """
    See that whole parts came in order, and that gaps and parts are what was
    published; the numbers of the parts.
    """
    place, numbers = 0, []
    for missed, found in parts_of(stream):
        place += missed
        if found is not None:
            assert found == place
            numbers.append(found)
            place += 1
    assert place == count
    return numbers


def test_nobody_reads(serve):
    """
    A thousand subscribers that never read cost nothing a message: one that
    reads gets all in order, and memory stays where it was.
    """
    bus = serve("--stall-timeout", "600")
    crowd, count = (CROWD, 20_000) if serve.scheme == "http" else (CROWD // 4, 5_000)
    lazy = [bus.subscribe() for _ in range(crowd)]
    reader = Reader(bus.subscribe())
    bus.wait_for(crowd + 1)
    before = bus.daemon.memory()
    for place in range(count):
        bus.publish(number(place, 10_000))
        reader.keep_up(place)
    grown = bus.daemon.memory() - before
    assert grown < 100e6 + (crowd * 256 * 1024 if serve.scheme == "https" else 0)
    print(f"{crowd} that never read cost {grown / 1e6:.1f} MB over {serve.scheme}")
    for client in lazy:
        client.close()
    bus.stop()
    reader.join(30)
    assert reader.numbers == list(range(count))


def test_large_messages(start, tmp_path):
    """
    Large messages to many that read are copied for none of them.
    """
    bus = Bus(start, tmp_path, "http", "--max-backlog", "10000000", "--history", "0")
    readers = [Reader(bus.subscribe()) for _ in range(40)]
    bus.wait_for(40)
    bus.publish(number(0, 1 << 20))
    before = bus.daemon.memory()
    peak = 0
    for place in range(1, 12):
        bus.publish(number(place, 1 << 20))
        peak = max(peak, bus.daemon.memory())
        deadline = time.monotonic() + 30
        while any(place not in reader.numbers[-1:] for reader in readers):
            assert time.monotonic() < deadline
            time.sleep(0.005)
    bus.stop()
    for reader in readers:
        reader.join(30)
        assert reader.numbers == list(range(12))
    print(f"40 readers of 1 MiB messages cost {(peak - before) / 1e6:.1f} MB")
    assert peak - before < 20e6


def test_one_message(serve):
    """
    Two hundred that ask for a large message each, and do not read it, are held within the
    limit for all together; who reads gets his whole, and the next on the same connection.
    """
    bus = serve(
        *("--max-waiting", "20000000", "--history-bytes", "10000000"),
        *("--stall-timeout", "50"),
    )
    reader = bus.connect()
    before = bus.daemon.memory()
    lazy = []
    for place in range(200):
        body = number(place, 1 << 20)
        bus.publish(body)
        get = GET.replace(b"foo", b"foo?format=message")
        lazy.append(bus.connect(get, SO_RCVBUF=4096))
        if not place % 20:
            reader.sendall(get)
            response = HTTPResponse(reader)
            response.begin()
            assert response.read() == body
    grown = bus.daemon.memory() - before
    print(f"200 messages of 1 MiB that nobody reads: {grown / 1e6:.1f} MB, {serve.scheme}")
    assert grown < 80e6
    bus.daemon.wait_for("Closed [0-9]+ subscribers that were past their backlog")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("overflow", ["drop-newest", "drop-oldest", "latest"])
def test_pauses(serve, overflow, version):
    """
    One that pauses, in mid-part, and again while it catches up, sees whole
    parts in order, and its gaps and parts are what was published.
    """
    bus = serve("--max-backlog", "300000")
    client = bus.subscribe(f"?overflow={overflow}", version, SO_RCVBUF=100_000)
    bus.wait_for(1)
    stream, count = bytearray(), 0
    for burst, room in ((300, 150_001), (100, 400_003), (400, 77_777), (50, 0)):
        for _ in range(burst):
            bus.publish(number(count, 10_000))
            count += 1
        # All that there is, with `latest`, may be less.
        while room > 0 and select.select([client], [], [], 0.2)[0]:
            stream += (piece := client.recv(min(room, 65536)))
            room -= len(piece)
    bus.stop()
    numbers = check(bytes(stream) + rest_of(client), count)
    assert len(numbers) < count - 300
    assert (numbers[-1] == count - 1) == (overflow != "drop-newest")


def test_close(serve):
    """
    One that asks for it is cut when it is past its backlog.
    """
    bus = serve("--stall-timeout", "10")
    client = bus.subscribe("?overflow=close")
    bus.wait_for(1)
    for place in range(2000):
        bus.publish(number(place, 10_000))
    bus.daemon.wait_for("leaves 'foo'")
    # Over TLS, Python keeps quiet about it.
    with suppress(ConnectionResetError):
        assert not rest_of(client).endswith(b"0\r\n\r\n")
    bus.daemon.wait_for("Closed 1 subscribers that were past their backlog")


def test_latest(serve):
    """
    With `latest`, the newest is there as soon as what the kernel held has been
    read.
    """
    bus = serve()
    client = bus.subscribe("?overflow=latest", SO_RCVBUF=50_000)
    bus.wait_for(1)
    count = 500
    for place in range(count):
        bus.publish(number(place, 10_000))
    stream = bytearray()
    while b"%08dx" % (count - 1) not in stream:
        stream += client.recv(65536)
    held = len(stream)
    bus.stop()
    check(bytes(stream) + rest_of(client), count)
    print(f"{held} bytes were read before the newest, over {serve.scheme}")
    assert held < 1_000_000


def test_vanishing(serve):
    """
    Subscribers that vanish in each state, a thousand of them, leave nothing,
    and take nothing from one that reads.
    """
    # The witness shares a busy machine with the bus, and may be late itself.
    bus = serve("--max-backlog", "20000000", "--history", "0")
    witness = Reader(bus.subscribe())
    bus.wait_for(1)
    bus.publish(number(0, 10))
    files = bus.daemon.open_files()
    before = None
    for lap in range(4):
        states = [
            bus.connect,
            lambda: bus.connect(GET[:20]),
            lambda: bus.connect(POST + b"Content-Length: 10\r\n\r\nhalf"),
            lambda: bus.connect(POST + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf"),
            lambda: bus.connect(GET + b"x" * 20_000),
            lambda: bus.subscribe("?overflow=latest&heartbeat=5"),
            bus.subscribe,
        ]
        crowd = [make() for make in states for _ in range(CROWD // 4 // len(states))]
        # More than a socket takes: part of it waits when they go.
        for place in range(6):
            bus.publish(number(lap * 6 + place + 1, 1_000_000))
        # Those at its end have subscribed, and have got the head.
        for client in crowd[-len(crowd) // len(states) :: 2]:
            client.recv(1000)
        reset = struct.pack("ii", 1, 0)
        for client in crowd[::2]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        for client in crowd:
            client.close()
        bus.daemon.wait_for_files(files)
        # The first lap has made the memory ready that others use again.
        before = before or bus.daemon.memory()
    # What is free again over TLS is in pieces: it was seen to come and go by 25
    # MB over eight laps, where a connection that stayed would cost 60 KB.
    assert bus.daemon.memory() - before < (10e6 if serve.scheme == "http" else 40e6)
    assert bus.daemon.log.count("subscribes to") == bus.daemon.log.count("leaves") + 1
    bus.stop()
    witness.join(30)
    assert witness.numbers == list(range(25))


def test_stalled(serve):
    """
    A subscriber that reads nothing while something waits for it is cut; one
    that has nothing to read is not.
    """
    bus = serve("--stall-timeout", "1", "--max-backlog", "100000")
    idle = bus.connect(GET.replace(b"foo", b"bar"))
    stalled = bus.subscribe()
    bus.wait_for(2)
    # More than the sockets take.
    for place in range(12):
        bus.publish(number(place, 1_000_000))
    bus.daemon.wait_for("Cut 1 subscribers that took nothing for 1.0 seconds")
    bus.daemon.wait_for("leaves 'foo'")
    assert "leaves 'bar'" not in bus.daemon.log
    bus.stop()
    assert rest_of(idle).endswith(b"0\r\n\r\n")
    stalled.close()


def test_heartbeat(bus):
    """
    A stream on which nothing is published is heard of.
    """
    client = raw(bus, GET.replace(b"foo", b"foo?heartbeat=5"))
    stream = b""
    while stream.count(b"15\r\nMsgbus-Heartbeat: 1\r\n\r\n") < 2:
        assert select.select([client], [], [], 7)[0]
        stream += client.recv(4096)


class TestNetwork:
    """
    A network in between, which goes away without a word.
    """

    @pytest.fixture
    def peer(self):
        """
        Run a Python program on another host, and cut the network to it.
        """
        here, there = "198.18.77.1", "198.18.77.2"
        holder = subprocess.Popen(["unshare", "--net", "sleep", "300"])
        name = f"mb{os.getpid()}"

        def ip(*arguments):
            subprocess.run(["ip", *arguments], check=True)

        def inside(*command, **kwargs):
            enter = ["nsenter", "--net", "--target", str(holder.pid)]
            return subprocess.Popen([*enter, *command], **kwargs)

        deadline = time.monotonic() + 30
        ours = os.stat("/proc/self/ns/net").st_ino
        while os.stat(f"/proc/{holder.pid}/ns/net").st_ino == ours:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            peer = ("peer", "name", "eth0", "netns", str(holder.pid))
            ip("link", "add", name, "type", "veth", *peer)
            ip("address", "add", f"{here}/30", "dev", name)
            ip("link", "set", name, "up")
            for command in (
                ("ip", "address", "add", f"{there}/30", "dev", "eth0"),
                ("ip", "link", "set", "eth0", "up"),
            ):
                assert inside(*command).wait(30) == 0
            yield here, inside, lambda: ip("link", "set", name, "down")
        finally:
            holder.kill()
            holder.wait(30)

    def test_gone(self, start, peer):
        """
        Peers whose network is gone are noticed: one for which bytes wait, one
        to which some are under way, and one that is just silent.
        """
        here, inside, cut = peer
        bus = start("-v", "--stall-timeout", "4", "--listen", f"tcp:0:interface={here}")
        program = (
            "import socket, sys, time\n"
            "for name in ('behind', 'sent', 'silent'):\n"
            f"    s = socket.create_connection(({here!r}, {bus.port}))\n"
            "    s.sendall(b'GET /msgbus/%s HTTP/1.0\\r\\n\\r\\n' % name.encode())\n"
            "    globals()[name] = s\n"
            "time.sleep(300)\n"
        )
        client = inside("python3", "-c", program)
        try:
            bus.wait_for("subscribes to", count=3)
            cut()
            started = time.monotonic()
            for name, body in ((b"behind", bytes(1_000_000)), (b"sent", b"hello")):
                local = raw(bus, host=here)
                head = POST.replace(b"foo", name) + b"Content-Length: %d\r\n\r\n"
                for _ in range(5):
                    local.sendall(head % len(body) + body)
                    assert local.recv(4096).startswith(b"HTTP/1.1 204 ")
                local.close()
            for name in ("behind", "sent", "silent"):
                bus.wait_for(f"leaves '{name}'")
            assert time.monotonic() - started < 15
        finally:
            client.kill()
            client.wait(30)
