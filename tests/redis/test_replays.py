"""
Tests for replays from a log in Redis, against the model of those from a file.
"""

from tempfile import TemporaryDirectory

import pytest
import pytest_twisted
from hypothesis import settings
from hypothesis.stateful import rule
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from msgbus.redis import RedisLog, trimmer

from ..bus.test_replays import HistoryMachine
from ..node import until
from ..strategies import machine_settings


class RedisHistoryMachine(HistoryMachine):
    """
    The same, with the log in Redis.  What is published is read back before anything else
    happens; `test_log` has the rest.
    """

    server = None

    def prepare(self):
        """
        A Redis that is empty.
        """
        self.folder = TemporaryDirectory()
        self.server.ask("FLUSHALL")

    def open_log(self):
        """
        The log in Redis.
        """
        address = self.server.address
        return RedisLog(address, reactor, self.history, lambda: self.time)

    def close_log(self, killed):
        """
        Stop the log in order, or without what it would do then.
        """
        if killed:
            for part in self.log._checking, self.log._trimmer, self.log._entries:
                part.stop()
            self.log._link.stop()
        else:
            pytest_twisted.blockon(self.log.close())

    def settle(self):
        """
        Wait until the node has read everything.
        """
        count = len(self.published)
        self.wait(until(lambda: len(self.ids) == len(self.acknowledged) == count))

    def until_forgotten(self, forgotten):
        """
        Wait until the node has read the mark.
        """
        pytest_twisted.blockon(forgotten)

    def wait(self, coroutine):
        """
        Let the reactor run until this is done.
        """
        pytest_twisted.blockon(Deferred.fromCoroutine(coroutine))

    @rule()
    def delete(self):
        """
        What is to be deleted is deleted at once.
        """
        self.wait(until(lambda: self.log._trimmer._connection))
        self.log._trim()
        self.log._trimmer._delete()
        pytest_twisted.blockon(self.log._link.connection.call("PING", seconds=5))


class RedisHistoryTests(RedisHistoryMachine.TestCase):
    """
    What is true of replays from a file is true of those from Redis.
    """

    settings = settings(machine_settings, max_examples=200, deadline=None)

    @pytest.fixture(autouse=True)
    def _redis(self, redis, monkeypatch):
        monkeypatch.setattr(RedisHistoryMachine, "server", redis)
        # Nothing stays in the stream longer than it has to.
        monkeypatch.setattr(trimmer, "STAY_SECONDS", -1)
