"""
Tests for `msgbus.admin.metrics`, and for what they count.
"""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.error import ConnectionDone

from msgbus.admin import Metrics
from msgbus.admin.reactor_delay import ReactorDelay
from msgbus.fanout.member import Response
from msgbus.formats.ndjson import NdjsonFraming
from msgbus.ids import Since
from msgbus.match import EVERYTHING
from msgbus.web.connections import Connections

from ..memory import Pipe, Server
from ..requests import get, post


@pytest.fixture
def server():
    """
    A server whose numbers can be asked for.
    """
    server = Server()
    server.delay = ReactorDelay(server.clock)
    server.metrics = Metrics(server.resource.mount, server.site, server.delay)
    return server


def values(server):
    """
    The values by name and labels.
    """
    return {
        (sample.name.removeprefix("msgbus_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(server.metrics.text().decode())
        for sample in family.samples
    }


def test_publications(server):
    """
    What is published is counted by its form, also by heads that repeat; what is refused,
    by reason.
    """
    peer = server.connect()
    for _ in range(4):
        peer.send(post(body="12345"))
    peer.send(post(body="x", path="/msgbus/foo?require=1"))
    peer.send(post(body="x", path="/msgbus/.foo"))
    now = values(server)
    assert now["published_messages_total", "request"] == 4
    assert now["published_bytes_total", "request"] == 20
    assert now["published_messages_total", "stream"] == 0
    assert now["refused_requests_total", "no_subscriber"] == 1
    assert now["refused_requests_total", "invalid"] == 1
    assert now["history_messages",] == 4
    assert now["history_channels",] == 1


def test_deliveries(server):
    """
    What is delivered is counted once for each subscriber, by its form.
    """
    readers = [server.connect() for _ in range(3)]
    for reader, query in zip(readers, ("foo", "foo", "?format=ndjson"), strict=True):
        reader.send(get(f"/msgbus/{query}"))
        reader.received()
    assert values(server)["subscriptions", "multipart"] == 2
    server.connect().send(post(body="12345"))
    sizes = [len(reader.received()) for reader in readers]
    now = values(server)
    assert now["delivered_messages_total", "multipart"] == 2
    assert now["delivered_bytes_total", "multipart"] == sizes[0] + sizes[1]
    assert now["delivered_messages_total", "ndjson"] == 1
    assert now["delivery_seconds_count",] == 3
    for reader in readers:
        reader.leave(ConnectionDone())
    assert values(server)["subscriptions", "multipart"] == 0


def test_slow(server):
    """
    A subscription that is read slowly is counted as long as something waits for it, and
    what is dropped for it once it is told.
    """
    pipe = Pipe()
    fanout = server.resource.mount.fanout
    response = Response(pipe, lambda: None)
    member = fanout.subscribe("foo", EVERYTHING, NdjsonFraming(), response)
    peer = server.connect()
    for _ in range(4):
        peer.send(post(body="x" * 800_000))
        peer.received()
    now = values(server)
    assert now["slow_subscriptions",] == 1
    assert now["waiting_bytes",] > 1_600_000
    assert now["dropped_messages_total", "drop-newest"] == 0
    pipe.grant(member, 10_000_000)
    now = values(server)
    assert now["slow_subscriptions",] == 0
    assert now["waiting_bytes",] == 0
    assert now["dropped_messages_total", "drop-newest"] == 2
    assert now["gaps_total", "drop-newest"] == 1
    assert now["gaps_total", "latest"] == 0


def test_replays(server):
    """
    Whoever is being sent kept messages is counted until that has ended, in either way.
    """
    fanout, cuts = server.resource.mount.fanout, []
    server.ask(post(body="x" * 100_000))
    members = []
    for pipe in (Pipe(), Pipe()):
        pipe.abort = lambda: cuts.append(1)
        cursor = server.bus.replay("foo", EVERYTHING, Since())
        response = Response(pipe, lambda: None)
        members.append(
            fanout.subscribe("foo", EVERYTHING, NdjsonFraming(), response, cursor=cursor)
        )
    server.turn()
    assert values(server)["replays",] == 2
    members[0].outlet.grant(members[0], 10_000_000)
    server.turn()
    assert values(server)["replays",] == 1
    members[1].end()
    assert values(server)["replays",] == 0
    assert cuts == [1]


def test_connections(server):
    """
    Connections are counted that are one too many, of all or of those from one address.
    """
    connections = server.site.connections = Connections(most=3, of_address=1)
    peers = [server.connect(client=f"192.0.2.{last}") for last in (1, 1, 2, 3)]
    now = values(server)
    assert now["connections",] == 4
    assert now["refused_connections_total", "address"] == 1
    assert now["refused_connections_total", "all"] == 1
    for peer in peers:
        peer.leave(ConnectionDone())
    assert values(server)["connections",] == 0
    assert connections.handshakes.total() == 0


def test_resumes(server):
    """
    A subscription that names an id is counted by what becomes of it; what it is sent of the
    history counts as delivered.
    """
    peer = server.connect()
    ids = []
    for number in range(103):
        peer.send(post(body=f"{number}"))
        ids.append(peer.answer()[1]["Msgbus-Id"])
    for id in (ids[-3], ids[0], "1-100000000000000001"):
        reader = server.connect()
        reader.send(get(headers=f"Last-Event-ID: {id}\n"))
        reader.received()
    now = values(server)
    outcomes = ("complete", "gap", "unknown")
    assert [now["resumed_subscriptions_total", o] for o in outcomes] == [1, 1, 1]
    assert now["delivered_messages_total", "multipart"] == 2 + 100 + 100


def test_reactor_delay(server):
    """
    It is measured twice a second how late the reactor is.
    """
    server.delay.start()
    for seconds in (0.5, 0.5, 0.9, 0.1):
        server.clock.advance(seconds)
    now = values(server)
    assert now["reactor_delay_seconds_count",] == 4
    assert now["reactor_delay_seconds_sum",] == pytest.approx(0.4)
    assert now["reactor_delay_seconds_bucket", "0.001"] == 3
    server.delay.stop()
    server.clock.advance(5)
    assert values(server)["reactor_delay_seconds_count",] == 4
