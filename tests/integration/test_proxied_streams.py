"""
The bus behind each proxy that docs/proxies.md configures: messages are handed on at once,
in every form, and the bus knows the addresses of the clients.
"""

import re
import socket
import statistics
import subprocess
import time
from itertools import count

import pytest
from websockets.sync.client import connect as connect_websocket

from .caddy import start_caddy
from .daemon import Daemon
from .haproxy import start_haproxy
from .nginx import start_nginx
from .pages import CHECKOUT, blocks
from .ports import START_SECONDS, free_port
from .varnish import start_varnish

# How each is started, and how its configuration is made to fit: a port of the test, without
# TLS, takes the place of what the page shows.
PROXIES = {
    "nginx": (
        start_nginx,
        {
            "listen 443 ssl": "listen 127.0.0.1:{port}",
            "ssl_certificate cert.pem;": "",
            "ssl_certificate_key key.pem;": "",
        },
    ),
    "haproxy": (
        start_haproxy,
        {"bind :443 ssl crt chat.example.pem": "bind 127.0.0.1:{port}"},
    ),
    "caddy": (start_caddy, {"chat.example {{": "http://chat.example:{port} {{"}),
    "vcl": (start_varnish, {}),
}

# What a client waits for a message at most, as half of several do: a proxy that collects
# bytes before it hands them on takes longer.
SECONDS = 0.05
SEVERAL = 9

CLIENT = "127.0.0.2"
_names = count()


class Proxied:
    """
    A bus and a proxy in front of it.

    Attributes:
        channel: One that only this test uses.
    """

    def __init__(self, name, folder):
        self.bus = Daemon(
            folder, "-v", "--host", "chat.example", "--trusted-proxy", "127.0.0.1"
        )
        self.port = free_port()
        start, changes = PROXIES[name]
        configuration = blocks(CHECKOUT / "docs/proxies.md", name)[0]
        for shown, instead in changes.items():
            shown, instead = (text.format(port=self.port) for text in (shown, instead))
            assert shown in configuration
            configuration = configuration.replace(shown, instead)
        shown, instead = (
            f'"{port}"' if name == "vcl" else f":{port}" for port in (8888, self.bus.port)
        )
        assert shown in configuration
        self._process = start(folder, configuration.replace(shown, instead), self.port)

    def connect(self):
        """
        A connection of a client to the proxy.
        """
        client = socket.create_connection(
            ("127.0.0.1", self.port), timeout=START_SECONDS, source_address=(CLIENT, 0)
        )
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def ask(self, method, query="", headers="", body=b""):
        """
        A connection that has sent a request for the channel.
        """
        client = self.connect()
        client.sendall(
            f"{method} /msgbus/{self.channel}{query} HTTP/1.1\r\n"
            f"Host: chat.example\r\n{headers}\r\n".encode()
            + body
        )
        return client

    def publish(self, body):
        """
        Publish a message, and return its id.
        """
        headers = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        with self.ask("POST", headers=headers, body=body) as client:
            head = read_until(client, rb"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 204 "), head
        return re.search(rb"(?i)msgbus-id: (\S+)", head)[1].decode()

    def wait_for(self, verb, times=1):
        """
        Wait until the client has done this to the channel so often, by the bus's log.
        """
        self.bus.wait_for(rf"{re.escape(CLIENT)} {verb} '{self.channel}'", times)

    def stop(self):
        """
        Stop both.
        """
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            # Vinyl Cache waits for the ends of its pipes.
            self._process.kill()
            self._process.wait(START_SECONDS)
        self.bus.stop()


@pytest.fixture(scope="module", params=PROXIES)
def started(request, tmp_path_factory):
    """
    A bus behind each of the proxies.
    """
    proxied = Proxied(request.param, tmp_path_factory.mktemp(request.param))
    yield proxied
    proxied.stop()


@pytest.fixture
def proxied(started):
    """
    It, with a channel for this test.
    """
    started.channel = f"channel{next(_names)}"
    return started


def read_until(client, pattern):
    """
    What comes on a connection up to this pattern.
    """
    data = b""
    while not re.search(pattern, data):
        piece = client.recv(1 << 16)
        assert piece, (pattern, data)
        data += piece
    return data


def check_times(pass_on):
    """
    See that several messages, of which the function passes one on with this number, take no
    longer than they may.
    """
    times = []
    for number in range(1, SEVERAL + 1):
        begun = time.perf_counter()
        pass_on(number)
        times.append(time.perf_counter() - begun)
    assert statistics.median(times) < SECONDS, times


@pytest.mark.parametrize("format", ["multipart", "mixed", "event-stream", "ndjson"])
def test_stream(proxied, format):
    """
    A message reaches the reader of a stream at once; and the bus knows who reads, and that
    it has left.
    """
    with proxied.ask("GET", f"?format={format}") as reader:
        read_until(reader, rb"\r\n\r\n")

        def pass_on(number):
            proxied.publish(b"message %d." % number)
            read_until(reader, rb"message %d\." % number)

        check_times(pass_on)
        proxied.wait_for("subscribes to")
    proxied.wait_for("leaves")


def test_websocket(proxied):
    """
    A WebSocket gets at once what it publishes itself.
    """
    address = f"ws://chat.example/msgbus/{proxied.channel}?raw=1"
    with connect_websocket(address, sock=proxied.connect()) as websocket:

        def pass_on(number):
            websocket.send(f"message {number}")
            assert websocket.recv(START_SECONDS) == f"message {number}"

        check_times(pass_on)
        proxied.wait_for("subscribes to")
    proxied.wait_for("leaves")


def test_long_poll(proxied):
    """
    Who waits for one message gets it at once.
    """
    since = proxied.publish(b"message 0.")

    def pass_on(number):
        nonlocal since
        query = f"?format=message&since={since}&wait=30"
        with proxied.ask("GET", query) as reader:
            since = proxied.publish(b"message %d." % number)
            read_until(reader, rb"message %d\." % number)

    check_times(pass_on)


def test_published_stream(proxied):
    """
    Each message of a stream that is published is published at once.
    """
    head = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
    with (
        proxied.ask("POST", "?format=ndjson&raw=1", head) as publisher,
        proxied.ask("GET", "?format=ndjson&since=all") as reader,
    ):

        def pass_on(number):
            publisher.sendall(b"a\r\nmessage %d\n\r\n" % number)
            read_until(reader, b'"message %d"' % number)

        check_times(pass_on)
        publisher.sendall(b"0\r\n\r\n")
        read_until(publisher, b'"published": %d' % SEVERAL)


# Caddy may answer a stream that asks for receipts at its end, or not at all.
WITH_RECEIPTS = [name for name in PROXIES if name != "caddy"]


@pytest.mark.parametrize("started", WITH_RECEIPTS, indirect=True, scope="module")
def test_receipts(proxied):
    """
    Each message of a stream has its receipt at once.
    """
    head = (
        "Content-Type: application/x-ndjson\r\nAccept: application/x-ndjson\r\n"
        "Transfer-Encoding: chunked\r\n"
    )
    with proxied.ask("POST", "?format=ndjson&raw=1", head) as publisher:

        def pass_on(number):
            publisher.sendall(b"a\r\nmessage %d\n\r\n" % number)
            read_until(publisher, b'"part": %d,' % number)

        check_times(pass_on)
        publisher.sendall(b"0\r\n\r\n")
        read_until(publisher, b'"published": %d' % SEVERAL)
