"""
What docs/ has for those who watch a bus by Prometheus and Grafana, with a real Prometheus:
the dashboard, the alerts, and the symptoms, most of which are brought about.
"""

import json
import math
import re
import resource
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import ExitStack

import pytest

from .blocking import GET, POST, raw
from .certificates import Authority
from .pages import CHECKOUT
from .ports import free_port
from .prometheus import Prometheus
from .test_admin import LOOPBACK, Admin
from .test_history import publish

PAGE = (CHECKOUT / "docs/operations.md").read_text()
SECONDS = 60

# A proxy on this machine, whose clients have limits by their addresses.
PROXY = "127.0.0.2"

# Open files that a bus may have; it uses about 20 for itself, and leaves 64 free.
FILES = 700


def symptoms():
    """
    The queries of the table of symptoms, by the symptoms.
    """
    table = PAGE.partition("| symptom |")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| (.+?) \| `(.+?)` \| ", table, re.MULTILINE))


SYMPTOMS = symptoms()


@pytest.fixture
def watch(tmp_path):
    """
    Start a Prometheus that watches a bus; it is stopped after the test.
    """
    started = []

    def watch(admin):
        started.append(Prometheus(tmp_path, admin.port))
        started[-1].wait_for("msgbus_build_info")
        return started[-1]

    yield watch
    for prometheus in started:
        prometheus.stop()


@pytest.fixture
def disk(tmp_path):
    """
    A small disk, as its folder and a function that changes its size.
    """
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)

    mount("size=1m")
    yield folder, lambda size: mount(f"remount,size={size}")
    subprocess.run(["umount", folder], check=True)


def dashboard():
    """
    The queries of the dashboard, with values for what Grafana replaces.
    """
    page = json.loads((CHECKOUT / "docs/grafana.json").read_text())
    for panel in page["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__rate_interval", "5s")
            yield query.replace("$instance", ".*")


def test_dashboard(start, watch):
    """
    While messages are published, each query of the dashboard has a value.
    """
    admin = Admin(start, "--history-file", "history.db")
    reader = urllib.request.urlopen(f"{admin.bus.url}?format=ndjson", timeout=30)
    prometheus = watch(admin)
    without = set(dashboard())
    assert len(without) > 30
    deadline = time.monotonic() + SECONDS
    while without:
        assert time.monotonic() < deadline, without
        publish(admin.bus, range(3))
        without = {
            query
            for query in without
            if not (values := prometheus.query(query))
            or not all(map(math.isfinite, values))
        }
    reader.close()


def test_alerts(start, watch):
    """
    Prometheus can evaluate all alerts and all symptoms; a bus that does nothing has none.
    """
    admin = Admin(start)
    prometheus = watch(admin)
    deadline = time.monotonic() + SECONDS
    while True:
        (group,) = prometheus.ask("rules")["groups"]
        if all(rule["health"] == "ok" for rule in group["rules"]):
            break
        assert time.monotonic() < deadline, group
        time.sleep(0.1)
    # Whether the machine is busy is not up to the bus.
    quiet = [rule for rule in group["rules"] if "Late" not in rule["name"]]
    assert [rule["name"] for rule in quiet if rule["state"] != "inactive"] == []
    assert len(SYMPTOMS) >= 12
    names = admin.get("/metrics")[1] + " msgbus_"
    for query in (*SYMPTOMS.values(), *(rule["query"] for rule in group["rules"])):
        assert not prometheus.query(query) or "reactor_delay" in query, query
        for name in re.findall(r"\b(?:msgbus|process)_\w+", query):
            assert f"\n{name}{{" in names or f"\n{name} " in names, name


def post(bus, size, *headers, source="127.0.0.1"):
    """
    Publish one message of this size, from this address; the head of the answer.
    """
    client = socket.create_connection(
        ("127.0.0.1", bus.port), timeout=SECONDS, source_address=(source, 0)
    )
    lines = "".join(f"{header}\r\n" for header in headers).encode()
    client.sendall(POST + lines + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
    answer = client.recv(4096)
    client.close()
    return answer


def get(bus, *headers, room=None):
    """
    A connection that has subscribed, with its socket.

    Args:
        room: Bytes that wait at most in the socket.
    """
    client = socket.socket()
    if room is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    client.settimeout(SECONDS)
    client.connect(("127.0.0.1", bus.port))
    lines = "".join(f"{header}\r\n" for header in headers).encode()
    client.sendall(GET[:-2] + lines + b"\r\n")
    assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    return client


def read_all(client):
    """
    Read what comes on a connection, until it ends.
    """
    while client.recv(65536):
        pass


def test_clients(start, watch, tmp_path):
    """
    The symptoms of clients: those that read slowly, that do not read, that come back, that
    do too much, that do not trust the certificate, and that are too many.
    """
    key = Authority(tmp_path).issue("localhost")
    tls_port = free_port()
    admin = Admin(
        start,
        *("--max-backlog", "10000", "--stall-timeout", "3", "--history", "2"),
        *("--trusted-proxy", PROXY, "--rate", "2/10s"),
        *("--listen", f"ssl:{tls_port}:{LOOPBACK}:privateKey={key}"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
    )
    prometheus = watch(admin)

    def shows(symptom):
        prometheus.wait_for(SYMPTOMS[symptom])

    slow = get(admin.bus, room=4096)
    for _ in range(20):
        assert b" 204 " in post(admin.bus, 500_000)
    threading.Thread(target=read_all, args=(slow,), daemon=True).start()
    shows("subscribers are told that messages are missing")
    gone = get(admin.bus, room=4096)
    for _ in range(20):
        assert b" 204 " in post(admin.bus, 500_000)
    shows("subscribers are cut")
    gone.close()
    first, *_ = publish(admin.bus, range(9))
    get(admin.bus, f"Last-Event-ID: {first}").close()
    shows("those who come back miss messages")
    get(admin.bus, "Last-Event-ID: 1-100000000000000001").close()
    shows("those who come back are told that nobody knows what they miss")
    client = "X-Forwarded-For: 192.0.2.1"
    answers = [post(admin.bus, 1, client, source=PROXY) for _ in range(3)]
    assert b" 429 " in answers[-1]
    shows("publishers get 429")
    assert b" 413 " in post(admin.bus, 1_100_000)
    shows("publishers get 413")
    stranger = socket.create_connection(("127.0.0.1", tls_port), timeout=SECONDS)
    stranger.sendall(b"this is no TLS")
    shows("clients cannot connect by TLS")
    admin.bus.process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    admin.bus.process.send_signal(signal.SIGCONT)
    shows("messages come late to everybody")
    with ExitStack() as crowd:
        for _ in range(FILES):
            crowd.enter_context(raw(admin.bus))
        shows("new clients get 503 or 429 on every path")
        shows("connections are near the limit of open files")


def test_disk_is_full(disk, start, watch):
    """
    A full disk shows until it has room again.
    """
    folder, resize = disk
    admin = Admin(start, "--history-file", str(folder / "history.db"))
    prometheus = watch(admin)
    query = SYMPTOMS["what is published is not kept"]
    for _ in range(10):
        assert b" 204 " in post(admin.bus, 500_000)
    prometheus.wait_for(query)
    assert prometheus.query("msgbus_log_failures_total")[0] > 0
    assert prometheus.query("msgbus_log_unsaved_messages")[0] > 0
    resize("64m")
    prometheus.wait_for(query, result=False)
    assert prometheus.query("msgbus_log_unsaved_messages") == [0]


def test_redis(start, redis, watch):
    """
    A Redis that hangs shows, and one that is gone.
    """
    admin = Admin(start, "--log", redis.url)
    prometheus = watch(admin)
    redis.freeze()
    publishing = threading.Thread(target=post, args=(admin.bus, 1))
    publishing.start()
    prometheus.wait_for("msgbus_log_unsaved_messages > 0")
    time.sleep(1)
    redis.thaw()
    publishing.join(SECONDS)
    prometheus.wait_for(SYMPTOMS["publishing takes long"])
    redis.kill()
    assert b" 503 " in post(admin.bus, 1)
    prometheus.wait_for(SYMPTOMS["publishers get 503"])
    prometheus.wait_for(SYMPTOMS["what is published is not kept"])
