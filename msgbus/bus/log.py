"""
The log of a bus: what gives messages their order and their ids, keeps them, and recognizes
publications that are repeated.

This is the seam between a bus and where its messages are.  `memory_log` is the log of one
process, and `file_log` one that survives it.  The log of many processes has a room of its
own, `redis`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from ..ids import Id
from ..message import Message, Receipt
from .history import History
from .idempotency import Fingerprint

__all__ = ["CannotLoad", "Follower", "Log", "LogNumbers", "StoredLog", "Unavailable"]


class Follower(NamedTuple):
    """
    What a log tells the bus.

    Attributes:
        deliver: Delivers a message to all subscribers, and returns how many there are.
        count: Returns how many subscribers a message has.
        miss: Tells all subscribers that messages may be missing here, and that nobody knows
            how many.
    """

    deliver: Callable[[Message], int]
    count: Callable[[Message], int]
    miss: Callable[[], object]


class LogNumbers(NamedTuple):
    """
    How far the place where messages are stored lags behind.

    Attributes:
        unsaved: How many messages were published here and are not stored yet.
        unread: How many messages are stored by other processes that this one has not got
            yet, as far as it knows.
        failures: How often storing has failed since the start.
    """

    unsaved: int = 0
    unread: int = 0
    failures: int = 0


class Log(Protocol):
    """
    Puts messages in order, and keeps them.

    Attributes:
        boundary: A random text that no published message contains, so that it can separate
            the messages of a multipart stream (RFC 2046, section 5.1.1) and nobody can
            forge a part.
        history: The messages that are kept.  They are added to it in their order, each
            just before it is delivered.
        is_shared: Whether other processes may append to it, too.
        seconds: Tells the time, in seconds since 1970.
    """

    boundary: str
    history: History
    is_shared: bool
    seconds: Callable[[], float]

    @property
    def trouble(self) -> str:
        """
        A sentence that says why messages cannot be kept as they should be; empty if they
        can.
        """

    def numbers(self) -> LogNumbers:
        """
        How far storing lags behind now.
        """

    @property
    def life(self) -> int:
        """
        A random number that is part of every id.  It tells the ids of this log from those
        of others, and from those before everything in it was lost.
        """

    def gave(self, id: Id) -> bool:
        """
        Was this id given in this life of the log?  If the message was delivered by another
        process, it need not have been delivered here.
        """

    def awaited(self, id: Id) -> Callable[[], bool] | None:
        """
        Is the message with this id, which was given in this life, still to come to this
        process?

        Returns:
            None if it has come.  Otherwise a function that tells whether it may still come:
            true as long as the process does not know better.
        """

    def follow(self, follower: Follower) -> None:
        """
        From now on, have each message delivered, in order.
        """

    def find(self, fingerprint: Fingerprint) -> Deferred[Receipt] | None:
        """
        What was answered to the same publication before: None if there was none, or if only
        `append` can tell.

        Returns:
            A Deferred of the caller's own, which fires with the receipt of the first
            publication, and no sooner than for the first publisher.

        Raises:
            Reused: The publication with the same key had another body.
        """

    def append(
        self, message: Message, body: bytes, keep: bool, fingerprint: Fingerprint | None
    ) -> Receipt | Deferred[Receipt]:
        """
        Give a message its id and its place behind all others, keep it, and deliver it.

        Args:
            message: Its own body is ignored.
            body: The body that is published.
            keep: Whether the history may keep the message.
            fingerprint: What recognizes repetitions of the publication, if anything does;
                it was looked for by `find`.

        Returns:
            The receipt, or a Deferred of the caller's own that fires with it once it is
            certain that the message has its place.  Only if that has to be asked of
            another process, the Deferred can fail, with one of the errors below.

        Raises:
            Unavailable: The log cannot be reached now.
            Reused: The publication with the same key had another body; see `find`.
        """

    def forget(self, channel: str) -> Deferred[None] | None:
        """
        Keep none of the messages of a channel that were appended before.

        Returns:
            None if that is done, or a Deferred that fires once it is certain.  Only if that
            has to be asked of another process, the Deferred can fail, with `Unavailable`.

        Raises:
            Unavailable: The log cannot be reached now.
        """


class StoredLog(Log, Protocol):
    """
    A log that survives the process.
    """

    def load(self) -> None:
        """
        Continue as the log that was stored by an earlier process, before anything is
        appended or read.  This blocks.

        Raises:
            CannotLoad: That is impossible.
        """

    def close(self) -> Deferred[None]:
        """
        Store what is not stored yet, and nothing more after that.

        Returns:
            A Deferred that fires when that is done, or has failed.
        """


class Unavailable(Exception):
    """
    The log cannot be reached.  It is not known whether the message is published; its
    publisher may try again in a moment, with the same key if it had one.
    """


class CannotLoad(Exception):
    """
    A log cannot be used.  The text says which, and why, in one sentence for the operator.
    """
