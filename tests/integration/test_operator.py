"""
What an operator sees and does at a real bus: lists of subscribers and channels, and events.
"""

import base64
import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from itertools import islice

import pytest

from msgbus import blocking

from .ports import START_SECONDS
from .test_admin import Admin


class Reader:
    """
    Somebody who subscribes, and need not read.
    """

    def __init__(self, bus, target, *headers):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(START_SECONDS)
        self.socket.connect(("127.0.0.1", bus.port))
        head = "".join(f"{line}\r\n" for line in ("Host: localhost", *headers))
        self.socket.sendall(f"GET /msgbus/{target} HTTP/1.0\r\n{head}\r\n".encode())
        self.got = b""
        self.read_until(b"\r\n\r\n")

    def read_until(self, end):
        """
        Read until these bytes have come.
        """
        while end not in self.got:
            data = self.socket.recv(4096)
            assert data, self.got
            self.got += data

    def ended(self):
        """
        Read to the end of the stream.
        """
        while self.socket.recv(65536):
            pass


@pytest.fixture
def reader():
    """
    A function that subscribes; what it has opened is closed after the test.
    """
    readers = []

    def reader(*arguments):
        readers.append(Reader(*arguments))
        return readers[-1]

    yield reader
    for each in readers:
        each.socket.close()


def listed(admin, path):
    """
    The list at this path.
    """
    status, text = admin.get(path)
    assert status == 200, text
    return json.loads(text)


def until(look, expected):
    """
    Look again and again, until this is seen.
    """
    deadline = time.monotonic() + START_SECONDS
    while (seen := look()) != expected:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


def events(admin, channel, count):
    """
    The first so many events of a channel.
    """
    url = f"http://localhost:{admin.port}/events/{channel}"
    messages = list(islice(blocking.subscribe(url, since="all"), count))
    assert {message.content_type for message in messages} == {"application/json"}
    return [json.loads(message.body) for message in messages]


def test_subscribers(start, reader):
    """
    Each has its name, address, form, filter, and how far it is.  Those who are worst off
    come first, also page by page.
    """
    admin = Admin(start, "--max-backlog", "100000")
    for _ in range(3):
        reader(admin.bus, "quick?format=ndjson")
    slow = reader(
        admin.bus,
        "slow?type=text/*&overflow=drop-oldest",
        "Authorization: Basic " + base64.b64encode(b"alice:").decode(),
    )
    for _ in range(100):
        blocking.publish(f"{admin.bus.url}slow", bytes(100_000), "text/plain")
    list_ = listed(admin, "/subscribers")
    assert list_["total"] == 4
    assert "next" not in list_
    first, *others = list_["subscribers"]
    address = f"127.0.0.1:{slow.socket.getsockname()[1]}"
    assert first["age"] > 0
    assert first["waiting"]["bytes"] >= 100_000
    assert 90 <= first["missed"] + first["waiting"]["messages"] <= 100
    for name in ("age", "since", "rate", "waiting", "missed", "subscriber"):
        del first[name]
    assert first == {
        "name": "slow",
        "user": "alice",
        "address": address,
        "form": "multipart",
        "filter": {"type": "text/*"},
        "overflow": "drop-oldest",
        "state": "behind",
    }
    for other in others:
        assert (other["name"], other["form"], other["state"]) == (
            "quick",
            "ndjson",
            "level",
        )
        assert (other["missed"], other["waiting"]["bytes"]) == (0, 0)
    # Page by page, in each order.
    for sort in ("waiting", "missed", "rate", "age"):
        numbers, path = [], f"/subscribers?sort={sort}&limit=3"
        while path:
            page = listed(admin, path)
            numbers += [row["subscriber"] for row in page["subscribers"]]
            path = page.get("next")
        assert len(set(numbers)) == len(numbers) == 4


def test_end(start, reader):
    """
    The operator ends one stream, and no other; a WebSocket is told why.
    """
    admin = Admin(start)
    url = f"http://localhost:{admin.port}/subscribers"

    def end(number):
        return urllib.request.urlopen(
            urllib.request.Request(f"{url}/{number}", method="DELETE"), timeout=30
        ).status

    one, other = (reader(admin.bus, f"{name}?format=ndjson") for name in ("one", "other"))
    key = base64.b64encode(bytes(16)).decode()
    websocket = reader(
        admin.bus,
        "socket HTTP/1.1\r\nX-Rest:",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    )
    numbers = {
        row["name"]: row["subscriber"]
        for row in listed(admin, "/subscribers")["subscribers"]
    }
    assert listed(admin, f"/subscribers/{numbers['one']}")["name"] == "one"
    assert end(numbers["one"]) == 204
    one.ended()
    assert end(numbers["socket"]) == 204
    websocket.read_until(b"The operator of the bus has ended this stream.")
    blocking.publish(f"{admin.bus.url}other", b"x", "text/plain")
    other.read_until(b"\n")
    until(lambda: listed(admin, "/subscribers")["total"], 1)
    for number in (numbers["one"], 0, "x", "9" * 30, "1/2"):
        assert admin.get(f"/subscribers/{number}")[0] == 404
    assert admin.get("/subscribers/")[0] == 200


def test_bad_queries(start):
    """
    A part that there cannot be is refused in one sentence.
    """
    admin = Admin(start)
    queries = ("sort=x", "limit=-1", "limit=1001", "offset=1e9", "limit=", "x=1", "a&" * 11)
    for name in ("subscribers", "channels"):
        for query in queries:
            status, sentence = admin.get(f"/{name}?{query}")
            assert (status, sentence.count("\n")) == (400, 1), query


def test_channels(start, reader):
    """
    Each channel has its last message, its rate and its subscribers; the busiest come first.
    """
    admin = Admin(start)
    hostile = "x/<b>\u202e"
    for _ in range(120):
        blocking.publish(f"{admin.bus.url}busy", b"x", "text/plain")
    blocking.publish(admin.bus.url + urllib.parse.quote(hostile), b"x", "text/plain")
    reader(admin.bus, "busy")
    reader(admin.bus, "quiet")
    reader(admin.bus, "folder/")
    list_ = listed(admin, "/channels")
    assert [row["name"] for row in list_["channels"]] == ["busy", hostile, "quiet"]
    busy, _, quiet = list_["channels"]
    assert busy["rate"] > 0
    assert busy["time"].startswith("20")
    assert (busy["messages"], busy["subscribers"]) == (100, 1)
    assert busy["type"].startswith("text/plain")
    assert (quiet["id"], quiet["rate"], quiet["subscribers"]) == (None, 0, 1)
    assert listed(admin, "/channels?limit=1&sort=messages")["next"].startswith("/channels?")


def test_events(start, reader):
    """
    Who comes and goes, what is refused and lost, which channels there are: each is told on
    a channel of its own, which only the bus publishes to.
    """
    admin = Admin(start, "--max-backlog", "100000")
    slow = reader(admin.bus, "slow?format=ndjson")
    for _ in range(100):
        blocking.publish(f"{admin.bus.url}slow", bytes(100_000), "text/plain")
    (lost,) = events(admin, "losses", 1)
    assert (lost["event"], lost["name"], lost["form"]) == ("lost", "slow", "ndjson")
    assert 0 < lost["lost"] <= 100
    slow.socket.close()
    came, left = events(admin, "subscriptions", 2)
    assert (came["event"], left["event"]) == ("subscribed", "left")
    assert came["subscriber"] == left["subscriber"] == lost["subscriber"]
    assert left["missed"] >= lost["lost"]
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{admin.bus.url}a//b", b"x", timeout=30)
    (refused,) = events(admin, "refusals", 1)
    assert (refused["status"], refused["reason"]) == (400, "invalid")
    assert refused["sentence"]
    assert events(admin, "channels", 1) == [{"event": "appeared", "channel": "slow"}]
    (numbers,) = events(admin, "numbers", 1)
    assert numbers["limits"]["channels"][1] == 10_000
    for method in ("POST", "PUT"):
        request = urllib.request.Request(
            f"http://localhost:{admin.port}/events/refusals", b"x", method=method
        )
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request, timeout=30)
        assert refusal.value.code == 403
    # It is no channel of the bus itself.
    assert admin.get("/msgbus/.bus/refusals")[0] == 404


def test_many_events(start):
    """
    Of a crowd of events, some are told, and how many more there were.
    """
    admin = Admin(start)
    peer = socket.create_connection(("127.0.0.1", admin.bus.port))
    with peer:
        peer.sendall(
            b"POST /msgbus/a//b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            * 500
        )
        got = 0
        while got < 500:
            got += peer.recv(65536).count(b"HTTP/1.1 400")
    told = omitted = 0
    url = f"http://localhost:{admin.port}/events/refusals"
    for message in blocking.subscribe(url, since="all"):
        event = json.loads(message.body)
        if event["event"] == "omitted":
            omitted += event["count"]
        else:
            told += 1
        if told + omitted == 500:
            break
    assert omitted > 0
