"""
Streams of publications over real sockets: hostile, slow, cut, many, and endless ones.
"""

import json
import os
import re
import socket
import ssl
import threading
import time
from contextlib import suppress

from msgbus.formats.multipart import Decoder

from .blocking import GET, publish, raw, rest_of
from .certificates import Authority

TYPE = b"Content-Type: multipart/x-mixed-replace; boundary=B\r\n"
TOLD = b"Accept: application/x-ndjson\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def head(path="foo", headers=CHUNKED, type=TYPE):
    """
    The head of a request that publishes a stream.
    """
    target = path.encode()
    lines = b"Host: localhost\r\n" + type + headers
    return b"POST /msgbus/%b HTTP/1.1\r\n%b\r\n" % (target, lines)


def part(body=b"", headers=b""):
    """
    One part, with the delimiter before it.
    """
    return b"--B\r\n%bContent-Length: %d\r\n\r\n%b\r\n" % (headers, len(body), body)


def chunk(data=b""):
    """
    The same bytes as one chunk; the last chunk if there are none.
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(client):
    """
    The status and the object of the answer that comes on a connection.
    """
    with client.makefile("rb") as file:
        status = int(file.readline().split()[1])
        length = 0
        while (line := file.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, json.loads(file.read(length))


def whole(bus, body, headers=b"", **kwargs):
    """
    The answer to a request with this body, of which the length is given.
    """
    length = b"Content-Length: %d\r\n" % len(body)
    with raw(bus, head(headers=length + headers, **kwargs)) as client:
        client.sendall(body)
        return answer(client)


class Subscriber:
    """
    One who reads a channel from some message on.
    """

    def __init__(self, bus, path="foo"):
        self._client = raw(bus, GET.replace(b"foo", path.encode()))
        self._file = self._client.makefile("rb")
        while (line := self._file.readline()) != b"\r\n":
            if found := re.search(rb"boundary=(\S+)", line):
                self._decoder = Decoder(found[1].decode())
        # Chunked; the first chunk is the first delimiter.
        self._read_chunk()

    def _read_chunk(self):
        size = int(self._file.readline(), 16)
        data = self._file.read(size)
        self._file.readline()
        return list(self._decoder.feed(data))

    def parts(self, count):
        """
        The next so many parts.
        """
        parts = []
        while len(parts) < count:
            parts += self._read_chunk()
        return parts

    def bodies(self, count):
        """
        Their bodies.
        """
        return [part.body for part in self.parts(count)]

    def close(self):
        """
        Leave.
        """
        self._file.close()
        self._client.close()


class TestHostile:
    """
    Streams that nobody sends by accident.
    """

    def test_empty_parts(self, bus):
        """
        Ten thousand empty parts are ten thousand messages; those that come meanwhile on
        another connection are not held up.
        """
        body = part() * 10_000
        with raw(bus, head(headers=b"Content-Length: %d\r\n" % len(body))) as client:
            client.sendall(body[: len(body) // 2])
            with raw(bus) as other:
                publish(other, b"x")
            client.sendall(body[len(body) // 2 :])
            status, told = answer(client)
        assert (status, told["published"]) == (200, 10_000)

    def test_large_head(self, bus):
        """
        20 KB of headers in a part are refused, and what came before is published.
        """
        for headers in (b"A: b\r\n" * 4000, b"A: " + b"x" * 20_000 + b"\r\n"):
            status, told = whole(bus, part(b"1") + part(b"2", headers) + part(b"3"))
            assert (status, told["published"], told["part"]) == (400, 1, 2)
            assert "16 KiB" in told["error"]

    def test_boundaries(self, bus):
        """
        A boundary of 200 characters works, so does none; a longer one is refused.
        """
        base = b"Content-Type: multipart/x-mixed-replace"
        for boundary, tail in (
            (b"x" * 200, b"; boundary=" + b"x" * 200),
            (b"x" * 200, b""),
            (b"B", b"; boundary="),
        ):
            body = part(b"1").replace(b"--B", b"--" + boundary)
            status, told = whole(bus, body, type=base + tail + b"\r\n")
            assert (status, told["published"]) == (200, 1), told
        with raw(bus, head(type=base + b"; boundary=" + b"x" * 201 + b"\r\n")) as client:
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")

    def test_nested(self, bus):
        """
        A multipart body within a part stays as it is.
        """
        inner = part(b"inner") * 3 + b"--B--\r\n"
        headers = b"Content-Type: multipart/mixed; boundary=B\r\n"
        subscriber = Subscriber(bus)
        status, told = whole(bus, part(inner, headers) + part(b"2"))
        assert (status, told["published"]) == (200, 2)
        first, second = subscriber.parts(2)
        assert (first.body, second.body) == (inner, b"2")
        assert first.headers["content-type"] == "multipart/mixed; boundary=B"
        subscriber.close()

    def test_two_lengths(self, bus):
        """
        Two lengths of a part, equal or not, are refused; so are two of the request.
        """
        for length in (1, 2):
            body = part(b"1", b"Content-Length: %d\r\n" % length)
            status, told = whole(bus, body)
            assert (status, told["published"], told["part"]) == (400, 0, 1)
        lengths = b"Content-Length: 5\r\nContent-Length: 6\r\n"
        for headers in (lengths, CHUNKED + lengths[:19]):
            with raw(bus, head(headers=headers) + part(b"1")) as client:
                assert client.recv(100).startswith(b"HTTP/1.1 400 ")

    def test_smuggling(self, bus):
        """
        What looks like a request in a body is not one, also if the stream is refused before
        that or its sender denied.
        """
        subscriber = Subscriber(bus, "evil")
        evil = b"POST /msgbus/evil HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n"
        evil += b"Content-Length: 5\r\n\r\nevil!"
        for body in (evil, part(b"", b"Content-Type: x\r\n") + evil, part(evil)):
            for headers in (b"", b"Origin: http://evil.example\r\n"):
                for piece in (len(body), 40):
                    length = b"Content-Length: %d\r\n" % len(body)
                    data = head(headers=length + headers) + body
                    with raw(bus) as client, suppress(ConnectionError):
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        for at in range(0, len(data), piece):
                            client.sendall(data[at : at + piece])
                        client.recv(10_000)
        with raw(bus) as client:
            publish(client, b"good", b"evil")
        assert subscriber.bodies(1) == [b"good"]
        subscriber.close()

    def test_split(self, bus):
        """
        A stream is read alike wherever it is cut on the wire.
        """
        data = head(headers=CHUNKED + b"Connection: keep-alive\r\n")
        data += chunk(part(b"1")[:20]) + chunk(part(b"1")[20:] + part(b"2")) + chunk()
        with raw(bus) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for cut in range(1, len(data)):
                client.sendall(data[:cut])
                time.sleep(0.001)
                client.sendall(data[cut:])
                status, told = answer(client)
                assert (status, told["published"]) == (200, 2), cut
            for at in range(len(data)):
                client.sendall(data[at : at + 1])
            assert answer(client)[1]["published"] == 2


class TestCrowd:
    """
    Many streams at once.
    """

    COUNT = 1000

    def test_half_stalls(self, start):
        """
        Of a thousand streams, half stall in the middle of a part: these are answered with
        408 and release their memory, so that others can stall, and the rest go on.
        """
        bus = start("--stall-timeout", "2")
        good = [raw(bus, head()) for _ in range(self.COUNT // 2)]
        memory = []
        for _ in range(4):
            bad = [raw(bus, head()) for _ in range(self.COUNT // 2)]
            for client in bad:
                client.sendall(chunk(part(b"x" * 100_000)[:-500]))
            for client in good:
                client.sendall(chunk(part(b"1")))
            for client in bad:
                status, told = answer(client)
                assert (status, told["published"], told["part"]) == (408, 0, 1)
                client.close()
            memory.append(bus.memory())
        for client in good:
            client.sendall(chunk(part(b"2")) + chunk())
        for client in good:
            status, told = answer(client)
            assert (status, told["published"]) == (200, 5)
            client.close()
        # In the first round, the process has got what the allocator keeps.
        assert memory[-1] < memory[0] + 40_000_000, memory


class TestStop:
    """
    A bus that stops, or dies, in the middle of streams.
    """

    def test_stop(self, start):
        """
        What was complete is published and told with 503, to one who sends on, too.
        """
        bus = start()
        subscriber = Subscriber(bus)
        quiet, told = raw(bus, head()), raw(bus, head(headers=CHUNKED + TOLD))
        for client in (quiet, told):
            client.sendall(chunk(part(b"1") + part(b"2") + part(b"3")[:-3]))
        assert subscriber.bodies(4) == [b"1", b"2"] * 2
        busy = raw(bus, head("busy"))
        sent = threading.Thread(target=self.flood, args=(busy,))
        sent.start()
        time.sleep(0.3)
        bus.process.terminate()
        status, summary = answer(quiet)
        assert (status, summary["published"], summary["status"]) == (503, 2, 503)
        *_, last = (line for line in rest_of(told).splitlines() if line.startswith(b"{"))
        summary = json.loads(last)
        assert (summary["published"], summary["status"]) == (2, 503)
        status, summary = answer(busy)
        assert status == 503
        assert summary["published"] > 0
        sent.join()
        bus.stop()
        subscriber.close()

    @staticmethod
    def flood(client):
        """
        Send parts until the connection is closed.
        """
        data = chunk(part(b"x" * 1000) * 10)
        with suppress(OSError):
            while True:
                client.sendall(data)

    def test_kill(self, start, tmp_path):
        """
        With a history file, no message is lost that was acknowledged, and their order is
        kept, when the bus is killed.
        """
        file = str(tmp_path / "history")
        for _ in range(int(os.environ.get("MSGBUS_TEST_KILLS", "3"))):
            # Enough for all of them.
            bus = start("--history-file", file, "--history", "1000000")
            client = raw(bus, head("kept", CHUNKED + TOLD))
            sender = threading.Thread(target=self.number, args=(client,))
            sender.start()
            threading.Timer(0.7, bus.kill).start()
            receipts = b""
            with suppress(ConnectionError):
                while data := client.recv(65536):
                    receipts += data
            sender.join()
            client.close()
            receipt = rb'{"part": (\d+), "id": "([0-9-]+)", .*}\n'
            acknowledged = re.findall(receipt, receipts)
            numbers = [int(number) for number, _ in acknowledged]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) > 0
            bus.kill()
            bus = start("--history-file", file, "--history", "1000000")
            subscriber = Subscriber(bus, f"kept?since={acknowledged[0][1].decode()}")
            parts = subscriber.parts(len(numbers) - 1)
            ids = [part.headers["msgbus-id"].encode() for part in parts]
            assert ids == [id for _, id in acknowledged[1:]]
            assert [int(part.body) for part in parts] == numbers[1:]
            subscriber.close()
            bus.stop()

    @staticmethod
    def number(client):
        """
        Send parts with numbers until the connection is closed.
        """
        number = 0
        with suppress(OSError):
            while True:
                numbers = range(number + 1, number + 101)
                client.sendall(chunk(b"".join(part(b"%d" % n) for n in numbers)))
                number += 100


class TestEndless:
    """
    Streams of which there is always more.
    """

    def test_beside_a_flood(self, bus):
        """
        Beside a publisher at full speed, the messages of others come soon.
        """
        subscriber = Subscriber(bus, "quiet")
        flood = raw(bus, head("loud"))
        sender = threading.Thread(target=TestStop.flood, args=(flood,))
        sender.start()
        with raw(bus, head("quiet")) as client:
            for number in range(50):
                begin = time.monotonic()
                client.sendall(chunk(part(b"%d" % number)))
                assert subscriber.bodies(1) == [b"%d" % number]
                assert time.monotonic() - begin < 5
        flood.shutdown(socket.SHUT_RDWR)
        sender.join()
        flood.close()
        subscriber.close()

    def test_tls(self, start, tmp_path):
        """
        Over TLS, where bytes may come while the publisher has to wait for the disk, all is
        published, in order.
        """
        authority = Authority(tmp_path)
        listen = f"ssl:0:privateKey={authority.issue('localhost')}:interface=127.0.0.1"
        file = str(tmp_path / "history")
        bus = start("--listen", listen, "--history-file", file, "--history", "100000")
        context = ssl.create_default_context(cafile=authority.file)
        with context.wrap_socket(raw(bus), server_hostname="localhost") as client:
            client.sendall(head())
            for begin in range(0, 20_000, 1000):
                numbers = range(begin, begin + 1000)
                client.sendall(chunk(b"".join(part(b"%d" % n) for n in numbers)))
            client.sendall(chunk(part(b"x" * 1_000_000) * 3) + chunk())
            status, told = answer(client)
        assert (status, told["published"]) == (200, 20_003)
        with context.wrap_socket(raw(bus), server_hostname="localhost") as client:
            client.sendall(GET.replace(b"foo", b"foo?last=20003"))
            seen = bytearray()
            while seen.count(b"x" * 1_000_000) < 3:
                seen += client.recv(1 << 20)
        found = re.findall(rb"\r\n\r\n(\d+)\r\n--", seen)
        assert found == [b"%d" % number for number in range(20_000)]

    def test_does_not_read_receipts(self, start):
        """
        A publisher that does not read its receipts has to wait, and takes no memory.
        """
        bus = start("--history", "0")
        before = bus.memory()
        client = raw(bus, head(headers=CHUNKED + TOLD))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(3)
        data = chunk(part() * 1000)
        sent = 0
        with suppress(TimeoutError):
            while sent < 200_000:
                client.sendall(data)
                sent += 1000
        assert sent < 200_000
        assert bus.memory() < before + 30_000_000
        client.close()

    def test_flat_memory(self, start):
        """
        A stream of large parts takes no more memory the longer it is.
        """
        bus = start("--history", "0")
        client = raw(bus, head())
        data = chunk(part(b"x" * 65536) * 16)
        for _ in range(20):
            client.sendall(data)
        before = bus.memory()
        for _ in range(100):
            client.sendall(data)
        client.sendall(chunk())
        assert answer(client)[1]["published"] == 120 * 16
        assert bus.memory() < before + 20_000_000
        client.close()
