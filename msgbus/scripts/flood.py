"""
The messages with which `msgbus-test-pub` and `msgbus-test-sub` see what a bus does.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

__all__ = ["CHANNEL", "Latencies", "Mark", "body", "mark"]

CHANNEL = "flood"

_BODY = re.compile(
    rb"<h1>hello world ([0-9]{1,15})</h1>(?:<!-- ([0-9a-f]{1,16}) ([0-9]{1,20}) )?"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """
    Which message it is.

    Attributes:
        run: Of one publisher; the empty string where it does not tell.
        number: In its order, from 1.
        nanoseconds: When it was sent, since 1970, or None.
    """

    run: str
    number: int
    nanoseconds: int | None


def body(mark: Mark, size: int = 0) -> bytes:
    """
    A page that a browser can show, with a comment behind it if it has a run, and of at
    least so many bytes.
    """
    text = f"<h1>hello world {mark.number}</h1>"
    if mark.run:
        text += f"<!-- {mark.run} {mark.nanoseconds} "
        text += "x" * (size - len(text) - len(" -->")) + " -->"
    return text.encode()


def mark(body: bytes) -> Mark | None:
    """
    Which message this is, or None if it is none of these.
    """
    found = _BODY.match(body)
    if found is None:
        return None
    number, run, nanoseconds = found.groups()
    if run is None:
        return Mark("", int(number), None)
    return Mark(run.decode(), int(number), int(nanoseconds))


class Latencies:
    """
    How long something took, many times.  No more is kept than how often it took how long,
    to a tenth of a millisecond, or, from a second on, to a whole one.

    Attributes:
        count: How many times.
    """

    def __init__(self) -> None:
        self.count = 0
        self._times: Counter[float] = Counter()

    def add(self, milliseconds: float) -> None:
        """
        Once more.
        """
        self.count += 1
        self._times[round(milliseconds, 1 if milliseconds < 1000 else None)] += 1

    def percentile(self, share: float) -> float:
        """
        The milliseconds that this share of them did not exceed.
        """
        left = self.count * share
        for milliseconds, times in sorted(self._times.items()):
            left -= times
            if left <= 0:
                return milliseconds
        return 0.0

    def __str__(self) -> str:
        return f"p50 {self.percentile(0.5)} ms, p99 {self.percentile(0.99)} ms"


class Order:
    """
    Which messages one subscriber has got, and which not.

    Attributes:
        received: Messages of any kind.
        lost: Numbers that were passed over.
        disordered: Messages that came behind a later one, or again.
    """

    __slots__ = ("received", "lost", "disordered", "_next")

    def __init__(self) -> None:
        self.received = self.lost = self.disordered = 0
        self._next: dict[str, int] = {}

    def count(self, mark: Mark | None) -> None:
        """
        One more message, which had this mark.
        """
        self.received += 1
        if mark is None:
            return
        # The first of a run may be any; without marks, there is but one, which may begin
        # again.
        expected = self._next.get(mark.run, mark.number)
        if not mark.run and mark.number == 1:
            expected = 1
        if mark.number < expected:
            self.disordered += 1
            return
        self.lost += mark.number - expected
        self._next[mark.run] = mark.number + 1
