"""
Tests for `msgbus.admin.resource`.
"""

import pytest

from msgbus.admin import Metrics, Readiness, pages
from msgbus.admin.events import OwnBus
from msgbus.admin.rates import GroupRates
from msgbus.admin.reactor_delay import ReactorDelay
from msgbus.web import BusResource

from ..memory import Server
from ..requests import get


@pytest.mark.parametrize(
    ("accept", "begins"),
    [
        ("*/*", b"msgbus, for its operator"),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", b"<!doctype html>"),
        # It is not UTF-8.
        ("\xff", b"msgbus, for its operator"),
    ],
)
def test_root(accept, begins):
    """
    A browser gets a page, and whatever else asks gets a list of the paths.
    """
    server = Server()
    mount, site = server.resource.mount, server.site
    own = BusResource(OwnBus(), server.clock, prefix="/events/")
    metrics = Metrics(mount, site, ReactorDelay(server.clock))
    readiness = Readiness(mount, site, server.clock)
    for path, page in pages(
        mount, metrics, readiness, GroupRates(mount.fanout), own
    ).items():
        server.root.putChild(path, page)
    peer = server.connect()
    peer.send(get("/", f"Accept: {accept}\n").replace("\n", "\r\n").encode("latin-1"))
    status, _, body = peer.answer()
    assert status == 200
    assert body.lower().startswith(begins)
