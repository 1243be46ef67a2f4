"""
What the response of a bus means: a receipt, or an error, or one of these for each part of a
stream of publications.

No I/O.  The response to a subscription that the bus accepts is read by `stream`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..message import Receipt
from .errors import BusError, Refused, Unreachable, printable

__all__ = [
    "SENTENCE_BYTES",
    "Answer",
    "PartAnswer",
    "count_of",
    "part_answer",
    "receipt",
    "refusal",
    "seconds_of",
]

# How much of the body of a refusal is read.
SENTENCE_BYTES = 2048

# Statuses below 500 that another try may change: a timeout, and too many requests
# (RFC 9110, section 15.5.9; RFC 6585, section 4).
_PASSING = (408, 429)

Answer = Receipt | Refused
"""
What becomes of one part of a stream of publications.
"""


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """
    A line of the answer to a stream of publications.

    Attributes:
        part: The number of the part, from 1, that the line is about, or None.
        result: What became of that part; an `Unreachable` if another try may succeed; None
            if the line only tells that the stream has ended.
        last: Whether no line follows: the bus takes no more parts of this stream.
    """

    part: int | None
    result: Answer | Unreachable | None
    last: bool


def receipt(status: int, head: Mapping[str, str], text: bytes) -> Receipt:
    """
    Read the response to a publication.  Where the bus tells no id, the receipt has the
    empty string; where it tells no number of subscribers, -1.

    Args:
        head: The headers of the response, with names in lower case.
        text: The first `SENTENCE_BYTES` of its body.

    Raises:
        Refused: The server refused the publication, or is no bus.
        Unreachable: It may accept the publication at another time.
    """
    if status != 204:
        raise refusal(status, head, text)
    subscribers = count_of(head.get("msgbus-subscribers", ""))
    return Receipt(head.get("msgbus-id", ""), -1 if subscribers is None else subscribers)


def refusal(status: int, head: Mapping[str, str], text: bytes) -> BusError:
    """
    The error for a response other than the one that was asked for.  The parameters are
    those of `receipt`.
    """
    if 200 <= status < 300:
        kind = printable(head.get("content-type") or "nothing")
        return Refused(
            f"This is no bus: it answered {status} with {kind}; the address of one looks"
            " like http://HOST:8888/msgbus/CHANNEL.",
            status,
        )
    sentence = ""
    if head.get("content-type", "").lower().startswith("text/plain"):
        first = text.partition(b"\n")[0].removesuffix(b"\r")
        sentence = printable(first.decode("utf-8", "replace"))
    elif location := head.get("location"):
        sentence = f"It is at {printable(location)}."
    answered = f"The answer is {status}" + (f": {sentence}" if sentence else ".")
    if status in _PASSING or status >= 500:
        return Unreachable(answered, seconds_of(head.get("retry-after", "")))
    return Refused(answered, status)


def part_answer(line: bytes) -> PartAnswer:
    """
    Read a line of the answer to a stream of publications.

    Raises:
        Refused: It is no such line, so the server is no bus.
    """
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise _no_answer(line)
    part, status, last = told.get("part"), told.get("status"), "published" in told
    if last and status is None:
        return PartAnswer(None, None, last)
    if type(status) is int:
        answered = f"The answer is {status}: {printable(str(told.get('error', '')))}"
        passing = last and (status in _PASSING or status >= 500)
        error = Unreachable(answered) if passing else Refused(answered, status)
        return PartAnswer(part if type(part) is int else None, error, last)
    id, subscribers = told.get("id"), told.get("subscribers", -1)
    if type(part) is not int or not isinstance(id, str) or type(subscribers) is not int:
        raise _no_answer(line)
    clean = id if id.isprintable() else printable(id)
    repeated = told.get("repeated") is True
    return PartAnswer(part, Receipt(clean, subscribers, repeated), last)


def _no_answer(line: bytes) -> Refused:
    text = printable(line.decode("utf-8", "replace"))
    return Refused(f"This is no bus: it answered a part of a stream with {text!r}.", 200)


def seconds_of(text: str) -> float:
    """
    The time in a header, such as `Retry-After: 5`, or 0 if there is none.  A date is taken
    for none.
    """
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text) else 0.0


def count_of(text: str) -> int | None:
    """
    The number in a header, or None if there is no plain number of at most 19 digits.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
