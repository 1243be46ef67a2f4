"""
What the response of a bus means: a receipt, or an error.

No I/O.  The response to a subscription that the bus accepts is read by `stream`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..message import Receipt
from .errors import BusError, Refused, Unreachable, printable

__all__ = ["SENTENCE_BYTES", "count_of", "receipt", "refusal"]

# How much of the body of a refusal is read.
SENTENCE_BYTES = 2048

# Statuses below 500 that another try may change: a timeout, and too many requests
# (RFC 9110, section 15.5.9; RFC 6585, section 4).
_PASSING = (408, 429)


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
        return Unreachable(answered)
    return Refused(answered, status)


def count_of(text: str) -> int | None:
    """
    The number in a header, or None if there is no plain number of at most 19 digits.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
