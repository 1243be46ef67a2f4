"""
The numbers of a bus, in the text format of Prometheus.

The bus counts in plain attributes, which costs less than a counter of the client library,
and all is put together when it is asked for.  No number is kept for each channel, user or
address, so there are as many time series on a bus with a million channels as on one with
ten.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import twisted

from .. import __version__
from ..fanout.overflow import Overflow
from ..meters import Histogram, Traffic
from ..web.mount import Mount
from ..web.responses import REASONS
from ..web.site import Site
from .reactor_delay import ReactorDelay

__all__ = ["Metrics"]

# The forms of streams, so that each has a number before it is first used: Prometheus does
# not see the first increase of a number that was not there before.
_FORMS = ("multipart", "event-stream", "ndjson", "websocket", "message")


class Metrics:
    """
    All numbers of one bus.

    Args:
        mount: The bus.
        site: Its connections.
        delay: How late its reactor is.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, mount: Mount, site: Site, delay: ReactorDelay) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Bus(mount, site, delay))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """
        The numbers as they are now.
        """
        return generate_latest(self._registry)


class _Bus(Collector):
    def __init__(self, mount: Mount, site: Site, delay: ReactorDelay) -> None:
        self._mount = mount
        self._site = site
        self._delay = delay

    def collect(self) -> Iterator[Metric]:
        """
        All numbers; see `prometheus_client.registry.Collector`.
        """
        yield from self._published()
        yield from self._delivered()
        yield from self._open()
        yield from self._kept()
        yield from self._stored()
        yield _histogram(
            "msgbus_reactor_delay_seconds",
            "How late the server gets to what is due, measured twice a second.",
            self._delay.seconds,
        )
        yield InfoMetricFamily(
            "msgbus_build",
            "Versions of what runs.",
            value={
                "version": __version__,
                "twisted": twisted.__version__,
                "python": platform.python_version(),
            },
        )

    def _published(self) -> Iterator[Metric]:
        counters = self._mount.counters
        yield from _traffic(
            "published",
            "published, by the form in which they came",
            {
                "request": counters.requests,
                "stream": counters.streams,
                "websocket": counters.websockets,
            },
        )
        yield CounterMetricFamily(
            "msgbus_repeated_messages",
            "Publications that were answered without being published, because the bus had"
            " the message already.",
            value=self._mount.bus.repeated,
        )
        yield _labelled(
            "msgbus_refused_requests",
            "Connections, requests and publications that were refused, by reason.",
            "reason",
            {reason: counters.refused[reason] for reason in REASONS},
        )
        yield _histogram(
            "msgbus_publication_wait_seconds",
            "For how long publications wait for the history file, or for Redis.",
            counters.waited,
        )
        yield _labelled(
            "msgbus_resumed_subscriptions",
            "Subscriptions that named the last message they have, by what became of them.",
            "outcome",
            {name: counters.resumed[name] for name in ("complete", "gap", "unknown")},
        )

    def _delivered(self) -> Iterator[Metric]:
        counters = self._mount.fanout.counters
        yield from _traffic(
            "delivered",
            "delivered, once for each subscriber, by the form of its stream",
            {form: Traffic() for form in _FORMS} | counters.delivered,
        )
        yield _labelled(
            "msgbus_dropped_messages",
            "Messages that were not delivered to a subscriber that reads too slowly, by"
            " what it has chosen.",
            "overflow",
            {overflow.value: counters.dropped[overflow] for overflow in Overflow},
        )
        yield _labelled(
            "msgbus_gaps",
            "How often a subscriber was told that messages were dropped for it, by what it"
            " has chosen.",
            "overflow",
            {overflow.value: counters.gaps[overflow] for overflow in Overflow},
        )
        yield _labelled(
            "msgbus_closed_subscriptions",
            "Subscriptions that the server has ended, because too much waited for them, or"
            " because they took nothing for too long.",
            "reason",
            {"backlog": counters.closed, "stalled": counters.stalled},
        )
        yield _histogram(
            "msgbus_delivery_seconds",
            "How long a message takes from its publication to the sockets of subscribers"
            " that read.",
            counters.delay,
        )
        yield GaugeMetricFamily(
            "msgbus_waiting_bytes",
            "Bytes that wait for subscribers that read slowly.",
            value=counters.waiting,
        )

    def _open(self) -> Iterator[Metric]:
        counters = self._mount.fanout.counters
        yield _labelled(
            "msgbus_subscriptions",
            "Open subscriptions, by the form of their streams.",
            "form",
            dict.fromkeys(_FORMS, 0) | counters.open,
            counts=False,
        )
        yield GaugeMetricFamily(
            "msgbus_replays",
            "Subscriptions that are being sent history.",
            value=counters.replays,
        )
        yield GaugeMetricFamily(
            "msgbus_slow_subscriptions",
            "Subscriptions for which messages wait because they are read slowly.",
            value=counters.behind,
        )
        yield GaugeMetricFamily(
            "msgbus_publication_streams",
            "Open streams of publications.",
            value=len(self._mount.publication_streams),
        )
        yield GaugeMetricFamily(
            "msgbus_connections", "Open connections.", value=len(self._site.channels)
        )
        connections = self._site.connections
        yield _labelled(
            "msgbus_refused_connections",
            "Connections that were one too many: of all, or of those from one address.",
            "limit",
            connections.refused,
        )
        yield _labelled(
            "msgbus_tls_handshakes",
            "Handshakes of TLS, and connections that ended before theirs was done.",
            "result",
            connections.handshakes,
        )

    def _kept(self) -> Iterator[Metric]:
        history = self._mount.bus.history
        for name, what, value in (
            ("messages", "Messages that history keeps.", history.messages),
            ("bytes", "Bytes that they and their channels take.", history.size),
            ("channels", "Channels of which history keeps messages.", history.channels),
        ):
            yield GaugeMetricFamily(f"msgbus_history_{name}", what, value=value)

    def _stored(self) -> Iterator[Metric]:
        log = self._mount.bus.log
        numbers = log.numbers()
        yield GaugeMetricFamily(
            "msgbus_log_up",
            "Whether the log of the bus works: its history file, or its Redis.",
            value=not log.trouble,
        )
        yield GaugeMetricFamily(
            "msgbus_log_unsaved_messages",
            "Messages that were published here and are not yet in the history file, or not"
            " yet confirmed by Redis.",
            value=numbers.unsaved,
        )
        yield GaugeMetricFamily(
            "msgbus_log_unread_messages",
            "Messages in Redis that this process has not read yet, at its last check.",
            value=numbers.unread,
        )
        yield CounterMetricFamily(
            "msgbus_log_failures",
            "How often writing to the history file has failed, or appending in Redis or"
            " connecting to it.",
            value=numbers.failures,
        )


def _traffic(name: str, what: str, by_form: Mapping[str, Traffic]) -> Iterator[Metric]:
    messages = {form: traffic.messages for form, traffic in by_form.items()}
    sizes = {form: traffic.bytes for form, traffic in by_form.items()}
    yield _labelled(f"msgbus_{name}_messages", f"Messages {what}.", "form", messages)
    yield _labelled(f"msgbus_{name}_bytes", f"Bytes of the messages {what}.", "form", sizes)


def _labelled(
    name: str, what: str, label: str, values: Mapping[str, int], counts: bool = True
) -> Metric:
    family = (CounterMetricFamily if counts else GaugeMetricFamily)(
        name, what, labels=[label]
    )
    for text, value in sorted(values.items()):
        family.add_metric([text], value)
    return family


def _histogram(name: str, what: str, histogram: Histogram) -> Metric:
    buckets, total = [], 0
    for bound, count in zip(
        [*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True
    ):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(name, what, buckets=buckets, sum_value=histogram.sum)
