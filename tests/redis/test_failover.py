"""
Tests for what a log in Redis does while sentinels elect another master, with nodes in this
process.
"""

import time

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from msgbus.bus.log import Unavailable
from msgbus.redis import RedisAddress, RedisLog

from ..node import SECONDS, Node, until
from ..redis_server import RedisServer
from ..sentinels import Replicated


@pytest.fixture
def replicated(tmp_path):
    """
    A master and a replica, where the user `bus` can do everything as well.
    """
    servers = Replicated(tmp_path / "servers")
    for server in servers.servers:
        server.ask("ACL", "SETUSER", "bus", "on", ">bus", "~*", "&*", "+@all")
    yield servers
    servers.stop()


@pytest.fixture
def nodes(replicated):
    """
    Two nodes, which use the master as the user `bus`.
    """
    url = replicated.url.replace("://", "://bus:bus@")
    started = [Node(RedisLog(RedisAddress.parse(url), reactor)) for _ in range(2)]
    yield started
    for node in started:
        pytest_twisted.blockon(node.log.close())


def isolate(server):
    """
    Keep sentinels and replicas away from this server, but not the nodes.
    """
    server.ask("ACL", "SETUSER", "default", "off")
    connection = RedisAddress.parse(f"redis+unix://bus:bus@{server.socket}")
    server.address = connection
    server.ask("CLIENT", "KILL", "USER", "default")


async def publish_until_moved(node, server, count):
    """
    Publish until this server has so many messages; the ids of those that were acknowledged.
    """
    acknowledged = []
    number = 0
    deadline = time.monotonic() + SECONDS
    while server.ask("XLEN", "msgbus") < count:
        assert time.monotonic() < deadline
        number += 1
        try:
            receipt = await node.publish("foo", b"%d" % number)
        except Unavailable:
            continue
        acknowledged.append(receipt.id)
    return acknowledged


@pytest.mark.parametrize("away", [RedisServer.freeze, isolate])
@pytest_twisted.ensureDeferred
async def test_leaves_old_master(replicated, nodes, away):
    """
    A master that hangs, or that only nodes can still reach, is left when another one was
    elected.  What it has acknowledged meanwhile may be lost, and then all subscribers are
    told; all nodes have the same messages in the end.
    """
    first = await nodes[0].publish("foo", b"first")
    replicated.wait_for_replicas(replicated.master(), 1)
    old, new = await deferToThread(replicated.fail_over, away)
    acknowledged = await publish_until_moved(nodes[0], new, 10)
    # Until it has moved too, the old master, once it goes on, might take what it publishes.
    acknowledged += await publish_until_moved(nodes[1], new, 20)
    old.thaw()
    last = await nodes[1].publish("foo", b"last")
    for node in nodes:
        await until(lambda node=node: node.got and node.got[-1].id == last.id)
    stored = [id.decode() for id, _ in new.ask("XRANGE", "msgbus", "-", "+")]
    assert (stored[0], stored[-1]) == (first.id, last.id)
    for node in nodes:
        assert [message.id for message in node.read("foo")] == stored
        told = [message.id for message in node.got]
        assert node.missed or told == stored
        assert node.missed or set(acknowledged) <= set(stored)
    assert [node.bus.life for node in nodes] == [nodes[0].bus.life] * 2
