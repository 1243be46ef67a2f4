"""
Tests for `msgbus.access.checker` and `.verified`.
"""

import os
from queue import Queue
from threading import get_native_id

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from msgbus.access import verified
from msgbus.access.checker import MAX_WAITING, Busy, PasswordChecker, new_pool
from msgbus.access.users import Users
from msgbus.access.verified import Verified

# bcrypt of "secret", and of "other".
SECRET = "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"
OTHER = "$2y$04$DCpTBZ7BAjsCTMML9083zusGO/nknOniItVtr687uY3SFxQEsuMhu"


class Threads:
    """
    A pool whose threads run when they are told.
    """

    def __init__(self):
        self.waiting = []
        self.hashed = 0

    def callInThreadWithCallback(self, done, function, *args, **kwargs):
        self.waiting.append((done, function, args, kwargs))

    def run(self):
        """
        Hash all that waits.
        """
        waiting, self.waiting = self.waiting, []
        for done, function, args, kwargs in waiting:
            self.hashed += 1
            try:
                done(True, function(*args, **kwargs))
            except Exception:
                done(False, Failure())


class Reactor(MemoryReactorClock):
    """
    Runs at once what threads give to it.
    """

    def callFromThread(self, function, *args, **kwargs):
        function(*args, **kwargs)


class CheckerTests(SynchronousTestCase):
    """
    Names and passwords, checked in threads.
    """

    def setUp(self):
        self.reactor = Reactor()
        self.threads = Threads()
        self.users = Users({"alice": SECRET, "bob": OTHER})
        self.checker = PasswordChecker(self.users, self.reactor, self.threads)

    def start(self, name, password):
        return self.checker.requestAvatarId(UsernamePassword(name, password))

    def check(self, name, password):
        answer = self.start(name, password)
        self.threads.run()
        return answer

    def assert_wrong(self, name, password):
        self.failureResultOf(self.check(name, password), UnauthorizedLogin)

    def test_interface(self):
        """
        It is a checker of twisted.cred.
        """
        self.assertTrue(verifyObject(ICredentialsChecker, self.checker))

    def test_right_and_wrong(self):
        """
        The name of a user is the answer to the right password, and only to it.
        """
        self.assertEqual(self.successResultOf(self.check(b"alice", b"secret")), b"alice")
        self.assertEqual(self.successResultOf(self.check(b"bob", b"other")), b"bob")
        for password in (b"Secret", b"", b"other", b"x" * 100, b"\0", b"secret\0"):
            self.assert_wrong(b"alice", password)

    def test_names(self):
        """
        A name that is no user's is wrong, whatever it holds, and costs as much.
        """
        names = [
            b"",
            b"*",
            b"Alice",
            b"alice\0",
            b"alice:",
            b"\xff",
            b"%61lice",
            b"x" * 9999,
        ]
        for name in names:
            for password in (b"secret", b"other"):
                self.assert_wrong(name, password)
        self.assertEqual(self.threads.hashed, 2 * len(names))

    def test_decoys(self):
        """
        In place of a name that does not exist, always the same user's hash is taken.
        """
        numbers = Verified(1)
        self.assertEqual(numbers.number("x"), numbers.number("x"))
        decoys = {self.users.decoy(numbers.number(f"x{i}")) for i in range(100)}
        self.assertEqual(decoys, {SECRET, OTHER})

    def test_remembered(self):
        """
        A right password is hashed once in five minutes, a wrong one each time.
        """
        self.check(b"alice", b"secret")
        for _ in range(5):
            self.assertEqual(
                self.successResultOf(self.start(b"alice", b"secret")), b"alice"
            )
            self.assert_wrong(b"alice", b"guess")
        self.assertEqual(self.threads.hashed, 6)
        self.reactor.advance(299)
        self.successResultOf(self.start(b"alice", b"secret"))
        self.reactor.advance(1)
        self.assertNoResult(self.start(b"alice", b"secret"))

    def test_not_remembered_for_others(self):
        """
        What was right for one user is not for another, or for a name and a password that
        look alike when they are joined.
        """
        self.check(b"alice", b"secret")
        for name, password in (
            (b"bob", b"secret"),
            (b"alices", b"ecret"),
            (b"alic", b"esecret"),
        ):
            answer = self.start(name, password)
            self.assertNoResult(answer)
            self.threads.run()
            self.failureResultOf(answer, UnauthorizedLogin)

    def test_shared(self):
        """
        Requests with the same name and password wait for one thread.
        """
        answers = [self.start(b"alice", b"secret") for _ in range(5)]
        answers[1].cancel()
        self.threads.run()
        self.assertEqual(self.threads.hashed, 1)
        self.failureResultOf(answers.pop(1))
        for answer in answers:
            self.assertEqual(self.successResultOf(answer), b"alice")

    def test_busy(self):
        """
        Beyond a number of passwords that wait, others are told to come again; those that
        are remembered are not concerned.
        """
        self.check(b"alice", b"secret")
        answers = [self.start(b"alice", b"%d" % i) for i in range(MAX_WAITING)]
        busy = self.failureResultOf(self.start(b"bob", b"other"), Busy).value
        self.assertEqual(busy.retry_after, 2)
        self.successResultOf(self.start(b"alice", b"secret"))
        self.threads.run()
        for answer in answers:
            self.failureResultOf(answer, UnauthorizedLogin)
        self.successResultOf(self.check(b"bob", b"other"))

    def test_replaced(self):
        """
        When users are replaced, a user who is gone or has another password is not taken any
        more; others stay remembered.
        """
        self.check(b"alice", b"secret")
        self.check(b"bob", b"other")
        self.checker.replace(Users({"alice": OTHER, "bob": OTHER}))
        self.assert_wrong(b"alice", b"secret")
        self.successResultOf(self.start(b"bob", b"other"))
        self.checker.replace(Users({"alice": OTHER}))
        self.assert_wrong(b"bob", b"other")
        # Even if he comes back.
        self.checker.replace(Users({"bob": OTHER}))
        self.assertNoResult(self.start(b"bob", b"other"))

    def test_replaced_meanwhile(self):
        """
        A password that is being hashed when its user is removed is wrong.
        """
        answer = self.start(b"alice", b"secret")
        self.checker.replace(Users({"bob": OTHER}))
        self.threads.run()
        self.failureResultOf(answer, UnauthorizedLogin)

    def test_failures(self):
        """
        What fails in a thread fails for those who wait, and is not remembered.
        """
        self.checker.replace(Users({"alice": "no hash"}))
        self.failureResultOf(self.check(b"alice", b"secret"), ValueError)
        self.failureResultOf(self.check(b"alice", b"secret"), ValueError)

    def test_pool(self):
        """
        The threads are bounded, and none runs before it is needed.
        """
        pool = new_pool()
        self.assertEqual(pool.min, 0)
        self.assertGreaterEqual(pool.max, 1)

    def test_priority(self):
        """
        The threads have a lower priority than the thread that starts them, which keeps its
        own.
        """

        def priority():
            return os.getpriority(os.PRIO_PROCESS, get_native_id())

        pool, before, told = new_pool(), priority(), Queue()
        pool.start()
        self.addCleanup(pool.stop)
        pool.callInThread(lambda: told.put(priority()))
        self.assertGreater(told.get(timeout=30), before)
        self.assertEqual(priority(), before)


class VerifiedTests(SynchronousTestCase):
    """
    Passwords that were right.
    """

    def test_digests(self):
        """
        No two names, passwords and hashes have the same digest, and no other process the
        same digests.
        """
        triples = [
            ("ab", b"c", "d"),
            ("a", b"bc", "d"),
            ("a", b"b", "cd"),
            ("", b"", "abcd"),
            ("ab", b"d", "c"),
            ("a", b"c", "bd"),
        ]
        one, other = Verified(1), Verified(1)
        digests = {one.digest(*triple) for triple in triples}
        self.assertEqual(len(digests), len(triples))
        self.assertFalse(digests & {other.digest(*triple) for triple in triples})

    def test_bounded(self):
        """
        A bounded number is remembered; the oldest is forgotten first.
        """
        self.patch(verified, "MAX_REMEMBERED", 3)
        passwords = Verified(60)
        for i in range(5):
            passwords.add(b"%d" % i, "alice", SECRET, i)
        self.assertEqual(len(passwords), 3)
        self.assertEqual([passwords.knows(b"%d" % i, 5) for i in range(5)], [0, 0, 1, 1, 1])
