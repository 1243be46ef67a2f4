"""
A search for the channels below a folder that a visitor may read, with what they may know of
each.

Channels that the visitor may not read are left out, and neither counted nor hinted at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

from ..bus.bus import Bus
from ..bus.known_channels import KnownChannel
from .query import WantedList
from .rights import check_unchanged
from .sorted_names import SortedNames, names_below
from .visitor import Visitor

__all__ = ["ChannelSearch"]


class ChannelSearch:
    """
    Finds channels in the order of their names.

    Args:
        bus: The bus whose channels are searched.
        names: The names of all of them.
        visitor: Who asks.
        folder: The folder.
        wanted: `filter` says which names match, `after` is the name behind which the search
            begins, and `limit` how many channels are found at most.

    Attributes:
        found: The channels.  If the visitor may not read the last message of one, its
            `last` is None.
        next: The name of the last channel, if there are more behind it; otherwise None.

    Raises:
        Denied: The visitor may read nothing there.
    """

    def __init__(
        self,
        bus: Bus,
        names: SortedNames,
        visitor: Visitor,
        folder: str,
        wanted: WantedList,
    ) -> None:
        self.found: list[KnownChannel] = []
        self.next: str | None = None
        self._bus = bus
        self._sorted = names
        self._visitor = visitor
        self._folder = folder
        self._wanted = wanted
        self._filter = visitor.check_subscribe(folder, wanted.filter)
        self._names: Iterator[str] | None = None

    def look(self, until: float) -> bool:
        """
        Search on, until this time of `perf_counter`.

        Returns:
            Whether everything is found.
        """
        if self._names is None:
            parts = self._sorted.sort()
            if parts is None:
                return False
            self._names = names_below(parts, self._folder, self._wanted.after)
        for name in self._names:
            if (channel := self._find(name)) is not None:
                if len(self.found) == self._wanted.limit:
                    self.next = self.found[-1].name
                    break
                self.found.append(channel)
            if perf_counter() > until:
                return False
        return True

    def check_rights(self) -> None:
        """
        Check that the visitor may still read what was found.

        Raises:
            Denied: Their rights have changed since the search began.
        """
        check_unchanged(self._visitor, self._folder, self._filter)

    def _find(self, name: str) -> KnownChannel | None:
        """
        The channel of this name; None if there is none, it was found already, or the
        visitor may not read it.
        """
        if not self._filter.admits(name) or (self.found and self.found[-1].name == name):
            return None
        channel = self._bus.find_channel(name)
        if channel is None or channel.last is None:
            return channel
        # They may be let read only what is published from now on, or only some messages.
        limits = self._visitor.subscribe_limits(name)[1]
        readable = limits.history != 0 and self._filter.matches(channel.last)
        return channel if readable else replace(channel, messages=0, last=None)
