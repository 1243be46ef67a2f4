"""
The log of many processes: a stream in Redis, which each of them appends to and follows.

The messages of the whole bus are in one stream, under their ids, which Redis gives.  Each
process, a node, reads the stream from its beginning when it starts, keeps the same history
of it in memory as a log in memory does, and then follows it.  So order, ids, limits and
repetitions are those of the whole bus, and what subscribers ask of the history is answered
as fast as on one process.  Redis, which has one thread for all nodes, is read once by each
node and not once for each request, also in the minute in which everybody comes back.  The
price is that each node has the whole history in memory.

What history drops is deleted from the stream, by the node that has appended the message for
which it was dropped; not at once, because other nodes may not have read it.  What a node
that is killed has not deleted yet, the next node that starts deletes.  So Redis needs no
index of channels, and a flood of one channel takes nothing away from another.

If this Redis is not the one that it was (it was emptied, or has lost the latest messages in
a failover), the log begins a new life: the history is read again, and all subscribers are
told that messages may be missing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..bus.history import Changes, History
from ..bus.id_sequence import zero_id
from ..bus.idempotency import REUSED, Fingerprint, Reused
from ..bus.log import Follower, LogNumbers
from ..ids import COUNT_DIGITS, ZERO, Id, format_id, life_of, parse_id
from ..message import Message, Receipt
from .address import RedisAddress
from .appender import RedisAppender
from .connection import RedisConnection, RedisError
from .follower import Entry, RedisFollower
from .link import RedisLink, run
from .loader import Foreign, extra_of, load, read_entry, read_mark
from .scripts import CHECK, MARK
from .trimmer import RedisTrimmer

__all__ = ["RedisLog"]

# How often a node asks whether the log is still the one that it follows, and how long Redis
# may take to answer.
CHECK_SECONDS = 2.0
LATE_SECONDS = 3.0

# At most once in so many seconds it is logged that entries of the stream are no messages.
WARN_SECONDS = 60.0

# A node that is behind at one check may just be reading; after so many checks without a
# new message it gets nothing.
STUCK_CHECKS = 2

# A stop waits so long for what was published.
CLOSE_SECONDS = 5.0

# How long one who has a channel forgotten waits until this node has read the mark of it.
MARK_SECONDS = 1.0

# About how many bytes an entry takes in Redis beyond the body.
ENTRY_OVERHEAD = 200

# If the number of an id of this life is larger than the newest that this node has seen, but
# at most by this much, the id is believed, and its message is taken to be still on its way.
MAX_AHEAD = 1_000_000


class RedisLog:
    """
    A log in Redis; see `StoredLog`.

    Args:
        address: Where it is.
        reactor: Twisted's.  `Any`, because it provides more interfaces than one type can
            name.
        history: Keeps the messages that this node has read.
        seconds: Tells the time, in seconds since 1970.
        settings: By the name of an option, its value, for those that should be the same at
            all nodes.  If they differ, a warning is logged at the start.
    """

    is_shared = True
    _log = Logger()

    def __init__(
        self,
        address: RedisAddress,
        reactor: Any,
        history: History | None = None,
        seconds: Callable[[], float] = time.time,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.boundary = "msgbus" + secrets.token_hex(16)
        self.history = history or History()
        self.history.unwritten = Changes()
        self.life = 0
        self._address = address
        self._settings = settings or {}
        self._reactor = reactor
        self.seconds = seconds
        self._follower = Follower(lambda _: 0, lambda _: 0, lambda: None)
        self._appender = RedisAppender(address, reactor, self._check)
        self._trimmer = RedisTrimmer(address.stream, reactor)
        self._entries = RedisFollower(address, reactor, self._take)
        self._link = RedisLink(address, reactor, self._connected)
        self._checking = LoopingCall(self._check)
        self._checking.clock = reactor
        # The connection on which `CHECK` has not been answered yet, if there is one.
        self._asked: RedisConnection | None = None
        # The last connection on which it was answered.
        self._checked_connection: RedisConnection | None = None
        # The largest id of this life that this node has seen, in whatever way.
        self._seen = ZERO
        # Whether Redis has lost messages that this node has seen, and has given their
        # numbers to others.
        self._forked = False
        # How many checks were begun; which of them was the last that was answered, and the
        # number of the newest id that it told.
        self._checks = self._answered = self._last = 0
        # The number of the last message of this life that was read; None if the next one is
        # the first that this node reads of it.
        self._read: int | None = None
        # The value of `_read` at the last check, and at how many checks in a row it has not
        # changed although there are newer messages.
        self._read_before: int | None = None
        self._stuck = 0
        # The newest mark that was read, and who waits until others are.
        self._marked = ZERO
        self._marks: dict[Id, Deferred[None]] = {}
        # When it may be logged again that entries are no messages.
        self._warn_again = 0.0

    @property
    def trouble(self) -> str:
        """
        See `Log.trouble`.
        """
        if self._link.connection is None:
            return f"Cannot reach {self._address}."
        if self._stuck >= STUCK_CHECKS:
            return "This node does not get what other nodes publish."
        return ""

    def numbers(self) -> LogNumbers:
        """
        See `Log.numbers`.  How many messages this node has not read is what it knew at the
        last check, two seconds ago at most while Redis answers.
        """
        return LogNumbers(
            unsaved=self._appender.waiting,
            unread=0 if self._read is None else max(0, self._last - self._read),
            failures=self._appender.failures + self._link.failures,
        )

    def gave(self, id: Id) -> bool:
        """
        See `Log.gave`.
        """
        return life_of(id) == self.life and id[1] - self._seen[1] <= MAX_AHEAD

    def awaited(self, id: Id) -> Callable[[], bool] | None:
        """
        See `Log.awaited`.  Redis is asked which id is the newest; until it has answered,
        the message may come.
        """
        newest = self.history.newest
        if life_of(newest) == self.life and id[1] <= newest[1]:
            return None
        asked = self._checks
        self._check()
        return lambda: self._answered <= asked or id[1] <= self._last

    def follow(self, follower: Follower) -> None:
        """
        See `Log.follow`.
        """
        self._follower = follower

    def find(self, fingerprint: Fingerprint) -> None:
        """
        See `Log.find`.  Always None: only Redis knows what was published before, and
        `append` asks it.
        """

    def load(self) -> None:
        """
        Read what is in the stream, and follow it from now on; see `StoredLog.load`.

        Raises:
            CannotLoad: Redis cannot be reached or used.
        """
        found = load(self._address, self.boundary, self.history, self._settings)
        self.life, self.boundary = found.life, found.boundary
        self._appender.life = self.life
        self._seen = self.history.newest
        self._read = self._seen[1]
        for warning in found.warnings:
            self._log.warn("{warning}", warning=warning)
        self._trim(found.unkept)
        self._link.start()
        self._entries.start(self.history.newest)
        self._trimmer.start()
        self._checking.start(CHECK_SECONDS, now=False)

    def append(
        self, message: Message, body: bytes, keep: bool, fingerprint: Fingerprint | None
    ) -> Deferred[Receipt]:
        """
        See `Log.append`.  The Deferred fires when Redis has the message.  Then it is
        delivered to the subscribers of each node, as soon as the node has read it; the
        receipt tells how many this node has.
        """
        name = digest = ""
        if fingerprint is not None:
            name, digest = fingerprint.name.hex(), fingerprint.body.hex()
        arguments = (
            name,
            digest,
            self._appender.node,
            message.channel,
            message.content_type,
            message.sender,
            message.origin,
            int(keep),
            body,
            extra_of(message),
        )
        answered = self._appender.append(arguments, len(body))
        return answered.addCallback(self._receipt, message, len(body))

    def forget(self, channel: str) -> Deferred[None]:
        """
        See `Log.forget`.  Redis gets a mark behind the messages of the channel, and each
        node forgets them when it reads the mark.  The Deferred fires when this node has
        read it, or a second after Redis has it.
        """
        arguments = ("", "", self._appender.node, channel, "", "", "", MARK, b"", "")
        return self._appender.append(arguments, 0).addCallback(self._when_marked)

    def _when_marked(self, answer: str) -> Deferred[None] | None:
        id = parse_id(answer)
        if id <= self._marked:
            return None
        done: Deferred[None] = Deferred()
        self._marks[id] = done

        def late(_: Failure) -> None:
            del self._marks[id]

        return done.addTimeout(MARK_SECONDS, self._reactor).addErrback(late)

    def close(self) -> Deferred[None]:
        """
        See `StoredLog.close`.
        """
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if not self._checking.running:
            return
        deadline = self._reactor.seconds() + CLOSE_SECONDS
        while not self._appender.is_idle and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.02)
        self._checking.stop()
        self._trimmer.stop()
        self._entries.stop()
        self._link.stop()

    def _receipt(self, answer: str, message: Message, size: int) -> Receipt:
        if answer == "!":
            raise Reused(REUSED)
        id = answer.removeprefix("=")
        parsed = parse_id(id)
        if life_of(parsed) == self.life:
            self._see(parsed)
            if id == answer and parsed[1] > (self._read or 0):
                self._appender.add_unread(parsed[1], size)
        return Receipt(id, self._follower.count(message), answer.startswith("="))

    def _connected(self, connection: RedisConnection) -> None:
        # Nothing more is read before it is known whether this server has what was read so
        # far.  The follower may be connected to another server, or to one that has lost
        # messages, which would get into the history here and nowhere else.
        self._entries.stop()
        self._check()

    def _check(self) -> None:
        """
        See whether the log in Redis is the one that this node knows.
        """
        self.history.expire(int(self.seconds() * 1000))
        self._trim()
        connection = self._link.connection
        if connection is None or connection is self._asked:
            return
        self._asked = connection
        self._checks += 1
        count = self._seen[1] - zero_id(self.life)[1]
        if self._forked:
            # More than there can be, so that a new life begins.
            count = 10**COUNT_DIGITS
        life = secrets.randbelow(900_000) + 100_000
        checked = run(
            connection,
            CHECK,
            (f"{self._address.stream}:meta", self._address.stream),
            (life, self.boundary, self.life, count, format_id(self._seen)),
            LATE_SECONDS,
        )
        checked.addCallback(self._checked, connection, self._checks)
        checked.addErrback(self._unchecked, self._reactor.seconds())

    def _checked(
        self, reply: list[bytes], connection: RedisConnection, number: int
    ) -> None:
        self._asked = None
        life = int(reply[0])
        if life != self.life:
            self._begin_life(life, reply[1].decode())
        last = int(reply[3]), zero_id(life)[1] + int(reply[2])
        self._answered, self._last = number, last[1]
        self._look_behind(last)
        if connection is not self._checked_connection:
            self._checked_connection = connection
            self._entries.connect(connection.server)
        self._appender.resume(connection)
        self._trimmer.resume(connection)

    def _see(self, id: Id) -> bool:
        """
        Note that this id of this life was given.

        Returns:
            Whether it belongs to the log that this node knows.  Ids and the numbers in them
            grow together.  If they do not, Redis has lost messages, and another node, which
            did not know them, has appended others under the same numbers.
        """
        seen = self._seen
        if id != seen and (id > seen) != (id[1] > seen[1]):
            self._forked = True
            self._check()
        elif id > seen:
            self._seen = id
        return not self._forked

    def _look_behind(self, last: Id) -> None:
        """
        Act if this node has read nothing since the last checks although there are newer
        messages: at the second such check, connect anew; at the fourth, take it that they
        were deleted before this node could read them.

        Args:
            last: The last id that Redis has given.
        """
        if self._read is None or self._read >= last[1]:
            self._stuck = 0
            return
        self._stuck = self._stuck + 1 if self._read == self._read_before else 1
        self._read_before = self._read
        if self._stuck == STUCK_CHECKS:
            self._log.warn(
                "This node is {count} messages behind, and reads none: connecting anew",
                count=last[1] - self._read,
            )
            self._entries.restart(self.history.newest)
        elif self._stuck == 2 * STUCK_CHECKS:
            self._lose_until(last)
            self.history.newest = last
            self._read = last[1]
            self._appender.read(last[1])

    def _lose_until(self, id: Id) -> None:
        """
        Tell subscribers, and those who resume later, that messages up to this id were
        deleted from the stream before this node had read them.
        """
        self._log.warn("This node was too slow, and missed messages")
        self.history.lose_until(id)
        self._follower.miss()

    def _unchecked(self, failure: Failure, asked: float) -> None:
        self._asked = None
        if failure.check(ConnectionLost):
            # If the connection has ended for another reason, the link tells if it cannot
            # connect again.
            if self._reactor.seconds() - asked >= LATE_SECONDS:
                self._log.warn(
                    "Redis has not answered for {seconds:g} seconds: connecting anew",
                    seconds=LATE_SECONDS,
                )
        elif failure.check(RedisError):
            self._log.warn("Redis answers with an error: {error}", error=failure.value)
        else:
            self._log.failure("Cannot check the log in Redis", failure)

    def _begin_life(self, life: int, boundary: str) -> None:
        """
        The log in Redis is another one, or has lost messages: read it from its beginning,
        and tell all subscribers that messages may be missing.
        """
        self._log.warn(
            "{address} has lost messages, or is another one: subscribers are told that"
            " some may be missing",
            address=self._address,
        )
        self.life = life
        self._appender.begin_life(life)
        self.boundary = boundary
        self._seen = zero_id(life)
        self._forked = False
        self._read = None
        self.history.start_over(self._seen[1])
        self.history.unwritten = Changes()
        self._trimmer.forget()
        self._entries.restart(ZERO)
        self._follower.miss()

    def _take(self, entry: Entry) -> None:
        """
        Keep and deliver an entry of the stream.
        """
        try:
            id, message, keep, node = read_entry(entry)
        except Foreign as error:
            if (mark := read_mark(entry)) is None:
                self._leave_out(error)
            else:
                self._forget(*mark)
            return
        if life_of(id) != self.life or not self._see(id):
            # Either the log is read again from its beginning, and this entry is of an
            # earlier life; or it shows that a later life has begun or has to begin, which
            # the check finds out.
            self.history.add(id, message, keep)
            if self._read is not None:
                self._check()
            return
        before = zero_id(self.life)[1] if self._read is None else self._read
        if id[1] != before + 1:
            self._lose_until((id[0], id[1] - 1))
        self._read = id[1]
        self._trim()
        self.history.add(id, message, keep)
        if node == self._appender.node:
            kept = keep and self.history.keep.count
            self._trim(() if kept else (id,), len(message.body) + ENTRY_OVERHEAD)
        else:
            # The node that has appended it deletes what was dropped for it.
            self.history.unwritten = Changes()
        self._follower.deliver(message)
        self._appender.read(id[1])

    def _forget(self, id: Id, channel: str, node: str) -> None:
        """
        Forget the messages of a channel that came before the mark with this id.
        """
        self._trim()
        size = self.history.forget(channel)
        self._marked = max(id, self._marked)
        if (done := self._marks.pop(id, None)) is not None:
            done.callback(None)
        if node == self._appender.node:
            # The mark comes behind the messages, so it is deleted after them.
            self._trim((id,), size)
        else:
            self.history.unwritten = Changes()

    def _leave_out(self, error: Foreign) -> None:
        """
        Log that an entry is no message, once in a while: there may be many of them.  If it
        has the number of a message, the next message tells that one is missing.
        """
        now = self._reactor.seconds()
        if now >= self._warn_again:
            self._warn_again = now + WARN_SECONDS
            self._log.warn(
                "Entries of the stream are no messages of this version of msgbus, and are"
                " left out: {error}",
                error=error,
            )

    def _trim(self, others: Sequence[Id] = (), size: int = 0) -> None:
        """
        Have the trimmer delete what the history has dropped, and the entries with these
        other ids.

        Args:
            size: About how many bytes that frees in Redis: the size of the message that
                caused it.
        """
        changes = self.history.unwritten
        if changes is None or not (changes.dropped or changes.lost or others):
            return
        self.history.unwritten = Changes()
        self._trimmer.add((*changes.dropped, *others), changes.lost, size)
