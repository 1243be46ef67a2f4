"""
The members of a group that are level: everything so far has been sent to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .member import Member

__all__ = ["Level"]

Send = Callable[[bytes], int]


class Level:
    """
    Sends the same bytes to all members that are level, by one system call for each.

    Attributes:
        members: By what sends to them, so that the loop in `send` looks up nothing else.
    """

    __slots__ = ("members", "_sends")

    def __init__(self) -> None:
        self.members: dict[Send, Member] = {}
        # The keys once more, until a member comes or goes.
        self._sends: tuple[Send, ...] | None = None

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self.members.values()))

    def __contains__(self, member: Member) -> bool:
        return member.outlet.send in self.members

    def add(self, member: Member) -> None:
        """
        This member has been sent everything.
        """
        self.members[member.outlet.send] = member
        self._sends = None

    def remove(self, member: Member) -> bool:
        """
        This member is not level any more; whether it was.
        """
        self._sends = None
        return self.members.pop(member.outlet.send, None) is not None

    def send(self, data: bytes) -> list[tuple[Member, int]]:
        """
        Send to all.

        Returns:
            The members whose sockets did not take everything, and how many bytes each
            took.  They are not level any more.
        """
        size = len(data)
        full = []
        if self._sends is None:
            self._sends = tuple(self.members)
        # The innermost loop of the program: for each subscriber nothing but the system
        # call.  Not even a tuple of two, as `items` would make: thousands of those would
        # have the garbage collector look at everything there is.
        for send in self._sends:
            try:
                taken = send(data)
                if taken == size:
                    continue
            except BlockingIOError:
                taken = 0
            except OSError:
                # Only a write through the transport tells the reactor that the peer has
                # gone.
                if send in self.members:
                    self.members[send].outlet.write(data)
                continue
            # It may have left while others were sent to.
            member = self.members.get(send)
            if member is not None:
                self.remove(member)
                full.append((member, taken))
        return full
