"""
The users and rules of a bus while it runs: the threads that hash passwords, and the reload.
"""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from ..access.checker import PasswordChecker
from ..message import Invalid
from ..web.resource import BusResource
from ..web.site import Site
from ..web.visitor import Access
from .access_files import AccessFiles

__all__ = ["UserService"]


class UserService:
    """
    Has users and rules read again when the operator asks for it.

    Args:
        files: Where they are.
        access: Those that hold.
        checker: Checks the passwords of the users.
        pool: The threads in which it does that.
        site: Remembers heads that were judged by them.
        bus: Has subscriptions that may lose a right.
    """

    _log = Logger()

    def __init__(
        self,
        files: AccessFiles,
        access: Access,
        checker: PasswordChecker,
        pool: ThreadPool,
        site: Site,
        bus: BusResource,
    ) -> None:
        self._files = files
        self._access = access
        self._checker = checker
        self._pool = pool
        self._site = site
        self._bus = bus

    def start(self) -> None:
        """
        Start the threads.  They would not survive if they were started before the process
        has become a daemon.
        """
        self._pool.start()

    def stop(self) -> None:
        """
        End the threads.
        """
        self._pool.stop()

    def reload(self) -> None:
        """
        Read the files again.  If one of them cannot be read or used, say so, and go on with
        the users and rules of before.
        """
        try:
            users, rules = self._files.load()
        except Invalid as error:
            self._log.error(
                "Users and rules stay as they were, because they cannot be read: {error}",
                error=error,
            )
            return
        self._access.replace(users, rules)
        self._checker.replace(users)
        self._site.heads.forget()
        self._bus.check_rights()
        self._log.info("Read {count} users and the rules again", count=len(users))
