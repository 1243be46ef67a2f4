"""
Several nodes, whose messages are in a Redis that sentinels replace when it is killed.
"""

import json
import os
import random
import threading
import time
import urllib.request

import pytest

from msgbus.client.blocking import Publisher

from ..sentinels import Replicated, wait_until
from .certificates import Authority

# How often a master is killed.
FAILOVERS = int(os.environ.get("MSGBUS_TEST_FAILOVERS", "1"))


class Reader(threading.Thread):
    """
    Reads all messages, from a node of its own, or, if it is cut off now and then, from
    another one each time.

    Attributes:
        got: Ids and bodies in the order in which they came; None for a gap of which nobody
            knows how large it is.
    """

    def __init__(self, nodes, cut_after=None):
        super().__init__()
        self.nodes, self.cut_after = nodes, cut_after
        self.got, self.error = [], None

    def run(self):
        """
        Read until the message `last` comes.
        """
        try:
            while not (self.got and self.got[-1] and self.got[-1][1] == "last"):
                self.read()
        except Exception as error:
            self.error = error

    def read(self):
        """
        Read one stream, until it is cut.
        """
        told = [item[0] for item in self.got if item]
        since = told[-1] if told else "all"
        url = f"{random.choice(self.nodes).url}foo?since={since}&format=ndjson"
        with urllib.request.urlopen(url, timeout=60) as stream:
            for count, line in enumerate(stream):
                item = json.loads(line)
                if item == {"live": True}:
                    continue
                if "gap" in item:
                    assert item["gap"] == "unknown"
                    self.got.append(None)
                    continue
                self.got.append((item["id"], item["body"]))
                if item["body"] == "last" or count == self.cut_after:
                    return


class Writer(threading.Thread):
    """
    Publishes messages at one node, each again and again until it is acknowledged.

    Attributes:
        acknowledged: Their ids, by body.
    """

    def __init__(self, node, name):
        super().__init__()
        self.node, self.name = node, name
        self.acknowledged = {}
        self.stopped = threading.Event()

    def run(self):
        """
        Publish until it is stopped.
        """
        with Publisher(f"{self.node.url}foo", patience=120) as publisher:
            while not self.stopped.is_set():
                body = f"{self.name}-{len(self.acknowledged)}"
                receipt = publisher.publish(body.encode(), "text/plain")
                self.acknowledged[body] = receipt.id
                time.sleep(0.002)


def publish_last(node):
    """
    Publish the message with which readers end.
    """
    with Publisher(f"{node.url}foo", patience=120) as publisher:
        publisher.publish(b"last", "text/plain")


def stored_at(node):
    """
    Ids and bodies of all messages that a node has.
    """
    reader = Reader([node])
    reader.run()
    assert reader.error is None
    return [item for item in reader.got if item]


def check(nodes, readers, acknowledged):
    """
    All nodes have the same messages, once, in one order.  Readers have got them in that
    order, and all of them, but for what they were told.  If anything that was acknowledged
    is lost, everybody is told.

    Returns:
        Ids of messages that were acknowledged, and are lost.
    """
    stored = stored_at(nodes[0])
    for node in nodes[1:]:
        assert stored_at(node) == stored
    place = {id: number for number, (id, _) in enumerate(stored)}
    assert len(place) == len(stored) == len({body for _, body in stored})
    lost = set(acknowledged.values()) - set(place)
    for reader in readers:
        reader.join(120)
        assert reader.error is None
        parts = [[]]
        for item in reader.got:
            if item is None:
                parts.append([])
            elif item[0] in place:
                parts[-1].append(place[item[0]])
        assert len(parts) > 1 or not lost
        if len(parts) == 1:
            assert parts[0] == list(range(len(stored)))
        for part in parts:
            # No message is missing before the next gap, and none comes twice.
            assert part == list(range(part[0], part[0] + len(part))) if part else True
    return lost


@pytest.fixture
def replicated(tmp_path):
    """
    A master and two replicas.
    """
    servers = Replicated(tmp_path / "servers", replicas=2)
    yield servers
    servers.stop()


def test_tls(start, tmp_path, monkeypatch):
    """
    Sentinels and servers can be reached by TLS, before and after a failover.
    """
    authority = Authority(tmp_path)
    pem = authority.issue("127.0.0.1")
    # Of the tests themselves, and of the node.
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    tls = {
        "tls_cert_file": pem,
        "tls_key_file": pem,
        "tls_ca_cert_file": authority.file,
        "tls_auth_clients": "no",
        "tls_replication": "yes",
    }
    servers = Replicated(tmp_path / "servers", tls=tls)
    try:
        node = start("--log", servers.url)
        with Publisher(f"{node.url}foo", patience=120) as publisher:
            first = publisher.publish(b"first", "text/plain")
            servers.wait_for_replicas(servers.master(), 1)
            servers.fail_over(lambda server: server.kill())
            publisher.publish(b"last", "text/plain")
        assert [body for _, body in stored_at(node)] == ["first", "last"]
        assert stored_at(node)[0][0] == first.id
    finally:
        servers.stop()


@pytest.fixture
def nodes(start, replicated, request):
    """
    Two nodes that use them.
    """
    url = f"{replicated.url}&wait={getattr(request, 'param', 0)}"
    return [start("--log", url, "--history", "100000") for _ in range(2)]


@pytest.mark.parametrize(("nodes", "wait"), [(0, 0), (1, 1)], indirect=["nodes"])
def test_killed(nodes, replicated, wait):
    """
    When the master is killed, publications and streams go on at the next one, and nothing
    breaks when the old one comes back as a replica.  If publications wait for a replica,
    nothing that was acknowledged is lost.
    """
    writers = [Writer(node, name) for node, name in zip(nodes, "ab", strict=True)]
    readers = [*(Reader([node]) for node in nodes), Reader(nodes, 200)]
    for thread in (*writers, *readers):
        thread.start()
    for _ in range(FAILOVERS):
        time.sleep(1)
        old, _ = replicated.fail_over(lambda server: server.kill())
        counts = [len(writer.acknowledged) for writer in writers]
        wait_until(
            lambda counts=counts: all(
                len(writer.acknowledged) > count + 50
                for writer, count in zip(writers, counts, strict=True)
            )
        )
        old.start()
        replicated.wait_until_settled()
    for writer in writers:
        writer.stopped.set()
        writer.join(120)
    publish_last(nodes[0])
    acknowledged = writers[0].acknowledged | writers[1].acknowledged
    lost = check(nodes, readers, acknowledged)
    print(f"{len(lost)} of {len(acknowledged)} messages that were acknowledged are lost")
    assert not (lost and wait)


def test_lost(nodes, replicated):
    """
    If the replicas lack messages that the master has acknowledged when it is killed, every
    subscriber is told, at all nodes, and goes on.
    """
    readers = [*(Reader([node]) for node in nodes), Reader(nodes, 7)]
    for reader in readers:
        reader.start()
    acknowledged = {}

    def publish(name):
        for number in range(20):
            node = nodes[number % 2]
            with Publisher(f"{node.url}foo", patience=120) as publisher:
                body = f"{name}-{number}"
                acknowledged[body] = publisher.publish(body.encode(), "text/plain").id

    publish("before")
    master = replicated.master()
    replicated.wait_for_replicas(master, 2)
    for replica in replicated.servers:
        if replica is not master:
            replica.ask("CONFIG", "SET", "masterauth", "wrong")
    master.ask("CLIENT", "KILL", "TYPE", "replica")
    publish("lost")
    old, _ = replicated.fail_over(lambda server: server.kill())
    for replica in replicated.servers:
        if replica is not old:
            replica.ask("CONFIG", "SET", "masterauth", "")
    publish("after")
    old.start()
    replicated.wait_until_settled()
    publish("late")
    publish_last(nodes[1])
    lost = check(nodes, readers, acknowledged)
    assert lost == {acknowledged[f"lost-{number}"] for number in range(20)}
