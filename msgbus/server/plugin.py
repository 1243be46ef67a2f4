"""
What `twistd msgbus` loads: the options, and the function that makes a service of them.
"""

from __future__ import annotations

from typing import cast

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime

from ..access.checker import PasswordChecker, new_pool
from ..bus.bus import Bus
from ..bus.history import History, Keep
from ..bus.store import Store
from ..fanout.fanout import Limits
from ..web.auth import portal_for, portal_with
from ..web.certified import Certificates
from ..web.connections import Connections
from ..web.grants import Grants
from ..web.quotas import Quotas, QuotaSizes
from ..web.resource import BusResource
from ..web.root import Root
from ..web.site import Site
from ..web.visitor import Access
from .certificates import CertificateService
from .grant_files import GrantService
from .listen import is_tls
from .options import Options
from .service import BusService
from .users import UserService

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> Service:
    """
    The service that serves a bus with these options, not yet started.
    """
    from twisted.internet import reactor

    secret = options["secret"]
    keep = Keep(
        options["history"],
        options["history-age"],
        options["history-bytes"],
        options["max-channels"],
    )
    bus = Bus(max_message=options["max-message"], history=History(keep))
    store = None
    if options["history-file"] is not None:
        store = Store(options["history-file"], bus, reactor)
    portal = portal_for(secret) if secret else None
    access = None
    if options["users-and-rules"] is not None:
        access = Access(*options["users-and-rules"])
        pool = new_pool()
        checker = PasswordChecker(access.users, cast(IReactorTime, reactor), pool)
        portal = portal_with(checker, access)
    grants = None
    if options["grant-files"] is not None:
        grants = Grants(*options["grant-files"].load())
    certificates = None
    if options["authorities"] is not None:
        certificates = Certificates(options["authorities"])
    root = Root(
        options["origins"],
        options["docroot"],
        portal,
        access,
        grants,
        certificates,
        options["user-header"],
    )
    bus_resource = _bus_resource(options, bus, cast(IReactorTime, reactor))
    root.putChild(b"msgbus", bus_resource)
    site = Site(
        root,
        max_body=bus.max_message,
        proxies=options["proxies"],
        connections=Connections(
            options["max-connections"], options["max-address-connections"]
        ),
    )
    service = BusService(
        reactor,
        options["endpoints"],
        site,
        bus_resource,
        store,
        drain=options["drain"],
        warnings=options["warnings"],
    )
    if access is not None:
        files = options["access-files"]
        service.users = UserService(files, access, checker, pool, site, bus_resource)
    if any(map(is_tls, options["endpoints"])):
        service.certificates = CertificateService(
            site, bus_resource, options["client-ca"], certificates
        )
    if grants is not None:
        service.grants = GrantService(options["grant-files"], grants, bus_resource)
    return service


def _bus_resource(options: Options, bus: Bus, reactor: IReactorTime) -> BusResource:
    """
    The bus over HTTP, with the limits that the options set.
    """
    return BusResource(
        bus,
        reactor,
        origins=options["origins"],
        verbosity=options["verbosity"],
        limits=Limits(
            options["max-backlog"], options["max-waiting"], options["stall-timeout"]
        ),
        quotas=Quotas(
            QuotaSizes(options["rate"], options["byte-rate"], options["max-subscriptions"])
        ),
    )
