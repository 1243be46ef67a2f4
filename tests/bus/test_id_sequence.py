"""
Tests for `msgbus.bus.id_sequence`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.bus.bus import Bus
from msgbus.ids import COUNT_DIGITS, Gap, Since, parse_id
from msgbus.match import Filter
from msgbus.message import Message


class IdSequenceTests(SynchronousTestCase):
    """
    The ids that a bus gives.
    """

    def publish(self, bus):
        receipts = []
        bus.publish(Message("a", b"")).addCallback(receipts.append)
        return parse_id(receipts[0].id)

    def test_growing(self):
        """
        Ids tell the time, and grow, also when the clock is set back.
        """
        times = [5.0, 5.0, 3.0, 7.0]
        bus = Bus(seconds=lambda: times[0])
        ids = []
        while times:
            ids.append(self.publish(bus))
            times.pop(0)
        self.assertEqual(
            [milliseconds for milliseconds, _ in ids], [5000, 5000, 5000, 7000]
        )
        numbers = [number for _, number in ids]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + 4)))
        self.assertEqual(numbers[0] // 10**COUNT_DIGITS, bus.life)

    def test_foreign(self):
        """
        An id of another bus, or one that was not given yet, is recognized.
        """
        bus, other = Bus(), Bus()
        other.log.restore(
            bus.life + 1, other.boundary, (0, (bus.life + 1) * 10**COUNT_DIGITS)
        )
        mine, theirs = self.publish(bus), self.publish(other)
        future = (mine[0], mine[1] + 1)
        for id, expected in ((mine, None), (theirs, Gap(None)), (future, Gap(None))):
            read = bus.replay("a", Filter(), Since(id)).read(0)
            self.assertEqual(read and read[0], expected)
