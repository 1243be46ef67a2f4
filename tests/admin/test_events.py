"""
Tests for `msgbus.admin.events`.
"""

import json

import pytest
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger

from msgbus.admin.events import MOST, Events

from ..memory import Server
from ..requests import get, post


@pytest.fixture
def server():
    """
    A server that tells what happens.
    """
    server = Server()
    server.events = Events(server.resource.mount, server.clock)
    server.events.start()
    yield server
    server.events.stop()
    assert server.resource.mount.journal.observer is None


def told(server, channel):
    """
    What was told on this channel.
    """
    history = server.events.bus.history
    return [json.loads(entry.message.body) for entry in history.entries(channel)]


def test_one_second(server):
    """
    So many events of a channel are told in a second, then how many more there were.
    """
    for _ in range(MOST + 3):
        server.ask(post(path="/msgbus/a//b", body="x"))
    server.clock.advance(1)
    server.ask(post(path="/msgbus/a//b", body="x"))
    events = [event["event"] for event in told(server, "refusals")]
    assert events == ["refused"] * MOST + ["omitted", "refused"]
    assert told(server, "refusals")[MOST]["count"] == 3


def test_failure(server, monkeypatch):
    """
    If an event cannot be told, that is logged, and whatever happened goes on.
    """
    monkeypatch.setattr(server.events.bus, "tell", None)
    reader = server.connect()
    reader.send(get())
    assert reader.received()
    status, _, _ = server.ask(post(body="hello"))
    assert status == 204
    assert b"hello" in reader.received()


def test_form(server):
    """
    Who has left is told with the form of the stream, as who has come.
    """
    peer = server.connect()
    peer.send(get("/msgbus/foo?format=ndjson"))
    peer.leave(ConnectionDone())
    came, left = told(server, "subscriptions")
    assert (came["event"], left["event"]) == ("subscribed", "left")
    assert came["form"] == left["form"] == "ndjson"


def test_logged_while_told(server):
    """
    A warning that is logged while the bus tells how many events it left out holds up
    nothing.
    """
    for _ in range(MOST + 3):
        server.ask(post(path="/msgbus/a//b", body="x"))
    reader = server.events.bus.subscribe("refusals", lambda message: Logger().warn("late"))
    server.clock.advance(1)
    reader.cancel()
    server.ask(post(path="/msgbus/a//b", body="x"))
    assert told(server, "refusals")[-1]["event"] == "refused"
    assert told(server, "warnings") == [{"event": "warn", "text": "late"}]
