"""
Lists for the operator, in JSON: who subscribes, and which channels there are.

A list is sorted by what hurts, has a bounded length, and is made bit by bit, so that it
holds up no message however many there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ..formats.envelope import line, published_at
from ..match import Filter
from ..message import Invalid
from ..web.mount import Mount
from ..web.request import peer_of
from ..web.responses import answer
from ..web.subscriber import Subscriber
from ..web.visitor import Denied
from .events import who
from .rates import GroupRates, channel_rate

__all__ = ["ChannelList", "SubscriberList"]

MAX_LENGTH = 1000
DEFAULT_LENGTH = 100
# How far one may page.
MAX_OFFSET = 100_000

Row = dict[str, Any]

ENDED = "The operator of the bus has ended this stream."


@dataclass(frozen=True, slots=True)
class _Page:
    """
    Which part of a list is asked for.
    """

    sort: str
    limit: int
    offset: int


class _List(Resource):
    """
    A list at a path of its own.

    Attributes:
        name: What is listed.
        orders: The orders in which it can be sorted, by their names; of each, what has
            the largest value comes first.  The first of them is the default.
    """

    name: str
    orders: ClassVar[dict[str, Callable[[Row], Any]]]

    _log = Logger()

    def __init__(self, mount: Mount) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._mount = mount
        self._cooperator = Cooperator(scheduler=partial(mount.reactor.callLater, 0))

    def rows(self) -> Iterator[Row]:
        """
        What there is, in any order.
        """
        raise NotImplementedError

    def render_GET(self, request: server.Request) -> int:
        """
        A part of the list.
        """
        try:
            page = self._page(request)
        except Invalid as error:
            return answer(request, 400, str(error))
        made = Deferred.fromCoroutine(self._make(page))
        # That the client has gone is seen when the list is there.
        request.notifyFinish().addErrback(lambda _: None)

        def send(told: Row) -> None:
            if not request._disconnected:
                request.setHeader(b"Cache-Control", b"no-store")
                answer(request, 200, line(told) + b"\n", b"application/json")

        def fail(failure: Failure) -> None:
            self._log.failure("Cannot list", failure)
            answer(request, 500, "The list cannot be made; the log says why.")

        made.addCallbacks(send, fail)
        return NOT_DONE_YET

    async def _make(self, page: _Page) -> Row:
        order = self.orders[page.sort]
        # The largest so far, the smallest of them first.  Of equal ones, the first that was
        # seen is the larger.
        best: list[tuple[Any, int, Row]] = []
        length = page.offset + page.limit
        total = 0

        def collect() -> Iterator[None]:
            nonlocal total
            for row in self.rows():
                total += 1
                entry = (order(row), -total, row)
                if len(best) < length:
                    heapq.heappush(best, entry)
                elif entry > best[0]:
                    heapq.heapreplace(best, entry)
                yield

        # Twisted stops it every ten milliseconds.
        await self._cooperator.coiterate(collect())
        shown = [row for *_, row in sorted(best, reverse=True)[page.offset :]]
        told: Row = {self.name: shown, "total": total}
        if total > length and length <= MAX_OFFSET:
            rest = {"sort": page.sort, "limit": page.limit, "offset": length}
            told["next"] = f"/{self.name}?{urlencode(rest)}"
        return told

    def _page(self, request: server.Request) -> _Page:
        """
        Raises:
            Invalid: There is no such part.
        """
        query = request.uri.partition(b"?")[2].decode("ascii", "replace")
        try:
            wanted = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=10))
        except ValueError:
            raise Invalid("The query has too many parameters.") from None
        sort = wanted.pop("sort", next(iter(self.orders)))
        limit = _number(wanted.pop("limit", f"{DEFAULT_LENGTH}"), "limit", 1, MAX_LENGTH)
        offset = _number(wanted.pop("offset", "0"), "offset", 0, MAX_OFFSET)
        if sort not in self.orders:
            raise Invalid(f"sort is one of {', '.join(self.orders)}.")
        if wanted:
            raise Invalid("The parameters are sort, limit and offset.")
        return _Page(sort, limit, offset)


def _number(text: str, name: str, least: int, most: int) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    if not (is_number and least <= int(text) <= most):
        raise Invalid(f"{name} is a number from {least} to {most}.")
    return int(text)


class SubscriberList(_List):
    """
    Who reads a stream, and how well; each has a path of its own, by its number.
    """

    name = "subscribers"
    orders: ClassVar = {
        "waiting": lambda row: (row["waiting"]["bytes"], row["missed"]),
        "missed": lambda row: row["missed"],
        "rate": lambda row: row["rate"],
        "age": lambda row: row["age"],
    }

    def __init__(self, mount: Mount, rates: GroupRates) -> None:
        super().__init__(mount)
        self._rates = rates

    def getChild(self, path: bytes, request: server.Request) -> Resource:
        """
        The subscriber with this number.
        """
        if not path:
            return self
        number = int(path) if path.isdigit() and len(path) < 19 else 0
        found = self._mount.subscribers.get(number)
        if found is not None and found.member.group is None:
            # Its stream has ended, and only its connection is left.
            found = None
        return _One(found, self._row)

    def rows(self) -> Iterator[Row]:
        """
        All subscribers.
        """
        for subscriber in tuple(self._mount.subscribers.values()):
            if subscriber.member.group is not None:
                yield self._row(subscriber)

    def _row(self, subscriber: Subscriber) -> Row:
        member, standing = subscriber.member, subscriber.member.standing
        group = member.group
        return {
            **who(subscriber),
            "filter": _patterns(group.filter) if group else {},
            "overflow": member.overflow.value,
            "state": standing.state,
            "waiting": {"messages": standing.messages, "bytes": standing.bytes},
            "missed": standing.missed,
            "rate": round(self._rates.of(group), 3),
            "since": _time(datetime.fromtimestamp(subscriber.began, UTC)),
            "age": round(max(0.0, self._mount.bus.log.seconds() - subscriber.began), 3),
        }


class _One(Resource):
    """
    A subscriber.
    """

    isLeaf = True

    _log = Logger()

    def __init__(
        self, subscriber: Subscriber | None, row: Callable[[Subscriber], Row]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._subscriber = subscriber
        self._row = row

    def render_GET(self, request: server.Request) -> int:
        """
        What the list has of it.
        """
        if self._subscriber is None:
            return _gone(request)
        told = line(self._row(self._subscriber)) + b"\n"
        request.setHeader(b"Cache-Control", b"no-store")
        return answer(request, 200, told, b"application/json")

    def render_DELETE(self, request: server.Request) -> int:
        """
        End its stream.
        """
        if self._subscriber is None:
            return _gone(request)
        self._log.info(
            "{operator} ends the stream of {peer} from {name!r}",
            operator=str(peer_of(request)),
            peer=str(self._subscriber.peer),
            name=self._subscriber.name,
        )
        self._subscriber.end(Denied(403, ENDED))
        return answer(request, 204)


def _gone(request: server.Request) -> int:
    return answer(request, 404, "There is no such subscriber; it may have left.")


class ChannelList(_List):
    """
    The channels that have kept messages or subscribers.
    """

    name = "channels"
    orders: ClassVar = {
        "rate": lambda row: row["rate"],
        "waiting": lambda row: (row["waiting"], row["missed"]),
        "missed": lambda row: row["missed"],
        "subscribers": lambda row: row["subscribers"],
        "messages": lambda row: row["messages"],
        "newest": lambda row: row["time"] or "",
    }

    def rows(self) -> Iterator[Row]:
        """
        All channels.  What waits and was missed is told of those that are subscribed to by
        their own names.
        """
        bus = self._mount.bus
        hurt: dict[str, list[int]] = {}
        for subscriber in tuple(self._mount.subscribers.values()):
            member = subscriber.member
            if member.position is None and member.replay is None and not member.missed:
                # So it is for most of many.
                continue
            standing = member.standing
            if standing.bytes or standing.missed:
                sums = hurt.setdefault(subscriber.name, [0, 0])
                sums[0] += standing.bytes
                sums[1] += standing.missed
        for name in dict.fromkeys(bus.channel_names()):
            channel = bus.find_channel(name)
            if channel is None:
                continue
            last = channel.last
            waiting, missed = hurt.get(name, (0, 0))
            yield {
                "name": name,
                "subscribers": channel.subscribers,
                "messages": channel.messages,
                "rate": round(channel_rate(bus.history, name, bus.milliseconds()), 3),
                "waiting": waiting,
                "missed": missed,
                "id": None if last is None else last.id,
                "time": None if last is None else _time(published_at(last.id)),
                "type": None if last is None else last.content_type,
            }


def _patterns(filter: Filter) -> dict[str, str]:
    patterns = {"type": filter.type, "sender": filter.sender, "channel": filter.channel}
    return {name: pattern.text for name, pattern in patterns.items() if pattern.text}


def _time(moment: datetime | None) -> str | None:
    """
    This time as RFC 3339 has it; None if it is not known.
    """
    return None if moment is None else moment.isoformat(timespec="milliseconds")
