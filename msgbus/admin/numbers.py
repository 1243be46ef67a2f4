"""
What the status page shows as it changes: rates, what is open and waits, and how near the
limits are.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator, LoopingCall

from ..meters import Histogram
from ..web.mount import Mount
from ..web.site import Site
from .events import OwnBus
from .rates import GroupRates
from .reactor_delay import ReactorDelay

__all__ = ["NumbersLoop"]

EACH_SECONDS = 2

# How often the rates of groups are looked at, in looks at the numbers.
GROUPS_EACH = 3


class NumbersLoop:
    """
    Tells the numbers every two seconds, on the channel `numbers`.

    Args:
        mount: The bus.
        site: Its connections.
        delay: How late the reactor is.
        rates: Is kept up to date, too.
        bus: Where the numbers are told.
    """

    def __init__(
        self,
        mount: Mount,
        site: Site,
        delay: ReactorDelay,
        rates: GroupRates,
        bus: OwnBus,
        reactor: IReactorTime,
    ) -> None:
        self._mount = mount
        self._site = site
        self._bus = bus
        self._rates = rates
        self._reactor = reactor
        self._quantiles = {
            "delivery": _Quantile(mount.fanout.counters.delay),
            "reactor": _Quantile(delay.seconds),
        }
        self._looks = 0
        self._last = 0.0
        self._totals: dict[str, int] = {}
        self._cooperator = Cooperator(scheduler=partial(reactor.callLater, 0))
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """
        Tell the numbers from now on.
        """
        self._last, self._totals = self._reactor.seconds(), self._count()
        self._looking.start(EACH_SECONDS, now=False)

    def stop(self) -> None:
        """
        Tell nothing more.
        """
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        now = self._reactor.seconds()
        seconds = now - self._last
        if self._looks % GROUPS_EACH == 0:
            # There may be very many groups.
            self._cooperator.cooperate(self._rates.look(now))
        self._looks += 1
        if seconds <= 0:
            # The clock was set back.
            self._last = now
            return
        totals = self._count()
        rates = {
            name: round((total - self._totals[name]) / seconds, 2)
            for name, total in totals.items()
        }
        self._last, self._totals = now, totals
        fanout = self._mount.fanout
        self._bus.tell(
            "numbers",
            {
                "rates": rates,
                "seconds": {name: q.look() for name, q in self._quantiles.items()},
                "subscribers": len(self._mount.subscribers),
                "streams": len(self._mount.publication_streams),
                "connections": len(self._site.channels),
                "waiting": fanout.counters.waiting,
                "replays": fanout.counters.replays,
                "limits": self._limits(),
            },
        )

    def _count(self) -> dict[str, int]:
        counters, fanned = self._mount.counters, self._mount.fanout.counters
        ways_in = (counters.requests, counters.streams, counters.websockets)
        delivered = tuple(fanned.delivered.values())
        return {
            "published": sum(traffic.messages for traffic in ways_in),
            "published_bytes": sum(traffic.bytes for traffic in ways_in),
            "delivered": sum(traffic.messages for traffic in delivered),
            "delivered_bytes": sum(traffic.bytes for traffic in delivered),
            "lost": fanned.dropped.total(),
            "refused": counters.refused.total(),
        }

    def _limits(self) -> dict[str, tuple[float, float | None]]:
        """
        What there is of what is limited, and its limit; None for no limit.
        """
        mount, connections = self._mount, self._site.connections
        history = mount.bus.history
        return {
            "connections": (len(self._site.channels), connections.most),
            "waiting bytes": (mount.fanout.counters.waiting, mount.fanout.limits.waiting),
            "history bytes": (history.size, history.keep.size),
            "channels": (history.channels, history.keep.channels),
        }


class _Quantile:
    """
    The time that 99 of 100 did not exceed since the last look.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._before = list(histogram.counts)

    def look(self) -> float | None:
        """
        The upper bound of the bucket of that time, in seconds; None if there was nothing,
        or only if it is above all bounds.
        """
        before, self._before = self._before, list(self._histogram.counts)
        return _bound(
            [new - old for new, old in zip(self._before, before, strict=True)],
            self._histogram.bounds,
        )


def _bound(counts: list[int], bounds: Iterable[float]) -> float | None:
    enough = sum(counts) * 0.99
    if not enough:
        return None
    reached = 0
    for count, bound in zip(counts, bounds, strict=False):
        reached += count
        if reached >= enough:
            return bound
    return None
