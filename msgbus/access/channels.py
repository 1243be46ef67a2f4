"""
A set of channels that somebody may use, as patterns say it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..match import Pattern
from ..message import Invalid

__all__ = ["Channels", "NO_CHANNELS"]

# How many results a set of channels remembers.
MAX_REMEMBERED = 256

# Control characters, which no name has, and surrogates, which cannot be sent as UTF-8.
_NEVER = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_WILDCARD = re.compile(r"[*?]")


@dataclass(frozen=True, slots=True, init=False)
class Channels:
    """
    The channels that at least one of some patterns matches.  In a pattern, `*` matches any
    number of characters, slashes too, and `?` any one character, as in a filter.

    Sets with the same patterns are equal, in whatever order and however often the patterns
    were given.  So subscribers with equal rights can share a group.

    Attributes:
        patterns: The patterns, normalized and sorted.  No patterns are no channels; one
            that matches everything, `*`, replaces all others.

    Raises:
        Invalid: A pattern is empty, holds a comma or a control character, or begins with
            `!`; or there are more than 32 of them, or they are longer than 1,000 characters
            together.  A right says what one may do, so there are no negated patterns.
    """

    patterns: tuple[str, ...]
    _pattern: Pattern | None = field(repr=False, compare=False)
    _results: dict[str, bool] = field(repr=False, compare=False)

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        given = tuple(patterns)
        for text in given:
            if not text or "," in text or text.startswith("!") or _NEVER.search(text):
                raise Invalid(
                    f"{text[:100]!r} is no pattern of a right: it is one glob, such as"
                    " public/*, without comma and without '!' before it."
                )
        pattern = Pattern(",".join(given)) if given else None
        object.__setattr__(
            self, "patterns", (pattern.positive or ("*",)) if pattern else ()
        )
        object.__setattr__(self, "_pattern", pattern)
        object.__setattr__(self, "_results", {})

    @property
    def everything(self) -> bool:
        """
        Are these all channels, so that none has to be looked at?
        """
        return self.patterns == ("*",)

    def allows(self, channel: str) -> bool:
        """
        Is this channel among them?
        """
        if self._pattern is None or self.everything:
            return self._pattern is not None
        result = self._results.get(channel)
        if result is None:
            result = self._pattern.matches(channel)
            if len(self._results) == MAX_REMEMBERED:
                self._results.clear()
            self._results[channel] = result
        return result

    def may_reach(self, folder: str) -> bool:
        """
        Are any channels below this folder among them?

        Returns:
            False if it is certain that there is none.
        """
        if self.everything:
            return True
        for text in self.patterns:
            literal = _WILDCARD.split(text, maxsplit=1)[0]
            if literal.startswith(folder):
                return True
            if literal != text and folder.startswith(literal):
                return True
        return False


NO_CHANNELS = Channels()
