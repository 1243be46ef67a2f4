"""
Requests that are repeated on real connections of each kind.
"""

import socket
import ssl
from http.client import HTTPConnection

import pytest

from .certificates import Authority

TIMES = 4


class Tls:
    """
    A socket over TLS that keeps all bytes that have come on the wire.
    """

    def __init__(self, raw, context):
        self.raw = raw
        self.wire = bytearray()
        self._came, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._going, server_hostname="localhost")
        self._do(self._tls.do_handshake)

    def _do(self, call, *arguments):
        while True:
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                data = self.raw.recv(1 << 16)
                self.wire += data
                self._came.write(data)
            else:
                self._flush()
                return result

    def _flush(self):
        if data := self._going.read():
            self.raw.sendall(data)

    def sendall(self, data):
        self._do(self._tls.write, data)

    def recv(self, size):
        return self._do(self._tls.read, size)

    def makefile(self, mode):
        assert mode == "rb"
        return _Reader(self)

    def close(self):
        self.raw.close()

    def records(self):
        """
        The types of the TLS records that came (RFC 8446, section 5.1).
        """
        types, place = [], 0
        while place < len(self.wire):
            kind, major = self.wire[place], self.wire[place + 1]
            assert major == 3
            types.append(kind)
            place += 5 + int.from_bytes(self.wire[place + 3 : place + 5], "big")
        assert place == len(self.wire)
        return types


class _Reader:
    """
    Reads lines from it, as `http.client` does.
    """

    def __init__(self, tls):
        self._tls = tls
        self._data = b""

    def readline(self, limit=-1):
        while b"\n" not in self._data:
            self._data += self._tls.recv(4096)
        line, newline, self._data = self._data.partition(b"\n")
        return line + newline

    def read(self, size=-1):
        return b""

    def flush(self):
        pass

    def close(self):
        pass


class Bus:
    """
    A daemon that listens in one way, and how to connect there.
    """

    def __init__(self, start, folder, kind):
        self.kind = kind
        self._file = folder / "socket"
        authority = Authority(folder)
        self._context = ssl.create_default_context(cafile=authority.file)
        listen = {
            "tcp": "tcp:0:interface=127.0.0.1",
            "unix": f"unix:{self._file}",
            "tls": f"ssl:0:privateKey={authority.issue('localhost')}:interface=127.0.0.1",
            "haproxy": "haproxy:tcp:0:interface=127.0.0.1",
        }[kind]
        self.daemon = start("-v", "--listen", listen)

    def connect(self):
        """
        A new connection.
        """
        if self.kind == "unix":
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(self._file))
        else:
            client = socket.create_connection(("127.0.0.1", self.daemon.port))
        client.settimeout(30)
        if self.kind == "haproxy":
            client.sendall(b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 8888\r\n")
        return Tls(client, self._context) if self.kind == "tls" else client


@pytest.fixture(params=["tcp", "unix", "tls", "haproxy"])
def listening(request, start, tmp_path):
    """
    A bus that listens in each of these ways.
    """
    return Bus(start, tmp_path, request.param)


def publish(connection, body):
    """
    Publish, the head and the body apart; return the status and the headers, without those
    that are others each time.
    """
    connection.putrequest("POST", "/msgbus/foo")
    connection.putheader("Content-Type", "text/plain")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body)
    answer = connection.getresponse()
    answer.read()
    headers = answer.getheaders()
    names = [name for name, _ in headers]
    assert names.count("Date") == names.count("Msgbus-Id") == 1
    kept = [header for header in headers if header[0] not in ("Date", "Msgbus-Id")]
    return answer.status, kept


def read_until(client, data, end):
    """
    Read on until this comes, and return all.
    """
    while end not in data:
        piece = client.recv(1 << 16)
        assert piece, data
        data += piece
    return data


def test_repeated(listening):
    """
    Over each kind of connection, publications and subscriptions that are repeated are
    answered as the first ones, and each subscriber gets all messages that come after it.
    """
    request = b"GET /msgbus/foo HTTP/1.1\r\nHost: localhost\r\n\r\n"
    subscribers, heads = [], []
    for _ in range(3):
        client = listening.connect()
        client.sendall(request)
        data = read_until(client, b"", b"\r\n\r\n")
        head, _, stream = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        heads.append([line for line in lines if not line.startswith(b"Date: ")])
        subscribers.append((client, stream))
    assert heads == [heads[0]] * 3
    publishers = []
    for number in range(TIMES):
        connection = HTTPConnection("localhost", listening.daemon.port)
        connection.sock = listening.connect()
        publishers.append(connection)
        answers = [publish(connection, b"<%d-%d>" % (number, n)) for n in range(TIMES)]
        assert answers == [answers[0]] * TIMES
        assert answers[0][0] == 204
        assert ("Msgbus-Subscribers", "3") in answers[0][1]
    bodies = [b"<%d-%d>" % (n, m) for n in range(TIMES) for m in range(TIMES)]
    for client, stream in subscribers:
        stream = read_until(client, stream, bodies[-1])
        places = [stream.index(body) for body in bodies]
        assert places == sorted(places)
    if listening.kind == "tls":
        for tls in [c.sock for c in publishers] + [c for c, _ in subscribers]:
            assert set(tls.records()) <= {20, 21, 22, 23}
            for text in (b"HTTP/1.1", b"Msgbus-Id", b"msgbus", b"<0-1>"):
                assert text not in tls.wire
    for connection in publishers:
        connection.close()
    for client, _ in subscribers:
        client.close()
    listening.daemon.wait_for("leaves 'foo'", 3)
