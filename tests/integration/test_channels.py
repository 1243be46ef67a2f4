"""
The list of channels of a real bus, by both clients.
"""

import pytest
import pytest_twisted
from twisted.internet import reactor

from msgbus import blocking
from msgbus.client import Channel, Client, Closed, Refused

HASH = "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"


@pytest_twisted.ensureDeferred
async def test_both_clients(start):
    """
    Both follow a list over its pages, and are told of subscribers and last messages.
    """
    bus = start()
    names = sorted([f"a/{number:03}" for number in range(205)] + ["a/ä &?#+%", "b"])
    with blocking.stream(bus.url) as stream:
        for name in names:
            stream.publish(b"x", "text/plain", channel=name)
    listed = list(blocking.channels(bus.url))
    assert [channel.name for channel in listed] == names
    assert isinstance(listed[0], Channel)
    assert (listed[0].subscribers, listed[0].last.type) == (0, "text/plain")
    client = Client(reactor, bus.url)
    assert await client.channels() == listed
    assert await client.channels("a/", "*ä*") == [listed[205]]
    assert list(blocking.channels(bus.url + "a/", channel="*ä*")) == [listed[205]]
    await client.close()
    with pytest.raises(Closed):
        client.channels()


@pytest_twisted.ensureDeferred
async def test_rights(start, tmp_path):
    """
    A client is told of what its user may read, and why if that is nothing.
    """
    users, access = tmp_path / "users", tmp_path / "access"
    users.write_text(f"alice:{HASH}\nbob:{HASH}\n")
    access.write_text("alice publish,subscribe *\nbob subscribe b/*\n")
    bus = start("--users", str(users), "--access", str(access))
    for name in ("a/1", "b/1"):
        blocking.publish(bus.url + name, b"x", "a/b", user="alice", password="secret")
    for user, names in (("alice", ["a/1", "b/1"]), ("bob", ["b/1"])):
        listed = blocking.channels(bus.url, user=user, password="secret")
        assert [channel.name for channel in listed] == names
    with pytest.raises(Refused, match="403: The access file lets you subscribe to nothing"):
        list(blocking.channels(bus.url + "a/", user="bob", password="secret"))
    client = Client(reactor, bus.url, user="bob", password="secret")
    with pytest.raises(Refused, match="403"):
        await client.channels("a/")
    assert [channel.name for channel in await client.channels("b/")] == ["b/1"]
    await client.close()
