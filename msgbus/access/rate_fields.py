"""
How a response tells what a limit leaves: `RateLimit-Policy` and `RateLimit`
(draft-ietf-httpapi-ratelimit-headers-10), and `Retry-After` (RFC 9110, section 10.2.3).
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from .limits import Limiter, Rate

__all__ = ["policy", "remaining", "retry_after"]


def policy(name: str, rate: Rate, unit: str = "") -> str:
    """
    A member of `RateLimit-Policy`.  Members are joined with commas.

    Args:
        name: Of letters, digits and `-`.
        unit: What is counted; requests, if it is empty.  `content-bytes` are bytes of
            bodies.
    """
    counted = f';qu="{unit}"' if unit else ""
    return f'"{name}";q={rate.quota};w={rate.seconds}{counted}'


def remaining(name: str, limiter: Limiter, key: Hashable, now: float) -> str:
    """
    A member of `RateLimit`: what is left, and, if it is not all, in how many seconds there
    is more.
    """
    left, seconds = limiter.remaining(key, now)
    more = f";t={math.ceil(seconds)}" if seconds else ""
    return f'"{name}";r={left}{more}'


def retry_after(seconds: float) -> str:
    """
    The value of `Retry-After`: whole seconds, rounded up, and at least one.
    """
    return str(max(1, math.ceil(seconds)))
