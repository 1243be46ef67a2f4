"""
Tests for `msgbus.redis.log` and what it consists of, with a real Redis that is killed,
hung, emptied and filled.
"""

import random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from msgbus.bus.history import History, Keep
from msgbus.bus.id_sequence import zero_id
from msgbus.bus.log import CannotLoad, LogNumbers, Unavailable
from msgbus.ids import ZERO, Gap, Since, format_id, parse_id
from msgbus.match import EVERYTHING
from msgbus.message import Invalid, Message
from msgbus.redis import RedisAddress, RedisLog, log, trimmer
from msgbus.redis.appender import MAX_WAITING
from msgbus.redis.connection import BlockingConnection, RedisConnection, RedisError
from msgbus.redis.scripts import APPEND, FORGET, MAX_MARKS

from ..node import Node, until


@pytest.fixture
def start(redis):
    """
    Starts a node.
    """
    nodes = []

    def start(**keep):
        nodes.append(Node(RedisLog(redis.address, reactor, History(Keep(**keep)))))
        return nodes[-1]

    yield start
    for node in nodes:
        pytest_twisted.blockon(node.log.close())


def outcome(published):
    """
    A Deferred that fires with the id of a message, or with the error for which it has none.
    """
    return published.addCallbacks(
        lambda receipt: receipt.id,
        lambda failure: failure.trap(Unavailable) and failure.value,
    )


def ids(messages):
    """
    The ids of these messages.
    """
    return [message.id for message in messages]


@pytest_twisted.ensureDeferred
async def test_two_nodes(start):
    """
    All nodes deliver the same messages in the same order, and one that starts later has the
    same history.
    """
    nodes = [start(count=50), start(count=50)]
    done = [random.choice(nodes).publish("foo", b"%d" % n) for n in range(300)]
    receipts = [await receipt for receipt in done]
    for node in nodes:
        await node.follow(300)
        assert ids(node.got) == sorted((r.id for r in receipts), key=parse_id)
    nodes.append(start(count=50))
    for node in nodes:
        assert ids(node.read("foo")) == ids(nodes[0].got[-50:])
    assert nodes[0].bus.boundary == nodes[1].bus.boundary == nodes[2].bus.boundary


def bodies(node, name="", **since):
    """
    The bodies of the messages that a node has, with the gaps between them.
    """
    found = node.read(name, **since)
    return [item.body if isinstance(item, Message) else item for item in found]


@pytest_twisted.ensureDeferred
async def test_forget(start, redis):
    """
    What one node forgets is forgotten by all, and by one that starts later; who resumes is
    told of a gap, and nobody who is there gets anything.
    """
    nodes = [start(), start()]
    for channel, body in (("foo", b"1"), ("bar", b"2"), ("foo", b"3")):
        await nodes[0].publish(channel, body)
    await nodes[1].log.forget("foo")
    assert bodies(nodes[1]) == [b"2"]
    receipt = await nodes[0].publish("foo", b"4")
    for node in nodes:
        await node.follow(4)
    nodes.append(start())
    for node in nodes:
        assert bodies(node) == [b"2", b"4"]
        first = parse_id(nodes[0].got[0].id)
        assert bodies(node, "foo", id=first) == [Gap(None), b"4"]
        assert bodies(node, "foo", id=parse_id(receipt.id)) == []
        assert bodies(node, "bar", id=first) == [b"2"]
        assert bodies(node, id=first) == [b"2", Gap(1), b"4"]
    assert [node.missed for node in nodes] == [0, 0, 0]
    await nodes[2].publish("foo", b"5")
    for node in nodes[:2]:
        await node.follow(5)
        assert node.missed == 0


@pytest_twisted.ensureDeferred
async def test_forgotten_is_deleted(start, redis, monkeypatch):
    """
    What is forgotten is deleted from the stream some time later, and the mark after it.
    Messages that a node had to delete that was killed are not there either for one that
    starts later, which deletes them.
    """
    monkeypatch.setattr(trimmer, "STAY_SECONDS", 0.1)
    monkeypatch.setattr(trimmer, "EACH_SECONDS", 0.1)
    killed, node = start(count=2), start(count=2)
    killed.log._trimmer.stop()
    for n in range(5):
        await killed.publish("foo", b"%d" % n)
    await node.follow(5)
    await node.log.forget("foo")
    await node.log.forget("none")
    assert redis.ask("XLEN", "msgbus") == 7
    # Three that the first node has dropped.
    await until(lambda: redis.ask("XLEN", "msgbus") == 3)
    assert bodies(node) == []
    later = start(count=2)
    assert bodies(later) == []
    assert later.bus.newest == node.bus.newest
    await later.publish("foo", b"5")
    await until(lambda: redis.ask("XLEN", "msgbus") == 1)
    assert bodies(start(count=2)) == [b"5"]
    for each in (killed, node, later):
        await until(lambda each=each: each.got[-1].body == b"5")
        assert each.missed == 0
        await until(lambda each=each: not each.log.trouble)


@pytest_twisted.ensureDeferred
async def test_forget_in_a_batch(start):
    """
    Publications and what is forgotten are in the order in which they were asked for, though
    they go to Redis at once; each mark has an id of its own.
    """
    node = start()
    done = [node.publish("foo", b"1"), node.log.forget("foo"), node.log.forget("bar")]
    done += [node.publish("foo", b"2"), node.log.forget("bar"), node.publish("bar", b"3")]
    for each in done:
        await each
    await node.follow(3)
    assert [m.body for m in node.got] == [b"1", b"2", b"3"]
    for each in (node, start()):
        assert bodies(each) == [b"2", b"3"]
        first = parse_id(node.got[0].id)
        assert bodies(each, id=first) == [b"2", b"3"]


@pytest_twisted.ensureDeferred
async def test_many_marks(start, redis, monkeypatch):
    """
    Of so many channels that were forgotten, only the last ones are remembered once nothing
    of the others is left in the stream.
    """
    fields = {f"{n}": f"{n:013}-0" for n in range(MAX_MARKS)}
    redis.ask("HSET", "msgbus:marks", *(t for pair in fields.items() for t in pair))
    node = start()
    await node.log.forget("foo")
    assert redis.ask("HLEN", "msgbus:marks") == MAX_MARKS + 1 - MAX_MARKS // 10
    assert redis.ask("HEXISTS", "msgbus:marks", "foo") == 1
    assert redis.ask("HEXISTS", "msgbus:marks", "0") == 0


@pytest_twisted.ensureDeferred
async def test_forget_while_away(start, redis):
    """
    While Redis cannot be reached, nothing can be forgotten, and the answer says so.
    """
    node = start()
    await node.publish("foo", b"1")
    redis.kill()
    with pytest.raises(Unavailable):
        await node.log.forget("foo")


@pytest_twisted.ensureDeferred
async def test_flood(start):
    """
    All nodes drop the same, also one that starts later and reads some of what the others
    have dropped already; a flood takes no other channel's newest message.
    """
    nodes = [start(size=20 * 1700, count=10**6) for _ in range(2)]
    quiet = [f"quiet{n}" for n in range(5)]
    for n, name in enumerate(quiet):
        await nodes[0].publish(name, b"%d" % n)
    for n in range(5, 200):
        await nodes[n % 2].publish("loud" if n % 40 else quiet[n // 40], b"%d" % n)
    for node in nodes:
        await node.follow(200)
    nodes.append(start(size=20 * 1700, count=10**6))
    found = bodies(nodes[0])
    assert set(quiet) == {m.channel for m in nodes[0].read()} - {"loud"}
    for node in nodes:
        assert bodies(node) == found


@pytest_twisted.ensureDeferred
async def test_key_at_another_node(start):
    """
    A publication that is repeated at another node is published once.
    """
    first, second = start(), start()
    receipts = [await node.publish("foo", b"1", key="k") for node in (first, second)]
    assert receipts[0].id == receipts[1].id
    assert [receipt.repeated for receipt in receipts] == [False, True]
    assert second.bus.repeated == 1


@pytest_twisted.ensureDeferred
async def test_resume_ahead(start):
    """
    Who comes to a node that has not read the message yet behind which they resume gets what
    comes after it, once.
    """
    first, second = start(), start()
    # Once it reads, it stays stopped.
    await until(lambda: second.log._checked_connection is not None)
    second.log._entries.stop()
    receipt = await first.publish("foo", b"1")
    cursor = second.bus.replay("foo", EVERYTHING, Since(parse_id(receipt.id)))
    for _ in range(2):
        assert cursor.read(second.bus.milliseconds()) == []
        # However late it is.
        await until(lambda: second.log._answered == second.log._checks)
    second.log._entries.start(second.bus.newest)
    await first.publish("foo", b"2")
    await second.follow(2)
    found = cursor.read(second.bus.milliseconds())
    cursor.close()
    assert [message.body for message in found] == [b"2"]


@pytest_twisted.ensureDeferred
async def test_resume_behind_nothing(start, redis):
    """
    Who resumes behind an id that was never given waits until Redis has told so, and gets
    what is kept, behind a gap.
    """
    node = start()
    await node.publish("foo", b"1")
    await node.follow(1)
    milliseconds, number = node.bus.newest
    redis.freeze()
    cursor = node.bus.replay("foo", EVERYTHING, Since((milliseconds, number + 1)))
    assert cursor.read(node.bus.milliseconds()) == []
    redis.thaw()
    found = []
    await until(lambda: found.extend(cursor.read(node.bus.milliseconds())) or found)
    cursor.close()
    assert found == [Gap(None), node.got[0]]


@pytest_twisted.ensureDeferred
async def test_requires(start):
    """
    A node does not know the subscribers of others, so it refuses to require one.
    """
    with pytest.raises(Invalid, match="several nodes"):
        start().publish("foo", require=True)


@pytest.mark.parametrize("always", [True, False])
@pytest_twisted.ensureDeferred
async def test_killed(start, redis, always):
    """
    If Redis is killed and started again, publications wait; each that was acknowledged is
    delivered once by all nodes, in one order, and none is doubled.  If it does not write
    each message to the disk at once, it may lose some; then subscribers are told.
    """
    if not always:
        redis.ask("CONFIG", "SET", "appendfsync", "everysec")
        redis._settings["appendfsync"] = "everysec"
    nodes = [start(count=10_000), start(count=10_000)]
    done = []
    for lap in range(5):
        for number in range(200):
            node = random.choice(nodes)
            done.append(outcome(node.publish("foo", b"%d-%d" % (lap, number))))
            if number == 100:
                await deferLater(reactor, 0.001 * lap)
                redis.kill()
        await deferLater(reactor, 0.05)
        redis.start()
    results = [await result for result in done]
    acknowledged = {result for result in results if isinstance(result, str)}
    last = (await nodes[0].publish("foo", b"last")).id
    for node in nodes:
        await until(lambda node=node: node.got and node.got[-1].id == last)
        assert sorted(ids(node.got), key=parse_id) == ids(node.got)
        assert len({message.body for message in node.got}) == len(node.got)
        if always:
            assert node.missed == 0
        assert node.missed or acknowledged <= set(ids(node.got))
    assert len(acknowledged) > 500


@pytest_twisted.ensureDeferred
async def test_hangs(start, redis):
    """
    If Redis hangs, publications are refused after some seconds, and so are those that are
    too many at once; when it goes on, nothing that was acknowledged is missing or doubled.
    """
    node = start()
    first = await node.publish("foo", b"1")
    redis.freeze()
    results = [await outcome(node.publish("foo", b"2")) for _ in range(2)]
    assert [type(result) for result in results] == [Unavailable] * 2
    waiting = []
    for _ in range(MAX_WAITING):
        waiting.append(outcome(node.publish("foo", b"3")))
    with pytest.raises(Unavailable, match="Too many"):
        node.publish("foo", b"3")
    redis.thaw()
    for result in waiting:
        await result
    last = await node.publish("foo", b"4")
    await until(lambda: node.got and node.got[-1].body == b"4")
    assert (node.got[0].id, node.got[-1].id) == (first.id, last.id)
    assert len(set(ids(node.got))) == len(node.got)
    assert node.missed == 0


@pytest_twisted.ensureDeferred
async def test_reads_too_slowly(start):
    """
    A node that does not read what it appends appends no more after some megabytes, so the
    stream stays small; when it reads again, it goes on.
    """
    node = start(count=1)
    await node.publish("foo", b"first")
    await node.follow(1)
    node.log._entries.stop()
    body = bytes(1024 * 1024)
    results = [await outcome(node.publish("foo", body)) for _ in range(17)]
    assert {type(result) for result in results} == {str}
    refused = await outcome(node.publish("foo", b"refused"))
    assert "Too many messages wait" in str(refused)
    last = node.publish("foo", b"last")
    node.log._entries.start(node.bus.newest)
    results.append((await last).id)
    await node.follow(19)
    assert ids(node.got[1:]) == results
    assert node.missed == 0


@pytest_twisted.ensureDeferred
async def test_emptied(start, redis):
    """
    If Redis is emptied, a new life begins at all nodes: subscribers are told that messages
    may be missing, old ids are foreign, and the boundary stays, as open streams have it.
    """
    nodes = [start(), start()]
    old = await nodes[0].publish("foo", b"1")
    for node in nodes:
        await node.follow(1)
    life, boundary = nodes[0].bus.life, nodes[0].bus.boundary
    redis.ask("FLUSHALL")
    new = await nodes[0].publish("foo", b"2")
    for node in nodes:
        await node.follow(2)
        assert node.missed == 1
        assert node.bus.life != life
        assert node.bus.boundary == boundary
        assert node.got[-1].id == new.id
        found = node.read("foo", id=parse_id(old.id))
        assert found == [Gap(None), node.got[-1]]


@pytest_twisted.ensureDeferred
async def test_emptied_and_idle(start, redis):
    """
    A node notices that Redis was emptied even if nothing is published.
    """
    node = start()
    await node.publish("foo", b"1")
    await node.follow(1)
    redis.ask("FLUSHALL")
    await until(lambda: node.missed)
    assert node.read("foo") == []


@pytest_twisted.ensureDeferred
async def test_older_copy(start, redis, tmp_path):
    """
    If Redis comes back without the last messages, as after a failover, a new life begins,
    so that no id is given twice; what it has is still read.
    """
    redis.ask("CONFIG", "SET", "appendonly", "no")
    node = start()
    first = await node.publish("foo", b"1")
    redis.ask("SAVE")
    lost = await node.publish("foo", b"2")
    await node.follow(2)
    life = node.bus.life
    redis.kill()
    for file in (tmp_path / "appendonlydir").iterdir():
        file.unlink()
    redis._settings["appendonly"] = "no"
    redis.start()
    last = await node.publish("foo", b"3")
    await node.follow(3)
    assert node.missed == 1
    assert node.bus.life != life
    assert len({first.id, lost.id, last.id}) == 3
    assert [message.body for message in node.got] == [b"1", b"2", b"3"]
    assert [message.id for message in node.read("foo")] == [first.id, last.id]


@pytest_twisted.ensureDeferred
async def test_newer_copy(start, redis):
    """
    So it does if Redis comes back with as many messages as the node knows, or more, and
    they are others: the copy from which the node has read the last ones was given up
    before.
    """
    node = start()
    receipts = [await node.publish("foo", b"1")]
    await deferLater(reactor, 0.05)
    receipts.append(await node.publish("foo", b"lost"))
    await node.follow(2)
    life = node.bus.life
    first = parse_id(receipts[0].id)
    redis.ask("DEL", "msgbus")
    for place in range(3):
        id = format_id((first[0] + place, first[1] + place))
        fields = ("n", "x", "c", "foo", "t", "a/b", "s", "", "o", "", "k", "1")
        redis.ask("XADD", "msgbus", id, *fields, "b", f"{place + 1}")
    redis.ask("HSET", "msgbus:meta", "count", 3)
    await until(lambda: node.missed)
    assert node.bus.life != life
    await node.publish("foo", b"4")
    await until(lambda: node.got and node.got[-1].body == b"4")
    assert [message.body for message in node.read("foo")] == [b"1", b"2", b"3", b"4"]
    await deferLater(reactor, 2 * log.CHECK_SECONDS + 0.5)
    assert node.missed == 1


@pytest_twisted.ensureDeferred
async def test_full(start, redis):
    """
    If Redis has no more memory, a publication is refused with a sentence that says so, and
    once it has, publications go on.
    """
    node = start()
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    result = await outcome(node.publish("foo", b"1"))
    assert "is full" in str(result)
    redis.ask("CONFIG", "SET", "maxmemory", "0")
    last = await node.publish("foo", b"2")
    await node.follow(1)
    assert ids(node.got) == [last.id]


@pytest_twisted.ensureDeferred
async def test_full_and_old(start, redis, monkeypatch):
    """
    Messages that are too old leave the stream also while Redis is full.
    """
    monkeypatch.setattr(trimmer, "STAY_SECONDS", 0.1)
    node = start(seconds=0.5)
    for number in range(10):
        await node.publish("foo", b"%d" % number)
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    await until(lambda: redis.ask("XLEN", "msgbus") == 0)
    assert redis.ask("HGET", "msgbus:lost", "foo").decode() == node.got[-1].id


@pytest_twisted.ensureDeferred
async def test_deleted(start, redis, monkeypatch):
    """
    What the history drops, and what may not be kept, is deleted from the stream some time
    later; and a node that starts then knows which channels have lost messages.
    """
    monkeypatch.setattr(trimmer, "STAY_SECONDS", 0.1)
    nodes = [start(count=3), start(count=3)]
    quiet = await nodes[0].publish("quiet", b"1")
    for number in range(50):
        await random.choice(nodes).publish("flood", b"%d" % number)
    await nodes[0].publish("other", b"", keep=False)
    await until(lambda: redis.ask("XLEN", "msgbus") == 4)
    late = start(count=3)
    assert [m.body for m in late.read("quiet", id=parse_id(quiet.id))] == []
    assert late.read("flood", id=parse_id(quiet.id))[0] == Gap(None)
    assert late.read("other", id=parse_id(quiet.id)) == [Gap(None)]
    assert late.read("", id=parse_id(quiet.id))[0] == Gap(47)


@pytest_twisted.ensureDeferred
async def test_deleted_meanwhile(start, redis, monkeypatch):
    """
    A node that starts knows which channels have lost messages, also those that are deleted
    while it reads the stream.
    """
    node = start(count=3)
    receipts = [await node.publish("foo", b"%d" % number) for number in range(5)]
    call = BlockingConnection.call

    def delete_and_call(connection, *command):
        if command[0] == "XRANGE":
            id = receipts[1].id
            keys = ("msgbus", "msgbus:meta", "msgbus:lost")
            call(
                connection, "EVAL", FORGET.text, 3, *keys, 2, receipts[0].id, id, "foo", id
            )
        return call(connection, *command)

    monkeypatch.setattr(BlockingConnection, "call", delete_and_call)
    late = start(count=3)
    assert ids(late.read("foo", id=parse_id(receipts[1].id))) == ids(receipts[2:])
    assert late.read("foo", id=parse_id(receipts[0].id))[0] == Gap(None)


@pytest.mark.parametrize("keep", [{"count": 0}, {"seconds": 0.5}])
@pytest_twisted.ensureDeferred
async def test_nothing_stays(start, redis, monkeypatch, keep):
    """
    Without history, messages leave the stream when all nodes can have read them; and those
    that are too old, although nothing is published any more.
    """
    monkeypatch.setattr(trimmer, "STAY_SECONDS", 0.1)
    node = start(**keep)
    for number in range(10):
        await node.publish("foo", b"%d" % number)
    await node.follow(10)
    await until(lambda: redis.ask("XLEN", "msgbus") == 0)
    assert [m for m in node.read("foo") if isinstance(m, Message)] == []


@pytest_twisted.ensureDeferred
async def test_left_behind(start, redis, monkeypatch):
    """
    What a node that was killed has not deleted is deleted when one starts.
    """
    node = start(count=3)
    for number in range(9):
        await node.publish("foo", b"%d" % number)
    await node.publish("foo", keep=False)
    await node.follow(10)
    assert redis.ask("XLEN", "msgbus") == 10
    await node.log.close()
    monkeypatch.setattr(trimmer, "STAY_SECONDS", 0.1)
    start(count=3)
    await until(lambda: redis.ask("XLEN", "msgbus") == 3)


@pytest_twisted.ensureDeferred
async def test_too_slow(start, redis):
    """
    A node that has not read messages before they are deleted tells its subscribers so.
    """
    node, other = start(), start()
    await other.publish("foo", b"1")
    await node.follow(1)
    node.log._entries.stop()
    lost = await other.publish("foo", b"2")
    redis.ask("XDEL", "msgbus", lost.id)
    await other.publish("foo", b"3")
    node.log._entries.start(node.bus.newest)
    await node.follow(2)
    assert [message.body for message in node.got] == [b"1", b"3"]
    assert node.missed == 1
    assert node.read("foo", id=parse_id(node.got[0].id))[0] == Gap(None)


@pytest_twisted.ensureDeferred
async def test_too_slow_for_a_new_life(start, redis):
    """
    So does one that has not read the first messages of a new life.
    """
    node, other = start(), start()
    # Once it reads, it stays stopped.
    await until(lambda: node.log._checked_connection is not None)
    node.log._entries.stop()
    redis.ask("FLUSHALL")
    lost = await other.publish("foo", b"1")
    redis.ask("XDEL", "msgbus", lost.id)
    await other.publish("foo", b"2")
    await until(lambda: node.missed)
    node.log._entries.start(ZERO)
    await node.follow(1)
    assert node.read("foo", id=zero_id(node.bus.life)) == [Gap(None), node.got[0]]


@pytest_twisted.ensureDeferred
async def test_too_slow_for_the_last(start, redis, monkeypatch):
    """
    So does one that has not read the last messages of all.
    """
    monkeypatch.setattr(log, "CHECK_SECONDS", 0.2)
    node, other = start(), start()
    first = await other.publish("foo", b"1")
    await node.follow(1)
    node.log._entries.stop()
    lost = await other.publish("foo", b"2")
    redis.ask("XDEL", "msgbus", lost.id)
    node.log._entries.start(node.bus.newest)
    await until(lambda: node.missed)
    assert node.read("foo", id=parse_id(first.id)) == [Gap(None)]
    await other.publish("foo", b"3")
    await node.follow(2)
    assert node.missed == 1


@pytest_twisted.ensureDeferred
async def test_reads_nothing(start, redis):
    """
    A node that reads nothing, though there is more, notices that and connects anew.
    """
    node, other = start(), start()
    await other.publish("foo", b"1")
    await node.follow(1)
    # As if the connection were open, and what it reads came nowhere.
    node.log._entries._last = b"lost"
    await other.publish("foo", b"2")
    await other.publish("foo", b"3")
    # At the first check it may just be reading, which is no trouble.
    await until(lambda: node.log._stuck == 1)
    assert not node.log.trouble
    assert node.log.numbers() == LogNumbers(unread=2)
    await until(lambda: node.log._stuck == 2)
    assert "does not get" in node.log.trouble
    await node.follow(3)
    assert [message.body for message in node.got] == [b"1", b"2", b"3"]
    assert node.missed == 0
    await until(lambda: not node.log.trouble)
    assert node.log.numbers() == LogNumbers()


@pytest_twisted.ensureDeferred
async def test_numbers(start, redis):
    """
    It is known how many messages wait for Redis, and how often it could not be reached.
    """
    node = start()
    await node.publish("foo", b"1")
    redis.kill()
    published = [node.publish("foo", b"%d" % n) for n in range(3)]
    await until(lambda: node.log.numbers().failures > 3)
    assert node.log.numbers().unsaved == 3
    redis.start()
    for each in published:
        await each
    assert node.log.numbers().unsaved == 0


@pytest_twisted.ensureDeferred
async def test_answer_is_lost(start):
    """
    If the connection ends when messages are appended and before the answer has come, they
    are not appended a second time, and their publishers get the ids that they have.
    """
    node = start()
    await node.publish("foo", b"0")
    connection = node.log._link.connection
    connection.dataReceived = lambda data: connection.cut()
    done = [node.publish("foo", b"%d" % number) for number in range(1, 100)]
    receipts = [await receipt for receipt in done]
    last = await node.publish("foo", b"100")
    await node.follow(101)
    assert node.log._link.connection is not connection
    assert [message.body for message in node.got] == [b"%d" % n for n in range(101)]
    assert ids(node.got)[1:] == [receipt.id for receipt in (*receipts, last)]


@pytest_twisted.ensureDeferred
async def test_stopped_while_it_connects(start):
    """
    A log that is closed before it has connected does not connect later.
    """
    first = start()
    await first.log.close()
    await start().publish("foo", b"1")
    await deferLater(reactor, 0.2)
    assert first.got == []


@pytest_twisted.ensureDeferred
async def test_scripts_are_lost(start, redis):
    """
    If Redis forgets the scripts, it is given them again.
    """
    node = start()
    await node.publish("foo", b"1")
    redis.ask("SCRIPT", "FLUSH")
    await node.publish("foo", b"2")
    await node.follow(2)


@pytest_twisted.ensureDeferred
async def test_foreign_entry(start, redis):
    """
    An entry that no node has written is logged, and hinders nothing.
    """
    node = start()
    await node.publish("foo", b"1")
    await node.follow(1)
    milliseconds, number = node.bus.newest
    redis.ask("XADD", "msgbus", f"{milliseconds}-{number + 1}", "x", "y")
    redis.ask("HINCRBY", "msgbus:meta", "count", 1)
    await node.publish("foo", b"2")
    await node.follow(2)
    assert [message.body for message in node.got] == [b"1", b"2"]


@pytest_twisted.ensureDeferred
async def test_batch_comes_to_a_replica(start, redis):
    """
    A batch that is repeated is not answered by a server that has become a replica, which is
    about to lose what it has appended.
    """
    node = start()
    receipt = await node.publish("foo", b"1")
    appender = node.log._appender
    batch = node.bus.life, appender._number
    again = ("EVAL", APPEND.text, 4, *appender._keys, *batch)
    assert redis.ask(*again).decode() == receipt.id
    redis.ask("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(RedisError, match="READONLY"):
        redis.ask(*again)
    redis.ask("REPLICAOF", "NO", "ONE")


# What somebody else may write into the keys of a log, by redis-cli.
RUBBISH = [
    ("XADD", "msgbus", "*", "x", "y"),
    ("XADD", "msgbus", "*", *"nxcxtxsxoxkxbx"),
    ("XADD", "msgbus", "*", "n", "a", "c", b"\xff", *"txsxoxkxbx"),
    ("HSET", "msgbus:meta", "settings", "[1]"),
    ("HSET", "msgbus:meta", "settings", "x"),
    ("HSET", "msgbus:meta", "forgotten", "x"),
    ("HSET", "msgbus:lost", b"\xff", "x"),
]


@pytest.mark.parametrize("command", RUBBISH)
@pytest_twisted.ensureDeferred
async def test_rubbish(start, redis, command):
    """
    What somebody else writes beside the messages keeps no node from starting, from
    connecting anew, or from going on; and nobody gets it.
    """
    node = start()
    await node.publish("foo", b"1")
    await node.follow(1)
    redis.ask(*command)
    redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    late = start()
    await late.publish("foo", b"2")
    await node.publish("foo", b"3")
    await node.follow(3)
    for each in node, late:
        found = [message.body for message in each.read("foo")]
        assert (found, each.missed) == ([b"1", b"2", b"3"], 0)


@pytest.mark.parametrize("name", ["life", "count", "ms", "boundary"])
@pytest_twisted.ensureDeferred
async def test_rubbish_in_meta(start, redis, name):
    """
    If somebody else changes what the nodes share, a new life begins.
    """
    node = start()
    await node.publish("foo", b"1")
    await node.follow(1)
    redis.ask("HSET", "msgbus:meta", name, "x")
    await until(lambda: node.missed)
    late = start()
    await late.publish("foo", b"2")
    await node.publish("foo", b"3")
    await node.follow(3)
    for each in node, late:
        assert [message.body for message in each.read("foo")] == [b"1", b"2", b"3"]


@pytest_twisted.ensureDeferred
async def test_later_version(start, redis):
    """
    If an entry has the id of a message, and cannot be read, as a later version may write
    it, a node that starts says that messages may be missing.
    """
    node = start()
    first = await node.publish("foo", b"1")
    milliseconds, number = parse_id(first.id)
    redis.ask("HINCRBY", "msgbus:meta", "count", 1)
    redis.ask("XADD", "msgbus", f"{milliseconds}-{number + 1}", "later", "y")
    late = start()
    await node.publish("foo", b"2")
    await late.follow(1)
    assert late.read("foo", id=parse_id(first.id)) == [Gap(None), *late.got]


class TestMistakes:
    """
    What is told if the log cannot be used.
    """

    def load(self, url):
        with pytest.raises(CannotLoad) as caught:
            RedisLog(RedisAddress.parse(url), reactor).load()
        return str(caught.value)

    def test_nothing_there(self, tmp_path):
        """
        No server there is a sentence with its address.
        """
        told = self.load(f"redis+unix://{tmp_path}/x")
        assert told.startswith("No such file or directory: the stream 'msgbus' of Redis at")

    @pytest_twisted.ensureDeferred
    async def test_password(self, redis):
        """
        So is a password that is missing or wrong, which is not told itself.
        """
        redis.ask("CONFIG", "SET", "requirepass", "right")
        assert "NOAUTH" in self.load(redis.url)
        told = self.load(f"redis+unix://:wrong@{redis.socket}")
        assert "WRONGPASS" in told
        assert ":wrong" not in told
        log = RedisLog(
            RedisAddress.parse(f"redis+unix://default:right@{redis.socket}"), reactor
        )
        log.load()
        await log.close()

    def test_key(self, redis):
        """
        So is a key that is no stream, and a stream of something else.
        """
        redis.ask("SET", "text", "x")
        told = self.load(f"{redis.url}&stream=text")
        assert "'text' is a string and no stream: give another name" in told
        redis.ask("XADD", "foreign", "*", "x", "y")
        assert "is no message of msgbus" in self.load(f"{redis.url}&stream=foreign")


@pytest_twisted.ensureDeferred
async def test_message_is_whole(start):
    """
    All that a message has comes to other nodes.
    """
    node, other = start(), start()
    origin = "4711/1764-4711000000000017"
    sent = Message("ä/b", b"\0", 'text/plain; x="1"', "älice", origin=origin)
    await node.bus.publish(sent)
    await other.follow(1)
    assert (other.got[0], other.got[0].origin) == (sent, origin)


@pytest_twisted.ensureDeferred
async def test_batch_comes_late(start, redis, monkeypatch):
    """
    If a batch comes to Redis once more after a later one, because something between has
    held it back, it is not appended again.
    """
    sent = []
    call = RedisConnection.call

    def record(connection, *command, seconds):
        if command[:2] == ("EVALSHA", APPEND.digest):
            sent.append(("EVAL", APPEND.text, *command[2:]))
        return call(connection, *command, seconds=seconds)

    monkeypatch.setattr(RedisConnection, "call", record)
    node = start()
    await node.publish("foo", b"1")
    await node.publish("foo", b"2")
    with pytest.raises(RedisError, match="STALE"):
        redis.ask(*sent[0])
    await node.publish("foo", b"3")
    await node.follow(3)
    assert [message.body for message in node.got] == [b"1", b"2", b"3"]
