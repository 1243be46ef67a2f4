"""
The options that can change while the bus runs: the limits and the verbosity.  They are made
into what the bus works with, and read again from the file of `--config` when the operator
asks for it.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from ..bus.history import Keep
from ..fanout.fanout import Limits
from ..message import Invalid
from ..web.quotas import QuotaSizes
from ..web.resource import BusResource
from ..web.site import Site
from ..web.verbosity import Verbosity
from .config_file import ConfigFile
from .options import Options

__all__ = [
    "RELOADED",
    "SettingsService",
    "keep_of",
    "limits_of",
    "quota_sizes_of",
    "verbosity_of",
]

# The options that are read again, and where `Options` has their values.
RELOADED = {
    "max-message": "max-message",
    "max-backlog": "max-backlog",
    "max-waiting": "max-waiting",
    "stall-timeout": "stall-timeout",
    "history": "history",
    "history-age": "history-age",
    "history-bytes": "history-bytes",
    "max-channels": "max-channels",
    "rate": "rate",
    "byte-rate": "byte-rate",
    "max-subscriptions": "max-subscriptions",
    "max-connections": "max-connections",
    "max-address-connections": "max-address-connections",
    "verbose": "verbosity",
    "verbose-for": "verbose-for",
}


def keep_of(options: Options) -> Keep:
    """
    How much history keeps.
    """
    return Keep(
        options["history"],
        options["history-age"],
        options["history-bytes"],
        options["max-channels"],
    )


def limits_of(options: Options) -> Limits:
    """
    What may wait for subscribers.
    """
    return Limits(options["max-backlog"], options["max-waiting"], options["stall-timeout"])


def quota_sizes_of(options: Options) -> QuotaSizes:
    """
    What each user and address may do.
    """
    return QuotaSizes(options["rate"], options["byte-rate"], options["max-subscriptions"])


def verbosity_of(options: Options) -> Verbosity:
    """
    How much is logged of what clients do.
    """
    return Verbosity.of_all(options["verbosity"], options["verbose-for"])


class SettingsService:
    """
    Has the file of `--config` read again when the operator asks for it.

    Args:
        options: Those that hold.  Those that are reloaded are replaced here.
        site: Limits connections and bodies.
        bus: Limits everything else.
        limit_connections: Called when the number of connections may have changed, to find
            one if the operator has given none.
    """

    _log = Logger()

    def __init__(
        self,
        options: Options,
        site: Site,
        bus: BusResource,
        limit_connections: Callable[[], object],
    ) -> None:
        self._options = options
        self._site = site
        self._bus = bus
        self._limit_connections = limit_connections
        # What holds until a restart.
        self._at_start: ConfigFile = options["config-file"]

    def reload(self) -> None:
        """
        Read the file again, and use the limits and the verbosity that it gives, or their
        defaults.  If it cannot be read or used, say so, and change nothing.
        """
        options, fresh = self._options, Options()
        try:
            config = ConfigFile.read(self._at_start.file, fresh)
            names = [name for name in RELOADED if name not in options["given"]]
            for name in config.values.keys() & names:
                config.apply(name, fresh)
        except Invalid as error:
            self._log.error(
                "The options stay as they were, because they cannot be read: {error}",
                error=error,
            )
            return
        changed = [
            name for name in names if options[RELOADED[name]] != fresh[RELOADED[name]]
        ]
        for name in changed:
            options[RELOADED[name]] = fresh[RELOADED[name]]
        if changed:
            self._apply()
        self._tell_of_others(config)
        self._log.info(
            "Read {file} again: {changed}",
            file=config.file,
            changed=f"{', '.join(changed)} changed" if changed else "no limit has changed",
        )

    def _tell_of_others(self, config: ConfigFile) -> None:
        """
        Tell of each option that has changed and does not take effect.
        """
        before, now = self._at_start.values, config.values
        for name in sorted(
            (before.keys() | now.keys()) - RELOADED.keys() - self._options["given"]
        ):
            if before.get(name) != now.get(name):
                self._log.warn(
                    "{name} has changed in {file}, which takes a restart",
                    name=name,
                    file=config.file,
                )

    def _apply(self) -> None:
        options, site, mount = self._options, self._site, self._bus.mount
        mount.bus.max_message = site.max_body = site.heads.max_body = options["max-message"]
        mount.bus.history.keep_within(keep_of(options))
        mount.fanout.replace_limits(limits_of(options))
        mount.quotas.replace_sizes(quota_sizes_of(options))
        mount.journal.verbosity = verbosity_of(options)
        site.connections.most = options["max-connections"]
        site.connections.limit_addresses(options["max-address-connections"])
        self._limit_connections()
