"""
How much each user, and each address, may publish and subscribe.

The limits that rules of an access file set are counted here, too.  Programs on the bus's
own machine are not limited by their address.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

from ..access.limits import Limiter, Rate
from ..access.open_counts import OpenCounts
from ..access.rate_fields import policy, remaining, retry_after
from ..access.rule_limits import NO_LIMITS
from .peer import Peer
from .visitor import Visitor

__all__ = ["Opened", "QuotaSizes", "Quotas", "Throttled"]

# What is counted as open, and under which keys.
Opened = tuple[tuple[OpenCounts, Hashable], ...]

# After how many seconds a client that has too many streams is told to try again.  Nobody
# knows when one of its other streams ends.
SUBSCRIBE_SECONDS = 10

# About a fifth of what a bus can publish: one client cannot harm the others, and can still
# publish a recording or a burst.
DEFAULT_RATE = Rate(20_000, 10)
DEFAULT_BYTE_RATE = Rate(256 * 1024**2, 10)

# How many different rates of rules have a limiter; when there are more, all begin anew.
MAX_RULE_RATES = 1000


@dataclass(frozen=True, slots=True)
class QuotaSizes:
    """
    What one user, and one address, may do.

    Attributes:
        publications: How many messages they may publish; None for any number.
        content_bytes: How many bytes of bodies; None for any number.
        subscriptions: How many streams they may have open at once; None for any number.
    """

    publications: Rate | None = DEFAULT_RATE
    content_bytes: Rate | None = DEFAULT_BYTE_RATE
    subscriptions: int | None = 1000


class Throttled(Exception):
    """
    Somebody has published, or opened, so much that they have to wait.

    Attributes:
        seconds: After how many seconds they may try again.
        headers: The headers by which an answer tells that.
    """

    def __init__(
        self, sentence: str, seconds: float, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(sentence)
        self.seconds = seconds
        later = (b"Retry-After", retry_after(seconds).encode("ascii"))
        self.headers = (later, *headers)


@dataclass(slots=True)
class _Bucket:
    """
    A limiter, and what it takes from a publication: one, or the bytes of its body.
    """

    name: str
    limiter: Limiter
    of_bytes: bool


class Quotas:
    """
    Counts what is published and subscribed to.

    Args:
        sizes: How much is allowed.
        seconds: Tells the time, by a clock that never goes back.
    """

    def __init__(
        self,
        sizes: QuotaSizes | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._rule_buckets: dict[Rate, _Bucket] = {}
        self._subscriptions = OpenCounts(math.inf)
        # Those of rules, by the limit that the rule sets.
        self._rule_subscriptions: dict[int, OpenCounts] = {}
        self.replace_sizes(sizes or QuotaSizes())

    def replace_sizes(self, sizes: QuotaSizes) -> None:
        """
        Change how much is allowed.  What was published before does not count any more; the
        streams that are open do.
        """
        # Users and addresses have tables of their own, so that no user can be called like
        # an address.
        self._user_buckets = tuple(_buckets(sizes))
        self._address_buckets = tuple(_buckets(sizes))
        limit = sizes.subscriptions
        self._subscriptions.limit = math.inf if limit is None else limit

    def charge_publication(self, visitor: Visitor, peer: Peer, size: int) -> None:
        """
        Count a message that is about to be published.

        Args:
            size: Bytes of its body.

        Raises:
            Throttled: It is too much for now.  Nothing was counted.
        """
        user = visitor.user
        if peer.is_local and not user and visitor.publish_limits is NO_LIMITS:
            # Most programs on one machine are not limited.
            return
        now = self._seconds()
        if user:
            self._charge(self._user_buckets, user, size, now)
        if not peer.is_local:
            try:
                self._charge(self._address_buckets, peer.network, size, now)
            except Throttled:
                self._give_back(self._user_buckets, user, size)
                raise
        if visitor.publish_limits.rates:
            self._charge_rule(visitor, peer, size, now)

    def _charge_rule(self, visitor: Visitor, peer: Peer, size: int, now: float) -> None:
        user = visitor.user
        key = (visitor.publish_line, user or None, "" if user else peer.network)
        buckets = tuple(map(self._rule_bucket, visitor.publish_limits.rates))
        try:
            self._charge(buckets, key, size, now)
        except Throttled:
            if user:
                self._give_back(self._user_buckets, user, size)
            if not peer.is_local:
                self._give_back(self._address_buckets, peer.network, size)
            raise

    def _charge(
        self, buckets: tuple[_Bucket, ...], key: Hashable, size: int, now: float
    ) -> None:
        """
        Charge this to each bucket, or to none.
        """
        for place, bucket in enumerate(buckets):
            cost = size if bucket.of_bytes else 1
            if not bucket.limiter.take_quickly(key, cost, now):
                self._give_back(buckets[:place], key, size)
                wait = bucket.limiter.wait(key, cost, now)
                raise _throttled(bucket, key, wait, now)

    def _give_back(self, buckets: Iterable[_Bucket], key: Hashable, size: int) -> None:
        for bucket in buckets:
            bucket.limiter.give_back(key, size if bucket.of_bytes else 1)

    def check_subscribe(self, visitor: Visitor, peer: Peer, name: str) -> None:
        """
        Check that one more stream may be opened.

        Args:
            name: The channel or folder.

        Raises:
            Throttled: There are as many as there may be.
        """
        for counts, key in self._subscription_keys(visitor, peer, name):
            if counts.count(key) >= counts.limit:
                raise Throttled(
                    f"You have {counts.limit} subscriptions open, and may not have more."
                    " Close one, or try again later.",
                    SUBSCRIBE_SECONDS,
                )

    def open_subscription(self, visitor: Visitor, peer: Peer, name: str) -> Opened:
        """
        Count a stream that is opened.  Whether it may be is not checked here, but by
        `check_subscribe` before.

        Returns:
            What `close_subscription` has to be given once the stream ends.
        """
        keys = self._subscription_keys(visitor, peer, name)
        return tuple((counts, key) for counts, key in keys if counts.open(key))

    def close_subscription(self, opened: Opened) -> None:
        """
        A stream has ended.
        """
        for counts, key in opened:
            counts.close(key)

    def _subscription_keys(
        self, visitor: Visitor, peer: Peer, name: str
    ) -> list[tuple[OpenCounts, Hashable]]:
        user = visitor.user
        keys: list[tuple[OpenCounts, Hashable]] = []
        if user:
            keys.append((self._subscriptions, ("user", user)))
        if not peer.is_local:
            keys.append((self._subscriptions, ("address", peer.network)))
        line, limits = visitor.subscribe_limits(name)
        if limits.max_subscriptions is not None:
            limit = limits.max_subscriptions
            counts = self._rule_subscriptions.setdefault(limit, OpenCounts(limit))
            keys.append((counts, (line, user or None, "" if user else peer.network)))
        return keys

    def _rule_bucket(self, rate: Rate) -> _Bucket:
        bucket = self._rule_buckets.get(rate)
        if bucket is None:
            if len(self._rule_buckets) >= MAX_RULE_RATES:
                self._rule_buckets.clear()
            bucket = self._rule_buckets[rate] = _Bucket("rule", Limiter(rate), False)
        return bucket


def _buckets(sizes: QuotaSizes) -> Iterator[_Bucket]:
    if sizes.publications is not None:
        yield _Bucket("publications", Limiter(sizes.publications), False)
    if sizes.content_bytes is not None:
        yield _Bucket("bytes", Limiter(sizes.content_bytes), True)


def _throttled(bucket: _Bucket, key: Hashable, wait: float, now: float) -> Throttled:
    rate = bucket.limiter.rate
    unit = "content-bytes" if bucket.of_bytes else ""
    what = "bytes" if bucket.of_bytes else "messages"
    return Throttled(
        f"You may publish {rate.quota} {what} in {rate.seconds} seconds, and have done so."
        " Try again later.",
        wait,
        (
            (b"RateLimit-Policy", policy(bucket.name, rate, unit).encode("ascii")),
            (
                b"RateLimit",
                remaining(bucket.name, bucket.limiter, key, now).encode("ascii"),
            ),
        ),
    )
