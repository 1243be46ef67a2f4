"""
The members of a group that are level: those to which all messages so far have been sent.
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
        members: The members by the `send` of their outlets, so that the loop in `send`
            needs nothing but these keys.
    """

    __slots__ = ("members", "_sends")

    def __init__(self) -> None:
        self.members: dict[Send, Member] = {}
        # The keys of `members` as a tuple; None after a member was added or removed.
        self._sends: tuple[Send, ...] | None = None

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self.members.values()))

    def __contains__(self, member: Member) -> bool:
        return member.outlet.send in self.members

    def add(self, member: Member) -> None:
        """
        Add a member that has been sent everything.
        """
        self.members[member.outlet.send] = member
        self._sends = None

    def remove(self, member: Member) -> bool:
        """
        Remove a member, because it is not level any more; was it level?
        """
        self._sends = None
        return self.members.pop(member.outlet.send, None) is not None

    def send(self, data: bytes) -> list[tuple[Member, int]]:
        """
        Send these bytes to all members.

        Returns:
            The members whose sockets did not take everything, and how many bytes each
            took.  They are removed, because they are not level any more.
        """
        size = len(data)
        full = []
        if self._sends is None:
            self._sends = tuple(self.members)
        # The innermost loop of the program.  For each subscriber it does nothing but the
        # system call, and makes no object, not even the tuples of `items`: thousands of
        # them would start the garbage collector, which looks at all objects of the process.
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
            # The member may have left while the bytes were sent to others.
            member = self.members.get(send)
            if member is not None:
                self.remove(member)
                full.append((member, taken))
        return full
