"""
What docs/scaling.md shows, run: two nodes behind a proxy, and what to watch.
"""

import subprocess
import threading

import pytest

from msgbus.client.blocking import Publisher, subscribe

from .haproxy import start_haproxy
from .nginx import start_nginx
from .pages import CHECKOUT, blocks
from .ports import START_SECONDS, free_port

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
    commands = [line for line in lines("twistd") if "--host bus.example" in line]
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
    (command,) = lines("redis-server")
    assert command.split() == ["redis-server", "--appendonly", "yes"]
    assert redis.ask("CONFIG", "GET", "appendonly") == [b"appendonly", b"yes"]
