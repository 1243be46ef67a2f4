"""
The channels that one user may read, as the rules about subscriptions have them.

No I/O and no clock.  It is a value, so that subscribers with the same rights can share a
group.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .patterns import Glob

__all__ = ["Readable"]

# How many results are remembered.  The same channels come again and again.
MAX_REMEMBERED = 1000

_ALL = Glob(("", ""))


@dataclass(frozen=True, slots=True)
class Readable:
    """
    The channels that one user may read.  Two are equal if the same patterns are allowed and
    denied in the same order; the users themselves may be different ones.  Equal ones allow
    the same channels.  The reverse is not always true: the same channels can be written in
    patterns that are not equal.

    Attributes:
        steps: Each has globs, and says whether the channels that match one of them are
            allowed.  The first step that matches decides; if none does, the channel is not
            allowed.
    """

    steps: tuple[tuple[bool, frozenset[Glob]], ...]
    _results: dict[str, bool] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def by(cls, rights: Iterable[tuple[bool, Iterable[Glob]]]) -> Readable:
        """
        What these rights come to, in the order in which they are tried.

        Args:
            rights: Whether to allow what one of the globs matches, and the globs.
        """
        steps: list[tuple[bool, frozenset[Glob]]] = []
        tried: set[Glob] = set()
        for allowed, given in rights:
            # If an earlier step has the same glob, it decides before this one.
            globs = frozenset(given) - tried
            tried |= globs
            if steps and steps[-1][0] == allowed:
                globs |= steps.pop()[1]
            if _ALL in globs:
                globs = frozenset((_ALL,))
            if globs:
                steps.append((allowed, globs))
            if _ALL in globs:
                break
        # What no step matches is denied anyway.
        if steps and not steps[-1][0]:
            steps.pop()
        return cls(tuple(steps))

    @property
    def everything(self) -> bool:
        """
        Are all channels allowed, without exception?
        """
        return self.steps == ((True, frozenset((_ALL,))),)

    def allows(self, channel: str) -> bool:
        """
        Is this channel allowed?
        """
        result = self._results.get(channel)
        if result is None:
            if len(self._results) >= MAX_REMEMBERED:
                self._results.clear()
            result = self._results[channel] = self._decide(channel)
        return result

    def _decide(self, channel: str) -> bool:
        for allowed, globs in self.steps:
            for glob in globs:
                if glob.matches(channel):
                    return allowed
        return False
