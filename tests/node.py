"""
A bus on a log that may be in another process, for tests.
"""

import time

from twisted.internet import reactor
from twisted.internet.task import deferLater

from msgbus.bus.bus import Bus
from msgbus.bus.file_log import FileLog
from msgbus.bus.memory_log import MemoryLog
from msgbus.ids import Since
from msgbus.match import Filter
from msgbus.message import Message

SECONDS = 20


async def until(condition):
    """
    Wait until this is true.
    """
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await deferLater(reactor, 0.01)


class Node:
    """
    A bus on such a log, and what a subscriber of the root gets of it.
    """

    def __init__(self, log):
        self.log = log
        if not isinstance(log, MemoryLog) or isinstance(log, FileLog):
            log.load()
        self.bus = Bus(log=log)
        self.got = []
        self.bus.subscribe("", self.got.append)

        self.missed = 0
        self.bus.subscribe("", bool, count=lambda: 0, missed=self._miss)

    def _miss(self):
        self.missed += 1

    def publish(self, channel, body=b"", **options):
        return self.bus.publish(Message(channel, body, "a/b", "alice"), **options)

    def read(self, name="", filter=None, **since):
        """
        What a subscriber gets of the history.
        """
        cursor = self.bus.replay(name, filter or Filter(), Since(**since))
        found = []
        while (items := cursor.read(self.bus.milliseconds())) is not None:
            found += items
        cursor.close()
        return found

    async def follow(self, count):
        """
        Wait until so many messages were delivered.
        """
        await until(lambda: len(self.got) >= count)
