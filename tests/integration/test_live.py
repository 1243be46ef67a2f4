"""
Where history ends, as clients see it over real sockets: they are told, their stream ends
there, or they get the newest messages at a pace.
"""

import json
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from contextlib import closing

import pytest
import websockets.sync.client

from msgbus import blocking
from msgbus.client import Live

from .certificates import Authority

LIVE = {"live": True}
FORMATS = ("multipart", "mixed", "event-stream", "ndjson")


def fill(bus, numbers, channel="foo", size=0):
    """
    Publish these numbers by a stream, each with so many bytes behind it.
    """
    with blocking.stream(bus.url + channel) as out:
        for number in numbers:
            out.publish(b"%d" % number + b" " * size, "text/plain")


def curl(*arguments):
    """
    What curl prints, once it has ended by itself.
    """
    done = subprocess.run(
        ["curl", "-sN", "--max-time", "60", *arguments], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


class Reader(threading.Thread):
    """
    Reads lines of JSON, so many bytes at a time with a pause after each, until it has got
    the number `last` and was told where history ends, in any order, or until the end.

    Attributes:
        got: The numbers, and whatever else was told.
        error: Why it could not go on.
    """

    def __init__(self, url, last=None, size=1 << 16, pause=0.0):
        super().__init__(daemon=True)
        self._url = url
        self._last = last
        self._size = size
        self._pause = pause
        self.got = []
        self.error = None
        self.start()

    def run(self):
        try:
            with urllib.request.urlopen(self._url, timeout=60) as stream:
                self._read(stream)
        except Exception as error:
            self.error = error

    def _read(self, stream):
        data, due = b"", [self._last, LIVE]
        while piece := stream.read1(self._size):
            *lines, data = (data + piece).split(b"\n")
            for line in filter(None, lines):
                told = json.loads(line)
                item = int(told["body"]) if "body" in told else told
                self.got.append(item)
                if item in due:
                    due.remove(item)
            if not due:
                return
            time.sleep(self._pause)

    def end(self):
        """
        What it got until its end.
        """
        self.join(100)
        assert not self.is_alive()
        assert self.error is None
        return self.got


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
def test_curl_ends(bus, form, version):
    """
    curl ends by itself where history does, in each format, and has all that is kept.
    """
    fill(bus, range(100), size=10_000)
    for query, count in (("since=1h", 100), ("last=7", 7), ("since=all&type=a/*", 0)):
        told = curl(version, f"{bus.url}foo?{query}&until=now&format={form}")
        assert len(re.findall(rb"(?m)\b\d+ {10000}", told)) == count
        assert len(re.findall(rb'Msgbus-Live: 1|{"live": true}', told)) == 1
        assert told.endswith(b"--\r\n" if form in ("multipart", "mixed") else b"}\n") or (
            form == "event-stream" and told.endswith(b"}\n\n")
        )


def test_connection_is_cut_in_between(bus):
    """
    Whoever was cut off, and comes back with `Last-Event-ID`, gets the rest, and then the
    end; what was published meanwhile belongs to the rest.
    """
    fill(bus, range(10))
    url = f"{bus.url}foo?since=all&until=now&format=ndjson"
    lines = curl(url).splitlines()
    fill(bus, range(10, 13))
    resumed = curl("-H", f"Last-Event-ID: {json.loads(lines[4])['id']}", url).splitlines()
    told = [json.loads(line) for line in resumed]
    assert [int(line["body"]) for line in told[:-1]] == list(range(5, 13))
    assert told[-1] == LIVE


def test_refused(bus):
    """
    What makes no sense is refused with one sentence that says what to do.
    """
    for query, sentence in (
        ("until=now", "add since, last or last-of-each"),
        ("since=1h&until=yesterday", "give until=now"),
        ("last=1&until=now&format=message", "leave it away"),
        ("interval=2s", "add overflow=latest"),
        ("overflow=latest&interval=2d", "from 100ms to 1h"),
    ):
        told = curl("-w", "%{http_code}", f"{bus.url}foo?{query}").decode()
        assert re.fullmatch(rf"[A-Z][^\n]*{sentence}[^\n]*\.\n400", told), told


@pytest.mark.parametrize("size", [1 << 16, 4096])
def test_long_replay(start, size):
    """
    While a long replay is on its way, to a slow reader too, publications go on: that
    history ends is told once, between the messages that were there and the last ones, and
    each comes once, in order.
    """
    bus = start("--history", "20000", "--max-backlog", "20000000")
    fill(bus, range(3000), size=500)
    reader = Reader(f"{bus.url}foo?since=all&format=ndjson", 5000, size, 0.001)
    fill(bus, range(3000, 4500), size=500)
    while LIVE not in reader.got:
        assert reader.is_alive()
        time.sleep(0.01)
    fill(bus, range(4500, 5001), size=500)
    got = reader.end()
    assert [item for item in got if item != LIVE] == list(range(5001))
    assert got.count(LIVE) == 1
    assert 3000 <= got.index(LIVE) <= 4500


def test_many_at_once(start):
    """
    Each of many who come while messages are published is told once, and those that want no
    more get the beginning of what the others get.
    """
    bus = start("--history", "10000")
    fill(bus, range(500))
    publisher = threading.Thread(target=fill, args=(bus, range(500, 4001)))
    url = f"{bus.url}foo?since=all&format=ndjson"
    ends, goes_on = [], []
    for number in range(40):
        ends.append(Reader(f"{url}&until=now"))
        goes_on.append(Reader(url, 4000))
        if number == 10:
            publisher.start()
    for reader in goes_on:
        got = reader.end()
        assert [item for item in got if item != LIVE] == list(range(4001))
        assert got.count(LIVE) == 1
        assert got.index(LIVE) >= 500
    for reader in ends:
        *numbers, last = reader.end()
        assert last == LIVE
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= 500


def test_nodes(start, redis):
    """
    At each node of a bus it is told once, in order with the messages of all nodes; and who
    ends there after a publication at the same node has that one, too.
    """
    nodes = [start("--log", redis.url, "--history", "20000") for _ in range(2)]
    fill(nodes[0], range(2000))
    blocking.publish(f"{nodes[1].url}bar", b"", "text/plain")
    readers = [Reader(f"{n.url}foo?since=all&format=ndjson", 5000) for n in nodes * 3]
    fill(nodes[0], range(2000, 3500))
    fill(nodes[1], range(3500, 5001))
    for reader in readers:
        got = reader.end()
        assert [item for item in got if item != LIVE] == list(range(5001))
        assert got.count(LIVE) == 1
    for node in nodes:
        *numbers, last = Reader(f"{node.url}foo?since=1h&until=now&format=ndjson").end()
        assert (numbers, last) == (list(range(5001)), LIVE)


def test_comes_back_to_another_node(start, redis):
    """
    Who ends where history does, behind a message that has just been published at another
    node, has that message; so it waits for it.
    """
    first, second = (start("--log", redis.url) for _ in range(2))
    for number in range(100):
        id = blocking.publish(f"{first.url}foo", b"%d" % number, "text/plain").id
        url = f"{second.url}foo"
        assert list(blocking.subscribe(url, since=id, until="now")) == []
        (newest,) = blocking.subscribe(url, last=1, until="now")
        assert newest.id == id


@pytest.mark.parametrize("raw", ["", "&raw=1"])
def test_websocket(bus, raw):
    """
    A WebSocket is closed with 1000 where history ends.
    """
    fill(bus, range(100))
    url = bus.url.replace("http", "ws")
    with websockets.sync.client.connect(f"{url}foo?last=20&until=now{raw}") as client:
        got = list(client)
        assert client.close_code == 1000
    numbers = [int(told if raw else json.loads(told).get("body", -1)) for told in got]
    assert numbers == [*range(80, 100), *([] if raw else [-1])]


def test_tls(start, tmp_path):
    """
    Over TLS, all comes, and the connection is closed in order.
    """
    authority = Authority(tmp_path)
    file = authority.issue("localhost")
    listen = f"ssl:0:privateKey={file}:interface=127.0.0.1"
    bus = start("--listen", listen)
    secure = ssl.create_default_context(cafile=authority.file)
    url = bus.url.replace("http:", "https:").replace("127.0.0.1", "localhost")
    for number in range(100):
        body = b"%d" % number * 5000
        blocking.publish(f"{url}foo", body, "text/plain", ca=authority.file)
    for _ in range(3):
        target = f"{url}foo?since=all&until=now&format=ndjson"
        with urllib.request.urlopen(target, timeout=60, context=secure) as stream:
            *lines, last = stream.read().splitlines()
        assert (len(lines), json.loads(last)) == (100, LIVE)


def test_reads_nothing(start):
    """
    Who wants no more than history, and does not read it, is cut as others are.
    """
    bus = start("--stall-timeout", "2")
    fill(bus, range(100), size=100_000)
    with socket.create_connection(("127.0.0.1", bus.port)) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(
            b"GET /msgbus/foo?since=all&until=now HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        bus.wait_for("Cut 1 subscribers that took nothing for 2")


def test_published_again(start):
    """
    What one bus has kept can be published at another by two curls, which end.
    """
    here, there = start(), start()
    fill(here, range(90))
    for form, kind in (("multipart", "multipart/x-mixed-replace"), ("ndjson", "")):
        kind = kind or "application/x-ndjson"
        source = f"{here.url}foo?since=all&until=now&format={form}"
        piped = f"curl -sN '{source}' | curl -sT - -H 'Content-Type: {kind}'"
        target = f"{there.url}{form}?format={form}"
        done = subprocess.run(
            ["/bin/sh", "-c", f"{piped} '{target}'"], capture_output=True, check=True
        )
        told = json.loads(done.stdout)
        # The other bus has them already, the second time.
        assert told["published"] + told["repeated"] == 90
    copies = list(blocking.subscribe(f"{there.url}multipart", since="all", until="now"))
    assert [int(copy.body) for copy in copies] == list(range(90))


def test_notices(bus):
    """
    The client is told after all that was kept, also of empty channels.
    """
    notices = []
    with closing(
        blocking.subscribe(f"{bus.url}foo", since="1h", notify=notices.append)
    ) as messages:
        thread = threading.Thread(target=next, args=(messages, None))
        thread.start()
        deadline = time.monotonic() + 30
        while Live() not in notices:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        blocking.publish(f"{bus.url}foo", b"", "text/plain")
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("form", ["ndjson", "websocket"])
def test_interval(start, form):
    """
    However fast messages are published, a subscriber with an interval gets few of them, in
    order and without a gap, and the last of each channel in the end.
    """
    bus = start("-v")
    query = "a/?overflow=latest&interval=500ms&format=ndjson"
    url = f"{bus.url}{query}"
    if form == "ndjson":
        connection = urllib.request.urlopen(url, timeout=60)
    else:
        connection = websockets.sync.client.connect(url.replace("http", "ws"))
    with connection as stream:
        bus.wait_for("subscribes to 'a/'")
        began = time.monotonic()
        with blocking.stream(f"{bus.url}a/") as out:
            for number in range(10_000):
                out.publish(b"%d" % number, "text/plain", channel=f"{number % 3}")
        got, ids = {}, []
        for line in stream:
            told = json.loads(line)
            got[told["channel"]] = int(told["body"])
            ids.append(tuple(map(int, told["id"].split("-"))))
            if sorted(got.values()) == [9997, 9998, 9999]:
                break
    assert ids == sorted(ids)
    # Three at the beginning, and three for each time that has passed.
    assert len(ids) <= 3 * (2 + (time.monotonic() - began) / 0.5)


def test_interval_after_history(start, redis):
    """
    With history, that comes whole; and of what is published at other nodes, the newest.
    """
    first, second = (start("-v", "--log", redis.url) for _ in range(2))
    fill(first, range(50))
    query = "since=all&overflow=latest&interval=300ms&format=ndjson"
    reader = Reader(f"{second.url}foo?{query}", 9999)
    while LIVE not in reader.got:
        assert reader.is_alive()
        time.sleep(0.01)
    fill(first, range(50, 10_000))
    got = reader.end()
    assert got[:51] == [*range(50), LIVE]
    assert got[51:] == sorted(got[51:])
    assert len(got) < 5000
