"""
Folds lines of the log that are alike: the first is logged at once, and then one line a
minute says how many more there were.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import time

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

__all__ = ["LogFolding"]

FOLD_SECONDS = 60

# How many different lines are told apart in this time, and how many before those below a
# warning are only counted.  Clients choose names that are in the latter, such as refusals,
# and must not be able to keep warnings out of the log.
MAX_KEYS = 1000
MAX_STRANGERS = 500

# What is logged by this room is about the life of the process, or answers the operator, who
# wants to see of each reload that it has failed.
_OURS = __package__ or ""

# Of lower levels, only events are folded that say how.
_WARNINGS = (LogLevel.warn, LogLevel.error, LogLevel.critical)


@dataclass(slots=True)
class _Folded:
    event: LogEvent
    count: int = 0


@implementer(ILogObserver)
class LogFolding:
    """
    An observer that passes on the first of events that are alike.

    Events with the same `log_fold` are alike.  Of those without it, warnings and errors are
    alike if they have the same text, unless they are of this room; and failures if they
    come from the same line of code.  All others are passed on.

    Args:
        observer: Gets what is passed on.
        later: Calls a function after so many seconds.
    """

    def __init__(
        self,
        observer: Callable[[LogEvent], object],
        later: Callable[[float, Callable[[], object]], object],
    ) -> None:
        self._observer = observer
        self._later = later
        self._folded: dict[Hashable, _Folded] = {}
        # Events beside the keys that there may be.
        self._others = 0
        self._waiting = False

    def __call__(self, event: LogEvent) -> None:
        """
        Take an event.
        """
        key = _key(event)
        if key is None:
            self._observer(event)
        elif (folded := self._folded.get(key)) is not None:
            folded.event = event
            folded.count += 1
        elif len(self._folded) >= (MAX_KEYS if _is_warning(event) else MAX_STRANGERS):
            self._others += 1
        else:
            self._folded[key] = _Folded(event)
            self._wait()
            self._pass_on(event)

    def tell(self) -> None:
        """
        Say now how many events were alike.
        """
        self._waiting = False
        for key, folded in tuple(self._folded.items()):
            count, folded.count = folded.count, 0
            if count:
                self._pass_on(_summary(folded.event, count))
            else:
                del self._folded[key]
        others, self._others = self._others, 0
        if others:
            self._pass_on(
                {
                    "log_namespace": __name__,
                    "log_level": LogLevel.warn,
                    "log_format": "{folded} more lines of too many other kinds",
                    "folded": others,
                }
            )
        if self._folded:
            self._wait()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._later(FOLD_SECONDS, self.tell)

    def _pass_on(self, event: LogEvent) -> None:
        # A process that gets this event from a worker does not fold it again.
        self._observer({**event, "log_folded": True})


def _key(event: LogEvent) -> Hashable:
    """
    What events that are alike have in common; None if the event is passed on.
    """
    if "log_folded" in event:
        return None
    namespace = event.get("log_namespace")
    if "log_fold" in event:
        return namespace, event["log_fold"]
    failure = event.get("log_failure")
    if failure is not None:
        place = failure.frames[-1][1:3] if failure.frames else ()
        return namespace, event.get("log_format"), str(failure.type), place
    if not _is_warning(event) or str(namespace).startswith(_OURS):
        return None
    return namespace, formatEvent(event)


def _is_warning(event: LogEvent) -> bool:
    return event.get("log_level") in _WARNINGS


def _summary(event: LogEvent, count: int) -> LogEvent:
    """
    The event that stands for so many others, of which this is the last.
    """
    text = formatEvent(event)
    if (failure := event.get("log_failure")) is not None:
        text = f"{text}: {failure.type.__name__}"
    dropped = ("log_failure", "log_flattened", "log_fold", "failure", "isError")
    return {
        **{name: value for name, value in event.items() if name not in dropped},
        "log_format": "{folded} more like it: {log_text}",
        "folded": count,
        "log_text": text,
        "log_time": time(),
    }
