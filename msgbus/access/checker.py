"""
Checks names and passwords for `twisted.cred`.  Hashing runs in threads of its own, so that
requests with other passwords do not wait for it.

How often somebody may guess a password is not decided here.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from threading import Thread, get_native_id
from typing import cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from .passwords import verify
from .users import Users
from .verified import Verified

__all__ = ["Busy", "PasswordChecker", "new_pool"]

# How many threads hash: half as many as there are cores, so that the reactor's thread has a
# core left to itself if there are at least two.
THREADS = max(1, (os.cpu_count() or 1) // 2)

# How many passwords may be hashed or wait to be hashed at one time.  With one thread and a
# cost of 10, the last of them waits for about three seconds.
MAX_WAITING = 32

REMEMBERED_SECONDS = 300

# By how much the priority of threads that hash is lower than that of the reactor's thread.
# So the reactor does not wait for a processor while passwords are hashed, also if there are
# no more processors than threads.
NICENESS = 10


class Busy(Exception):
    """
    So many passwords wait to be hashed that another one is not taken.

    Attributes:
        retry_after: When to try again, in seconds.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__("Too many passwords are being checked. Try again later.")
        self.retry_after = retry_after


@implementer(ICredentialsChecker)
class PasswordChecker:
    """
    Checks the passwords of users.

    Args:
        users: Those who exist at first.
        reactor: Gets the results of the threads; its clock says for how long a password
            is remembered.
        pool: The threads that hash, started and stopped by whoever made them; see
            `new_pool`.
        max_waiting: How many passwords may be hashed, or wait for it, at one time.
        remembered_seconds: How long a right password need not be hashed again.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        users: Users,
        reactor: IReactorTime,
        pool: ThreadPool,
        *,
        max_waiting: int = MAX_WAITING,
        remembered_seconds: float = REMEMBERED_SECONDS,
    ) -> None:
        self._users = users
        self._reactor = reactor
        self._pool = pool
        self._max_waiting = max_waiting
        self._verified = Verified(remembered_seconds)
        # By digest: the requests that wait for the same password to be hashed.
        self._waiting: dict[bytes, list[Deferred[bytes | tuple[()]]]] = {}

    def requestAvatarId(self, credentials: UsernamePassword) -> Deferred[bytes | tuple[()]]:
        """
        Check a name and a password.  A name that does not exist costs as much as a wrong
        password.

        Returns:
            A Deferred that fires with the name, at once if the password was right within
            the last minutes.  It fails with `UnauthorizedLogin`, or with `Busy` if too
            many others wait.  Cancelling it does not end the hashing.
        """
        name = _text(credentials.username)
        hashed = self._users.hash_of(name)
        exists = hashed is not None
        if hashed is None:
            if not len(self._users):
                # Nobody has a password: everybody shows a certificate, or is anonymous.
                return fail(UnauthorizedLogin())
            hashed = self._users.decoy(self._verified.number(name))
        digest = self._verified.digest(name, credentials.password, hashed)
        if exists and self._verified.knows(digest, self._reactor.seconds()):
            return succeed(credentials.username)
        waiting = self._waiting.get(digest)
        if waiting is None:
            if len(self._waiting) >= self._max_waiting:
                return fail(Busy(retry_after=2))
            waiting = self._waiting[digest] = []
            hashing = deferToThreadPool(
                cast(IReactorFromThreads, self._reactor),
                self._pool,
                verify,
                credentials.password,
                hashed,
            )
            hashing.addBoth(partial(self._hashed, digest, name, hashed))
        answer: Deferred[bytes | tuple[()]] = Deferred()
        waiting.append(answer)
        return answer

    def replace(self, users: Users) -> None:
        """
        From now on, these are the users.  Passwords of those who are gone, or whose hash
        is another, are forgotten, and not taken even if they are being hashed now.
        """
        self._users = users
        self._verified.keep_only(users)

    def _hashed(self, digest: bytes, name: str, hashed: str, right: bool | Failure) -> None:
        """
        Answer all requests that waited for a password to be hashed.
        """
        waiting = self._waiting.pop(digest)
        failure = right if isinstance(right, Failure) else None
        # The users may have changed meanwhile.
        if right is True and self._users.hash_of(name) == hashed:
            self._verified.add(digest, name, hashed, self._reactor.seconds())
            for answer in waiting:
                answer.callback(name.encode("utf-8"))
        else:
            for answer in waiting:
                answer.errback(failure or UnauthorizedLogin())


class _Background(Thread):
    """
    A thread of low priority.
    """

    def run(self) -> None:
        """
        Run with a low priority, where threads have priorities of their own.
        """
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, get_native_id(), NICENESS)
        super().run()


def new_pool() -> ThreadPool:
    """
    Threads for hashing, not yet started.  They are at most half as many as the cores, have
    a low priority, and end only by `stop`.
    """
    pool = ThreadPool(0, THREADS, "passwords")
    pool.threadFactory = _Background
    return pool


def _text(name: bytes) -> str:
    """
    A name as text; one that is not UTF-8 becomes a text that is no user's.
    """
    return name.decode("utf-8", "surrogateescape")
