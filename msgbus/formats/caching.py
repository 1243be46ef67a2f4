"""
How long a message may be kept: the directives of `Cache-Control` (RFC 9111, section 5.2)
that concern a message.

No I/O and no clock.
"""

from __future__ import annotations

import re

from ..message import Invalid

__all__ = ["cache_control", "parse_cache_control"]

# Both spellings are to be read (RFC 9111, section 5.2).
_SECONDS = re.compile(r'([0-9]{1,20})|"([0-9]{1,20})"')


def parse_cache_control(text: str | None) -> tuple[bool, int | None]:
    """
    Read the value of the header, or None if there is none.

    Returns:
        Whether the message may be kept, by the lack of `no-store`; and for how many seconds
        at most, by `max-age`, or None.

    Raises:
        Invalid: The `max-age` is no number, or is given twice.
    """
    if text is None:
        return True, None
    keep, max_age = True, None
    for directive in text.split(","):
        name, _, value = directive.strip().partition("=")
        name = name.strip().lower()
        if name == "no-store":
            keep = False
        elif name == "max-age":
            found = _SECONDS.fullmatch(value.strip())
            if found is None or max_age is not None:
                raise Invalid(
                    f"The max-age of {text[:100]!r} is none: give it once, as a number of"
                    " seconds, as in max-age=60."
                )
            max_age = int(found[1] or found[2])
    return keep, max_age


def cache_control(keep: bool, max_age: int | None) -> str:
    """
    The value of the header; empty if there is nothing to say.
    """
    directives = [] if keep else ["no-store"]
    if max_age is not None:
        directives.append(f"max-age={max_age}")
    return ", ".join(directives)
