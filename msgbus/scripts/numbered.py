"""
Numbered messages, by which `msgbus-test-sub` notices what a bus loses or puts out of order.
`msgbus-test-pub` publishes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CHANNEL", "Mark", "Order", "body_of", "mark_in"]

CHANNEL = "flood"

_BODY = re.compile(
    rb"<h1>hello world ([0-9]{1,15})</h1>(?:<!-- ([0-9a-f]{1,16}) ([0-9]{1,20}) )?"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """
    What a numbered message says about itself.

    Attributes:
        run: A name for one run of one publisher, or the empty string if it has none.
        number: The place of the message in its run, from 1.
        nanoseconds: When it was sent, since 1970, or None if the message does not say.
    """

    run: str
    number: int
    nanoseconds: int | None


def body_of(mark: Mark, size: int = 0) -> bytes:
    """
    The body of a message with this mark: a page that a browser can show, followed by a
    comment if the mark has a run.

    Args:
        size: The least size in bytes of a body with a comment.
    """
    text = f"<h1>hello world {mark.number}</h1>"
    if mark.run:
        text += f"<!-- {mark.run} {mark.nanoseconds} "
        text += "x" * (size - len(text) - len(" -->")) + " -->"
    return text.encode()


def mark_in(body: bytes) -> Mark | None:
    """
    The mark of a message with this body, or None if it has none.
    """
    found = _BODY.match(body)
    if found is None:
        return None
    number, run, nanoseconds = found.groups()
    if run is None:
        return Mark("", int(number), None)
    return Mark(run.decode(), int(number), int(nanoseconds))


class Order:
    """
    Which messages one subscriber has got, and which it has not.

    Attributes:
        received: How many messages came, with a mark or without.
        lost: How many numbers were passed over.
        disordered: How many messages came after one with a higher number, or twice.
    """

    __slots__ = ("received", "lost", "disordered", "_next")

    def __init__(self) -> None:
        self.received = self.lost = self.disordered = 0
        # For each run, the number that should come next.
        self._next: dict[str, int] = {}

    def count(self, mark: Mark | None) -> None:
        """
        Count one message, which had this mark.
        """
        self.received += 1
        if mark is None:
            return
        # A subscriber may come in the middle of a run.  All messages without the name of a
        # run are taken for one run, in which a publisher may begin again with 1.
        expected = self._next.get(mark.run, mark.number)
        if not mark.run and mark.number == 1:
            expected = 1
        if mark.number < expected:
            self.disordered += 1
            return
        self.lost += mark.number - expected
        self._next[mark.run] = mark.number + 1
