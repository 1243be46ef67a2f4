"""
The forms of a stream, read by clients that others wrote.
"""

import asyncio
import json
import random
import re
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64decode
from contextlib import suppress
from itertools import islice

import httpx
import pytest
import requests
import sseclient
import websockets
import websockets.sync.client
from httpx_sse import connect_sse
from requests_toolbelt.multipart.decoder import MultipartDecoder

from msgbus import blocking

from .certificates import Authority
from .pages import CHECKOUT, blocks
from .test_history import publish as publish_numbers

PICTURE = (CHECKOUT / "tests/data/picture.jpg").read_bytes()
CUTS = 100
COUNT = 3000


def publish(bus, *messages, channel="foo"):
    """
    Publish bodies with their types; their ids.
    """
    return [
        blocking.publish(bus.url + channel, body, kind, user="al").id
        for body, kind in messages
    ]


SENT = (
    (b"one\r\ntwo\rthree", "text/plain"),
    ('{"a":\n "ä"}'.encode(), "application/json"),
    (PICTURE, "image/jpeg"),
)


def check_events(events, ids):
    """
    See that these are what was sent.
    """
    found = ((e.event, e.data, e.id) for e in events if e.event == "message")
    text, data, picture = islice(found, len(SENT))
    assert text == ("message", "one\ntwo\nthree", ids[0])
    assert data == ("message", '{"a":\n "ä"}', ids[1])
    assert (picture[0], picture[2]) == ("message", ids[2])
    told = json.loads(picture[1])
    assert b64decode(told["base64"]) == PICTURE
    assert (told["type"], told["sender"], told["channel"]) == ("image/jpeg", "al", "foo")


def test_httpx_sse(bus):
    """
    httpx-sse reads the events.
    """
    ids = publish(bus, *SENT)
    with (
        httpx.Client() as client,
        connect_sse(client, "GET", f"{bus.url}foo?since=all") as source,
    ):
        check_events(source.iter_sse(), ids)


def test_sseclient(bus):
    """
    sseclient-py reads the events.
    """
    ids = publish(bus, *SENT)
    url = f"{bus.url}foo?since=all&format=event-stream"
    with requests.get(url, stream=True, timeout=30) as response:
        check_events(sseclient.SSEClient(response).events(), ids)


def test_jq(bus):
    """
    jq reads the lines as they come.
    """
    ids = publish(bus, *SENT)
    command = (
        f"curl -sN '{bus.url}foo?since=all&format=ndjson'"
        " | jq --unbuffered -c '[.id, .type, .body // (.base64 | length)]'"
    )
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = [json.loads(process.stdout.readline()) for _ in SENT]
    bus.stop()
    process.communicate(timeout=30)
    assert lines == [
        [ids[0], "text/plain", "one\r\ntwo\rthree"],
        [ids[1], "application/json", '{"a":\n "ä"}'],
        [ids[2], "image/jpeg", len(PICTURE + b"  ") // 3 * 4],
    ]


def test_requests_toolbelt(bus):
    """
    requests-toolbelt reads a multipart stream, once it has ended.
    """
    publish(bus, *SENT)
    url = f"{bus.url}foo?since=all&format=mixed"
    with requests.get(url, stream=True, timeout=30) as response:
        content = b""
        while content.count(b"Msgbus-Id") < len(SENT) or not content.endswith(b"\r\n"):
            content += response.raw.read1(65536)
        boundary = response.headers["Content-Type"].partition("=")[2].encode()
        # It wants the delimiter with which ours do not end.
        content = content.removesuffix(b"\r\n") + b"--\r\n"
        assert boundary in content
        parts = MultipartDecoder(content, response.headers["Content-Type"]).parts
    assert [part.content for part in parts] == [body for body, _ in SENT]


def test_websockets(bus):
    """
    The package websockets publishes and reads, and is told why it is closed.
    """

    async def talk():
        address = f"{bus.url}foo".replace("http", "ws", 1)
        async with (
            websockets.connect(address) as enveloped,
            websockets.connect(address + "?raw=1") as raw,
        ):
            await enveloped.send(json.dumps({"type": "a/b", "body": "1", "ack": 7}))
            told = json.loads(await enveloped.recv())
            assert (told["ack"], told["subscribers"]) == (7, 2)
            assert json.loads(await enveloped.recv())["id"] == told["id"]
            assert await raw.recv() == b"1"
            await raw.send("ä")
            assert await raw.recv() == "ä"
            assert json.loads(await enveloped.recv())["body"] == "ä"
            await asyncio.wait_for(await raw.ping(), 30)
            bus.process.terminate()
            with pytest.raises(websockets.ConnectionClosed):
                await enveloped.recv()
            assert (enveloped.close_code, raw.close_code or 1012) == (1012, 1012)
            reason = r"The bus is stopping; come back in \d+\.\d seconds\."
            assert re.fullmatch(reason, enveloped.close_reason)

    asyncio.run(asyncio.wait_for(talk(), 60))


def test_tls(start, tmp_path):
    """
    All of it over TLS, whose bytes go through Twisted.
    """
    authority = Authority(tmp_path)
    key = authority.issue("localhost")
    bus = start("--listen", f"ssl:0:privateKey={key}:interface=127.0.0.1")
    context = ssl.create_default_context(cafile=authority.file)
    url = f"https://localhost:{bus.port}/msgbus/foo"
    lengths = (0, 1, 1000, 1_000_000)

    # The package's client with threads reads and writes one TLS connection in two of them
    # at once, which OpenSSL does not bear: some in a thousand handshakes hang.
    async def talk():
        address = url.replace("http", "ws", 1) + "?raw=1"
        async with websockets.connect(address, ssl=context, max_size=2**22) as client:
            for size in lengths:
                await client.send(b"x" * size)
            await client.ping()
            for size in lengths:
                assert await client.recv() == b"x" * size

    asyncio.run(asyncio.wait_for(talk(), 60))
    with (
        httpx.Client(verify=context) as client,
        connect_sse(client, "GET", f"{url}?since=all&type=application/*") as source,
    ):
        events = (event for event in source.iter_sse() if event.event == "message")
        found = (json.loads(event.data) for event in events)
        assert [told["size"] for told in islice(found, 4)] == list(lengths)


def test_polling_program(bus):
    """
    The program of docs/formats.md gets all that is published.
    """
    program = blocks(CHECKOUT / "docs/formats.md", "python")[1]
    program = program.replace(":8888/", f":{bus.port}/")
    process = subprocess.Popen(
        ["python3", "-u", "-c", program], stdout=subprocess.PIPE, text=True
    )
    try:
        for number in range(5):
            publish(bus, (b"%d" % number, "text/plain"))
            assert process.stdout.readline() == f"text/plain b'{number}'\n"
    finally:
        process.kill()
        process.communicate()


class Proxy(threading.Thread):
    """
    Leads to a bus, and cuts each connection after so many bytes, or never.
    """

    def __init__(self, bus):
        super().__init__(daemon=True)
        self._bus = bus
        self._random = random.Random(1)
        self.cuts = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]

    def run(self):
        """
        Serve one connection after the other.
        """
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self.lead, args=(client,), daemon=True).start()

    def lead(self, client):
        """
        Lead one.
        """
        server = socket.create_connection(("127.0.0.1", self._bus.port))
        threading.Thread(target=self.copy, args=(client, server), daemon=True).start()
        left = self._random.randrange(1, 8000) if self.cuts < CUTS else 10**9
        while left > 0 and (data := self.receive(server, min(left, 4096))):
            left -= len(data)
            try:
                client.sendall(data)
            except OSError:
                break
        if left <= 0:
            self.cuts += 1
        for end in (client, server):
            # The other thread waits for it, which keeps it open.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def copy(self, source, sink):
        """
        The other direction.
        """
        while data := self.receive(source, 4096):
            try:
                sink.sendall(data)
            except OSError:
                return

    def receive(self, source, size):
        try:
            return source.recv(size)
        except OSError:
            return b""

    def close(self):
        """
        Serve no more.
        """
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def read_events(url, since):
    """
    The ids and bodies of one connection.
    """
    headers = {"Last-Event-ID": since} if since else {}
    url += "?envelope=1&since=all"
    with (
        httpx.Client(timeout=30) as client,
        connect_sse(client, "GET", url, headers=headers) as source,
    ):
        for event in source.iter_sse():
            assert event.event in ("begin", "live", "message")
            if event.event == "message":
                yield event.id, json.loads(event.data)["body"]


def read_lines(url, since):
    """
    The same, of lines.
    """
    query = f"?format=ndjson&since={since or 'all'}"
    with httpx.stream("GET", url + query, timeout=30) as answer:
        buffered = ""
        for piece in answer.iter_text():
            *lines, buffered = (buffered + piece).split("\n")
            for line in lines:
                told = json.loads(line)
                if told != {"live": True}:
                    yield told["id"], told["body"]


def read_frames(url, since):
    """
    The same, of frames.
    """
    address = url.replace("http", "ws", 1) + f"?since={since or 'all'}"
    with websockets.sync.client.connect(address, close_timeout=0) as client:
        for frame in client:
            told = json.loads(frame)
            if told != {"live": True}:
                yield told["id"], told["body"]


def read_answers(url, since):
    """
    The same, of one message after the other, on one connection.
    """
    with httpx.Client(timeout=30) as client:
        while True:
            answer = client.get(
                url, params={"format": "message", "wait": 20, "since": since or "all"}
            )
            since = answer.headers["Msgbus-Id"]
            assert "Msgbus-Gap" not in answer.headers
            if answer.status_code == 200:
                yield since, answer.text


LOST = (OSError, httpx.HTTPError, websockets.WebSocketException)


@pytest.mark.parametrize("read", [read_events, read_lines, read_frames, read_answers])
@pytest.mark.parametrize("channel", ["a/foo", "a/"])
def test_cut_a_hundred_times(start, read, channel):
    """
    While three thousand messages are published, a client that is cut off a hundred times,
    and goes on behind the last that it got, gets each once, in order.
    """
    bus = start("--history", "20000")
    proxy = Proxy(bus)
    proxy.start()
    url = f"http://127.0.0.1:{proxy.port}/msgbus/{channel}"
    publisher = threading.Thread(target=publish_numbers, args=(bus, range(COUNT), "a/foo"))
    publisher.start()
    numbers, since = [], ""
    deadline = time.monotonic() + 60
    while len(numbers) < COUNT:
        assert time.monotonic() < deadline, (len(numbers), proxy.cuts)
        with suppress(*LOST):
            for id, body in read(url, since):
                since = id
                numbers.append(int(body[:8]))
                if len(numbers) == COUNT:
                    break
    publisher.join()
    proxy.close()
    assert numbers == list(range(COUNT))
    assert proxy.cuts >= CUTS
