"""
Signs people in, and slows down whoever guesses passwords.

Whether a password is right is up to a portal of `twisted.cred`; see `auth`.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..access.guesses import Delays, Guesses
from ..access.log_throttle import LogThrottle
from .auth import login, sender_of
from .peer import Peer

__all__ = ["SignIn", "TooManyGuesses"]

# How often the wrong passwords for one name from one address are logged, in seconds.
LOG_SECONDS = 60

# For so long, and for so many at once, it is remembered which passwords were right from
# which addresses.
REMEMBERED_SECONDS = 900
MAX_REMEMBERED = 10_000

# How many wrong passwords cost no delay where all names have the same password: as many as
# an address may give for all names together, since the name makes no difference.
FREE = 20

# How many different passwords from one address are checked at one time.  Without this
# limit, somebody could send many guesses at once, before the first of them is known to be
# wrong, and the passwords of others would have to wait until those guesses are hashed.
MAX_CHECKED = 8


class TooManyGuesses(Exception):
    """
    So many wrong passwords have come from an address that the next one, right or wrong, is
    not checked yet.

    Attributes:
        seconds: After how many seconds it may be tried again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            "Too many wrong passwords have come from your address. Try again later."
        )
        self.seconds = seconds


class SignIn:
    """
    Checks names and passwords, and makes clients wait that give wrong ones.

    A password that was found right from the same address within the last 15 minutes does
    not have to wait, so that people can go on working while somebody else behind the same
    address guesses passwords.

    Args:
        portal: Knows whether a password is right.
        by_name: Whether each name has a password of its own.  If all names have the same
            one, wrong passwords are not counted for each name, since a guesser could use a
            new name each time.
        seconds: Tells the time, by a clock that never goes back.
    """

    _log = Logger()

    def __init__(
        self,
        portal: Portal,
        by_name: bool,
        guesses: Guesses | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._portal = portal
        self._by_name = by_name
        self._guesses = guesses or Guesses(Delays(free=3 if by_name else FREE))
        self._seconds = seconds
        self._throttle = LogThrottle(LOG_SECONDS)
        # The requests whose passwords are being checked, by address and password.
        self._checking: dict[Hashable, Counter[bytes]] = {}
        # What was right from an address, under a keyed hash, and when it is forgotten; in
        # the order in which it is.
        self._right: dict[tuple[Hashable, bytes], float] = {}
        # For each address, the time until which some password from it has to wait; and the
        # latest such time of the addresses that were removed when the table was full.
        self._suspected: dict[Hashable, float] = {}
        self._all_until = 0.0
        self._key = secrets.token_bytes(32)

    def suspects(self, peer: Peer) -> bool:
        """
        Do passwords from this address have to wait at the moment?  Then each request from
        there has to go through `login`, also one whose head is remembered: an answer that
        comes at once would tell that the password in it is right.
        """
        until = self._suspected.get(peer.network, self._all_until)
        # Asked for each request; for most addresses, there is no need to look at the clock.
        return until > 0 and until > self._seconds()

    def login(self, peer: Peer, authorization: str | None) -> Deferred[Any]:
        """
        Log in with the credentials of an `Authorization` header.

        Returns:
            A Deferred as that of `auth.login`, which also fails with `TooManyGuesses`.
        """
        try:
            name = sender_of(authorization) if authorization else ""
        except ValueError:
            return login(self._portal, authorization)
        if (authorization or "").partition(" ")[0].lower() != "basic":
            # Nothing was guessed.
            return login(self._portal, authorization)
        known, now = self._digest(peer, authorization or ""), self._seconds()
        counted = name if self._by_name else ""
        if self._right.get(known, now) <= now:
            wait = self._guesses.wait(peer.network, counted, now)
            if wait:
                self._say(peer, name)
                return fail(TooManyGuesses(wait))
        if not self._begin_check(*known):
            return fail(TooManyGuesses(1.0))
        entered = login(self._portal, authorization)

        def done(result: Any) -> Any:
            self._end_check(*known)
            if not isinstance(result, Failure):
                self._remember(known)
                self._guesses.succeeded(peer.network, counted)
            elif result.check(UnauthorizedLogin):
                self._right.pop(known, None)
                self._failed(peer, counted)
                self._say(peer, name)
            return result

        return entered.addBoth(done)

    def _failed(self, peer: Peer, counted: str) -> None:
        """
        Count a wrong password.
        """
        now, network = self._seconds(), peer.network
        self._guesses.failed(network, counted, now)
        until = now + self._guesses.wait(network, counted, now)
        if until <= now:
            return
        if len(self._suspected) >= MAX_REMEMBERED:
            self._all_until = max(self._all_until, *self._suspected.values())
            self._suspected.clear()
        self._suspected[network] = max(until, self._suspected.get(network, 0.0))

    def _begin_check(self, network: Hashable, digest: bytes) -> bool:
        """
        Count a password that is going to be checked; False if there are too many others.
        """
        checking = self._checking.setdefault(network, Counter())
        if digest not in checking and len(checking) >= MAX_CHECKED:
            return False
        checking[digest] += 1
        return True

    def _end_check(self, network: Hashable, digest: bytes) -> None:
        checking = self._checking[network]
        checking[digest] -= 1
        if not checking[digest]:
            del checking[digest]
        if not checking:
            del self._checking[network]

    def _digest(self, peer: Peer, authorization: str) -> tuple[Hashable, bytes]:
        text = authorization.encode("utf-8", "surrogateescape")
        return peer.network, hmac.digest(self._key, text, "sha256")

    def _remember(self, known: tuple[Hashable, bytes]) -> None:
        self._right.pop(known, None)
        if len(self._right) >= MAX_REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[known] = self._seconds() + REMEMBERED_SECONDS

    def _say(self, peer: Peer, name: str) -> None:
        """
        Log a wrong password, or one that was not looked at, once in a while.
        """
        counted = name if self._by_name else ""
        count = self._throttle.due((peer.network, counted), self._seconds())
        if count:
            self._log.warn(
                "Wrong passwords from {address} for {name!r}: {count}",
                count=count,
                address=peer.address or "a local client",
                name=name[:100],
            )
