"""
Tests for `msgbus.admin.readiness`.
"""

import pytest
from twisted.internet.defer import Deferred

from msgbus.admin import Readiness
from msgbus.admin.readiness import PATIENCE_SECONDS, SILENT
from msgbus.bus.bus import Stopping

from ..memory import Server
from ..requests import get


@pytest.fixture
def server():
    """
    A server that can be asked whether it is ready.
    """
    server = Server()
    server.readiness = Readiness(server.resource.mount, server.site, server.clock)
    return server


def trouble(server, turns=3):
    """
    What is wrong, as a list that is empty until it is known.
    """
    found = []
    Deferred.fromCoroutine(server.readiness.trouble()).addCallback(found.append)
    for _ in range(turns):
        server.turn()
    return found


def test_ready(server):
    """
    Messages get through; nobody else gets the one that shows it, and nothing is left.
    """
    reader = server.connect()
    reader.send(get("/msgbus/"))
    reader.received()
    newest = server.bus.newest
    assert trouble(server) == [""]
    assert reader.received() == b""
    assert server.bus.newest == newest
    assert +server.resource.mount.fanout.counters.open == {"multipart": 1}


def test_stopping(server):
    """
    A bus is not ready from the beginning of its stop, while requests are still answered.
    """
    reader = server.connect()
    reader.send(get())
    server.site.drain()
    assert not server.resource.mount.closed
    assert trouble(server) == [str(Stopping())]


def test_silent(server):
    """
    If the message does not come, that is told after two seconds.
    """
    server.bus.probe = lambda message: None
    found = trouble(server)
    assert found == []
    server.clock.advance(PATIENCE_SECONDS)
    assert found == [SILENT]
