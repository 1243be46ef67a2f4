"""
A bus that is mounted in a site: how the ways in publish and subscribe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

from ..bus.bus import Bus, Stopping
from ..bus.cursor import Cursor
from ..fanout.choices import Choices
from ..fanout.fanout import Fanout, Limits
from ..fanout.member import Member, Response
from ..fanout.outlet import BufferedOutlet, Outlet, outlet_for
from ..formats.framing import Framing
from ..ids import Since, format_id
from ..match import Filter
from ..message import Message, Receipt
from .auth import visitor_of
from .channel import Channel
from .journal import Attempt, Journal
from .origins import Origins
from .peer import Peer
from .query import Wanted
from .quotas import Quotas
from .request import Request, peer_of
from .responses import REFUSALS, Refusal
from .returns import Returns
from .rights import Rights, check_unchanged
from .shortage import Shortage
from .subscriber import Subscriber
from .verbosity import Verbosity
from .visitor import Denied, Visitor

__all__ = ["Mount", "finish", "when_published"]

_log = Logger()


class Stoppable(Protocol):
    """
    A stream that is being published; see `publication_stream`.
    """

    def stop(self) -> None:
        """
        Take nothing more.
        """


class Mount:
    """
    Publishes and subscribes on behalf of requests.

    Args:
        bus: What to publish to and subscribe at.
        reactor: Where fan-out runs.
        prefix: The path at which the bus is mounted, percent-encoded, with a slash at both
            ends.
        origins: Which web pages may use it.
        verbosity: 1 logs subscriptions and refusals, 2 publications too.
        limits: What may wait for subscribers that do not read.
        quotas: How much each user and address may do.

    Attributes:
        quotas: As given.
        journal: What clients do, and what is refused to them, is counted and logged here.
        counters: Those of the journal.
        returns: When clients that are sent away because the bus stops are to come back.
        memory: Whether too little memory is left for more subscriptions.
        closed: Whether the bus has stopped, so that nothing is published any more.
        takes_streams: Whether the body of a request may be a stream of messages.
        publication_streams: The streams that are being published.
        rights: The rights on which streams and waiting requests depend.
        subscribers: Who reads a stream, by their numbers.
        private_header: A header, in lower case, that travels with no message, also if it is
            in a part or an envelope: a proxy names users by it.  Empty if there is none.
    """

    def __init__(
        self,
        bus: Bus,
        reactor: IReactorTime,
        prefix: str,
        origins: Origins,
        verbosity: int,
        limits: Limits | None,
        quotas: Quotas | None = None,
    ) -> None:
        self.bus = bus
        self.reactor = reactor
        self.prefix = prefix
        self.origins = origins
        self.fanout = Fanout(bus, reactor, limits)
        self.quotas = quotas or Quotas()
        self.journal = Journal(prefix=prefix, verbosity=Verbosity(verbosity))
        self.counters = self.journal.counters
        self.returns = Returns()
        self.memory = Shortage("Too little memory is left")
        self.closed = False
        self.takes_streams = True
        self.rights = Rights(reactor)
        self.subscribers: dict[int, Subscriber] = {}
        self.private_header = ""
        self._numbers = count(1)
        self.publication_streams: set[Stoppable] = set()

    def check_open(self) -> None:
        """
        Raises:
            Stopping: The bus has stopped.
        """
        if self.closed:
            raise Stopping(self.returns.next())

    def check_room(self) -> None:
        """
        Raises:
            Refusal: There is too little memory for one more subscription.  Publications
                need no more than is set aside for them.
        """
        if self.memory.lasts:
            self.memory.refuse()
            sentence = "The bus has no memory left for a subscription; try again later."
            raise Refusal(503, sentence, [(b"Retry-After", b"10")], "memory")

    def publish(
        self,
        visitor: Visitor,
        peer: Peer,
        message: Message,
        body: bytes,
        keep: bool = True,
        require: bool = False,
        key: str | None = None,
    ) -> Receipt | Deferred[Receipt]:
        """
        Publish what a client has sent, if it may.

        Args:
            visitor: Who has sent it.
            peer: Where it comes from.

        Returns:
            See `Bus.submit`, also for the other arguments, and for what it raises.

        Raises:
            Denied: The visitor may not publish that there.
            TooLarge: They may publish smaller messages only.
            Throttled: They have published too much.
        """
        if self.closed:
            raise Stopping(self.returns.next())
        if self.private_header and self.private_header in message.headers:
            headers = message.headers.without(self.private_header)
            message = replace(message, headers=headers)
        may_count = visitor.check_publish(message.channel, require)
        visitor.check_message(message, len(body))
        self.quotas.charge_publication(visitor, peer, len(body))
        published = self.bus.submit(message, body, keep, require, key)
        if isinstance(published, Deferred):
            published.addCallback(self._timed, perf_counter())
        if not may_count:
            published = _without_count(published)
        if self.journal.logs_publications:
            self.journal.publishes(visitor.sender, peer, message, body)
        return published

    def forget(self, visitor: Visitor, peer: Peer, channel: str) -> Deferred[None] | None:
        """
        Forget what is kept of a channel on behalf of a client, if it may publish there.
        For limits, this is a publication.

        Returns:
            See `Bus.forget`, also for what it raises.

        Raises:
            Denied: The visitor may not publish there.
            Throttled: They have published too much.
        """
        visitor.check_publish(channel)
        self.quotas.charge_publication(visitor, peer, 0)
        forgotten = self.bus.forget(channel)
        if self.journal.logs_publications:
            self.journal.forgets(visitor.sender, peer, channel)
        return forgotten

    def _timed(self, receipt: Receipt, begun: float) -> Receipt:
        self.counters.waited.observe(perf_counter() - begun)
        return receipt

    def within_history(
        self, visitor: Visitor, name: str, since: Since | None
    ) -> Since | None:
        """
        Where a replay may begin that somebody wants to begin at `since`: so late that it
        has no more messages than the rule that allows it, or not at all.
        """
        if since is None:
            return None
        limit = visitor.subscribe_limits(name)[1].history
        if limit is None:
            return since
        if limit == 0:
            return None
        last = limit if since.last is None else min(since.last, limit)
        return replace(since, last=last)

    def begin(
        self, name: str, filter: Filter, since: Since | None
    ) -> tuple[Cursor | None, str | None]:
        """
        Find out where a subscriber begins.

        Args:
            since: Where its replay begins, or None if it asks for no replay.

        Returns:
            A cursor for its replay, which the caller has to close, or None if it asks for
            no replay; and an id, if one is known, such that the subscriber is sent only
            messages with larger ids.
        """
        if since is None:
            return None, format_id(self.bus.newest)
        cursor = self.bus.replay(name, filter, since)
        begins = self.bus.begins(cursor)
        return cursor, None if begins is None else format_id(begins)

    def outlet(self, request: server.Request, latest: bool) -> Outlet:
        """
        What takes the bytes of the response to this request.

        Args:
            latest: Whether only the newest message matters, so that little may wait in the
                socket.
        """
        if isinstance(request, Request):
            return request.count(self.outlet_for(request.channel, latest))
        # The request is of another site, which may chunk, compress or multiplex.  In
        # HTTP/2, the response can be cut without the connection.
        channel: Any = request.channel  # of HTTP/1 or HTTP/2
        cut = getattr(channel, "abortConnection", None)
        return BufferedOutlet(request.write, cut or channel.transport.abortConnection)

    def outlet_for(self, channel: Channel, latest: bool) -> Outlet:
        """
        What takes the bytes of a response on this connection; see `outlet`.
        """
        return outlet_for(channel.transport, self.fanout.limits.stall_seconds, latest)

    def subscribe(
        self,
        visitor: Visitor,
        peer: Peer,
        name: str,
        wanted: Wanted,
        framing: Framing,
        response: Response,
        cursor: Cursor | None,
    ) -> Subscriber:
        """
        Send a response what the cursor reads, and then what is published from now on.

        Returns:
            The subscriber, whose `member` is the producer of the response; to be given to
            `leave` when the response has ended.
        """
        member = self.fanout.subscribe(
            name,
            wanted.filter,
            framing,
            response,
            Choices(
                wanted.overflow,
                wanted.heartbeat or framing.heartbeat_seconds,
                wanted.live,
                wanted.interval,
            ),
            cursor,
        )
        if cursor is not None and cursor.outcome:
            self.counters.resumed[cursor.outcome] += 1
        subscriber = Subscriber(
            next(self._numbers),
            visitor,
            peer,
            name,
            member,
            response,
            self.bus.log.seconds(),
        )
        subscriber.form = framing.form
        self.subscribers[subscriber.number] = subscriber
        subscriber.opened = self.quotas.open_subscription(visitor, peer, name)
        subscriber.right = self.rights.depend(
            visitor,
            partial(check_unchanged, visitor, name, wanted.filter),
            partial(self._revoke, subscriber),
        )
        self.journal.subscribes(subscriber)
        return subscriber

    def subscribe_request(
        self,
        request: server.Request,
        name: str,
        wanted: Wanted,
        framing: Framing,
        response: Response,
        cursor: Cursor | None,
    ) -> Member:
        """
        The same for the response to a request of Twisted's: its producer is registered, and
        leaves when the request reports that the response has ended.
        """
        subscriber = self.subscribe(
            visitor_of(request), peer_of(request), name, wanted, framing, response, cursor
        )
        request.registerProducer(subscriber.member, True)
        request.notifyFinish().addBoth(lambda _: self.leave(subscriber))
        return subscriber.member

    def leave(self, subscriber: Subscriber) -> None:
        """
        End the subscription of a response that has ended.
        """
        del self.subscribers[subscriber.number]
        subscriber.member.stopProducing()
        if subscriber.right is not None:
            subscriber.right.cancel()
        self.quotas.close_subscription(subscriber.opened)
        self.journal.leaves(subscriber)

    def farewell(self, framing: Framing) -> bytes:
        """
        The last bytes of a stream: if it ends because the bus stops, they say when to come
        back.
        """
        return framing.retry(self.returns.next()) if self.closed else b""

    def close(self) -> None:
        """
        Publish nothing any more, and end all streams, each once its subscriber has been
        sent all that waits for it.
        """
        self.closed = True
        self.fanout.end()

    def _revoke(self, subscriber: Subscriber, denied: Denied) -> None:
        """
        End the stream of a subscriber that has lost its right.
        """
        sender, peer = subscriber.visitor.sender, subscriber.peer
        self.journal.refuses(Attempt(peer, sender, "stream", subscriber.name), denied)
        subscriber.end(denied)


def when_published(
    published: Receipt | Deferred[Receipt],
    call: Callable[[Receipt], object],
    refused: Callable[[Exception], object],
) -> None:
    """
    Call this with the receipt: now, or when the Deferred fires.

    Args:
        refused: Called instead if the Deferred fails with one of `REFUSALS`.
    """
    if isinstance(published, Deferred):
        published.addCallbacks(call, partial(_pass_on, refused))
        published.addErrback(partial(_log.failure, "A publication failed"))
    else:
        call(published)


def _pass_on(refused: Callable[[Exception], object], failure: Failure) -> None:
    error = failure.value
    if not isinstance(error, REFUSALS):
        failure.raiseException()
    refused(error)


def _without_count(
    published: Receipt | Deferred[Receipt],
) -> Receipt | Deferred[Receipt]:
    """
    The receipt, with no subscribers.
    """
    if isinstance(published, Deferred):
        return published.addCallback(lambda receipt: receipt._replace(subscribers=0))
    return published._replace(subscribers=0)


def finish(request: server.Request, farewell: Callable[[], bytes] = bytes) -> None:
    """
    End the response to a request that has a producer.

    Args:
        farewell: Returns the last bytes of the response.
    """
    request.unregisterProducer()
    if last := farewell():
        request.write(last)
    request.finish()
