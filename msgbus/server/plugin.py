"""
What `twistd msgbus` loads: the options, and the function that makes a service of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from twisted.application.service import MultiService, Service
from twisted.internet.interfaces import IReactorTime

from ..bus.bus import Bus
from ..bus.file_log import FileLog
from ..bus.history import History
from ..bus.log import StoredLog
from ..redis import RedisLog
from ..web.access_log import AccessLog
from ..web.connections import Connections
from ..web.quotas import Quotas
from ..web.resource import BusResource
from ..web.root import Root
from ..web.site import Site
from .admin import AdminService
from .guards import Guards
from .logging import reopen_at_signal
from .memory import MemoryWatch, cgroup_bound
from .options import Options
from .service import BusService
from .settings import SettingsService, keep_of, limits_of, quota_sizes_of, verbosity_of
from .workers import Workers

__all__ = ["Options", "makeService"]


# Nodes that differ in these keep different messages, or take messages of other sizes.
SHARED_SETTINGS = (
    "history",
    "history-age",
    "history-bytes",
    "max-channels",
    "max-message",
)


def makeService(options: Options) -> Service:
    """
    The service that serves a bus with these options, not yet started.
    """
    from twisted.internet import reactor

    reopen = [file.reopen for file in options["log-files"]]
    if options["workers"] > 1 and options["worker"] is None:
        return _workers(options, reactor, reopen)
    reopen_at_signal(reactor, reopen)
    history = History(keep_of(options))
    stored = _stored_log(options, history, reactor)
    bus = Bus(options["max-message"], history, log=stored)
    guards = Guards(options, cast(IReactorTime, reactor))
    root = Root(
        options["origins"],
        options["docroot"],
        guards.portal,
        guards.access,
        guards.grants,
        guards.certificates,
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
        journal=bus_resource.mount.journal,
    )
    if options["access-log"] is not None:
        site.keep_access_log(AccessLog(options["access-log"].write))
    service = BusService(
        reactor,
        options["endpoints"],
        site,
        bus_resource,
        stored,
        drain=options["drain"],
        warnings=options["warnings"],
    )
    service.worker = options["worker"]
    service.reopen_logs = reopen
    service.memory = _memory_watch(options, bus_resource, cast(IReactorTime, reactor))
    guards.reload_with(service, site, bus_resource)
    if options["config"] is not None:
        service.settings = SettingsService(
            options, site, bus_resource, service.limit_connections
        )
    if options["admin"] is None:
        return service
    return _with_admin(options, service, bus_resource, site)


def _listening_at(endpoints: Iterable[str]) -> Iterator[str]:
    """
    The options by which a process listens at these endpoints.
    """
    for text in endpoints:
        yield from ("--listen", text)


def _workers(
    options: Options, reactor: Any, reopen: Sequence[Callable[[], object]]
) -> Workers:
    """
    The parent of the processes that serve the bus.

    Args:
        reopen: Open the files again to which the parent logs.
    """
    workers = Workers(
        reactor,
        options["endpoints"],
        # A worker that is started again has to listen at the sockets that it inherits,
        # whatever a file of options says by then.
        [*options["arguments"], *_listening_at(options["endpoints"])],
        options["workers"],
        options["drain"],
    )
    reopen_at_signal(reactor, [*reopen, workers.reopen_logs])
    return workers


def _stored_log(options: Options, history: History, reactor: Any) -> StoredLog | None:
    """
    The log that survives the process; None for one in memory.
    """
    if options["history-file"] is not None:
        return FileLog(options["history-file"], reactor, history)
    if options["log"] is not None:
        settings = {f"--{name}": options[name] for name in SHARED_SETTINGS}
        return RedisLog(options["log"], reactor, history, settings=settings)
    return None


def _memory_watch(
    options: Options, bus: BusResource, reactor: IReactorTime
) -> MemoryWatch | None:
    """
    What notices that memory runs out; None if it has no bound.
    """
    bound = options["max-memory"]
    if bound is None:
        of_all = cgroup_bound()
        bound = None if of_all is None else of_all // options["workers"]
    return None if bound is None else MemoryWatch(reactor, bus.mount.memory, bound)


def _with_admin(
    options: Options, service: BusService, bus: BusResource, site: Site
) -> Service:
    """
    Both services: that of the bus, and that of its operator.
    """
    from twisted.internet import reactor

    both = MultiService()
    admin = AdminService(
        reactor, options["admin"], options["admin-secret"], bus, site, options["origins"]
    )
    for each in (service, admin):
        each.setServiceParent(both)  # type: ignore[no-untyped-call]  # Twisted
    return both


def _bus_resource(options: Options, bus: Bus, reactor: IReactorTime) -> BusResource:
    """
    The bus over HTTP, with the limits that the options set.
    """
    resource = BusResource(
        bus,
        reactor,
        origins=options["origins"],
        limits=limits_of(options),
        quotas=Quotas(quota_sizes_of(options)),
    )
    resource.mount.journal.verbosity = verbosity_of(options)
    resource.mount.private_header = (options["user-header"] or "").lower()
    return resource
