"""
Tests for `msgbus.bus.file_log` and `msgbus.bus.database`.
"""

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.bus import Bus
from msgbus.bus.file_log import PAUSE_SECONDS, WAIT_SECONDS, FileLog
from msgbus.bus.history import History, Keep
from msgbus.bus.idempotency import SECONDS, Reused
from msgbus.bus.log import CannotLoad, LogNumbers
from msgbus.headers import Headers
from msgbus.ids import Gap, Since, parse_id
from msgbus.match import Filter
from msgbus.message import Message

from ..memory import InlinePool

ORIGIN = "0/1764-1"


class FileLogTests(SynchronousTestCase):
    """
    A log that writes without a thread, and a clock that stands still.
    """

    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name, "history")
        self.clock = Clock()
        self.clock.callFromThread = lambda call, *args: call(*args)
        self.logged = []

        def observe(event):
            if event["log_namespace"] == "msgbus.bus.file_log.FileLog":
                self.logged.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.log = None
        self.start()

    def start(self, count=3):
        """
        Kill the bus, if there is one, and start the next with the same file.
        """
        if self.log is not None:
            self.log._database.close()
        self.log = FileLog(self.file, self.clock, History(Keep(count)))
        self.bus = Bus(log=self.log)
        self.log._pool = self.pool = InlinePool()
        self.log.load()
        self.addCleanup(self.log._database.close)

    def publish(self, body, channel="foo", **options):
        return self.bus.publish(Message(channel, body), **options)

    def kept(self):
        read = self.bus.replay("", Filter(), Since()).read(0)
        return [message.body for message in read or []]

    def test_forget(self):
        """
        Who has a channel forgotten is told once its messages are not on the disk any more,
        also those that are just being written; other channels keep theirs.
        """
        self.publish(b"1")
        self.publish(b"2", "bar")
        self.log._write_batch()
        self.publish(b"3")
        # As if the batch with that one was on its way to the disk.
        batch = self.log._make_batch()
        forgotten = self.log.forget("foo")
        self.assertNoResult(forgotten)
        self.log._database.write(batch)
        self.log._writing = False
        self.log._succeed(self.log._newest(batch))
        self.assertNoResult(forgotten)
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(forgotten))
        self.start()
        self.assertEqual(self.kept(), [b"2"])

    def test_forget_late(self):
        """
        If the disk takes longer than a second, or fails, who has a channel forgotten does
        not wait; once the disk works, the messages are deleted.
        """
        self.publish(b"1")
        self.clock.advance(0)
        with patch.object(self.log, "_write_batch", lambda: None):
            late = self.log.forget("foo")
            self.clock.advance(0)
            self.assertNoResult(late)
            self.clock.advance(WAIT_SECONDS)
            self.assertIsNone(self.successResultOf(late))
        error = sqlite3.OperationalError("disk I/O error")
        self.log._writing = False
        with patch.object(self.log._database, "write", side_effect=error):
            failed = self.log.forget("foo")
            self.clock.advance(0)
            self.assertIsNone(self.successResultOf(failed))
            self.assertIsNone(self.successResultOf(self.log.forget("foo")))
        self.clock.advance(PAUSE_SECONDS)
        self.clock.advance(0)
        self.start()
        self.assertEqual(self.kept(), [])

    def test_forget_then_close(self):
        """
        What was forgotten just before a stop is not there after it.
        """
        self.publish(b"1")
        self.clock.advance(0)
        self.log.forget("foo")
        self.log.close()
        self.clock.advance(0)
        self.start()
        self.assertEqual(self.kept(), [])

    def test_on_disk(self):
        """
        A publication is answered once it is on the disk, together with all others of
        the same turn of the reactor.
        """
        first, second = self.publish(b"1"), self.publish(b"2")
        self.assertNoResult(first)
        self.clock.advance(0)
        ids = [self.successResultOf(done).id for done in (first, second)]
        boundary = self.bus.boundary
        self.start()
        self.assertEqual(self.kept(), [b"1", b"2"])
        self.assertEqual(self.bus.boundary, boundary)
        third = self.publish(b"3")
        self.clock.advance(0)
        ids.append(self.successResultOf(third).id)
        keys = [tuple(map(int, id.split("-"))) for id in ids]
        self.assertEqual(keys, sorted(set(keys)))

    def test_numbers(self):
        """
        It is known how many messages are not on the disk yet, and how often writing has
        failed.
        """
        self.publish(b"0")
        self.clock.advance(0)
        self.pool.held = []
        for body in (b"1", b"2" * 100_000):
            self.publish(body)
        self.publish(b"3", keep=False)
        self.clock.advance(0)
        self.assertEqual(self.log.numbers(), LogNumbers(unsaved=3))
        (held,), self.pool.held = self.pool.held, None
        file = self.log._database._connection
        file.execute("PRAGMA max_page_count = 1")
        self.pool.callInThreadWithCallback(*held)
        self.assertEqual(self.log.numbers(), LogNumbers(unsaved=3, failures=1))
        file.execute("PRAGMA max_page_count = 1000000")
        self.clock.advance(PAUSE_SECONDS)
        self.clock.advance(0)
        self.assertEqual(self.log.numbers(), LogNumbers(failures=1))
        self.start()
        self.assertEqual(self.log.numbers(), LogNumbers())

    def test_answers(self):
        """
        A publication that is repeated with its key, after a restart too, is published
        once, and answered as the first time, with the note that it is repeated; with
        another body it is refused.
        """
        first = self.publish(b"1", key="k")
        self.publish(b"passing", key="p", keep=False)
        self.clock.advance(0)
        receipt = self.successResultOf(first)
        self.start()
        again = self.successResultOf(self.publish(b"1", key="k"))
        self.assertEqual(again, receipt._replace(repeated=True))
        self.assertTrue(self.publish(b"passing", key="p", keep=False).called)
        with self.assertRaises(Reused):
            self.publish(b"2", key="k")
        self.assertEqual(self.kept(), [b"1"])

    def test_origins(self):
        """
        A message with an origin is published once, after a restart too.  A copy that comes
        while the first one waits for the disk waits as well.
        """
        message = Message("foo", b"1", origin=ORIGIN)
        first, second = self.bus.publish(message), self.bus.publish(message)
        self.assertNoResult(second)
        self.clock.advance(0)
        receipt = self.successResultOf(first)
        repeated = receipt._replace(repeated=True)
        self.assertEqual(self.successResultOf(second), repeated)
        self.start()
        self.assertEqual(self.successResultOf(self.bus.publish(message)), repeated)
        self.assertEqual(self.kept(), [b"1"])

    def test_answers_are_forgotten(self):
        """
        Answers are forgotten after ten minutes, on the disk too.
        """
        self.publish(b"1", key="k")
        self.clock.advance(0)
        later = self.bus.log.seconds() + SECONDS + 1
        self.start()
        self.bus.log.seconds = lambda: later
        self.publish(b"1", key="k")
        self.clock.advance(0)
        self.assertEqual(self.kept(), [b"1", b"1"])
        rows = self.log._database._connection.execute(
            "SELECT number FROM answer"
        ).fetchall()
        self.assertEqual(len(rows), 1)

    def test_answers_while_failing(self):
        """
        An answer that was given while the disk failed is written later, with its
        message.
        """
        with patch.object(
            self.log._database, "write", side_effect=sqlite3.OperationalError("full")
        ):
            first = self.publish(b"1", key="k")
            self.clock.advance(0)
        self.clock.advance(PAUSE_SECONDS)
        self.start()
        again = self.publish(b"1", key="k")
        self.assertEqual(self.successResultOf(again).id, self.successResultOf(first).id)
        self.assertEqual(self.kept(), [b"1"])

    def test_older_file(self):
        """
        A file without answers, of an older version, is read, and answers are added.
        """
        self.publish(b"1")
        self.clock.advance(0)
        self.log._database._connection.execute("DROP TABLE answer")
        self.start()
        self.publish(b"2", key="k")
        self.clock.advance(0)
        self.start()
        self.publish(b"2", key="k")
        self.assertEqual(self.kept(), [b"1", b"2"])

    def test_older_files(self):
        """
        A file of an older format, whose messages have no origins (1) or no headers (2), is
        read, and upgraded, so that an older version of msgbus refuses it.
        """
        lacking = ("headers", "max_age", "origin")
        for older, columns in (("1", lacking), ("2", lacking[:2])):
            self.start()
            self.publish(b"1")
            self.clock.advance(0)
            file = self.log._database._connection
            for column in columns:
                file.execute(f"ALTER TABLE message DROP COLUMN {column}")
            file.execute("UPDATE meta SET value = ? WHERE name = 'format'", [older])
            self.start()
            self.assertEqual(self.log._database.read_meta()["format"], "3")
            headers = Headers({"ce-type": "a"})
            new = Message("foo", b"2", origin=ORIGIN + older, headers=headers, max_age=9**9)
            self.bus.publish(new)
            self.clock.advance(0)
            self.start()
            *_, old, read = self.bus.replay("", Filter(), Since()).read(0)
            self.assertEqual((old.origin, old.headers, old.max_age), ("", Headers(), None))
            self.assertEqual(read, new)
            self.assertEqual(read.origin, new.origin)

    def test_not_kept(self):
        """
        A message that is not kept does not wait for the disk.
        """
        self.successResultOf(self.publish(b"1", keep=False))
        self.clock.advance(0)
        self.start()
        self.assertEqual(self.kept(), [])

    def test_dropped(self):
        """
        A message that history drops is deleted from the file.
        """
        for number in range(9):
            self.publish(b"%d" % number)
            self.clock.advance(0)
        self.start(count=9)
        self.assertEqual(self.kept(), [b"6", b"7", b"8"])

    def test_slow(self):
        """
        A publication waits no longer than a second for the disk, and is written all
        the same.
        """
        self.pool.held = []
        first = self.publish(b"1")
        self.clock.advance(0)
        second = self.publish(b"2")
        self.clock.advance(WAIT_SECONDS / 2)
        self.assertNoResult(first)
        self.clock.advance(WAIT_SECONDS / 2)
        self.successResultOf(first)
        self.successResultOf(second)
        (held,), self.pool.held = self.pool.held, None
        self.pool.callInThreadWithCallback(*held)
        self.clock.advance(0)
        self.start()
        self.assertEqual(self.kept(), [b"1", b"2"])

    def test_failing(self):
        """
        A failing disk is logged once, and stops nothing; once it works, everything that
        is kept is written.
        """
        error = sqlite3.OperationalError("database or disk is full")
        with patch.object(self.log._database, "write", side_effect=error):
            first = self.publish(b"1")
            self.clock.advance(0)
            self.successResultOf(first)
            self.successResultOf(self.publish(b"2"))
            self.clock.advance(PAUSE_SECONDS)
            self.clock.advance(0)
        self.assertEqual(len(self.logged), 1)
        self.assertIn("database or disk is full. The bus goes on", self.logged[0])
        self.successResultOf(self.publish(b"3"))
        self.clock.advance(PAUSE_SECONDS)
        self.clock.advance(0)
        self.assertIn("again", self.logged[1])
        self.start()
        self.assertEqual(self.kept(), [b"1", b"2", b"3"])

    def test_less_kept(self):
        """
        Messages that were too many for a smaller history do not come back with a larger
        one.
        """
        for number in range(3):
            self.publish(b"%d" % number)
            self.clock.advance(0)
        self.start(count=1)
        self.clock.advance(0)
        self.start(count=9)
        self.assertEqual(self.kept(), [b"2"])

    def test_lost(self):
        """
        What was lost is told after a restart too, also a message that was not kept and
        only held for a replay, even if older messages are lost after it.
        """
        replay = self.bus.replay("", Filter(), Since())
        for number in range(3):
            last = self.publish(b"%d" % number, "bar/y")
            self.clock.advance(0)
        self.publish(b"1", "bar/x", keep=False)
        self.clock.advance(0)
        self.publish(b"3", "bar/y")
        self.clock.advance(0)
        # Behind all messages that are older than the one that was not kept.
        since = Since(parse_id(self.successResultOf(last).id))
        replay.close()
        self.start()
        for name in ("bar/", "bar/x", ""):
            read = self.bus.replay(name, Filter(), since).read(0)
            self.assertEqual(read[0], Gap(None), name)

    def test_mode(self):
        """
        The file is for its user only.
        """
        for file in self.file.parent.iterdir():
            self.assertEqual(file.stat().st_mode & 0o777, 0o600, file)

    def test_close(self):
        """
        A stop writes what is not yet written.
        """
        self.publish(b"1")
        closed = self.log.close()
        self.clock.advance(0)
        self.successResultOf(closed)
        self.start()
        self.assertEqual(self.kept(), [b"1"])

    def test_cannot_load(self):
        """
        A file that another bus uses, that is no database, or that another version
        has written, cannot be loaded.
        """

        def load(file):
            log = FileLog(file, self.clock)
            self.addCleanup(log._database.close)
            return log.load

        with patch("msgbus.bus.database.LOCK_SECONDS", 0):
            self.assertRaisesRegex(
                CannotLoad, "locked: another bus uses it", load(self.file)
            )
        other = self.file.with_name("other")
        other.write_bytes(b"x" * 10_000)
        self.assertRaisesRegex(CannotLoad, "not a database: give another", load(other))
        foreign = self.file.with_name("foreign")
        with sqlite3.connect(foreign) as connection:
            connection.execute("CREATE TABLE x (y)")
        connection.close()
        self.assertRaisesRegex(CannotLoad, "something else: give another", load(foreign))
        self.log._database._connection.execute(
            "UPDATE meta SET value = '9' WHERE name = 'format'"
        )
        self.assertRaisesRegex(CannotLoad, "another version", self.start)
