"""
The log of one process, in its memory and in a file that survives a restart: when it is
copied to the file, and what of it.

One thread writes, a batch at a time, so a slow or full disk holds up no message.  There is
no queue of what is to be written: each batch is found by comparing the history with what
the file has.  The file itself is up to `database`.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ..ids import ZERO, Id, format_id, parse_id
from ..message import Invalid, Message, Receipt
from .database import Batch, Database, explain
from .history import Changes, History
from .id_sequence import zero_id
from .idempotency import MAX_ANSWERS, SECONDS, Answered, Fingerprint
from .log import CannotLoad, LogNumbers
from .memory_log import MemoryLog

__all__ = ["FileLog"]

# The longest that the answer to a publication waits for the disk.
WAIT_SECONDS = 1.0

# After a failure, nothing is written, and no answer waits, for so long.
PAUSE_SECONDS = 5.0

# A batch has at most so many messages, and ends with the one that exceeds so many bytes of
# bodies.
BATCH_MESSAGES = 1000
BATCH_BYTES = 16 * 1024 * 1024

# After a start, numbers go on so much higher than what was written, because a process that
# was killed may have given ids that it had not written, and none may be given twice.
LEAP = 10**7


class FileLog(MemoryLog):
    """
    A log in memory of which a file has a copy.

    Args:
        file: Is made if there is none; another process must not use it.
        reactor: Twisted's.  `Any`, because it provides more interfaces than one type can
            name.
    """

    _log = Logger()

    def __init__(
        self,
        file: Path,
        reactor: Any,
        history: History | None = None,
        seconds: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(history, seconds)
        self.file = file
        self._reactor = reactor
        self._pool = ThreadPool(0, 1, "history")
        self._database = Database(file)
        # The answers to publications with a key or an origin that are not on the disk yet.
        # If there are too many, the oldest are removed.
        self._unwritten: deque[Answered] = deque(maxlen=MAX_ANSWERS)
        # All messages up to this id are on the disk.
        self._saved = ZERO
        # Publications that wait for the disk, by id.
        self._waiting: list[tuple[Id, Deferred[None]]] = []
        # Who waits until it is on the disk that the messages of a channel are deleted: by
        # the next batch, and by the one that is being written.
        self._forgetting: list[Deferred[None]] = []
        self._deleting: list[Deferred[None]] = []
        # Whether a batch is being written, or will be in the next turn of the reactor.
        self._writing = False
        self._retrying: IDelayedCall | None = None
        # No publication waits for the disk before this time, in seconds.
        self._failed_until = 0.0
        # What is wrong, as the operator was told; empty again after a success.
        self._trouble = ""
        # How many batches could not be written.
        self._failures = 0
        # Whether the next batch replaces everything in the file.
        self._rewrite = False

    @property
    def trouble(self) -> str:
        """
        See `Log.trouble`.
        """
        return self._trouble

    def numbers(self) -> LogNumbers:
        """
        See `Log.numbers`.
        """
        # Ids are given without gaps, also to messages that are not kept.
        unsaved = self.history.newest[1] - self._saved[1]
        return LogNumbers(unsaved=unsaved, failures=self._failures)

    def load(self) -> None:
        """
        Continue as the log in the file, and from now on write what is appended; nothing
        was appended yet.

        Raises:
            CannotLoad: The file cannot be read or written, or is not a history file.
        """
        try:
            self._database.open()
            self._restore()
        except (sqlite3.Error, OSError, Invalid, ValueError, KeyError) as error:
            raise CannotLoad(f"{explain(error)}: {self.file}") from error
        self._saved = self.history.newest
        self._pool.start()
        # The history may keep less than the file has; delete the rest from the file.
        self._schedule()

    def settle(
        self, id: Id, keep: bool, fingerprint: Fingerprint | None, receipt: Receipt
    ) -> Receipt | Deferred[Receipt]:
        """
        A Deferred that fires with the receipt once the message is on the disk.
        """
        if fingerprint is not None:
            self._unwritten.append((fingerprint, id, receipt.subscribers))
        # This is done for a message that is not kept, too: its id must be written, so that
        # it is not given again after a restart.
        saved = self._when_saved(id)
        return saved.addCallback(lambda _: receipt) if keep else receipt

    def forget(self, channel: str) -> Deferred[None]:
        """
        Delete the messages of a channel.

        Returns:
            A Deferred that fires once they are not on the disk any more.  It also fires
            after a second, and when the disk fails, which is logged.
        """
        self.history.forget(channel)
        if self._reactor.seconds() < self._failed_until:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._forgetting.append(done)
        self._schedule()

        def late(_: Failure) -> None:
            for waiting in (self._forgetting, self._deleting):
                if done in waiting:
                    waiting.remove(done)

        return done.addTimeout(WAIT_SECONDS, self._reactor).addErrback(late)

    def close(self) -> Deferred[None]:
        """
        Write what is not yet written, and close the file.

        Returns:
            A Deferred that fires when that is done, or has failed.
        """
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if not self._database.is_open:
            return
        # Try once more, even if writing failed just now.
        self._failed_until = 0.0
        while self._has_unwritten() and not self._failed_until:
            done: Deferred[None] = Deferred()
            self._waiting.append((self.history.newest, done))
            self._schedule()
            await done
        if self._retrying is not None and self._retrying.active():
            self._retrying.cancel()
        await deferToThreadPool(self._reactor, self._pool, self._database.close)
        self._pool.stop()

    def _when_saved(self, id: Id) -> Deferred[None]:
        """
        A Deferred that fires once the message with this id, and all before it, are on the
        disk.  It also fires after a second, and when the disk fails, which is logged.
        """
        if self._reactor.seconds() < self._failed_until:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append((id, done))
        self._schedule()

        def late(_: Failure) -> None:
            # The publication waits no longer; its message is written all the same.
            self._waiting[:] = [w for w in self._waiting if w[1] is not done]

        return done.addTimeout(WAIT_SECONDS, self._reactor).addErrback(late)

    def _restore(self) -> None:
        database, history = self._database, self.history
        meta = database.read_meta() or {
            "life": str(self.life),
            "boundary": self.boundary,
            "last": "0-0",
            "forgotten": "0-0",
        }
        life = int(meta["life"])
        last = parse_id(meta["last"])
        history.restore(parse_id(meta["forgotten"]), database.read_lost())
        history.unwritten = Changes()
        for id, message in database.read_messages():
            history.add(id, message)
            last = max(last, id)
        last = (last[0], max(last[1], zero_id(life)[1]) + LEAP)
        self.restore(life, meta["boundary"], last, database.read_answered())
        # At once: if this process is killed before it writes anything, the next one has to
        # leap from here.
        database.write_meta({**meta, "last": format_id(last)})

    def _has_unwritten(self) -> bool:
        changes = self.history.unwritten
        return (
            self._rewrite
            or self._saved < self.history.newest
            or (changes is not None and bool(changes.dropped))
        )

    def _schedule(self) -> None:
        """
        Write a batch in the next turn of the reactor, so that it has all messages that are
        published in this one.
        """
        if not self._writing:
            self._writing = True
            self._reactor.callLater(0, self._write_batch)

    def _write_batch(self) -> None:
        batch = self._make_batch()
        newest = self._newest(batch)
        done = deferToThreadPool(self._reactor, self._pool, self._database.write, batch)

        def finish(result: Any) -> None:
            self._writing = False
            if isinstance(result, Failure):
                self._fail(result, batch)
            else:
                self._succeed(newest)

        done.addBoth(finish)

    def _make_batch(self) -> Batch:
        history = self.history
        changes, history.unwritten = history.unwritten or Changes(), Changes()
        self._deleting, self._forgetting = self._forgetting, []
        saved = ZERO if self._rewrite else self._saved
        batch = Batch(
            self._rewrite,
            list(self._limited(history.after(saved))),
            changes.dropped,
            {**history.losses(), **changes.lost} if self._rewrite else changes.lost,
            {
                "last": format_id(history.newest),
                "forgotten": format_id(history.forgotten),
            },
            answers_from=int((self.seconds() - SECONDS) * 1000),
        )
        # An answer must not be on the disk before its message: after a crash, a repetition
        # would be answered though the message is lost.
        newest = self._newest(batch)
        while self._unwritten and self._unwritten[0][1] <= newest:
            batch.answered.append(self._unwritten.popleft())
        return batch

    def _newest(self, batch: Batch) -> Id:
        """
        The id up to which everything is on the disk once this batch is.
        """
        return batch.messages[-1][0] if batch.messages else self.history.newest

    def _limited(self, kept: Iterable[tuple[Id, Message]]) -> Iterator[tuple[Id, Message]]:
        """
        As many of these messages as one batch may have; all if it replaces everything in
        the file.
        """
        if self._rewrite:
            yield from kept
            return
        size = 0
        for id, message in islice(kept, BATCH_MESSAGES):
            yield id, message
            size += len(message.body)
            if size > BATCH_BYTES:
                return

    def _succeed(self, newest: Id) -> None:
        self._rewrite = False
        self._saved = newest
        if self._trouble:
            self._trouble = ""
            self._log.info("History is written to {file} again", file=self.file)
        ready = [done for id, done in self._waiting if id <= newest] + self._deleting
        self._deleting = []
        self._waiting = [waiting for waiting in self._waiting if waiting[0] > newest]
        for done in ready:
            done.callback(None)
        # Not only if somebody waits: messages whose publications have stopped waiting are
        # to be written too.
        if self._has_unwritten():
            self._schedule()

    def _fail(self, failure: Failure, batch: Batch) -> None:
        # The changes that were in the batch are gone from the history, so the next batch
        # cannot be a difference.
        self._rewrite = True
        self._failures += 1
        self._unwritten.extendleft(reversed(batch.answered))
        self._failed_until = self._reactor.seconds() + PAUSE_SECONDS
        self._retrying = self._reactor.callLater(PAUSE_SECONDS, self._schedule)
        if not self._trouble:
            self._trouble = (
                f"Cannot write history to {self.file}: {failure.getErrorMessage()}. The bus"
                " goes on, and writes it once it can; a restart before that loses what is"
                " not written"
            )
            self._log.warn("{trouble}", trouble=self._trouble)
        waiting = [done for _, done in self._waiting] + self._deleting + self._forgetting
        self._waiting, self._deleting, self._forgetting = [], [], []
        for done in waiting:
            done.callback(None)
