"""
The bus: which messages may be published, and who gets them.

No I/O and no clock.  The order of messages, and what is kept of them, is up to a log.  A
subscriber is any callable that takes a message; `fanout` makes those that stand for many
open HTTP responses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ..ids import Id, Since, format_id, life_of, parse_origin
from ..match import EVERYTHING, Filter
from ..message import Invalid, Message, Receipt, check_name
from .cursor import Cursor
from .history import History
from .id_sequence import zero_id
from .idempotency import Fingerprint
from .known_channels import KnownChannel, find_channel, known_names
from .log import Follower, Log
from .memory_log import MemoryLog
from .subscriptions import Subscription, Subscriptions

__all__ = ["Bus", "Nobody", "Stopping", "Subscription", "TooLarge"]


class TooLarge(Invalid):
    """
    A message's body is larger than `Bus.max_message`.
    """


class Nobody(Exception):
    """
    A message was published on condition that there is a subscriber, and there is none.
    """


class Stopping(Exception):
    """
    The bus is being stopped and takes no more messages.

    Attributes:
        seconds: After how many seconds to try again.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__("The bus is stopping; try again in a moment.")
        self.seconds = seconds


class Bus:
    """
    Takes messages from publishers and delivers each to every subscription
    whose channel or folder and filter it matches.

    All subscribers get the messages in one order, that of the log.

    Args:
        max_message: Bytes of the largest body that may be published.
        history: Keeps the messages that are published, in memory.
        seconds: Tells the time, in seconds since 1970.
        log: Puts messages in order and keeps them, in place of a log in memory with that
            history and clock.

    Attributes:
        max_message: As given.
        log: As given, or the log in memory.
        repeated: How many publications were answered without being published, because the
            bus had their message already; see `Receipt.repeated`.
    """

    _log = Logger()

    def __init__(
        self,
        max_message: int = 1024 * 1024,
        history: History | None = None,
        seconds: Callable[[], float] = time.time,
        log: Log | None = None,
    ) -> None:
        self.max_message = max_message
        self.log: Log = log or MemoryLog(history, seconds)
        self.log.follow(Follower(self._deliver, self._count, self._miss))
        self.repeated = 0
        self._subscriptions = Subscriptions()

    @property
    def history(self) -> History:
        """
        The messages that are kept.
        """
        return self.log.history

    @property
    def life(self) -> int:
        """
        A random number that is part of every id; see `Log.life`.
        """
        return self.log.life

    @property
    def boundary(self) -> str:
        """
        A random text that no published message contains; see `Log.boundary`.
        """
        return self.log.boundary

    @property
    def newest(self) -> Id:
        """
        The id of the last message that was delivered.  All messages that are delivered from
        now on have larger ids.
        """
        return max(self.history.newest, zero_id(self.life))

    def subscribe(
        self,
        name: str,
        deliver: Callable[[Message], object],
        filter: Filter = EVERYTHING,
        count: Callable[[], int] = lambda: 1,
        missed: Callable[[], object] = lambda: None,
    ) -> Subscription:
        """
        Deliver the messages that are published from now on.

        Args:
            name: A channel, or a folder for everything below it; the empty
                name is the folder of all.  See `message.check_name`.
            deliver: Called with each message, while it is published.  If it raises, that
                is logged, and the other subscribers get the message all the same.
            count: Returns how many subscribers the subscription stands for at the moment.
            missed: Called if messages may be missing here, and nobody knows how many.  Only
                with a log in another process.

        Raises:
            Invalid: The name cannot be that of a channel or folder.
        """
        check_name(name)
        return self._subscriptions.add(name, filter, deliver, count, missed)

    def publish(
        self,
        message: Message,
        keep: bool = True,
        require: bool = False,
        key: str | None = None,
    ) -> Deferred[Receipt]:
        """
        Publish one message.

        A message with an origin is published once in ten minutes, whatever its channel, and
        never if it was published first at this bus.  So programs that copy messages from
        bus to bus can form a ring, and do no harm if they copy a message twice.

        Args:
            keep: Whether the history may keep the message.
            require: Whether to refuse the message if there is no subscriber for it.
            key: Marks repetitions: a publisher that gets no answer can publish again with
                the same key, and within ten minutes the message is published only once.
                A message with an origin needs no key, and a key of it is ignored.

        Returns:
            A Deferred that fires once the message has its place in the order of messages
            for every subscriber.  That is before `publish` returns, unless a subscriber
            calls it from within a delivery.  Where the history is copied to a disk, the
            Deferred of a message that is kept fires once the message is there, or after
            a second.  The receipt of a repetition has the id by which the bus knows the
            message, and comes no sooner than that of the first publication.

        Raises:
            TooLarge: The body is larger than `max_message` bytes.
            Invalid: The message contains the bus's boundary, or the key is not valid.
            Nobody: A subscriber is required and there is none.  Nothing was published.
            Reused: The key was used with another body before.
        """
        receipt = self.submit(message, message.body, keep, require, key)
        return receipt if isinstance(receipt, Deferred) else succeed(receipt)

    def submit(
        self,
        message: Message,
        body: bytes,
        keep: bool = True,
        require: bool = False,
        key: str | None = None,
    ) -> Receipt | Deferred[Receipt]:
        """
        Publish a message as `publish` does, but faster: the receipt itself is returned if
        there is nothing to wait for, and the body is given apart.

        Args:
            message: Its own body is ignored, so that a publisher can use one message again
                with many bodies.
            body: The body that is published.
        """
        fingerprint = None
        if message.origin:
            id = parse_origin(message.origin)
            if life_of(id) == self.life:
                # This bus has published it first, under that id.
                self.repeated += 1
                return Receipt(format_id(id), 0, repeated=True)
            fingerprint = Fingerprint.of_origin(message.origin)
        elif key is not None:
            fingerprint = Fingerprint.of(key, message.with_body(body))
        if fingerprint is not None and (known := self.log.find(fingerprint)) is not None:
            self.repeated += 1
            return known.addCallback(lambda told: told._replace(repeated=True))
        self._check(message, body, require)
        appended = self.log.append(message, body, keep, fingerprint)
        if fingerprint is not None and isinstance(appended, Deferred):
            appended.addCallback(self._note_repetition)
        return appended

    def _note_repetition(self, receipt: Receipt) -> Receipt:
        self.repeated += receipt.repeated
        return receipt

    def _check(self, message: Message, body: bytes, require: bool) -> None:
        """
        Refuse a message that cannot be published here; see `publish`.
        """
        if len(body) > self.max_message:
            raise TooLarge(
                f"A message has at most {self.max_message} bytes here;"
                " publish less, or raise --max-message."
            )
        boundary = self.log.boundary
        if (
            boundary.encode("ascii") in body
            or boundary in message.channel
            or boundary in message.content_type
            or boundary in message.sender
            or boundary in message.headers.values_text
        ):
            raise Invalid(
                "The message holds the boundary of this bus's multipart streams,"
                " which nobody may publish; change a byte of it."
            )
        if require and self.log.is_shared:
            raise Invalid(
                "This bus has several nodes, and none knows the subscribers of the others:"
                " publish without require=1."
            )
        if require and not self._count(message):
            raise Nobody(
                "Nobody is there to get the message: publish it without require=1 to keep"
                " it for who comes later."
            )

    def forget(self, channel: str) -> Deferred[None] | None:
        """
        Keep none of the messages that were published to a channel before.  Subscribers are
        told nothing; who resumes behind an earlier message is told that some are missing.

        Returns:
            None if that is done, or a Deferred that fires once it is certain; see
            `Log.forget`, also for the errors.

        Raises:
            Invalid: The name cannot be that of a channel or folder.
        """
        check_name(channel)
        return self.log.forget(channel)

    def probe(self, message: Message) -> None:
        """
        Deliver a message to the subscriptions of exactly its channel, to see whether they
        get it.  It gets no id, and has no place in the order of messages.
        """
        self._deliver_to(self._subscriptions.by_name.get(message.channel, ()), message)

    def replay(self, name: str, filter: Filter, since: Since) -> Cursor:
        """
        Read the kept messages again, from some point on to the present.

        Args:
            name: A channel or folder.

        Returns:
            A cursor.  The caller gives the result of `milliseconds` to its `read`, and has
            to close it.

        Raises:
            Invalid: The name cannot be that of a channel or folder.
        """
        check_name(name)
        foreign, awaited = False, None
        if since.id is not None:
            foreign = not self.log.gave(since.id)
            awaited = None if foreign else self.log.awaited(since.id)
        now = self.milliseconds()
        return Cursor(self.history, name, filter, since, now, foreign, awaited)

    def begins(self, cursor: Cursor) -> Id | None:
        """
        `Cursor.begins`, as an id of this bus.  If the cursor begins at a time, or at the
        first message that is kept, `Cursor.begins` may have a number of another life, which
        is replaced by the number before the first one of this life.
        """
        id = cursor.begins
        return None if id is None else (id[0], max(id[1], zero_id(self.life)[1]))

    def channel_names(self) -> list[str]:
        """
        The names of all channels that have kept messages or are subscribed to; some twice,
        and others that `find_channel` does not find.  See `known_channels.known_names`.
        """
        self.history.expire(self.milliseconds())
        return known_names(self.history, self._subscriptions)

    def find_channel(self, name: str) -> KnownChannel | None:
        """
        What is known of the channel of this name; None if there is nothing.
        """
        self.history.expire(self.milliseconds())
        return find_channel(self.history, self._subscriptions, name)

    def milliseconds(self) -> int:
        """
        The time, in milliseconds since 1970.
        """
        return int(self.log.seconds() * 1000)

    def _deliver(self, message: Message) -> int:
        """
        Deliver a message to all subscribers.

        Returns:
            How many there are.
        """
        return self._deliver_to(self._subscriptions.matching(message), message)

    def _deliver_to(self, subscriptions: Iterable[Subscription], message: Message) -> int:
        subscribers = 0
        for subscription in subscriptions:
            # An earlier subscriber may have cancelled a later one.
            if not subscription.active:
                continue
            try:
                subscribers += subscription.count()
                subscription.deliver(message)
            except Exception:
                self._log.failure("A subscriber of {name!r} failed", name=subscription.name)
        return subscribers

    def _count(self, message: Message) -> int:
        """
        How many subscribers a message has.
        """
        return sum(s.count() for s in self._subscriptions.matching(message))

    def _miss(self) -> None:
        """
        Tell all subscribers that messages may be missing here.
        """
        for same_name in tuple(self._subscriptions.by_name.values()):
            for subscription in tuple(same_name):
                subscription.missed()
