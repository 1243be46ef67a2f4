"""
Tests for publications that wait for replicas (`?wait=N`), with a real master and a replica.
"""

import pytest
import pytest_twisted
from twisted.internet import reactor

from msgbus.bus.log import Unavailable
from msgbus.redis import RedisAddress, RedisLog

from ..integration.ports import free_port
from ..node import Node, until
from ..redis_server import RedisServer
from ..sentinels import wait_until


@pytest.fixture
def servers(tmp_path):
    """
    A master and its replica.
    """
    found = []
    for name in "master", "replica":
        (tmp_path / name).mkdir()
        port = free_port()
        found.append(RedisServer(tmp_path / name, port=port, repl_diskless_sync_delay=0))
    master, replica = found
    replica.ask("REPLICAOF", "127.0.0.1", master.port)
    wait_until(lambda: master.ask("WAIT", 1, 100) == 1)
    yield master, replica
    for server in found:
        server.thaw()
        server.kill()


@pytest.fixture
def node(servers):
    """
    A node whose publications wait for the replica.
    """
    address = RedisAddress.parse(f"{servers[0].url}&wait=1")
    node = Node(RedisLog(address, reactor))
    yield node
    pytest_twisted.blockon(node.log.close())


@pytest_twisted.ensureDeferred
async def test_replica_hangs(node, servers):
    """
    While the replica hangs, publications are not acknowledged, also if the node connects to
    the master anew, and streams stay.  When the replica goes on, a repetition with the same
    key is a repetition.
    """
    master, replica = servers
    first = await node.publish("foo", b"1", key="a")
    assert replica.ask("XLEN", "msgbus") == 1
    replica.freeze()
    waiting = [node.publish("foo", b"2", key="b"), node.publish("foo", b"3")]
    await until(lambda: master.ask("XLEN", "msgbus") == 3)
    master.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for published in waiting:
        with pytest.raises(Unavailable, match="Too few replicas"):
            await published
    replica.thaw()
    again = await node.publish("foo", b"2", key="b")
    last = await node.publish("foo", b"4")
    await node.follow(4)
    assert [message.body for message in node.got] == [b"1", b"2", b"3", b"4"]
    assert again.repeated
    told = [node.got[place].id for place in (0, 1, 3)]
    assert told == [first.id, again.id, last.id]
    assert node.missed == 0


@pytest_twisted.ensureDeferred
async def test_replica_comes_back_in_time(node, servers):
    """
    A publication waits for some seconds, and is published once.
    """
    _, replica = servers
    await node.publish("foo", b"1")
    replica.freeze()
    waiting = node.publish("foo", b"2")
    reactor.callLater(2.5, replica.thaw)
    receipt = await waiting
    await node.follow(2)
    assert replica.ask("XLEN", "msgbus") == 2
    assert (node.got[1].id, len(node.got)) == (receipt.id, 2)
