"""
How late the reactor is: for how long something that is due has to wait for other work.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from ..meters import Histogram

__all__ = ["ReactorDelay"]

EACH_SECONDS = 0.5

# Bounds in seconds.
DELAY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class ReactorDelay:
    """
    Measures twice a second.

    Attributes:
        seconds: How late the reactor was.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.seconds = Histogram(DELAY_SECONDS)
        self._reactor = reactor
        self._due = 0.0
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """
        Measure from now on.
        """
        self._due = self._reactor.seconds() + EACH_SECONDS
        self._looking.start(EACH_SECONDS, now=False)

    def stop(self) -> None:
        """
        Measure no more.
        """
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        now = self._reactor.seconds()
        # The clock may have been set back.
        self.seconds.observe(max(0.0, now - self._due))
        # `LoopingCall` keeps to its first start, and leaves out what it has missed.
        self._due += EACH_SECONDS * max(1, round((now - self._due) / EACH_SECONDS) + 1)
