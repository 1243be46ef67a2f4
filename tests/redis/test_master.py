"""
Tests for `msgbus.redis.master`, with a real master, its replica and sentinels.
"""

import pytest
import pytest_twisted
from twisted.internet import reactor

from msgbus.bus.log import CannotLoad
from msgbus.redis import RedisAddress, RedisLog
from msgbus.redis.master import MasterFinder, connect_blocking

from ..integration.ports import free_port
from ..node import Node
from ..sentinels import Replicated


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    """
    Servers and sentinels that all have a password.
    """
    servers = Replicated(tmp_path_factory.mktemp("replicated"), password="secret")
    yield servers
    servers.stop()


@pytest.fixture
def parse(replicated, tmp_path):
    """
    The address of the log at these servers, with passwords in files.
    """
    file = tmp_path / "password"
    file.write_text("secret")

    def parse(url=replicated.url, server=file, sentinel=file):
        files = f"password-file={server}&sentinel-password-file={sentinel}"
        url = f"{url}&{files}"
        return RedisAddress.parse(url, lambda name: open(name).read())

    return parse


@pytest_twisted.ensureDeferred
async def test_found(replicated, parse):
    """
    The master is found through the sentinels, by a node that starts and by one that runs,
    although the first sentinel does not answer.
    """
    hosts = replicated.url.partition("://")[2]
    address = parse(f"redis+sentinel://127.0.0.1:{free_port()},{hosts}")
    connection = connect_blocking(address)
    assert connection.call("CONFIG", "GET", "port")[1] == b"%d" % replicated.master().port
    connection.close()
    node = Node(RedisLog(address, reactor))
    await node.publish("foo", b"1")
    await node.follow(1)
    await node.log.close()


def test_mistakes(replicated, parse, tmp_path):
    """
    A name that the sentinels do not know, a wrong password for the sentinels or the server,
    and a server that is a replica are told at the start.
    """
    wrong = tmp_path / "wrong"
    wrong.write_text("no-secret")
    replica = replicated.servers[1].url
    for address, sentence in (
        (
            parse(replicated.url.replace("mymaster", "other")),
            "No such master with that name",
        ),
        (parse(sentinel=wrong), "WRONGPASS"),
        (parse(server=wrong), "WRONGPASS"),
        (RedisAddress.parse(replica), "is a replica and takes no messages"),
    ):
        with pytest.raises(CannotLoad, match=sentence) as caught:
            RedisLog(address, reactor).load()
        assert "no-secret" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_outdated(replicated, parse):
    """
    A sentinel that names a master of an earlier election is not believed; if all do, they
    have begun to count anew, and are believed the next time.
    """
    finder = MasterFinder(parse(), reactor)
    finder._epoch = 7
    with pytest.raises(OSError, match="names an earlier master"):
        await finder.connect()
    connection = await finder.connect()
    assert not await finder.has_moved()
    connection.cut()
    finder._epoch = -1
    assert await finder.has_moved()
