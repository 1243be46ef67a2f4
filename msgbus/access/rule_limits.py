"""
The limits that a rule may set on what it allows, as they are written: `rate=10/s`.

No I/O and no clock: what is counted, and what happens beyond a limit, is up to others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..message import Invalid
from .limits import Rate

__all__ = ["NO_LIMITS", "RuleLimits", "is_limit", "parse_limits"]

_BYTES = {"": 1, "k": 1024, "M": 1024**2, "G": 1024**3}

# Far beyond what makes sense, and small enough to be exact in a float.
_MAX = 10**12

_LIMIT = re.compile(r"([A-Za-z-]+)=(.*)", re.DOTALL)
_SIZE = re.compile(r"([0-9]{1,12})([kMG]?)")
_COUNT = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class RuleLimits:
    """
    The limits of one rule.  What is None, or empty, is not limited by the rule.

    Attributes:
        rates: How many may be published; several rates hold at once.
        max_message: The largest body that may be published, in bytes.
        history: How many messages of the history a subscription may get.
        max_subscriptions: How many subscriptions may be open at once.
    """

    rates: tuple[Rate, ...] = ()
    max_message: int | None = None
    history: int | None = None
    max_subscriptions: int | None = None


NO_LIMITS = RuleLimits()


def is_limit(word: str) -> bool:
    """
    Is this word of a rule written as a limit, `NAME=VALUE`?
    """
    return _LIMIT.fullmatch(word) is not None


def parse_limits(words: Iterable[str], *, publish: bool, subscribe: bool) -> RuleLimits:
    """
    Read the limits of one rule.

    Args:
        publish: Whether the rule allows to publish.
        subscribe: Whether it allows to subscribe.

    Raises:
        Invalid: A limit is unknown, malformed, given twice, or limits what the rule does
            not allow.
    """
    rates: list[Rate] = []
    values: dict[str, int] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _LIMITS:
            known = ", ".join(_LIMITS)
            raise Invalid(
                f"{word!r} is not a limit; known are {known}. In the name of a channel,"
                " '=' is written %3D."
            )
        limits_publications, parse = _LIMITS[key]
        if not (publish if limits_publications else subscribe):
            verb = "publish" if limits_publications else "subscribe"
            raise Invalid(
                f"{word!r} limits those who may {verb}, which this rule does not allow."
            )
        parsed = parse(word, value)
        if isinstance(parsed, Rate):
            if any(rate.seconds == parsed.seconds for rate in rates):
                raise Invalid(f"{word!r} is the second rate for the same time.")
            rates.append(parsed)
        elif key in values:
            raise Invalid(f"The limit {key} is given twice.")
        else:
            values[key] = parsed
    return RuleLimits(
        tuple(sorted(rates, key=lambda rate: rate.seconds)),
        values.get("max-message"),
        values.get("history"),
        values.get("max-subscriptions"),
    )


def _rate(word: str, value: str) -> Rate:
    try:
        return Rate.parse(value)
    except Invalid:
        raise Invalid(
            f"{word!r} is not a rate, such as rate=10/s, rate=100/min, rate=1000/h or"
            " rate=10000/d."
        ) from None


def _size(word: str, value: str) -> int:
    found = _SIZE.fullmatch(value)
    if found is None or int(found[1]) * _BYTES[found[2]] > _MAX:
        raise Invalid(
            f"{word!r} is not a size in bytes, such as 65536, 64k (1,024 bytes each) or 1M."
        )
    return int(found[1]) * _BYTES[found[2]]


def _count(word: str, value: str) -> int:
    if not _COUNT.fullmatch(value):
        raise Invalid(f"{word!r} is not a count, such as 1000.")
    return int(value)


# For each limit: whether it is about publications, or else about subscriptions; and the
# function that reads it.
_LIMITS: dict[str, tuple[bool, Callable[[str, str], int | Rate]]] = {
    "rate": (True, _rate),
    "max-message": (True, _size),
    "history": (False, _count),
    "max-subscriptions": (False, _count),
}
