"""
Headers and times to live of messages, over restarts, nodes, bridges, and with the programs
of others.
"""

import gzip
import re
import subprocess
import time
import urllib.request

import pytest
from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_http_event,
    to_binary_event,
)
from cloudevents.core.v1.event import CloudEvent

from msgbus import blocking

from .test_bridge import BRIDGE, dump
from .test_scripts import tool  # noqa: F401  # a fixture

HEADERS = {"ce-type": "com.example.made", "x-who": "grüße", "content-language": "de"}


def told(message):
    """
    What travels with a message.
    """
    return dict(message.headers), message.max_age, message.body


def expired(bus, name):
    """
    Wait until a channel has no message.
    """
    deadline = time.monotonic() + 30
    while urllib.request.urlopen(f"{bus.url}{name}?format=message").status != 204:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_restart(start, tmp_path):
    """
    A history file keeps them over `kill -9`; who comes later gets what still lives, and is
    told of the rest.
    """
    arguments = ("--history-file", tmp_path / "history.db")
    bus = start(*arguments)
    first = blocking.publish(f"{bus.url}a", b"first", "a/b")
    blocking.publish(f"{bus.url}a", b"old", "a/b", headers=HEADERS, max_age=1)
    blocking.publish(f"{bus.url}a", b"new", "a/b", headers=HEADERS, max_age=1000)
    blocking.publish(f"{bus.url}b", b"", "a/b", max_age=1)
    bus.kill()
    bus = start(*arguments)
    expired(bus, "b")
    gaps = []
    messages = blocking.subscribe(f"{bus.url}a", since=first.id, notify=gaps.append)
    assert told(next(messages)) == (HEADERS, 1000, b"new")
    assert [str(gap) for gap in gaps] == [
        "Subscribed.",
        "Messages are missing here; nobody knows how many.",
    ]
    assert [told(message) for message in dump(f"{bus.url}a", 2)] == [
        ({}, None, b"first"),
        (HEADERS, 1000, b"new"),
    ]


def test_nodes(start, redis):
    """
    Through Redis, they reach other nodes, also those that start later, and messages without
    them are written as by earlier versions.
    """
    nodes = [start("--log", redis.url) for _ in range(2)]
    live = blocking.subscribe(f"{nodes[1].url}a", notify=[].append)
    listening = iter(live)
    blocking.publish(f"{nodes[0].url}a", b"1", "a/b")
    dump(f"{nodes[1].url}a", 1)
    blocking.publish(f"{nodes[0].url}a", b"2", "a/b", headers=HEADERS, max_age=1000)
    blocking.publish(f"{nodes[0].url}b", b"3", "a/b", headers=HEADERS, max_age=1)
    expected = [({}, None, b"1"), (HEADERS, 1000, b"2")]
    assert [told(message) for message in dump(f"{nodes[1].url}a", 2)] == expected
    late = start("--log", redis.url)
    assert [told(message) for message in dump(f"{late.url}a", 2)] == expected
    for node in (*nodes, late):
        expired(node, "b")
    names = [entry[1][::2] for entry in redis.ask("XRANGE", "msgbus", "-", "+")]
    assert names[0] == [b"n", b"c", b"t", b"s", b"o", b"k", b"b"]
    assert names[1] == [*names[0], b"x"]
    listening.close()


def test_bridge(tool, start):  # noqa: F811
    """
    A bridge copies headers, bodies as they are, and what is left of a time to live.
    """
    here, there = start(), start("-v")
    coded = {**HEADERS, "content-encoding": "gzip"}
    body = gzip.compress(b"hello")
    blocking.publish(f"{here.url}a", body, "a/b", headers=coded, max_age=1000)
    time.sleep(1)
    tool(None, BRIDGE, "--since=all", "-n1", f"{here.url}a", f"{there.url}a").end()
    (copy,) = dump(f"{there.url}a", 1, decode=False)
    assert (dict(copy.headers), copy.body) == (coded, body)
    assert 990 <= copy.max_age < 1000
    (decoded,) = dump(f"{there.url}a", 1)
    assert (dict(decoded.headers), decoded.body) == (HEADERS, b"hello")


def test_cloudevents(bus):
    """
    The SDK of CloudEvents reads what its own HTTP binding published, as a part and as the
    whole answer, and the bus filters by an attribute.
    """
    event = CloudEvent(
        {"type": "com.example.mäde", "source": "/shop", "subject": "a b", "more": "x"}
        | {"datacontenttype": "application/json"},
        {"id": 7},
    )
    for kind in (event, CloudEvent({"type": "org.other", "source": "/"})):
        message = to_binary_event(kind)
        request = urllib.request.Request(
            f"{bus.url}orders", message.body, message.headers, method="POST"
        )
        assert urllib.request.urlopen(request).status == 204
    globs = {"ce-type": "com.*", "ce-subject": "a*b"}
    (got,) = dump(f"{bus.url}orders", 1, header=globs)
    headers = {**got.headers, "content-type": got.content_type}
    read = from_http_event(HTTPMessage(headers, got.body))
    query = "?format=message&header=ce-type:com.*"
    with urllib.request.urlopen(f"{bus.url}orders{query}") as answer:
        whole = from_http_event(HTTPMessage(dict(answer.headers), answer.read()))
    for each in (read, whole):
        assert each.get_attributes() == event.get_attributes()
        assert each.get_data() == {"id": 7}


@pytest.mark.parametrize("arguments", [["--compressed"], ["-H", "Accept-Encoding: gzip"]])
def test_curl(bus, arguments):
    """
    curl undoes a coding if it is asked to.
    """
    body = gzip.compress(b"hello")
    named = {"Content-Encoding": "gzip", "Content-Disposition": 'attachment; filename="a"'}
    blocking.publish(f"{bus.url}a", body, "text/plain", headers=named)
    answer = subprocess.run(
        ["curl", "-sfi", *arguments, f"{bus.url}a?format=message"],
        check=True,
        capture_output=True,
    ).stdout
    head, _, got = answer.partition(b"\r\n\r\n")
    assert got == (b"hello" if arguments == ["--compressed"] else body)
    assert re.search(rb'(?m)^Content-Disposition: attachment; filename="a"\r$', head)


def test_slow(bus):
    """
    What has expired while a subscriber did not read is told to it as missing.
    """
    url = f"{bus.url}a?format=ndjson"
    with urllib.request.urlopen(url, timeout=30) as slow:
        for _ in range(100):
            blocking.publish(f"{bus.url}a", bytes(100_000), "a/b", max_age=1)
        time.sleep(1.5)
        missing = messages = 0
        while missing + messages < 100:
            line = slow.readline()
            match = re.match(rb'{"gap": (\d+)}', line)
            missing += int(match[1]) if match else 0
            messages += not match
        assert missing > 50
        blocking.publish(f"{bus.url}a", b"end", "a/b")
        assert b'"body": "end"' in slow.readline()
