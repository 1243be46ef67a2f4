"""
The bus: who gets what, in which order.

No I/O; the clock is a parameter.  A subscriber here is any callable that takes a
message; `fanout` has those that stand for many open HTTP responses.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ..ids import Id, Since, format_id
from ..match import EVERYTHING, Filter
from ..message import Invalid, Message, Receipt, check_name, names_of
from .history import Cursor, History
from .idempotency import Answers, Fingerprint

__all__ = ["Answered", "Bus", "Nobody", "Stopping", "Subscription", "TooLarge"]

# The lower digits of an id's number count the messages of a bus; those above tell
# the lives of buses apart.
COUNT_DIGITS = 12
MAX_LIFE = 10**6


class TooLarge(Invalid):
    """
    A message's body is larger than the bus takes.
    """


class Nobody(Exception):
    """
    A message was published for somebody, and there is nobody.
    """


class Stopping(Exception):
    """
    Nothing more is published here.
    """


Answered = tuple[Fingerprint, Id, int]
"""
A publication that had a key, its id, and for how many subscribers it was put in order.
"""


class _Publication(NamedTuple):
    """
    A message on its way to its subscribers.
    """

    id: Id
    message: Message
    keep: bool
    fingerprint: Fingerprint | None
    done: Deferred[Receipt]


class Subscription:
    """
    One subscriber's interest in a channel or folder.  Made by
    `Bus.subscribe`.

    Attributes:
        name: Of the channel or folder.
        filter: What it wants of the messages there.
        count: How many subscribers it stands for.
    """

    __slots__ = ("name", "filter", "count", "_deliver", "_bus")

    def __init__(
        self,
        bus: Bus,
        name: str,
        deliver: Callable[[Message], object],
        filter: Filter,
        count: Callable[[], int],
    ) -> None:
        self.name = name
        self.filter = filter
        self.count = count
        self._deliver = deliver
        self._bus: Bus | None = bus

    @property
    def active(self) -> bool:
        """
        Not yet cancelled?
        """
        return self._bus is not None

    def cancel(self) -> None:
        """
        End it: nothing is delivered any more, from this moment.  Cancelling
        twice is no error.
        """
        bus, self._bus = self._bus, None
        if bus is not None:
            bus._forget(self)


class Bus:
    """
    Takes messages from publishers and delivers each to every subscription
    whose channel or folder and filter it matches.

    All subscribers get the messages in one order, the order in which
    `publish` was called.

    Args:
        max_message: Bytes of the largest body that may be published.
        history: What is kept of what is published.
        seconds: The time, in seconds since 1970.

    Attributes:
        max_message: As given.
        history: As given.
        saved: Where history is copied to a disk: a Deferred that fires when the
            message with this id, and all before, are there.
        unwritten: Where answers are copied to a disk: those that are not there yet, and
            whose publications had a key; the oldest go, if they are too many.
        life: Random, and part of every id, so that an id of another bus, or of this
            one before it was started anew, is known to be one.
        boundary: Random, and held by no message that was published here, so
            that it can part the messages of a multipart stream (RFC 2046,
            section 5.1.1) and nobody can forge one.
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
        self.life = secrets.randbelow(MAX_LIFE)
        self._seconds = seconds
        self.saved: Callable[[Id], Deferred[None]] | None = None
        # The last id that was given.
        self._last: Id = self._first_id()
        self.unwritten: deque[Answered] | None = None
        self.boundary = "msgbus" + secrets.token_hex(16)
        # By name, in the order in which they subscribed.
        self._subscriptions: dict[str, dict[Subscription, None]] = {}
        # Published, but not yet delivered to everybody.
        self._pending: deque[_Publication] = deque()
        # Publications with a key.
        self._answers: Answers[Deferred[Receipt]] = Answers()

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
            deliver: Called with each message, while it is published.  If it
                raises, that is logged, and costs nobody else anything.
            count: How many subscribers it stands for, when it is asked.

        Raises:
            Invalid: The name is none.
        """
        check_name(name)
        subscription = Subscription(self, name, deliver, filter, count)
        self._subscriptions.setdefault(name, {})[subscription] = None
        return subscription

    def publish(
        self,
        message: Message,
        keep: bool = True,
        require: bool = False,
        key: str | None = None,
    ) -> Deferred[Receipt]:
        """
        Publish one message.

        Args:
            keep: Whether history may keep it.
            require: Whether there must be a subscriber for it.
            key: What its publisher repeats it with, if he has to: it is published once,
                within ten minutes.

        Returns:
            A Deferred that fires once the message is in order for every
            subscriber: before `publish` returns, unless a subscriber called
            it while a message was delivered to it.  Where history is copied to a
            disk, it fires once a message that is kept is there too, or a second
            later.

        Raises:
            TooLarge: The body is larger than `max_message` bytes.
            Invalid: The message holds the bus's boundary.
            Nobody: There is no subscriber, though one is required; nothing was
                published.
            Reused: The key came with another body before.
        """
        fingerprint = None if key is None else Fingerprint.of(key, message)
        if fingerprint is not None:
            known = self._answers.find(fingerprint, self._seconds())
            if known is not None:
                return _another(known)
        if len(message.body) > self.max_message:
            raise TooLarge(
                f"A message has at most {self.max_message} bytes here;"
                " publish less, or raise --max-message."
            )
        self._refuse_boundary(message)
        if require and not any(s.count() for s in self._interested(message)):
            raise Nobody(
                "Nobody is there to get the message: publish it without require=1 to keep"
                " it for who comes later."
            )
        milliseconds, number = self._last
        # The clock may be set back.
        milliseconds = max(self.milliseconds(), milliseconds)
        self._last = (milliseconds, number + 1)
        done: Deferred[Receipt] = Deferred()
        published = message.published(format_id(self._last))
        self._pending.append(_Publication(self._last, published, keep, fingerprint, done))
        if fingerprint is not None:
            self._answers.remember(fingerprint, self._seconds(), done)
        # Whoever publishes in the midst of a delivery waits for its end, or
        # others would get the two messages in another order.
        if len(self._pending) == 1:
            self._deliver_pending()
        return done if fingerprint is None else _another(done)

    def replay(self, name: str, filter: Filter, since: Since) -> Cursor:
        """
        Read again what was published, from some point on to the present.

        Args:
            name: A channel or folder.

        Returns:
            A cursor, to be read with `milliseconds`, and to be closed in the end.

        Raises:
            Invalid: The name is none.
        """
        check_name(name)
        strange = since.id is not None and (
            # Not by its time: one who was killed may have given ids that are younger
            # than all that he wrote.
            since.id[1] // 10**COUNT_DIGITS != self.life or since.id[1] > self._last[1]
        )
        return self.history.replay(name, filter, since, self.milliseconds(), strange)

    def restore(
        self, life: int, boundary: str, last: Id, answered: Iterable[Answered] = ()
    ) -> None:
        """
        Go on as the bus that had this life and boundary, may have given ids up to this
        one, and had answered these publications.
        """
        for fingerprint, id, subscribers in answered:
            receipt = succeed(Receipt(format_id(id), subscribers))
            self._answers.remember(fingerprint, id[0] / 1000, receipt)
        self.life, self.boundary, self._last = life, boundary, last
        self.history.newest = last
        self.history.counted_from = last[1]

    @property
    def newest(self) -> Id:
        """
        The id behind which all comes that is delivered from now on.
        """
        return max(self.history.newest, self._first_id())

    def begins(self, cursor: Cursor) -> Id | None:
        """
        An id of this bus behind which all comes that this cursor reads, or None if none
        is known: it is still looking, or has begun at an id of another.
        """
        id = cursor.begins
        # One that begins at a time has no number.
        return None if id is None else (id[0], max(id[1], self._first_id()[1]))

    def _first_id(self) -> Id:
        """
        What is less than all ids of this life.
        """
        return (0, self.life * 10**COUNT_DIGITS)

    def milliseconds(self) -> int:
        """
        The time, in milliseconds since 1970.
        """
        return int(self._seconds() * 1000)

    def _refuse_boundary(self, message: Message) -> None:
        fields = (message.channel, message.content_type, message.sender)
        if self.boundary.encode("ascii") in message.body or any(
            self.boundary in field for field in fields
        ):
            raise Invalid(
                "The message holds the boundary of this bus's multipart streams,"
                " which nobody may publish; change a byte of it."
            )

    def _deliver_pending(self) -> None:
        while self._pending:
            publication = self._pending[0]
            message = publication.message
            self.history.add(publication.id, message, publication.keep)
            subscribers = 0
            for subscription in self._interested(message):
                # An earlier subscriber may have cancelled a later one.
                if not subscription.active:
                    continue
                subscribers += subscription.count()
                try:
                    subscription._deliver(message)
                except Exception:
                    self._log.failure(
                        "A subscriber of {name!r} failed", name=subscription.name
                    )
            self._pending.popleft()
            self._acknowledge(publication, Receipt(message.id, subscribers))

    def _acknowledge(self, publication: _Publication, receipt: Receipt) -> None:
        if self.unwritten is not None and publication.fingerprint is not None:
            answer = (publication.fingerprint, publication.id, receipt.subscribers)
            self.unwritten.append(answer)
        # What is not kept has an id too, which is not to be given again.
        saved = succeed(None) if self.saved is None else self.saved(publication.id)
        if publication.keep:
            saved.addCallback(lambda _: publication.done.callback(receipt))
        else:
            publication.done.callback(receipt)

    def _interested(self, message: Message) -> list[Subscription]:
        return [
            subscription
            for name in names_of(message.channel)
            for subscription in self._subscriptions.get(name, ())
            if subscription.filter.matches(message)
        ]

    def _forget(self, subscription: Subscription) -> None:
        namesakes = self._subscriptions[subscription.name]
        del namesakes[subscription]
        if not namesakes:
            del self._subscriptions[subscription.name]


def _another(done: Deferred[Receipt]) -> Deferred[Receipt]:
    """
    One that fires with the same, for somebody else.
    """
    another: Deferred[Receipt] = Deferred()

    def fire(receipt: Receipt) -> Receipt:
        another.callback(receipt)
        return receipt

    done.addCallback(fire)
    return another
