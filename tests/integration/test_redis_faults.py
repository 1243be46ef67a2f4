"""
Many nodes on one Redis, while nodes, Redis, and the network between them fail.
"""

import http.client
import os
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..redis_server import RedisServer
from .blocking import POST
from .log_checker import Traffic
from .ports import free_port
from .stalling import StallingProxy

# How often each fault is tried; twenty times take half an hour.
TIMES = int(os.environ.get("MSGBUS_TEST_FAULTS", "1"))

# Of Debian's package libfaketime.
LIBFAKETIME = f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1"

# How many messages a node is behind.
MANY = 5_000 * TIMES
CONNECTIONS = 8

KEEP = ("--history", "1000000", "--history-bytes", "1000000000")


class Nodes:
    """
    Nodes that are started again at the ports that they had.
    """

    def __init__(self, start, url, count, *arguments):
        self._start = start
        self._url, self._arguments = url, arguments or KEEP
        self.ports = [free_port() for _ in range(count)]
        self.daemons = [self._run(place) for place in range(count)]

    def _run(self, place, url=None, **options):
        listen = f"tcp:{self.ports[place]}:interface=127.0.0.1"
        arguments = ("--listen", listen, "--log", url or self._url, *self._arguments)
        return self._start(*arguments, **options)

    def kill(self, place):
        """
        Kill one, as a power cut would.
        """
        self.daemons[place].kill()

    def start(self, place, url=None, **options):
        """
        Start it again, on the same log, which it may reach by another URL.
        """
        self.daemons[place] = self._run(place, url, **options)

    def signal(self, place, number):
        """
        Send one a signal.
        """
        self.daemons[place].process.send_signal(number)


def finish(traffic):
    """
    End the traffic, some time after the last fault; what became of it.
    """
    traffic.wait()
    result = traffic.finish()
    print(result)
    return result


@pytest.mark.parametrize(
    ("count", "setting"),
    [
        (2, ("appendonly", "no")),
        (2, ("appendfsync", "everysec")),
        (3, ("appendfsync", "always")),
    ],
)
def test_nodes_are_killed(start, redis, count, setting):
    """
    Nodes are killed and started again: each acknowledged message comes exactly once,
    whatever Redis writes to its file.
    """
    redis.ask("CONFIG", "SET", *setting)
    nodes = Nodes(start, redis.url, count)
    traffic = Traffic(nodes.ports)
    for lap in range(TIMES):
        traffic.wait()
        nodes.kill(lap % count)
        time.sleep(random.uniform(0, 0.5))
        nodes.start(lap % count)
    result = finish(traffic)
    assert result.is_whole


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_redis_is_killed(start, redis, fsync):
    """
    Redis is killed and started again.  If it writes to the disk before it answers, nothing
    is lost; otherwise, what is lost is told.
    """
    redis.kill()
    redis._settings["appendfsync"] = fsync
    redis.start()
    nodes = Nodes(start, redis.url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        redis.kill()
        time.sleep(random.uniform(0, 0.5))
        redis.start()
    result = finish(traffic)
    assert not result.closed
    if fsync == "always":
        assert result.is_whole


@pytest.mark.parametrize("seconds", [1, 8])
def test_redis_hangs(start, redis, seconds):
    """
    Redis hangs for a while: publications are refused at last, and nothing is missing or
    doubled when it goes on.  The log says so.
    """
    nodes = Nodes(start, redis.url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        redis.freeze()
        time.sleep(seconds)
        redis.thaw()
    traffic.wait()
    if seconds > 5:
        for daemon in nodes.daemons:
            daemon.wait_for("Redis has not answered for 3 seconds: connecting anew")
    result = finish(traffic)
    assert result.is_whole
    assert not result.closed
    assert bool(result.unavailable) == (seconds > 5)


def test_node_hangs(start, redis):
    """
    A node hangs for a while, and goes on where it was.
    """
    nodes = Nodes(start, redis.url, 2)
    traffic = Traffic(nodes.ports)
    for lap in range(TIMES):
        traffic.wait()
        nodes.signal(lap % 2, signal.SIGSTOP)
        time.sleep(random.uniform(1, 4))
        nodes.signal(lap % 2, signal.SIGCONT)
    result = finish(traffic)
    assert result.is_whole
    assert not result.closed


def test_node_hangs_too_long(start, redis):
    """
    A node hangs for so long that messages are deleted which it has not read: its
    subscribers are told that they miss some, and those of other nodes get all.
    """
    # Only the bytes limit the history.  So it has all of a channel behind the first message
    # of it that is kept, but for a folder, messages may be missing in between, of which the
    # gap has told with which it is resumed.
    nodes = Nodes(start, redis.url, 2, *KEEP, "--history-bytes", "3000000")
    traffic = Traffic(nodes.ports, ["a/b", "d"])
    traffic.wait()
    nodes.signal(1, signal.SIGSTOP)
    # More than may wait to be deleted.
    publish(nodes.ports[0], 40, "big", 1 << 20)
    for publisher in traffic.publishers:
        publisher.ports = nodes.ports[:1]
    traffic.wait(600)
    nodes.signal(1, signal.SIGCONT)
    result = finish(traffic)
    # Subscribers may all have been at the other node.
    assert result.gaps
    assert not result.closed


def publish(port, count, channel, size=0):
    """
    Publish so many messages beside the traffic; their ids.
    """
    ids = []
    for _ in range(count):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("POST", f"/msgbus/{channel}", bytes(size), {"Content-Type": "a/b"})
        answer = client.getresponse()
        assert answer.status == 204
        ids.append(answer.headers["Msgbus-Id"])
        client.close()
    return ids


def publish_many(port, count):
    """
    Publish so many messages as fast as it goes, by connections that send all their requests
    at once.
    """

    def publish_share():
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            client.sendall((POST + b"Content-Length: 1\r\n\r\nx") * (count // CONNECTIONS))
            answers = client.makefile("rb")
            for _ in range(count // CONNECTIONS):
                assert answers.readline() == b"HTTP/1.1 204 No Content\r\n"
                while answers.readline() != b"\r\n":
                    pass

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for share in [pool.submit(publish_share) for _ in range(CONNECTIONS)]:
            share.result()


def get(port, path):
    """
    The head of the answer to a request.
    """
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("GET", f"/msgbus/{path}")
    answer = client.getresponse()
    client.close()
    return answer


def test_full(start, redis):
    """
    Redis is full, again and again, until its operator gives it more memory: publications
    are refused, and nothing that was acknowledged is lost.
    """
    nodes = Nodes(start, redis.url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        time.sleep(1)
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    result = finish(traffic)
    assert result.is_whole
    assert not result.closed
    assert result.unavailable


@pytest.fixture
def forgetful(tmp_path):
    """
    A Redis that has its data in memory only.
    """
    server = RedisServer(tmp_path, appendonly="no")
    yield server
    server.kill()


@pytest.fixture
def proxied(redis, tmp_path):
    """
    A Redis behind a proxy that can be stalled, and the URL of both.
    """
    redis.kill()
    redis._settings["port"] = free_port()
    redis.start()
    proxy = StallingProxy(redis._settings["port"])
    yield proxy, f"redis://127.0.0.1:{proxy.port}/0"
    proxy.close()


def test_network_is_cut(start, redis, proxied):
    """
    The network to Redis is silent for a while; what was on its way comes late, also
    when it was sent by connections that are closed.
    """
    proxy, url = proxied
    nodes = Nodes(start, url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        proxy.stall()
        time.sleep(random.uniform(1, 9))
        proxy.flow()
    result = finish(traffic)
    assert result.is_whole
    assert not result.closed


def test_one_node_is_cut(start, redis, proxied):
    """
    The network between one node and Redis is silent for a while.  Who resumes there gets
    what is missing when the node has read it.
    """
    proxy, url = proxied
    nodes = Nodes(start, redis.url, 2)
    nodes.kill(1)
    nodes.start(1, url)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        proxy.stall()
        time.sleep(random.uniform(4, 6))
        proxy.flow()
    result = finish(traffic)
    assert result.is_whole
    assert not result.closed


def test_poll_at_a_node_that_is_cut(start, redis, proxied):
    """
    A request for the next message that comes to a node which has not read the message
    before waits no longer than it wants to.  Once the node reads, it gets the next one.
    """
    proxy, url = proxied
    nodes = Nodes(start, redis.url, 2)
    nodes.kill(1)
    nodes.start(1, url)
    proxy.stall()
    first, second = publish(nodes.ports[0], 2, "foo")
    query = f"?format=message&since={first}"
    for wait in "", "&wait=1":
        assert get(nodes.ports[1], f"foo{query}{wait}").status == 204
    proxy.flow()
    answer = get(nodes.ports[1], f"foo{query}&wait=20")
    assert (answer.status, answer.headers["Msgbus-Id"]) == (200, second)
    assert answer.headers["Msgbus-Gap"] is None


def test_half_open(start, redis, proxied):
    """
    Single connections to Redis go silent, again and again.
    """
    proxy, url = proxied
    nodes = Nodes(start, url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        proxy.stall_one(lambda _: random.random() < 0.5)
        time.sleep(random.uniform(0, 6))
    result = finish(traffic)
    assert result.is_whole
    assert not result.closed


def test_connections_are_killed(start, redis):
    """
    Redis ends all connections, and forgets its scripts, again and again.
    """
    nodes = Nodes(start, redis.url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(10 * TIMES):
        traffic.wait(30)
        redis.ask("SCRIPT", "FLUSH")
        redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(random.uniform(0, 0.1))
    result = finish(traffic)
    assert result.is_whole
    assert not result.closed


def test_emptied(start, redis):
    """
    Redis is emptied under load: each loss is told, and nothing comes twice after that.
    """
    nodes = Nodes(start, redis.url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        redis.ask("FLUSHALL")
    result = finish(traffic)
    assert result.gaps
    assert (result.repeated, result.closed) == (0, 0)


def test_older_copy(start, forgetful):
    """
    Redis comes back with an older copy of its data, again and again, and nodes find it at
    different times: each loss is told.
    """
    nodes = Nodes(start, forgetful.url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        forgetful.ask("SAVE")
        traffic.wait(random.randint(1, 100))
        forgetful.kill()
        time.sleep(random.uniform(0, 3))
        forgetful.start()
    result = finish(traffic)
    # Subscribers may have got, before it was lost, all that was.
    assert result.gaps
    assert not result.closed


def test_only_one_node_knows(start, forgetful):
    """
    Redis comes back without messages that only one node has seen, which goes on later than
    the others, when as many have been published again: the loss is told at all nodes.
    """
    nodes = Nodes(start, forgetful.url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        nodes.signal(1, signal.SIGSTOP)
        # Redis sends it one reply more, which it reads when it goes on.
        traffic.publish(nodes.ports[0], 1)
        forgetful.ask("SAVE")
        traffic.publish(nodes.ports[0], 10)
        nodes.signal(0, signal.SIGSTOP)
        forgetful.kill()
        forgetful.start()
        nodes.signal(1, signal.SIGCONT)
        traffic.publish(nodes.ports[1], 200)
        nodes.signal(0, signal.SIGCONT)
    result = finish(traffic)
    assert result.lost
    assert not result.closed


def test_another_in_its_place(start, forgetful):
    """
    Another Redis, which is empty, comes in the place of the one that was: each loss is
    told.
    """
    nodes = Nodes(start, forgetful.url, 2)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        traffic.wait()
        forgetful.kill()
        forgetful.start()
    result = finish(traffic)
    assert result.gaps
    assert (result.repeated, result.closed) == (0, 0)


def test_clock_of_a_node_is_set(start, redis, tmp_path):
    """
    The clock of a node is set forward and back: nothing that is young enough is lost.
    """
    # Otherwise, the time would not be changed.
    assert os.path.exists(LIBFAKETIME)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = {
        **os.environ,
        "LD_PRELOAD": LIBFAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    nodes = Nodes(start, redis.url, 2, *KEEP, "--history-age", "3600")
    nodes.kill(0)
    nodes.start(0, env=faked)
    traffic = Traffic(nodes.ports)
    for _ in range(TIMES):
        for offset in "+300", "-300", "-86400", "+0":
            traffic.wait(100)
            # The node must not read an empty file.
            (tmp_path / "next").write_text(offset)
            (tmp_path / "next").replace(clock)
    result = finish(traffic)
    assert result.is_whole
    assert not result.closed


def test_clock_of_redis_is_set(start, redis):
    """
    The clock of Redis is set back by a day: ids go on growing.
    """
    nodes = Nodes(start, redis.url, 2)
    traffic = Traffic(nodes.ports)
    traffic.wait()
    # As if the last message was published then.  Where it is possible to have Redis see
    # another time, it does not start.
    redis.ask("HSET", "msgbus:meta", "ms", int((time.time() + 86400) * 1000))
    result = finish(traffic)
    assert result.is_whole
    assert not result.closed


def test_behind_by_many(start, redis):
    """
    A node that was away while very many messages were published, and one that starts with
    them, get all, while more are published.
    """
    nodes = Nodes(start, redis.url, 2)
    traffic = Traffic(nodes.ports, ["a/b", "a/"], publishers=2)
    traffic.wait()
    nodes.signal(1, signal.SIGSTOP)
    publish_many(nodes.ports[0], MANY)
    nodes.signal(1, signal.SIGCONT)
    traffic.wait()
    nodes.kill(0)
    nodes.start(0)
    result = finish(traffic)
    assert result.is_whole
