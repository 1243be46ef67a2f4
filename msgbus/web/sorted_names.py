"""
The names of all channels, sorted a part at a time, so that nothing else waits for it.

No I/O and no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from heapq import merge

__all__ = ["SortedNames", "names_below"]

# How many names are sorted at once, which takes about a millisecond.
PART = 2000

# For how long the names are kept, for each name beyond the first part.  Sorting takes a
# small part of that time, however often somebody asks.  A bus with few channels sorts their
# names anew for each request, and one with 100,000 about every two seconds.
KEEP_SECONDS = 20e-6


class SortedNames:
    """
    Sorts names, and keeps them sorted for a while.

    Args:
        names: Returns all names, in any order.
        seconds: Tells the time.
    """

    def __init__(
        self, names: Callable[[], list[str]], seconds: Callable[[], float]
    ) -> None:
        self._names = names
        self._seconds = seconds
        self._unsorted: list[str] = []
        self._sorting: list[list[str]] = []
        self._parts: list[list[str]] | None = None
        self._expires = 0.0

    def sort(self) -> list[list[str]] | None:
        """
        Sort one part of the names, unless all were sorted a moment ago.

        Returns:
            All names, as parts that are sorted each; or None if some are left to be sorted.
        """
        if self._parts is not None and self._seconds() < self._expires:
            return self._parts
        if not self._unsorted:
            self._parts, self._sorting = None, []
            self._unsorted = self._names()
            keep = max(0, len(self._unsorted) - PART) * KEEP_SECONDS
            self._expires = self._seconds() + keep
        part = sorted(self._unsorted[-PART:])
        del self._unsorted[-PART:]
        self._sorting.append(part)
        if self._unsorted:
            return None
        self._parts = self._sorting
        return self._parts


def names_below(parts: list[list[str]], folder: str, after: str | None) -> Iterator[str]:
    """
    The names that begin with that of a folder, in order.

    Args:
        parts: The names, as `SortedNames.sort` returns them.
        after: Only names that are larger than this one; None for all.
    """
    for name in merge(*(_beginning(part, folder, after) for part in parts)):
        if not name.startswith(folder):
            break
        yield name


def _beginning(part: list[str], folder: str, after: str | None) -> Iterator[str]:
    if after is None or after < folder:
        begin = bisect_left(part, folder)
    else:
        begin = bisect_right(part, after)
    return (part[index] for index in range(begin, len(part)))
