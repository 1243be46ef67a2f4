"""
Tests for `msgbus.server.log_folding`.
"""

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from msgbus.server.log_folding import FOLD_SECONDS, MAX_KEYS, MAX_STRANGERS, LogFolding


class FoldingTests(SynchronousTestCase):
    """
    What is passed on of many events.
    """

    def setUp(self):
        self.clock = Clock()
        self.passed = []
        self.log = Logger(
            namespace="x", observer=LogFolding(self.passed.append, self.clock.callLater)
        )

    def lines(self, seconds=0):
        """
        The texts that were passed on since the last call, after so many seconds.
        """
        self.clock.advance(seconds)
        lines = [formatEvent(event) for event in self.passed]
        self.passed.clear()
        return lines

    def test_folded(self):
        """
        The first event is passed on at once; then one line a minute says how many more like
        it there were, and in a minute without any, it begins anew.
        """
        for _ in range(413):
            self.log.warn("too {much}", much="much")
        self.assertEqual(self.lines(), ["too much"])
        told = ["412 more like it: too much"]
        self.assertEqual(self.lines(FOLD_SECONDS), told)
        self.log.warn("too {much}", much="much")
        self.assertEqual(self.lines(), [])
        self.assertEqual(self.lines(FOLD_SECONDS), ["1 more like it: too much"])
        self.assertEqual(self.lines(FOLD_SECONDS), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.log.warn("too {much}", much="much")
        self.assertEqual(self.lines(), ["too much"])

    def test_alike(self):
        """
        Events are alike by their `log_fold`; warnings without it by their text.
        """
        for peer, who in (("a:1", "a"), ("a:2", "a"), ("b:3", "b")):
            self.log.info("refused {peer}", peer=peer, log_fold=who)
            self.log.error("failed {peer}", peer=who)
        first = ["refused a:1", "failed a", "refused b:3", "failed b"]
        self.assertEqual(self.lines(), first)
        self.assertEqual(
            self.lines(FOLD_SECONDS),
            ["1 more like it: refused a:2", "1 more like it: failed a"],
        )

    def test_not_folded(self):
        """
        What is no warning is not folded, unless it says so; nor what the operator is told
        about a reload; and nothing is folded twice.
        """
        for _ in range(3):
            self.log.info("alice publishes")
        self.assertEqual(len(self.lines()), 3)
        for _ in range(3):
            self.log.warn("from a worker", log_folded=True)
        self.assertEqual(len(self.lines()), 3)
        operator = Logger(namespace="msgbus.server.users", observer=self.log.observer)
        for _ in range(3):
            operator.error("The files stay")
        self.assertEqual(len(self.lines()), 3)

    def test_failures(self):
        """
        Failures at the same line of code are alike, whatever they say.
        """
        for number in range(3):
            try:
                raise ValueError(number)
            except ValueError:
                self.log.failure("Bug")
        self.assertEqual(len(self.passed), 1)
        self.assertIn("log_failure", self.passed[0])
        self.lines()
        self.assertEqual(self.lines(FOLD_SECONDS), ["2 more like it: Bug: ValueError"])

    def test_many_kinds(self):
        """
        Whoever makes events of more and more kinds gets no more than so many lines, and
        does not keep warnings out of the log.
        """
        for number in range(3 * MAX_KEYS):
            self.log.info("{number}", number=number, log_fold=str(number))
        self.assertEqual(len(self.lines()), MAX_STRANGERS)
        for number in range(3 * MAX_KEYS):
            self.log.warn("warning {number}", number=number)
        self.assertEqual(len(self.lines()), MAX_KEYS - MAX_STRANGERS)
        (line,) = self.lines(FOLD_SECONDS)
        self.assertEqual(line, f"{5 * MAX_KEYS} more lines of too many other kinds")

    def test_summary(self):
        """
        The line that stands for others has the fields of the last of them, and their count.
        """
        for way in ("GET", "PUT"):
            self.log.info("refused {way}", way=way, log_fold="x")
        self.lines()
        self.clock.advance(FOLD_SECONDS)
        (event,) = self.passed
        self.assertEqual((event["way"], event["folded"]), ("PUT", 1))
        self.assertEqual(event["log_level"], LogLevel.info)
