"""
An open stream: who reads it, and what depends on that.
"""

from __future__ import annotations

from ..fanout.member import Member, Response
from .peer import Peer
from .quotas import Opened
from .rights import Right
from .visitor import Denied, Visitor

__all__ = ["Subscriber"]


class Subscriber:
    """
    Somebody who reads a stream.

    Attributes:
        number: No other subscriber of the process has, or had, the same.
        visitor: Who it is.
        peer: From where.
        name: The channel or folder.
        member: Gets the messages.
        began: When it came, in seconds since 1970.
        form: That of its stream; see `Framing.form`.
        right: The right that it may lose; None if it cannot.
        opened: What it has open, as the quotas count it.
    """

    __slots__ = (
        "number",
        "visitor",
        "peer",
        "name",
        "member",
        "began",
        "form",
        "right",
        "opened",
        "_response",
    )

    def __init__(
        self,
        number: int,
        visitor: Visitor,
        peer: Peer,
        name: str,
        member: Member,
        response: Response,
        began: float,
    ) -> None:
        self.number = number
        self.visitor = visitor
        self.peer = peer
        self.name = name
        self.member = member
        self.began = began
        self.form = ""
        self.right: Right | None = None
        self.opened: Opened = ()
        self._response = response

    def end(self, denied: Denied) -> None:
        """
        End the response, because its subscriber may not read it any more.
        """
        if self._response.deny is not None:
            self._response.deny(str(denied))
        else:
            self.member.end()
