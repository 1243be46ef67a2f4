"""
Several processes that serve one bus, whose messages are in Redis.
"""

import os
import random
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from msgbus.redis import RedisAddress
from msgbus.redis.connection import BlockingConnection

from ..redis_server import RedisServer
from .certificates import Authority
from .test_client import free_port
from .test_history import Resuming, publish
from .test_twistd import twistd


class Wandering(Resuming):
    """
    One who is cut off again and again, and resumes at another node each time.
    """

    def connect(self):
        """
        Read from one of the nodes, until the connection is cut.
        """
        self.bus = random.choice(self.nodes)
        super().connect()


def test_resume_at_other_nodes(start, redis):
    """
    While messages are published at two nodes, a client that is cut off again and again, and
    resumes at one or the other, gets each exactly once, in one order: on channel, folder
    and root.
    """
    nodes = [start("--log", redis.url, "--history", "20000") for _ in range(2)]
    count = 3000
    readers = []
    for path in ("a/foo", "a/", ""):
        readers.append(Wandering(None, path, count, 30, 12_000))
        readers[-1].nodes = nodes
        readers[-1].start()
    ids = [None] * count

    def load(place):
        numbers = range(place, count, 2)
        ids[place::2] = publish(nodes[place], numbers, "a/foo")

    threads = [threading.Thread(target=load, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    # Marks the end, because the last of the others may be of either node.
    publish(nodes[0], [count], "a/foo")
    order = sorted(range(count), key=lambda n: tuple(map(int, ids[n].split("-"))))
    for reader in readers:
        reader.join(120)
        assert reader.error is None
        assert reader.gaps == []
        assert reader.numbers == [*order, count]


def test_node_is_killed(start, redis):
    """
    If a node is killed, what it has acknowledged is there at the others, and at itself
    once it runs again.
    """
    first, second = (start("--log", redis.url, "--history", "10000") for _ in range(2))
    acknowledged = []
    thread = threading.Thread(
        target=lambda: acknowledged.extend(publish(first, range(100_000)))
    )
    thread.start()
    time.sleep(1)
    first.kill()
    thread.join(30)
    assert acknowledged
    again = start("--log", redis.url, "--history", "10000")
    for bus in (second, again):
        url = f"{bus.url}foo?since=all&format=ndjson"
        with urllib.request.urlopen(url, timeout=30) as stream:
            got = [re.search(rb'"id": ?"([0-9-]+)"', stream.readline())[1].decode()]
            while len(got) < len(acknowledged):
                got.append(re.search(rb'"id": ?"([0-9-]+)"', stream.readline())[1].decode())
        assert got == acknowledged


def test_away(start, redis):
    """
    While Redis is away, publications are answered with 503 and the time to try again, and
    the log says so once; when it is back, all goes on, also for a subscriber that stayed.
    """
    bus = start("--log", redis.url)
    stream = urllib.request.urlopen(f"{bus.url}foo?format=ndjson", timeout=30)
    redis.kill()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(
            urllib.request.Request(
                f"{bus.url}foo", b"lost", {"Content-Type": "text/plain"}, method="POST"
            ),
            timeout=30,
        )
    assert (caught.value.code, caught.value.headers["Retry-After"]) == (503, "5")
    bus.wait_for("Cannot use the stream 'msgbus' of Redis at .*Trying again")
    redis.start()
    bus.wait_for("Connected to the stream 'msgbus' of Redis at .* again")
    (id,) = publish(bus, [1])
    assert f'"{id}"'.encode() in stream.readline()
    stream.close()


def test_cannot_start(redis, tmp_path):
    """
    A log that cannot be used is a sentence at the start, without a password in it.
    """
    redis.ask("SET", "text", "x")
    listen = ("--listen", "tcp:0:interface=127.0.0.1")
    for url, reason in (
        (f"{redis.url}&stream=text", "'text' is a string and no stream"),
        ("redis://:secret@127.0.0.1:1/0", "Connection refused"),
        (f"redis+unix://:secret@{redis.socket}", "AUTH"),
    ):
        result = twistd("-n", "--pidfile=", "msgbus", *listen, "--log", url, cwd=tmp_path)
        output = result.stdout + result.stderr
        assert result.returncode == 1
        assert re.search(f"Cannot start: [^\n]*{reason}[^\n]*of Redis at", output), output
        assert "Traceback" not in output
        assert "secret" not in output


def test_password_file(start, redis, tmp_path):
    """
    With its password in a file, Redis is used, and the password is neither in the list of
    processes nor in the log, even if Redis refuses it later.
    """
    password = "correct-horse-battery"
    redis.ask("CONFIG", "SET", "requirepass", password)
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    file.chmod(0o600)
    bus = start("--log", f"{redis.url}&password-file={file}")
    assert publish(bus, [1])
    file.unlink()
    cut = RedisAddress.parse(f"redis+unix://:{password}@{redis.socket}")
    connection = BlockingConnection(cut.server)
    connection.call("CONFIG", "SET", "requirepass", "another")
    connection.call("CLIENT", "KILL", "TYPE", "normal")
    connection.close()
    bus.wait_for("Cannot use the stream .*WRONGPASS")
    shown = [
        Path(f"/proc/{bus.process.pid}/{name}").read_text()
        for name in ("cmdline", "environ")
    ]
    assert str(file) in shown[0]
    for text in (*shown, bus.log):
        assert password not in text


def test_settings_differ(start, redis):
    """
    A node that is started with other limits than the node before it says so, once, and
    names the difference; one that is started with the same says nothing.
    """
    first = start("--log", redis.url)
    second = start("--log", redis.url, "--history", "7", "--history-age", "60")
    third = start("--log", redis.url, "--history", "7", "--history-age", "60")
    fourth = start("--log", redis.url, "--history", "7", "--max-message", "1000")
    assert "started before" not in first.log + third.log
    assert second.log.count("started before") == fourth.log.count("started before") == 1
    assert (
        "The node that was started before this one has --history 100, no --history-age, and"
        " this one has --history 7, --history-age 60.0: give all nodes of a bus the same"
    ) in second.log
    assert "has --history-age 60.0, --max-message 1048576, and" in fourth.log


def test_tls(start, tmp_path):
    """
    Over TLS, the certificate must be one of the host, of an authority that the system
    trusts, at the start and later.
    """
    authority = Authority(tmp_path)
    pem = authority.issue("localhost")
    tls = {"tls_port": free_port(), "tls_cert_file": pem, "tls_key_file": pem}
    redis = RedisServer(tmp_path, tls_auth_clients="no", **tls)
    try:
        trusting = {**os.environ, "SSL_CERT_FILE": str(authority.file)}
        url = f"rediss://localhost:{tls['tls_port']}/0"
        bus = start("--log", url, env=trusting)
        ids = publish(bus, [1])
        redis.kill()
        redis.start()
        ids += publish(bus, [2])
        assert len(ids) == 2
        for wrong, env in ((url, None), (url.replace("localhost", "127.0.0.1"), trusting)):
            listen = ("--listen", "tcp:0:interface=127.0.0.1")
            command = ("-n", "--pidfile=", "msgbus", *listen, "--log", wrong)
            result = twistd(*command, cwd=tmp_path, env=env)
            assert "Cannot start: " in result.stderr
            assert "certificate verify failed" in result.stderr
    finally:
        redis.kill()


def test_curl(start, redis):
    """
    What curl publishes at one node, curl reads at another.
    """
    first, second = (start("--log", redis.url) for _ in range(2))
    curl = ["curl", "-sf", "--max-time", "20"]
    headers = ["-H", "Content-Type: text/plain", "-w", "%header{msgbus-id}"]
    id = subprocess.check_output(
        [*curl, f"{first.url}foo", *headers, "--data-binary", "21.5"], text=True
    )
    url = f"{second.url}foo?format=message&wait=10&since=all"
    told = subprocess.check_output([*curl, url, "-w", " %header{msgbus-id}"], text=True)
    assert told == f"21.5 {id}"
