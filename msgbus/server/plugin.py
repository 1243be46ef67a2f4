"""
What `twistd msgbus` loads: the options, and the function that makes a service of them.
"""

from __future__ import annotations

from typing import cast

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime

from ..bus.bus import Bus
from ..bus.history import History, Keep
from ..bus.store import Store
from ..fanout.fanout import Limits
from ..web.auth import portal_for
from ..web.resource import BusResource
from ..web.root import Root
from ..web.site import Site
from .options import Options
from .service import BusService

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> Service:
    """
    The service that serves a bus with these options, not yet started.
    """
    from twisted.internet import reactor

    secret = options["secret"]
    keep = Keep(options["history"], options["history-age"], options["history-bytes"])
    bus = Bus(max_message=options["max-message"], history=History(keep))
    store = None
    if options["history-file"] is not None:
        store = Store(options["history-file"], bus, reactor)
    root = Root(
        options["origins"], options["docroot"], portal_for(secret) if secret else None
    )
    bus_resource = BusResource(
        bus,
        cast(IReactorTime, reactor),
        origins=options["origins"],
        verbosity=options["verbosity"],
        limits=Limits(
            options["max-backlog"], options["max-waiting"], options["stall-timeout"]
        ),
    )
    root.putChild(b"msgbus", bus_resource)
    return BusService(
        reactor,
        options["endpoints"],
        Site(root, max_body=bus.max_message),
        bus_resource,
        store,
        drain=options["drain"],
        warnings=options["warnings"],
    )
