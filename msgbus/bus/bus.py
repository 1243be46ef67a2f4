"""
The bus: who gets which message, in which order.

No I/O; the clock is a parameter.  A subscriber is any callable that takes a message;
`fanout` makes those that stand for many open HTTP responses.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ..ids import Id, Since, format_id, life_of, parse_origin
from ..match import EVERYTHING, Filter
from ..message import Invalid, Message, Receipt, check_name
from .cursor import Cursor
from .history import History
from .id_sequence import IdSequence, zero_id
from .idempotency import Answered, Answers, Fingerprint
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
    """


class _Pending(NamedTuple):
    """
    A message that is published and not yet delivered to all its subscribers.
    """

    id: Id
    message: Message
    keep: bool
    fingerprint: Fingerprint | None
    done: Deferred[Receipt]


class Bus:
    """
    Takes messages from publishers and delivers each to every subscription
    whose channel or folder and filter it matches.

    All subscribers get the messages in one order, the order in which
    `publish` was called.

    Args:
        max_message: Bytes of the largest body that may be published.
        history: Keeps the messages that are published.
        seconds: Tells the time, in seconds since 1970.

    Attributes:
        max_message: As given.
        history: As given.
        saved: Set by a `Store`, which copies the history to a disk; None without a store.
            Returns a Deferred that fires when the message with this id, and all before
            it, are on the disk.
        unwritten: Set by a `Store`; None without a store.  The answers to publications with
            a key or an origin that are not on the disk yet.  If there are too many, the
            oldest are removed.
        repeated: How many publications were answered without being published, because the
            bus had their message already; see `Receipt.repeated`.
        boundary: A random text that no published message contains, so that it can separate
            the messages of a multipart stream (RFC 2046, section 5.1.1) and nobody can
            forge a part.
    """

    _log = Logger()

    def __init__(
        self,
        max_message: int = 1024 * 1024,
        history: History | None = None,
        seconds: Callable[[], float] = time.time,
    ) -> None:
        self.max_message = max_message
        self.history = history or History()
        self._seconds = seconds
        self._ids = IdSequence()
        self.saved: Callable[[Id], Deferred[None]] | None = None
        self.unwritten: deque[Answered] | None = None
        self.boundary = "msgbus" + secrets.token_hex(16)
        self._subscriptions = Subscriptions()
        # Whether a message is being delivered, and the messages that subscribers have
        # published from within that delivery.
        self._delivering = False
        self._pending: deque[_Pending] = deque()
        self.repeated = 0
        # The answers to publications with a key or an origin, to be given again to
        # repetitions.
        self._answers: Answers[Deferred[Receipt]] = Answers()
        # The same for messages with an origin.  A table of its own, so that one who copies
        # many messages does not have the keys of others forgotten.
        self._copies: Answers[Deferred[Receipt]] = Answers()

    @property
    def life(self) -> int:
        """
        A random number that is part of every id.  It tells the ids of this bus from those
        of other buses, and from those before a restart without a history file.
        """
        return self._ids.life

    def subscribe(
        self,
        name: str,
        deliver: Callable[[Message], object],
        filter: Filter = EVERYTHING,
        count: Callable[[], int] = lambda: 1,
    ) -> Subscription:
        """
        Deliver the messages that are published from now on.

        Args:
            name: A channel, or a folder for everything below it; the empty
                name is the folder of all.  See `message.check_name`.
            deliver: Called with each message, while it is published.  If it raises, that
                is logged, and the other subscribers get the message all the same.
            count: Returns how many subscribers the subscription stands for at the moment.

        Raises:
            Invalid: The name cannot be that of a channel or folder.
        """
        check_name(name)
        return self._subscriptions.add(name, filter, deliver, count)

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
        if message.origin:
            return self._submit_copy(message.with_body(body), keep, require)
        if key is not None:
            message = message.with_body(body)
            return self._submit_once(message, keep, require, Fingerprint.of(key, message))
        self._check(message, body, require)
        return self._put_in_order(message, body, keep, None)

    def _submit_copy(
        self, message: Message, keep: bool, require: bool
    ) -> Receipt | Deferred[Receipt]:
        """
        Publish a message with an origin, unless this bus has it already.
        """
        id = parse_origin(message.origin)
        if life_of(id) == self.life:
            # This bus has published it first, under that id.
            self.repeated += 1
            return Receipt(format_id(id), 0, repeated=True)
        fingerprint = Fingerprint.of_origin(message.origin)
        return self._submit_once(message, keep, require, fingerprint)

    def _submit_once(
        self, message: Message, keep: bool, require: bool, fingerprint: Fingerprint
    ) -> Receipt | Deferred[Receipt]:
        """
        Publish a message, unless one with this fingerprint was published before.
        """
        answers = self._copies if message.origin else self._answers
        known = answers.find(fingerprint, self._seconds())
        if known is not None:
            self.repeated += 1
            return _follow(known).addCallback(lambda told: told._replace(repeated=True))
        self._check(message, message.body, require)
        # The answer is remembered before the message is delivered, because a subscriber
        # could repeat the publication from within the delivery.
        done: Deferred[Receipt] = Deferred()
        answers.remember(fingerprint, self._seconds(), done)
        receipt = self._put_in_order(message, message.body, keep, fingerprint)
        if isinstance(receipt, Deferred):
            receipt.addCallback(done.callback)
            return _follow(done)
        done.callback(receipt)
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
        boundary = self.boundary
        if (
            boundary.encode("ascii") in body
            or boundary in message.channel
            or boundary in message.content_type
            or boundary in message.sender
        ):
            raise Invalid(
                "The message holds the boundary of this bus's multipart streams,"
                " which nobody may publish; change a byte of it."
            )
        if require and not any(s.count() for s in self._subscriptions.matching(message)):
            raise Nobody(
                "Nobody is there to get the message: publish it without require=1 to keep"
                " it for who comes later."
            )

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
        foreign = since.id is not None and not self._ids.gave(since.id)
        return Cursor(self.history, name, filter, since, self.milliseconds(), foreign)

    def restore(
        self, life: int, boundary: str, last: Id, answered: Iterable[Answered] = ()
    ) -> None:
        """
        Continue as an earlier bus, which ran before a restart.

        Args:
            life: The `life` of that bus.
            boundary: The `boundary` of that bus.
            last: The last id that it may have given.
            answered: What it answered to publications with a key or an origin, the oldest
                first.
        """
        for fingerprint, id, subscribers in answered:
            receipt = succeed(Receipt(format_id(id), subscribers))
            answers = self._copies if fingerprint.is_of_origin else self._answers
            answers.remember(fingerprint, id[0] / 1000, receipt)
        self.boundary = boundary
        self._ids.life, self._ids.last = life, last
        self.history.newest = last
        self.history.counted_from = last[1]

    @property
    def newest(self) -> Id:
        """
        The id of the last message that was delivered.  All messages that are delivered from
        now on have larger ids.
        """
        return max(self.history.newest, zero_id(self.life))

    def begins(self, cursor: Cursor) -> Id | None:
        """
        `Cursor.begins`, as an id of this bus.  If the cursor begins at a time, or at the
        first message that is kept, `Cursor.begins` may have a number of another life, which
        is replaced by the number before the first one of this life.
        """
        id = cursor.begins
        return None if id is None else (id[0], max(id[1], zero_id(self.life)[1]))

    def milliseconds(self) -> int:
        """
        The time, in milliseconds since 1970.
        """
        return int(self._seconds() * 1000)

    def _put_in_order(
        self, message: Message, body: bytes, keep: bool, fingerprint: Fingerprint | None
    ) -> Receipt | Deferred[Receipt]:
        """
        Give a message with this body its id, and deliver it.
        """
        id = self._ids.next(int(self._seconds() * 1000))
        message = message.published(format_id(id), body)
        if self._delivering:
            # A message that is published from within a delivery waits until that delivery
            # has ended; otherwise some subscribers would get the two in reverse order.
            done: Deferred[Receipt] = Deferred()
            self._pending.append(_Pending(id, message, keep, fingerprint, done))
            return done
        self._delivering = True
        try:
            receipt = self._deliver(id, message, keep)
            while self._pending:
                pending = self._pending.popleft()
                told = self._deliver(pending.id, pending.message, pending.keep)
                written = self._when_written(
                    pending.id, pending.keep, pending.fingerprint, told
                )
                if isinstance(written, Deferred):
                    written.addCallback(pending.done.callback)
                else:
                    pending.done.callback(written)
        finally:
            self._delivering = False
        if self.saved is None:
            return receipt
        return self._when_written(id, keep, fingerprint, receipt)

    def _deliver(self, id: Id, message: Message, keep: bool) -> Receipt:
        self.history.add(id, message, keep)
        subscribers = 0
        for subscription in self._subscriptions.matching(message):
            # An earlier subscriber may have cancelled a later one.
            if not subscription.active:
                continue
            try:
                subscribers += subscription.count()
                subscription.deliver(message)
            except Exception:
                self._log.failure("A subscriber of {name!r} failed", name=subscription.name)
        return Receipt(message.id, subscribers)

    def _when_written(
        self, id: Id, keep: bool, fingerprint: Fingerprint | None, receipt: Receipt
    ) -> Receipt | Deferred[Receipt]:
        """
        The receipt, or, where the history is copied to a disk, a Deferred that fires with
        it once the message is there.
        """
        if self.unwritten is not None and fingerprint is not None:
            self.unwritten.append((fingerprint, id, receipt.subscribers))
        if self.saved is None:
            return receipt
        # This is done for a message that is not kept, too: its id must be written, so that
        # it is not given again after a restart.
        saved = self.saved(id)
        if not keep:
            return receipt
        done: Deferred[Receipt] = Deferred()
        saved.addCallback(lambda _: done.callback(receipt))
        return done


def _follow(done: Deferred[Receipt]) -> Deferred[Receipt]:
    """
    Another Deferred that fires with the same receipt, so that each caller can add
    callbacks of its own.
    """
    follower: Deferred[Receipt] = Deferred()

    def fire(receipt: Receipt) -> Receipt:
        follower.callback(receipt)
        return receipt

    done.addCallback(fire)
    return follower
