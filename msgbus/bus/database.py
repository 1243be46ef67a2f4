"""
The SQLite file to which history is copied: its tables, and how they are read and written.

Everything here blocks.  When to write, and what, is up to `file_log`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..headers import headers_from_json, headers_to_json
from ..ids import Id, format_id
from ..message import Message
from .idempotency import Answered, Fingerprint

__all__ = ["Batch", "Database", "explain"]

# How long opening waits for another process that uses the file.
LOCK_SECONDS = 1.0

# The size to which SQLite cuts its write-ahead log back.
MAX_JOURNAL_BYTES = 16 * 1024 * 1024

# Files of older formats lack some of `_ADDED`, and get them when they are opened.
_FORMAT = "3"
_OLDER_FORMATS = {"1", "2"}

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
    body BLOB NOT NULL,
    origin TEXT NOT NULL DEFAULT '',
    headers TEXT NOT NULL DEFAULT '',
    max_age INTEGER
);
CREATE TABLE lost (
    name TEXT PRIMARY KEY, milliseconds INTEGER NOT NULL, number INTEGER NOT NULL
) WITHOUT ROWID;
COMMIT;
"""

# Columns that were added later, in their order.
_ADDED = {
    "origin": "TEXT NOT NULL DEFAULT ''",
    "headers": "TEXT NOT NULL DEFAULT ''",
    "max_age": "INTEGER",
}

# This table is not in the schema, because files of older versions lack it, and get it when
# they are opened.
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

# Losses do not come in the order of ids: that of a transient message is written when it is
# published, and older messages may be dropped later.  The newest id counts.
_SET_LOST = """
INSERT INTO lost VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE
SET milliseconds = excluded.milliseconds, number = excluded.number
WHERE excluded.number > number
"""

# By name, because the columns of an older file have another order.
_ADD_MESSAGE = """
INSERT OR REPLACE INTO message (
    number, milliseconds, channel, content_type, sender, body, origin, headers, max_age
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_SET_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"

# What an operator can do about an error, by a part of its text.
_REMEDIES = {
    "locked": "another bus uses it; give each a file of its own",
    "Permission denied": "the user of the bus must be able to write it, and its folder",
    "No such file": "give a file in a folder that is there",
    "Is a directory": "give a file, not a folder",
    "not a database": "give another file",
    "readonly": "the user of the bus must be able to write it, and its folder",
}


@dataclass
class Batch:
    """
    What is written in one transaction.

    Attributes:
        rewrite: Whether to delete all messages and losses first, because the batch has all
            that there are.
        messages: Messages to add.
        dropped: Ids of messages to delete.
        lost: By name, the newest id that was lost; None to delete the name.  See
            `Changes.lost`.
        meta: Values to set.
        answered: Answers to add.
        answers_from: Answers before this time, in milliseconds since 1970, are deleted.
    """

    rewrite: bool
    messages: list[tuple[Id, Message]]
    dropped: list[Id]
    lost: dict[str, Id | None]
    meta: dict[str, str] = field(default_factory=dict)
    answered: list[Answered] = field(default_factory=list)
    answers_from: int = 0


class Database:
    """
    A file with the history of one bus.

    It is opened and read in one thread, and may then be used in another, by one thread at
    a time.

    Args:
        file: Is made if there is none.  Another process must not use it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        """
        Is it opened and not closed?
        """
        return self._connection is not None

    def open(self) -> None:
        """
        Open the file, and make the tables and columns that it lacks.

        Raises:
            OSError: The file cannot be read and written.
            sqlite3.Error: The same, it is not an SQLite file, or another process uses it.
            ValueError: It is a database of something else, or of a later version of msgbus.
        """
        # Readable for its user only, as are the files that SQLite puts beside it.
        os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(
            self._file, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(self._connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """
        Close the file.  Closing twice is no error.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def read_meta(self) -> dict[str, str]:
        """
        The values by name; none if the file is new.
        """
        return dict(self._opened().execute("SELECT name, value FROM meta"))

    def read_lost(self) -> dict[str, Id]:
        """
        The newest lost id of each channel and folder; see `History.lost_ids`.
        """
        rows = self._opened().execute("SELECT name, milliseconds, number FROM lost")
        return {name: (milliseconds, number) for name, milliseconds, number in rows}

    def read_messages(self) -> Iterator[tuple[Id, Message]]:
        """
        All messages, in the order of their ids.

        Raises:
            Invalid: One of them cannot be a message.
        """
        rows = self._opened().execute(
            "SELECT milliseconds, number, channel, body, content_type, sender, origin,"
            " headers, max_age FROM message ORDER BY number"
        )
        for milliseconds, number, channel, body, *rest in rows:
            content_type, sender, origin, headers, max_age = rest
            id = (milliseconds, number)
            message = Message(
                channel,
                body,
                content_type,
                sender,
                origin=origin,
                headers=headers_from_json(headers),
                max_age=max_age,
            )
            yield id, message.published(format_id(id))

    def read_answered(self) -> Iterator[Answered]:
        """
        All answers, in the order of the ids of their messages.
        """
        rows = self._opened().execute(
            "SELECT name, body, milliseconds, number, subscribers FROM answer"
            " ORDER BY number"
        )
        for name, body, milliseconds, number, subscribers in rows:
            yield Fingerprint(name, body), (milliseconds, number), subscribers

    def write_meta(self, meta: Mapping[str, str]) -> None:
        """
        Set these values, and mark the file as one of this version.
        """
        connection = self._opened()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_SET_META, {**meta, "format": _FORMAT}.items())

    def write(self, batch: Batch) -> None:
        """
        Write a batch in one transaction, and wait until it is on the disk.

        Raises:
            sqlite3.Error: It cannot be written; nothing of it is.
        """
        connection = self._connection
        if connection is None:
            # It was closed while the batch waited for the thread.
            return
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if batch.rewrite:
                connection.execute("DELETE FROM message")
                connection.execute("DELETE FROM lost")
            connection.executemany(
                _ADD_MESSAGE,
                (
                    (
                        *(id[1], id[0], m.channel, m.content_type, m.sender, m.body),
                        *(m.origin, headers_to_json(m.headers), m.max_age),
                    )
                    for id, m in batch.messages
                ),
            )
            connection.executemany(
                "DELETE FROM message WHERE number = ?", ((id[1],) for id in batch.dropped)
            )
            connection.executemany(
                _SET_LOST,
                ((name, *id) for name, id in batch.lost.items() if id is not None),
            )
            connection.executemany(
                "DELETE FROM lost WHERE name = ?",
                ((name,) for name, id in batch.lost.items() if id is None),
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
        if batch.dropped or batch.rewrite:
            # Give the room of deleted messages back to the file system.
            connection.execute("PRAGMA incremental_vacuum").fetchall()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the database is not open")
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Two buses with the same file would give the same ids.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if not connection.execute("PRAGMA schema_version").fetchone()[0]:
            connection.executescript(_SCHEMA)
        # A transaction has ended only when it is on the disk, safe from a loss of power.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {MAX_JOURNAL_BYTES}")
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not {"meta", "message", "lost"} <= names:
            raise ValueError("it is a database of something else: give another file")
        meta = self.read_meta()
        if meta and meta.get("format") not in {_FORMAT, *_OLDER_FORMATS}:
            raise ValueError("another version of msgbus has written it: give another file")
        connection.executescript(_ANSWERS)
        # The columns are looked up, because a bus that is killed here has added the column
        # and not yet written the new format.
        columns = connection.execute("PRAGMA table_info (message)").fetchall()
        for name in _ADDED.keys() - {column[1] for column in columns}:
            connection.execute(f"ALTER TABLE message ADD COLUMN {name} {_ADDED[name]}")


def explain(error: Exception) -> str:
    """
    What is wrong with the file, and what an operator can do about it, if that is known.
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    for part, remedy in _REMEDIES.items():
        if part in text:
            return f"{text}: {remedy}"
    return text
