"""
What happens on a bus, as messages of a bus of its own: one that an operator can read with
curl like any other.

Each kind of event has a channel.  Only so many a second are told of each; how many more
there were is told in one event, so that a crowd cannot fill the memory, or take the time of
others.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from zope.interface import implementer

from ..bus.bus import Bus
from ..bus.history import History, Keep
from ..formats.envelope import line
from ..message import Message, Receipt
from ..web.journal import MAX_TEXT, Attempt
from ..web.mount import Mount
from ..web.responses import reason_of, status_of
from ..web.subscriber import Subscriber
from ..web.visitor import Denied

__all__ = ["Events", "OwnBus", "who"]

# How many events of one channel are told in a second.
MOST = 50

# How many bytes of a line of the log are told.
MAX_WARNING = 1000


class OwnBus(Bus):
    """
    A bus to which only its owner publishes.
    """

    def __init__(self) -> None:
        super().__init__(history=History(Keep(count=300, size=8 * 1024 * 1024)))

    def tell(self, channel: str, told: dict[str, Any]) -> None:
        """
        Publish this object.
        """
        body = line(told)
        super().submit(Message(channel, body, "application/json"), body)

    def submit(self, *_: Any, **__: Any) -> Receipt:
        """
        Nobody else publishes.
        """
        raise Denied(403, "The bus itself tells here what happens; others cannot publish.")


@implementer(ILogObserver)
class Events:
    """
    Tells what happens on a bus, from `start` to `stop`.

    Args:
        mount: The bus.

    Attributes:
        bus: Where it is told.
    """

    _log = Logger()

    def __init__(self, mount: Mount, reactor: IReactorTime) -> None:
        self.bus = OwnBus()
        self._mount = mount
        # How many events of each channel there were in this second.
        self._counts: Counter[str] = Counter()
        # How many messages were dropped for each subscriber, as far as it was told.
        self._missed: dict[int, int] = {}
        self._dropped = 0
        self._telling_log = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """
        Tell what happens from now on.
        """
        self._mount.journal.observer = self
        self._mount.bus.history.watcher = self
        globalLogPublisher.addObserver(self)
        self._looking.start(1, now=False)

    def stop(self) -> None:
        """
        Tell nothing more.
        """
        self._mount.journal.observer = self._mount.bus.history.watcher = None
        globalLogPublisher.removeObserver(self)
        if self._looking.running:
            self._looking.stop()

    def subscribed(self, subscriber: Subscriber) -> None:
        """
        Somebody subscribes; see `journal.Observer`.
        """
        self._tell("subscriptions", "subscribed", who(subscriber))

    def left(self, subscriber: Subscriber) -> None:
        """
        Somebody has left.
        """
        self._missed.pop(subscriber.number, None)
        missed = subscriber.member.standing.missed
        self._tell("subscriptions", "left", {**who(subscriber), "missed": missed})

    def refused(self, attempt: Attempt, error: Exception, sentence: str) -> None:
        """
        Something is refused.
        """
        told = {
            "address": str(attempt.peer),
            "user": attempt.user[:MAX_TEXT] or None,
            "way": attempt.way[:MAX_TEXT],
            "name": attempt.channel[:MAX_TEXT] or None,
            "path": attempt.path[:MAX_TEXT] or None,
            "status": status_of(error),
            "reason": reason_of(error),
            "sentence": sentence,
        }
        self._tell("refusals", "refused", told)

    def appeared(self, channel: str) -> None:
        """
        A channel has its first message that is kept; see `history.Watcher`.
        """
        self._tell("channels", "appeared", {"channel": channel})

    def gone(self, channel: str) -> None:
        """
        No message of a channel is kept any more.
        """
        self._tell("channels", "gone", {"channel": channel})

    def __call__(self, event: LogEvent) -> None:
        """
        A line of the log: warnings and errors are told.
        """
        level = event.get("log_level", LogLevel.info)
        # What is logged while an event is told must not be an event itself.
        if level < LogLevel.warn or self._telling_log:
            return
        self._telling_log = True
        try:
            text = formatEvent(event)[:MAX_WARNING]
            self._tell("warnings", level.name, {"text": text})
        finally:
            self._telling_log = False

    def _tell(self, channel: str, event: str, told: dict[str, Any]) -> None:
        self._counts[channel] += 1
        if self._counts[channel] > MOST:
            return
        try:
            self.bus.tell(channel, {"event": event, **told})
        except Exception:
            # What happens goes on, whether or not it can be told.
            self._telling_log = True
            self._log.failure("Cannot tell an event")
            self._telling_log = False

    def _look(self) -> None:
        """
        Once a second: find the losses, and tell how many events were left out.
        """
        # Whoever loses something is behind.
        if self._mount.fanout.counters.waiting or self._dropped != self._count_dropped():
            self._dropped = self._count_dropped()
            self._find_losses()
        # Telling it may have something logged, which is an event of the next second.
        counts, self._counts = self._counts, Counter()
        for channel, count in counts.items():
            if count > MOST:
                self.bus.tell(channel, {"event": "omitted", "count": count - MOST})

    def _count_dropped(self) -> int:
        return self._mount.fanout.counters.dropped.total()

    def _find_losses(self) -> None:
        for subscriber in self._mount.subscribers.values():
            member = subscriber.member
            if member.position is None and not member.missed:
                # So it is for most of many.
                continue
            standing = member.standing
            more = standing.missed - self._missed.get(subscriber.number, 0)
            if more:
                self._missed[subscriber.number] = standing.missed
                told = {"lost": more, "waiting": standing.bytes}
                self._tell("losses", "lost", {**who(subscriber), **told})


def who(subscriber: Subscriber) -> dict[str, Any]:
    """
    Who a subscriber is, and what it reads.
    """
    return {
        "subscriber": subscriber.number,
        "name": subscriber.name,
        "user": subscriber.visitor.user or subscriber.visitor.sender or None,
        "address": str(subscriber.peer),
        "form": subscriber.form,
    }
