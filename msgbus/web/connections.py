"""
How many connections there may be, in all and for each address.
"""

from __future__ import annotations

import math
from collections import Counter

from ..access.open_counts import OpenCounts
from .peer import Peer
from .shortage import Shortage

__all__ = ["Connections"]

# How many connections that are refused may wait until their clients have read why.  They
# take open files, of which some have to be left for others.
LINGERING = 32

# When so many of the connections are left that there were, there is room again.
ROOM = 0.9


class Connections:
    """
    Counts connections: all of them, and those from each address.  Connections from the
    bus's own machine, and those of trusted proxies, each of which has many clients, are not
    counted for their address.

    Args:
        most: How many there may be; None for any number.
        of_address: How many from one address; None for any number.

    Attributes:
        most: As given; may be changed.
        refused: How many were one too many: of `all`, or of those from one `address`.
        handshakes: How many connections came to TLS by a handshake (`done`), and how many
            ended before (`failed`).
        shortage: Says that there are too many.
    """

    def __init__(self, most: int | None = None, of_address: int | None = None) -> None:
        self.most = most
        self.refused = Counter(all=0, address=0)
        self.handshakes = Counter(done=0, failed=0)
        self.shortage = Shortage("There are as many connections as there may be")
        self._count = 0
        # How many there were when the first was refused.
        self._full = 0
        self._of_address = OpenCounts(math.inf)
        self.limit_addresses(of_address)

    def limit_addresses(self, of_address: int | None) -> None:
        """
        Change how many there may be from one address; None for any number.
        """
        self._of_address.limit = math.inf if of_address is None else of_address

    def open(self) -> bool:
        """
        Count a new connection.

        Returns:
            Whether there may be so many.  It is counted anyway, until `close`.
        """
        self._count += 1
        if self.most is None or self._count <= self.most:
            return True
        self.refuse()
        return False

    @property
    def may_linger(self) -> bool:
        """
        Is there room for one that is refused, until its client has read why?
        """
        return self.most is None or self._count <= self.most + LINGERING

    def refuse(self) -> None:
        """
        A connection is refused, or could not even be accepted.
        """
        self.refused["all"] += 1
        if not self.shortage.refused:
            self._full = self._count
        self.shortage.refuse()

    def close(self) -> None:
        """
        A connection has ended.
        """
        self._count -= 1
        if self.shortage.refused and self._count <= self._full * ROOM:
            self.shortage.end()

    def open_from(self, peer: Peer) -> bool | None:
        """
        Count a connection for its address.

        Returns:
            Whether there may be so many from there, and `close_from` has to be called; None
            if it need not be counted.
        """
        if peer.is_local or peer.is_trusted:
            return None
        may = self._of_address.open(peer.network)
        if not may:
            self.refused["address"] += 1
        return may

    def close_from(self, peer: Peer) -> None:
        """
        A connection that was counted for its address has ended.
        """
        self._of_address.close(peer.network)
