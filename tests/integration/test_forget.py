"""
The newest message of each channel, and channels that are forgotten, with real processes.
"""

import http.client
import json
import re

import pytest

from msgbus.client import blocking

from .blocking import raw
from .test_history import publish

ROOM = ("--history", "100000", "--history-bytes", "500000")


def forget(bus, path):
    """
    Have a channel forgotten.
    """
    connection = http.client.HTTPConnection("127.0.0.1", bus.port, timeout=30)
    connection.request("DELETE", f"/msgbus/{path}")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (204, b"")
    connection.close()


def listed(bus):
    """
    The names of the channels.
    """
    return [each.name for each in blocking.channels(bus.url)]


def state(bus, count, path="", query="last-of-each=1"):
    """
    The first messages of a stream: their channels, numbers and ids.
    """
    client = raw(
        bus,
        f"GET /msgbus/{path}?{query}&format=ndjson HTTP/1.0\r\n"
        "Host: localhost\r\n\r\n".encode(),
    )
    lines = iter(client.makefile("rb").readline, b"")
    messages = (line for line in lines if b'"body"' in line)
    found = [json.loads(next(messages)) for _ in range(count)]
    client.close()
    return [(told["channel"], told["body"], told["id"]) for told in found]


def fill(bus, flood=6000):
    """
    Publish one message to each of a hundred channels, and then many to another; the ids of
    those that are to be kept.
    """
    client = raw(bus)
    answers = client.makefile("rb")
    kept = {}
    for n in range(100):
        client.sendall(
            f"POST /msgbus/quiet/{n} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: text/plain\r\nContent-Length: 9\r\n\r\n{n:08}x".encode()
        )
        assert b" 204 " in answers.readline()
        kept[f"quiet/{n}"] = http.client.parse_headers(answers)["Msgbus-Id"]
    client.close()
    kept["loud"] = publish(bus, range(flood), "loud")[-1]
    return kept


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_flood(start, tmp_path, end):
    """
    A flood takes from a hundred quiet channels none of their last messages, over restarts
    and `kill -9` too; one request has them all, and then what is published.
    """
    options = (*ROOM, "--history-file", tmp_path / "history.db")
    bus = start(*options)
    kept = fill(bus)
    for _ in range(2):
        found = state(bus, 101)
        assert {channel: id for channel, _, id in found} == kept
        ids = [tuple(map(int, id.split("-"))) for *_, id in found]
        assert ids == sorted(ids)
        assert [
            n for _, n, _ in state(bus, 2, "quiet/", "last-of-each=1&channel=*/?7")
        ] == [
            "00000017x",
            "00000027x",
        ]
        getattr(bus, end)()
        bus = start(*options)
    kept["loud"] = publish(bus, range(3000), "loud")[-1]
    assert {channel: id for channel, _, id in state(bus, 101)} == kept


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_file(start, tmp_path, end):
    """
    What was forgotten does not come back by a restart, nor by `kill -9`; who resumes over
    it is told of a gap.
    """
    options = ("--history-file", tmp_path / "history.db")
    bus = start(*options)
    first = publish(bus, range(3), "a")[0]
    publish(bus, range(3, 6), "b")
    forget(bus, "a")
    last = publish(bus, range(6, 7), "a")[0]
    for _ in range(2):
        assert listed(bus) == ["a", "b"]
        assert [n for _, n, _ in state(bus, 4, "", "since=all")] == [
            f"{n:08}x" for n in (3, 4, 5, 6)
        ]
        client = raw(
            bus,
            f"GET /msgbus/a?since={first} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode(),
        )
        data = b""
        while b"00000006x" not in data:
            data += client.recv(4096)
        client.close()
        assert b"Msgbus-Gap: unknown" in data
        assert re.findall(rb"\d{8}x", data) == [b"00000006x"]
        getattr(bus, end)()
        bus = start(*options)
    forget(bus, "a")
    forget(bus, "b")
    forget(bus, "none")
    bus.kill()
    bus = start(*options)
    assert listed(bus) == []
    assert publish(bus, range(1), "a") > [last]


def test_nodes(start, redis):
    """
    All nodes keep the same of a flood, and forget what one of them was asked to forget; so
    does a node that was killed, and one that starts later.
    """
    options = (*ROOM, "--log", redis.url)
    nodes = [start(*options) for _ in range(2)]
    kept = fill(nodes[0], 2000)
    kept["loud"] = publish(nodes[1], range(2000), "loud")[-1]
    # All that comes before it has come.
    kept["end"] = publish(nodes[0], [0], "end")[0]
    for node in nodes:
        wait_for(node, kept["end"])
        assert {channel: id for channel, _, id in state(node, 102)} == kept
    histories = [state(node, 300, "", "last=300") for node in nodes]
    assert histories[0] == histories[1]
    forget(nodes[1], "quiet/7")
    assert "quiet/7" not in listed(nodes[1])
    nodes[1].kill()
    nodes[1] = start(*options)
    nodes.append(start(*options))
    del kept["quiet/7"]
    kept["end"] = publish(nodes[2], [1], "end")[0]
    for node in nodes:
        wait_for(node, kept["end"])
        assert {channel: id for channel, _, id in state(node, 101)} == kept


def wait_for(node, id):
    """
    Wait until a node has the message with this id.
    """
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    headers = {}
    while True:
        connection.request("GET", "/msgbus/end?format=message&wait=20", headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.headers["Msgbus-Id"] == id:
            break
        headers["If-None-Match"] = answer.headers["ETag"] or ""
    connection.close()
