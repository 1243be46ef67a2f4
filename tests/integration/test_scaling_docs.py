"""
What docs/scaling.md shows, run: two nodes, a proxy in front of them, and what to watch.
"""

import os
import subprocess
import threading
import time

import pytest

from msgbus.client.blocking import Publisher, publish, subscribe

from .daemon import BIN
from .haproxy import start_haproxy
from .nginx import start_nginx
from .pages import CHECKOUT, blocks
from .ports import START_SECONDS, free_port, wait_for_port

PAGE = CHECKOUT / "docs/scaling.md"
PROXIES = {
    "nginx": (start_nginx, "listen 80;", "listen 127.0.0.1:{};"),
    "haproxy": (start_haproxy, "bind :80\n", "bind 127.0.0.1:{}\n"),
}


def lines(program):
    """
    The commands of the page that begin with this program.
    """
    shown = "\n".join(blocks(PAGE, "sh")).splitlines()
    return [line for line in shown if line.startswith(f"{program} ")]


class Node:
    """
    A node that the page starts, which can be stopped and started again at its port.
    """

    def __init__(self, start, redis, command):
        _, arguments = command.split(" msgbus ")
        arguments = arguments.replace("redis://localhost/0", redis.url)
        self.port = free_port()
        shown = arguments.partition("tcp:")[2].partition(":")[0]
        self.shown = f":{shown}"
        self._arguments = arguments.replace(shown, str(self.port)).split()
        self._start = start
        self.begin()

    def begin(self):
        """
        Start it.
        """
        self.daemon = self._start(*self._arguments)


@pytest.fixture
def behind(start, redis, tmp_path, request):
    """
    The two nodes, and the port of the proxy before them.
    """
    begin, shown, instead = PROXIES[request.param]
    commands = [line for line in lines("twistd") if "--trusted-proxy 127.0.0.1" in line]
    nodes = [Node(start, redis, command) for command in commands]
    assert len(nodes) == 2
    port = free_port()
    (configuration,) = blocks(PAGE, request.param)
    assert shown in configuration
    configuration = configuration.replace(shown, instead.format(port))
    for node in nodes:
        configuration = configuration.replace(node.shown, f":{node.port}")
    process = begin(tmp_path, configuration, port)
    yield nodes, port
    process.terminate()
    process.wait(START_SECONDS)


def test_two_processes(redis, shell, tmp_path):
    """
    The first commands of the page start two nodes in one folder, and what is published at
    one reaches a subscriber at the other.
    """
    started, clients = blocks(PAGE, "sh")[:2]
    ports = {":8888": f":{free_port()}", ":8889": f":{free_port()}"}
    _, *nodes, subscriber, publisher = (started + clients).splitlines()

    def run(command):
        for shown, port in ports.items():
            command = command.replace(shown, port).replace(shown[1:], port[1:])
        command = command.replace("redis://localhost/0", redis.url)
        return shell(command, PATH=f"{BIN}:{os.environ['PATH']}")

    processes = [run(node) for node in nodes]
    for port in ports.values():
        assert wait_for_port(int(port[1:]))
    processes.append(run(subscriber))
    head = processes[-1].stdout
    assert head.readline().startswith("--msgbus")
    assert run(publisher).wait(START_SECONDS) == 0
    assert head.readline() == "Content-Type: text/plain\n"
    for process in processes:
        process.terminate()


def publish_all(url, stopped, ids):
    """
    Publish messages with numbers until it is time to stop, each of which has to succeed.
    """
    publisher = Publisher(url)
    while not stopped.is_set():
        ids.append(publisher.publish(b"%d" % len(ids), "text/plain").id)
    publisher.close()


@pytest.mark.parametrize("behind", PROXIES, indirect=True)
def test_rolling_restart(behind):
    """
    While one node after the other is started again, publishers and subscribers of our
    client, behind the proxy, miss nothing, and get nothing twice.
    """
    nodes, port = behind
    url = f"http://localhost:{port}/msgbus/foo"
    stopped, ids = threading.Event(), []
    received = [[] for _ in range(4)]

    def read(got):
        for message in subscribe(url, since="all"):
            if message.body == b"end":
                return
            got.append(message.id)

    publishing = threading.Thread(target=publish_all, args=(url, stopped, ids))
    readers = [threading.Thread(target=read, args=(got,)) for got in received]
    for thread in (publishing, *readers):
        thread.start()
    for node in nodes:
        before = len(ids)
        node.daemon.stop()
        node.begin()
        while len(ids) < before + 100:
            assert publishing.is_alive()
            stopped.wait(0.02)
    stopped.set()
    publishing.join(START_SECONDS)
    publisher = Publisher(url)
    publisher.publish(b"end", "text/plain")
    publisher.close()
    for reader in readers:
        reader.join(START_SECONDS)
        assert not reader.is_alive()
    assert received == [ids] * len(received)


def established(port):
    """
    Does anybody have a connection to this port, which neither end has closed?
    """
    of_port = ["state", "established", f"sport = :{port}"]
    return bool(subprocess.check_output(["ss", "-Htn", *of_port]).strip())


@pytest.mark.parametrize("behind", ["nginx"], indirect=True)
@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("POST", "", "502"), ("PUT", "-H 'Idempotency-Key: a'", "204")],
)
def test_node_is_killed(behind, redis, shell, method, headers, status):
    """
    A node is killed before it has answered a publication.  nginx does not repeat a POST,
    and repeats a PUT at the other node, which its key has published once.
    """
    nodes, port = behind
    for node in nodes:
        # From now on, Redis knows the script.
        publish(f"{node.daemon.url}first", b"", "text/plain")
    redis.freeze()
    publisher = shell(
        f"curl -s -o /dev/null -w '%{{http_code}}' -X {method} {headers}"
        f" -H 'Content-Type: text/plain' -d hello http://localhost:{port}/msgbus/foo"
    )
    deadline = time.monotonic() + START_SECONDS
    while not any(connected := [established(node.daemon.port) for node in nodes]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # The node sends the message to Redis, which reads it later.
    time.sleep(0.5)
    killed = connected.index(True)
    nodes[killed].daemon.kill()
    redis.thaw()
    assert publisher.stdout.read() == status
    url = f"{nodes[not killed].daemon.url}foo"
    publish(url, b"end", "text/plain")
    messages = subscribe(url, since="all")
    assert [next(messages).body for _ in range(2)] == [b"hello", b"end"]


@pytest.mark.parametrize("command", lines("redis-cli"))
def test_watch(command, redis):
    """
    Each command that watches Redis tells something.
    """
    command = command.replace("redis-cli", f"redis-cli -s {redis.socket}")
    told = subprocess.check_output(command, shell=True, text=True)
    assert told.strip()
    assert "ERR" not in told


def test_redis_server(redis):
    """
    The page's Redis keeps a file of what is appended, as those of the tests do.
    """
    assert lines("redis-server") == ["redis-server --appendonly yes"]
    assert redis.ask("CONFIG", "GET", "appendonly") == [b"appendonly", b"yes"]
