"""
How many connections there may be, in all and for each address.
"""

from __future__ import annotations

import math
from collections import Counter

from ..access.open_counts import OpenCounts
from .peer import Peer

__all__ = ["Connections"]


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
    """

    def __init__(self, most: int | None = None, of_address: int | None = None) -> None:
        self.most = most
        self.refused = Counter(all=0, address=0)
        self.handshakes = Counter(done=0, failed=0)
        self._count = 0
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
        self.refused["all"] += 1
        return False

    def close(self) -> None:
        """
        A connection has ended.
        """
        self._count -= 1

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
