"""
History over a restart: a copy of what is kept, in a file of SQLite's.

What is written is found out from the history itself, in batches, by one thread of its
own; so a slow or full disk holds up no message, and nothing is queued twice.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
from ..message import Invalid, Message
from .bus import COUNT_DIGITS, MAX_LIFE, Answered, Bus
from .history import Changes
from .idempotency import MAX_ANSWERS, SECONDS, Fingerprint

__all__ = ["CannotLoad", "Store"]

# The longest that a publication waits for the disk, and how long it is left alone when
# it has failed.
WAIT_SECONDS = 1.0
PAUSE_SECONDS = 5.0

# The most that is written at once.
BATCH_MESSAGES = 1000
BATCH_BYTES = 16 * 1024 * 1024

# Ids that were given and not written, when the process was killed, are not given again.
LEAP = 10**7

_FORMAT = "1"

_SCHEMA = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE message (
    number INTEGER PRIMARY KEY,
    milliseconds INTEGER NOT NULL,
    channel TEXT NOT NULL,
    content_type TEXT NOT NULL,
    sender TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE lost (
    name TEXT PRIMARY KEY, milliseconds INTEGER NOT NULL, number INTEGER NOT NULL
) WITHOUT ROWID;
COMMIT;
"""

# Files that were made before there were answers have none.
_ANSWERS = """
CREATE TABLE IF NOT EXISTS answer (
    name BLOB PRIMARY KEY,
    body BLOB NOT NULL,
    milliseconds INTEGER NOT NULL,
    number INTEGER NOT NULL,
    subscribers INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answer_age ON answer (milliseconds);
"""


# What to do about what SQLite says.
_REMEDIES = {
    "locked": "another bus uses it; give each a file of its own",
    "Permission denied": "the user of the bus must be able to write it, and its folder",
    "No such file": "give a file in a folder that is there",
    "Is a directory": "give a file, not a folder",
    "not a database": "give another file",
    "readonly": "the user of the bus must be able to write it, and its folder",
}

# What was just passing is known to be lost before what is older may be.
_SET_LOST = """
INSERT INTO lost VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE
SET milliseconds = excluded.milliseconds, number = excluded.number
WHERE excluded.number > number
"""

_SET_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


class CannotLoad(Exception):
    """
    The file cannot be used.  The text says why.
    """


@dataclass
class _Batch:
    """
    What is written in one transaction.
    """

    anew: bool
    messages: list[tuple[Id, Message]]
    dropped: list[Id]
    lost: list[tuple[str, Id | None]]
    meta: dict[str, str] = field(default_factory=dict)
    answered: list[Answered] = field(default_factory=list)
    # Those before this are not needed any more, in milliseconds since 1970.
    answers_from: int = 0


class Store:
    """
    Keeps a copy of a bus's history in a file.

    Args:
        file: Is made if there is none; another process must not use it.
        bus: Whose history it is, and that of the one before.
        reactor: Twisted's, which provides more interfaces than have a name.
    """

    _log = Logger()

    def __init__(self, file: Path, bus: Bus, reactor: Any) -> None:
        self.file = file
        self._bus = bus
        self._history = bus.history
        self._reactor = reactor
        self._pool = ThreadPool(0, 1, "history")
        self._connection: sqlite3.Connection | None = None
        # All up to this is on disk.
        self._saved = ZERO
        self._waiting: list[tuple[Id, Deferred[None]]] = []
        self._writing = False
        self._retrying: IDelayedCall | None = None
        self._failed_until = 0.0
        self._failing = False
        self._anew = False

    def load(self) -> None:
        """
        Give the bus, of which nothing is published yet, the history, the life and the
        boundary of the one before, and write what it publishes from now on.

        Raises:
            CannotLoad: The file cannot be read or written, or is none of ours.
        """
        try:
            self._connection = self._connect()
            self._restore(self._connection)
        except (sqlite3.Error, OSError, Invalid, ValueError, KeyError) as error:
            raise CannotLoad(_reason(error)) from error
        self._saved = self._history.newest
        self._pool.start()
        self._bus.saved = self.saved
        # What there was, and may not be kept any more.
        self._write_on()

    def saved(self, id: Id) -> Deferred[None]:
        """
        A Deferred that fires once the message with this id is on disk, and all before;
        or after a second, or if the disk has failed, of which the log tells.
        """
        if self._reactor.seconds() < self._failed_until:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append((id, done))
        self._write_on()

        def late(_: Failure) -> None:
            # Given up: the batch goes on without it.
            self._waiting[:] = [w for w in self._waiting if w[1] is not done]

        return done.addTimeout(WAIT_SECONDS, self._reactor).addErrback(late)

    def close(self) -> Deferred[None]:
        """
        Write what is not yet written, and close the file.

        Returns:
            A Deferred that fires when that is done, or has failed.
        """
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._connection is None:
            return
        # Once more, though it may have failed just now.
        self._failed_until = 0.0
        while self._owing() and not self._failed_until:
            done: Deferred[None] = Deferred()
            self._waiting.append((self._history.newest, done))
            self._write_on()
            await done
        if self._retrying is not None and self._retrying.active():
            self._retrying.cancel()
        await deferToThreadPool(self._reactor, self._pool, self._connection.close)
        self._connection = None
        self._pool.stop()

    def _owing(self) -> bool:
        return self._anew or self._saved < self._history.newest

    def _write_on(self) -> None:
        if not self._writing:
            # What is published in this turn of the reactor is one batch.
            self._writing = True
            self._reactor.callLater(0, self._write_batch)

    def _write_batch(self) -> None:
        batch = self._batch()
        newest = self._newest(batch)
        done = deferToThreadPool(self._reactor, self._pool, self._write, batch)

        def finish(result: Any) -> None:
            self._writing = False
            if isinstance(result, Failure):
                self._fail(result, batch)
            else:
                self._succeed(newest)

        done.addBoth(finish)

    def _batch(self) -> _Batch:
        history = self._history
        changes, history.unwritten = history.unwritten or Changes(), Changes()
        lost = {**history.lost_ids, **changes.lost} if self._anew else changes.lost
        batch = _Batch(
            self._anew,
            list(self._first(history.after(ZERO if self._anew else self._saved))),
            changes.dropped,
            list(lost.items()),
            {
                "last": format_id(history.newest),
                "forgotten": format_id(history.forgotten),
            },
            answers_from=self._bus.milliseconds() - SECONDS * 1000,
        )
        # An answer is not known before its message.
        newest = self._newest(batch)
        while self._bus.unwritten and self._bus.unwritten[0][1] <= newest:
            batch.answered.append(self._bus.unwritten.popleft())
        return batch

    def _newest(self, batch: _Batch) -> Id:
        """
        The id up to which all is on disk, once this batch is.
        """
        return batch.messages[-1][0] if batch.messages else self._history.newest

    def _first(self, kept: Iterable[tuple[Id, Message]]) -> Iterator[tuple[Id, Message]]:
        if self._anew:
            yield from kept
            return
        size = 0
        for id, message in islice(kept, BATCH_MESSAGES):
            yield id, message
            size += len(message.body)
            if size > BATCH_BYTES:
                return

    def _succeed(self, newest: Id) -> None:
        self._anew = False
        self._saved = newest
        if self._failing:
            self._failing = False
            self._log.info("History is written to {file} again", file=self.file)
        ready = [done for id, done in self._waiting if id <= newest]
        self._waiting = [waiting for waiting in self._waiting if waiting[0] > newest]
        for done in ready:
            done.callback(None)
        # Some may have waited in vain, but what they published is to be written.
        if self._owing():
            self._write_on()

    def _fail(self, failure: Failure, batch: _Batch) -> None:
        # What the batch was to drop is not known any more.
        self._anew = True
        if self._bus.unwritten is not None:
            self._bus.unwritten.extendleft(reversed(batch.answered))
        self._failed_until = self._reactor.seconds() + PAUSE_SECONDS
        self._retrying = self._reactor.callLater(PAUSE_SECONDS, self._write_on)
        if not self._failing:
            self._failing = True
            self._log.warn(
                "Cannot write history to {file}: {error}. The bus goes on, and writes it"
                " once it can; a restart before that loses what is not written",
                file=self.file,
                error=failure.getErrorMessage(),
            )
        waiting, self._waiting = self._waiting, []
        for _, done in waiting:
            done.callback(None)

    # In the thread.

    def _write(self, batch: _Batch) -> None:
        connection = self._connection
        if connection is None:
            return
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if batch.anew:
                connection.execute("DELETE FROM message")
                connection.execute("DELETE FROM lost")
            connection.executemany(
                "INSERT OR REPLACE INTO message VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (id[1], id[0], m.channel, m.content_type, m.sender, m.body)
                    for id, m in batch.messages
                ),
            )
            connection.executemany(
                "DELETE FROM message WHERE number = ?", ((id[1],) for id in batch.dropped)
            )
            connection.executemany(
                _SET_LOST,
                ((name, *id) for name, id in batch.lost if id is not None),
            )
            connection.executemany(
                "DELETE FROM lost WHERE name = ?",
                ((name,) for name, id in batch.lost if id is None),
            )
            connection.executemany(_SET_META, batch.meta.items())
            connection.executemany(
                "INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?)",
                (
                    (f.name, f.body, *id, subscribers)
                    for f, id, subscribers in batch.answered
                ),
            )
            connection.execute(
                "DELETE FROM answer WHERE milliseconds < ?", (batch.answers_from,)
            )
        if batch.dropped or batch.anew:
            connection.execute("PRAGMA incremental_vacuum").fetchall()

    def _connect(self) -> sqlite3.Connection:
        # For its user only, as are the files that SQLite puts beside it.
        os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(
            self.file, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            # Two buses in one file would give the same ids.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            if not connection.execute("PRAGMA schema_version").fetchone()[0]:
                connection.executescript(_SCHEMA)
            # On disk means on disk.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {BATCH_BYTES}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _restore(self, connection: sqlite3.Connection) -> None:
        history, bus = self._history, self._bus
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not {"meta", "message", "lost"} <= names:
            raise ValueError("it is a database of something else: give another file")
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        if meta and meta.get("format") != _FORMAT:
            raise ValueError("another version of msgbus has written it: give another file")
        meta = meta or {
            "format": _FORMAT,
            "life": str(secrets.randbelow(MAX_LIFE)),
            "boundary": bus.boundary,
            "last": "0-0",
            "forgotten": "0-0",
        }
        connection.executescript(_ANSWERS)
        life = int(meta["life"])
        last = parse_id(meta["last"])
        lost = connection.execute("SELECT name, milliseconds, number FROM lost")
        history.restore(
            parse_id(meta["forgotten"]), {name: (ms, n) for name, ms, n in lost}
        )
        history.unwritten = Changes()
        rows = connection.execute(
            "SELECT milliseconds, number, channel, content_type, sender, body"
            " FROM message ORDER BY number"
        )
        for milliseconds, number, channel, content_type, sender, body in rows:
            message = Message(channel, body, content_type, sender)
            id = (milliseconds, number)
            history.add(id, message.published(format_id(id)))
            last = max(last, id)
        number = max(last[1], life * 10**COUNT_DIGITS) + LEAP
        answered = connection.execute(
            "SELECT name, body, milliseconds, number, subscribers FROM answer"
            " ORDER BY number"
        )
        bus.restore(
            life,
            meta["boundary"],
            (last[0], number),
            ((Fingerprint(n, b), (ms, id), count) for n, b, ms, id, count in answered),
        )
        bus.unwritten = deque(maxlen=MAX_ANSWERS)
        # At once: who is killed before he writes leaps from here the next time.
        meta["last"] = format_id((last[0], number))
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_SET_META, meta.items())


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    for part, remedy in _REMEDIES.items():
        if part in text:
            return f"{text}: {remedy}"
    return text
