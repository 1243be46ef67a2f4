"""
The log of one process, in its memory.

No I/O; the clock is a parameter.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed

from ..ids import Id, format_id, life_of
from ..message import Message, Receipt
from .history import History
from .id_sequence import IdSequence, zero_id
from .idempotency import Answered, Answers, Fingerprint
from .log import Follower, LogNumbers

__all__ = ["MemoryLog"]


class _Pending(NamedTuple):
    """
    A message that has its id, and waits until the message before it is delivered.
    """

    id: Id
    message: Message
    keep: bool
    fingerprint: Fingerprint | None
    done: Deferred[Receipt]


class MemoryLog:
    """
    Puts messages in the order in which they are appended; see `Log`.

    Args:
        history: Keeps the messages.
        seconds: Tells the time, in seconds since 1970.
    """

    is_shared = False

    def __init__(
        self, history: History | None = None, seconds: Callable[[], float] = time.time
    ) -> None:
        self.boundary = "msgbus" + secrets.token_hex(16)
        self.history = history or History()
        self.seconds = seconds
        self._ids = IdSequence()
        self._follower = Follower(lambda _: 0, lambda _: 0, lambda: None)
        # Whether a message is being delivered, and the messages that were appended from
        # within that delivery.
        self._delivering = False
        self._pending: deque[_Pending] = deque()
        # The answers to publications with a key, to be given again to repetitions.
        self._answers: Answers[Deferred[Receipt]] = Answers()
        # The same for messages with an origin.  A table of its own, so that one who copies
        # many messages does not have the keys of others forgotten.
        self._copies: Answers[Deferred[Receipt]] = Answers()

    @property
    def life(self) -> int:
        """
        See `Log.life`.  It changes with each start that is not followed by `restore`.
        """
        return self._ids.life

    @property
    def trouble(self) -> str:
        """
        See `Log.trouble`: a log in memory has none.
        """
        return ""

    def numbers(self) -> LogNumbers:
        """
        See `Log.numbers`: a log in memory stores nothing.
        """
        return LogNumbers()

    def gave(self, id: Id) -> bool:
        """
        See `Log.gave`.

        Only the number of the id is compared, and not its time: after a crash, the time of
        the newest id may be earlier than that of ids that were given just before the crash
        and had not been written to a file.
        """
        zero = zero_id(self.life)
        return life_of(id) == self.life and id[1] <= max(self.history.newest, zero)[1]

    def awaited(self, id: Id) -> None:
        """
        None, because each message comes as soon as it has an id.
        """

    def follow(self, follower: Follower) -> None:
        """
        See `Log.follow`.
        """
        self._follower = follower

    def find(self, fingerprint: Fingerprint) -> Deferred[Receipt] | None:
        """
        See `Log.find`.
        """
        known = self._answers_like(fingerprint).find(fingerprint, self.seconds())
        return None if known is None else _follow(known)

    def append(
        self, message: Message, body: bytes, keep: bool, fingerprint: Fingerprint | None
    ) -> Receipt | Deferred[Receipt]:
        """
        See `Log.append`.  The message is delivered before this returns, unless it is called
        from within a delivery.
        """
        # The answer is remembered before the message is delivered, because a subscriber
        # could repeat the publication from within the delivery.
        known = None if fingerprint is None else self._remember(fingerprint)
        id = self._ids.next(int(self.seconds() * 1000))
        message = message.published(format_id(id), body)
        appended: Receipt | Deferred[Receipt]
        if self._delivering:
            # A message that is published from within a delivery waits until that delivery
            # has ended; otherwise some subscribers would get the two in reverse order.
            appended = Deferred()
            self._pending.append(_Pending(id, message, keep, fingerprint, appended))
        else:
            self._delivering = True
            try:
                self.history.add(id, message, keep)
                receipt = Receipt(message.id, self._follower.deliver(message))
                while self._pending:
                    self._deliver_pending(self._pending.popleft())
            finally:
                self._delivering = False
            appended = self.settle(id, keep, fingerprint, receipt)
        return appended if known is None else _share(appended, known)

    def forget(self, channel: str) -> Deferred[None] | None:
        """
        See `Log.forget`.
        """
        self.history.forget(channel)
        return None

    def settle(
        self, id: Id, keep: bool, fingerprint: Fingerprint | None, receipt: Receipt
    ) -> Receipt | Deferred[Receipt]:
        """
        What `append` returns for a message that was just delivered: here, the receipt.  A
        log that copies messages to somewhere else returns a Deferred, which fires with it
        once the message is there.
        """
        return receipt

    def restore(
        self, life: int, boundary: str, last: Id, answered: Iterable[Answered] = ()
    ) -> None:
        """
        Continue as an earlier log, which ran before a restart.

        Args:
            life: The `life` of that log.
            boundary: The `boundary` of that log.
            last: The last id that it may have given.
            answered: What it answered to publications with a key or an origin, the oldest
                first.
        """
        for fingerprint, id, subscribers in answered:
            receipt = succeed(Receipt(format_id(id), subscribers))
            self._answers_like(fingerprint).remember(fingerprint, id[0] / 1000, receipt)
        self.boundary = boundary
        self._ids.life, self._ids.last = life, last
        self.history.newest = last
        self.history.counted_from = last[1]

    def _answers_like(self, fingerprint: Fingerprint) -> Answers[Deferred[Receipt]]:
        """
        The table for fingerprints of the same kind.
        """
        return self._copies if fingerprint.is_of_origin else self._answers

    def _remember(self, fingerprint: Fingerprint) -> Deferred[Receipt]:
        """
        Remember the answer to a publication, which is given to the Deferred later.
        """
        done: Deferred[Receipt] = Deferred()
        self._answers_like(fingerprint).remember(fingerprint, self.seconds(), done)
        return done

    def _deliver_pending(self, pending: _Pending) -> None:
        id, message, keep, fingerprint, done = pending
        self.history.add(id, message, keep)
        receipt = Receipt(message.id, self._follower.deliver(message))
        settled = self.settle(id, keep, fingerprint, receipt)
        if isinstance(settled, Deferred):
            settled.addCallback(done.callback)
        else:
            done.callback(settled)


def _share(
    appended: Receipt | Deferred[Receipt], known: Deferred[Receipt]
) -> Receipt | Deferred[Receipt]:
    """
    What was appended, for the publisher and for those who repeat the publication.
    """
    if isinstance(appended, Deferred):
        appended.addCallback(known.callback)
        return _follow(known)
    known.callback(appended)
    return appended


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
