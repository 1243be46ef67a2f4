"""
Tests for `msgbus.bus.log`: what every log does, whatever it is made of.
"""

import pytest
import pytest_twisted
from twisted.internet import reactor

from msgbus.bus.file_log import FileLog
from msgbus.bus.history import History, Keep
from msgbus.bus.idempotency import Reused
from msgbus.bus.memory_log import MemoryLog
from msgbus.ids import Gap, life_of, origin_of, parse_id
from msgbus.message import Message
from msgbus.redis import RedisLog

from ..node import Node
from ..redis_server import RedisServer

BODIES = [b"21.5", b"1e5", b"\xff", b"", b"nan", b"\r\n", b"$-1\r\n", bytes(range(256))]


@pytest.fixture(params=["memory", "file", "redis"])
def start(request, tmp_path):
    """
    Starts a bus on the same log; in memory, that is always another one.
    """
    nodes = []
    server = RedisServer(tmp_path) if request.param == "redis" else None

    def start(**keep):
        history = History(Keep(**keep))
        if request.param == "redis":
            log = RedisLog(server.address, reactor, history)
        elif request.param == "file":
            log = FileLog(tmp_path / "log", reactor, history)
        else:
            log = MemoryLog(history)
        nodes.append(Node(log))
        return nodes[-1]

    yield start
    for node in nodes:
        if hasattr(node.log, "close"):
            pytest_twisted.blockon(node.log.close())
    if server is not None:
        server.kill()


@pytest_twisted.ensureDeferred
async def test_order(start):
    """
    All that is published is delivered once, in the order of its ids, whose numbers are
    consecutive, and with the same fields and bytes.
    """
    node = start()
    done = [node.publish("foo", body) for body in BODIES]
    receipts = [await receipt for receipt in done]
    await node.follow(len(BODIES))
    assert [message.body for message in node.got] == BODIES
    assert [receipt.id for receipt in receipts] == [message.id for message in node.got]
    assert {(m.channel, m.content_type, m.sender) for m in node.got} == {
        ("foo", "a/b", "alice")
    }
    numbers = [parse_id(message.id)[1] for message in node.got]
    assert numbers == list(range(numbers[0], numbers[0] + len(BODIES)))
    assert life_of(parse_id(node.got[0].id)) == node.bus.life
    assert [receipt.subscribers for receipt in receipts] == [1] * len(BODIES)
    assert node.bus.newest == parse_id(node.got[-1].id)


@pytest_twisted.ensureDeferred
async def test_reading(start):
    """
    What is kept is read by channel, by folder, by number and behind an id.
    """
    node = start(count=3)
    for number in range(5):
        for channel in ("a/b", "c"):
            await node.publish(channel, b"%d" % number)
    await node.follow(10)

    def bodies(name, **since):
        return [m.body for m in node.read(name, **since) if isinstance(m, Message)]

    assert bodies("a/b") == bodies("a/") == bodies("c") == [b"2", b"3", b"4"]
    assert bodies("c", last=1) == [b"4"]
    assert bodies("", last=3) == [b"3", b"4", b"4"]
    third = parse_id(node.got[6].id)
    assert bodies("", id=third) == [b"3", b"4", b"4"]
    assert node.read("c", id=parse_id(node.got[1].id))[0] == Gap(None)
    assert node.read("", id=parse_id(node.got[1].id))[0] == Gap(2)


@pytest_twisted.ensureDeferred
async def test_flood(start):
    """
    A flood of one channel does not push out the last message of another.
    """
    node = start(count=2)
    await node.publish("quiet", b"1")
    for receipt in [node.publish("flood") for _ in range(500)]:
        await receipt
    await node.follow(501)
    assert [message.body for message in node.read("quiet")] == [b"1"]
    assert len(node.read("flood")) == 2


@pytest_twisted.ensureDeferred
async def test_not_kept(start):
    """
    A message that may not be kept is delivered, and read by nobody later.
    """
    node = start()
    await node.publish("foo", b"1", keep=False)
    await node.publish("foo", b"2")
    await node.follow(2)
    assert [message.body for message in node.got] == [b"1", b"2"]
    assert [message.body for message in node.read("foo")] == [b"2"]


@pytest_twisted.ensureDeferred
async def test_repetitions(start):
    """
    A publication that is repeated with its key, or with its origin, is published once, and
    answered with the first id; with another body, the key is refused.
    """
    node = start()
    receipts = [await node.publish("foo", b"1", key="k") for _ in range(2)]
    assert receipts[0].id == receipts[1].id
    assert [receipt.repeated for receipt in receipts] == [False, True]
    with pytest.raises(Reused):
        await node.publish("foo", b"2", key="k")
    copied = Message("bar", b"3", origin="4711/1764-4711000000000017")
    receipts = [await node.bus.publish(copied) for _ in range(2)]
    assert receipts[0].id == receipts[1].id
    own = Message("bar", b"4", origin=origin_of(receipts[0].id))
    assert (await node.bus.publish(own)).id == receipts[0].id
    assert node.bus.repeated == 3
    await node.follow(2)
    assert [message.body for message in node.got] == [b"1", b"3"]
    assert node.got[1].origin == copied.origin


@pytest_twisted.ensureDeferred
async def test_restart(start):
    """
    A log that is stored goes on after a restart: with the same life and boundary, with what
    is kept, what was lost, and the answers that were given.
    """
    node = start(count=2)
    if isinstance(node.log, MemoryLog) and not isinstance(node.log, FileLog):
        assert start().bus.life != node.bus.life
        return
    first = [await node.publish("foo", b"%d" % n, key=f"{n}") for n in range(5)]
    other = await node.publish("bar", b"x")
    await node.follow(6)
    await node.log.close()
    again = start(count=2)
    assert again.bus.life == node.bus.life
    assert again.bus.boundary == node.bus.boundary
    assert [message.id for message in again.read()] == [
        first[3].id,
        first[4].id,
        other.id,
    ]
    assert again.read("foo", id=parse_id(first[1].id))[0] == Gap(None)
    assert [m.id for m in again.read("foo", id=parse_id(first[3].id))] == [first[4].id]
    assert (await again.publish("foo", b"4", key="4")).id == first[4].id
    last = await again.publish("foo", b"5")
    assert parse_id(last.id) > parse_id(other.id)
    await again.follow(1)
    assert [message.id for message in again.got] == [last.id]
