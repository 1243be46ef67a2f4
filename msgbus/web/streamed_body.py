"""
The body of a request that is taken while it comes, instead of when it has come.

Which requests have such a body is decided by their heads.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["BodyReceiver", "StreamedBody", "is_streamed"]

MULTIPART = "multipart/x-mixed-replace"
NDJSON = "application/x-ndjson"


def is_streamed(method: bytes, target: bytes, content_type: bytes) -> bool:
    """
    Does a request with such a head publish its body as a stream of messages?

    Args:
        content_type: The value of its `Content-Type`.
    """
    if method not in (b"POST", b"PUT"):
        return False
    media_type = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    if media_type == NDJSON:
        return b"format=ndjson" in target.partition(b"?")[2].split(b"&")
    return media_type == MULTIPART


class BodyReceiver(Protocol):
    """
    Takes a body.
    """

    def receive(self, data: bytes) -> None:
        """
        Take the next bytes.
        """

    def end(self) -> None:
        """
        Take the end: the whole body has come.
        """

    def fail(self, status: int, sentence: str) -> None:
        """
        Learn that the rest of the body cannot be read, and answer with this status.
        """

    def stalled(self) -> bool:
        """
        Nothing has come for long; see `StreamedBody.start`.

        Returns:
            Whether to wait on.
        """


class _Connection(Protocol):
    """
    A connection, as far as a body knows it; see `channel.Channel`.
    """

    transport: Any  # TCP, TLS, UNIX or a wrapper: no one interface of Twisted's
    paused: bool

    def setTimeout(self, seconds: float | None) -> object: ...


class StreamedBody:
    """
    Hands the bytes of a body to its receiver.  Until there is one, because the password is
    still being checked, the peer has to wait.

    Args:
        connection: The connection on which the body comes.
        awaited: Whether the peer waits for a `100 Continue` before it sends the body (RFC
            9110, section 10.1.1).

    Attributes:
        receiver: What takes the body; None until `start`.
        complete: Whether the whole body has come.
    """

    __slots__ = ("complete", "receiver", "_awaited", "_connection", "_failure", "_pieces")

    def __init__(self, connection: _Connection, awaited: bool) -> None:
        self.complete = False
        self.receiver: BodyReceiver | None = None
        self._awaited = awaited
        self._connection = connection
        # What has come, and was not handed on yet.
        self._pieces: list[bytes] = []
        # The error behind which nothing can be read.
        self._failure: tuple[int, str] | None = None

    def accept(self) -> None:
        """
        Have the peer send the body, before the answer begins.
        """
        if self._awaited:
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def start(self, receiver: BodyReceiver, stall_seconds: float) -> None:
        """
        Give the receiver what has come, and what comes from now on.

        Args:
            stall_seconds: When nothing has come for so long, the receiver is told.
        """
        self.receiver = receiver
        if self.complete:
            self.flush()
            receiver.end()
            return
        if self._failure is not None:
            self.fail(*self._failure)
            return
        self._connection.setTimeout(stall_seconds)
        if self._pieces:
            self.resume()
            self.flush()

    def receive(self, data: bytes) -> None:
        """
        Take the next bytes that have come, until the next `flush`.
        """
        self._pieces.append(data)

    def flush(self) -> None:
        """
        Hand on what has come: all of it at once, because a body may come in thousands of
        small chunks.
        """
        if not self._pieces:
            return
        if self.receiver is None:
            self.pause()
            return
        pieces, self._pieces = self._pieces, []
        self.receiver.receive(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def end(self) -> None:
        """
        Take the end of the body.
        """
        self.complete = True
        if self.receiver is not None:
            self.flush()
            self.receiver.end()

    def fail(self, status: int, sentence: str) -> None:
        """
        Take an error behind which the body cannot be read.
        """
        self._failure = (status, sentence)
        if self.receiver is not None:
            self.flush()
            self.receiver.fail(status, sentence)

    def pause(self) -> None:
        """
        Have the peer wait.
        """
        self._connection.transport.pauseProducing()

    def resume(self) -> None:
        """
        Have the peer go on, unless it has to read first what it was answered.
        """
        if not self._connection.paused:
            self._connection.transport.resumeProducing()
