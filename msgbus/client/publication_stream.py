"""
A stream of publications that outlives its connections: what is not answered when one is
lost is sent again on the next.

No I/O and no clock.  The clients connect, send, receive and wait; this module decides what
is sent, and which publication an answer is for.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ..message import Message, is_folder
from .errors import BusError, Refused, Unreachable
from .notices import Lost
from .options import StreamMessage, read, refuse_unknown
from .requests import part_of, publication_stream_head
from .response_reader import ResponseReader
from .responses import SENTENCE_BYTES, Answer, part_answer, refusal
from .retry import Retry
from .url import BusURL

__all__ = [
    "HEARTBEAT_SECONDS",
    "MAX_UNANSWERED",
    "MAX_UNANSWERED_BYTES",
    "PublicationStream",
]

# How much may be without an answer before a publisher has to wait.
MAX_UNANSWERED = 1000
MAX_UNANSWERED_BYTES = 4 * 1024 * 1024

# How many parts are sent on a new connection before the first answer.  With each answer
# there may be one more without an answer, so that this grows fast on a connection that
# works; one that is cut soon, again and again, still makes progress.
FIRST_UNANSWERED = 32

# Proxies cut connections that are silent for long, often after 30 or 60 seconds.
HEARTBEAT_SECONDS = 20

_MAX_LINE_BYTES = 64 * 1024


class _Part(NamedTuple):
    """
    One publication.

    Attributes:
        number: Its place in the stream, from 1, over all connections.
        data: See `requests.part_of`.
    """

    number: int
    data: bytes


class PublicationStream:
    """
    Publications in their order, until each is answered.

    On every connection, call `begin` first.  Then send what `to_send` returns, and give
    what arrives to `feed`, and the end of the connection to `end`.

    Args:
        url: Where they are published.
        name: The channel or folder at that URL.  Only a folder has channels below it.

    Attributes:
        url: As given.
    """

    def __init__(self, url: BusURL, name: str) -> None:
        self.url = url
        self._folder = is_folder(name)
        self._boundary = secrets.token_hex(16)
        self._count = 0
        # The parts that were not sent on this connection, and those that were, but are not
        # answered.  An answer is always that of the oldest.
        self._waiting: deque[_Part] = deque()
        self._sent: deque[_Part] = deque()
        self._bytes = 0
        self._closing = False
        self._retry: Retry | None = None
        # What belongs to one connection only: the response, its text that is not read yet,
        # how many parts were answered, whether a delimiter was sent but no part behind it,
        # and whether the end was sent.
        self._response = ResponseReader()
        self._text = bytearray()
        self._answered = 0
        self._open = False
        self._end_sent = False

    def add(self, body: bytes, content_type: str, given: StreamMessage) -> int:
        """
        Take one more publication, also if there is no room, and return its number, from 1.

        Raises:
            Invalid: The message cannot be sent.
            TypeError: A key of `given` is not known.
        """
        refuse_unknown("publish", given, StreamMessage)
        message = Message(
            given.get("channel", ""),
            body,
            content_type,
            given.get("sender", ""),
            given.get("id", ""),
            given.get("origin", ""),
            **read(given),
        )
        number = self._count + 1
        key = f"{self._boundary}-{number}"
        keep = given.get("keep", True)
        data = part_of(message, key, below=self._folder, keep=keep)
        self._count = number
        self._waiting.append(_Part(number, data))
        self._bytes += len(data)
        return number

    @property
    def unanswered(self) -> int:
        """
        How many publications have no answer yet.
        """
        return len(self._waiting) + len(self._sent)

    @property
    def unsent(self) -> bool:
        """
        Whether there are publications that were not sent on this connection.
        """
        return bool(self._waiting)

    @property
    def has_room(self) -> bool:
        """
        Whether little enough is without an answer for another publication to be taken.
        """
        return self.unanswered < MAX_UNANSWERED and self._bytes < MAX_UNANSWERED_BYTES

    @property
    def owed(self) -> bool:
        """
        Whether the server has yet to answer something on this connection.
        """
        return bool(self._sent) or not self._response.status or self._end_sent

    @property
    def finished(self) -> bool:
        """
        Whether the server has seen the end of the stream, and answered everything.
        """
        return self._end_sent and self._response.ended and not self._sent

    def close(self) -> None:
        """
        Nothing more will be added: what remains is sent, and then the end of the stream.
        """
        self._closing = True

    def begin(self) -> bytes:
        """
        Begin with a new connection; the first bytes to send there.
        """
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        self._response = ResponseReader()
        self._text.clear()
        self._answered = 0
        self._open = self._end_sent = False
        return publication_stream_head(self.url, self._boundary)

    def to_send(self, size: int) -> bytes:
        """
        The next bytes to send, or none.

        Args:
            size: About how many at most; a part is never divided.
        """
        pieces: list[bytes] = []
        taken = 0
        most = FIRST_UNANSWERED + self._answered
        while self._waiting and taken < size and len(self._sent) < most:
            part = self._waiting.popleft()
            self._sent.append(part)
            pieces += self._opening(), part.data
            self._open = False
            taken += len(part.data)
        if not self._closing or self._waiting or self._end_sent:
            return _chunk(b"".join(pieces)) if pieces else b""
        self._end_sent = True
        pieces.append(b"--%b--\r\n" % self._boundary.encode())
        return _chunk(b"".join(pieces)) + _chunk(b"")

    def heartbeat(self) -> bytes:
        """
        Bytes that keep a silent connection alive: a header line of the part that follows.
        """
        if self._end_sent:
            return b""
        line = self._opening() + b"Msgbus-Heartbeat: 1\r\n"
        self._open = True
        return _chunk(line)

    def feed(self, data: bytes) -> Iterator[tuple[int, Answer]]:
        """
        Take bytes from the server.

        Returns:
            An iterator of the numbers of publications and their answers, in their order.
            What the caller does not take from it comes from the next call.

        Raises:
            Refused: By the iterator: the bus refuses the stream as a whole.
            Unreachable: By the iterator: this connection is of no more use.
        """
        self._text += self._response.feed(data)
        return self._read()

    def end(self) -> Iterator[tuple[int, Answer]]:
        """
        Take the end of the connection.  The result and the errors are those of `feed`;
        unless the stream is `finished`, the iterator raises one.
        """
        yield from self._read()
        if self._response.status and not self._accepted:
            raise self._refusal()
        self._response.end()
        yield from self._read()

    def lost(self, error: Unreachable, now: float, patience: float) -> Lost:
        """
        Take note that a connection was lost, or could not be made, and say when to try the
        next.

        Args:
            now: The time by any clock that does not jump, in seconds.
            patience: For how many seconds to try, from the first failure behind the last
                answer.

        Raises:
            Unreachable: The given error, because the next try would come too late.
        """
        if self._retry is None:
            self._retry = Retry(patience, now)
        return self._retry.after(error, now)

    def _opening(self) -> bytes:
        """
        The delimiter, unless it was sent before a heartbeat.
        """
        return b"" if self._open else b"--%b\r\n" % self._boundary.encode()

    @property
    def _accepted(self) -> bool:
        """
        Whether the bus takes the stream, and answers each part.
        """
        response = self._response
        kind = response.head.get("content-type", "").partition(";")[0].strip().lower()
        return response.status == 200 and kind == "application/x-ndjson"

    def _refusal(self) -> BusError:
        response = self._response
        return refusal(response.status, response.head, bytes(self._text[:SENTENCE_BYTES]))

    def _read(self) -> Iterator[tuple[int, Answer]]:
        response = self._response
        if not self._accepted:
            enough = response.ended or len(self._text) >= SENTENCE_BYTES
            if response.status and enough:
                raise self._refusal()
            return
        while (end := self._text.find(b"\n")) >= 0:
            line = bytes(self._text[:end])
            del self._text[: end + 1]
            yield from self._line(line)
        if len(self._text) > _MAX_LINE_BYTES:
            raise Refused("This is no bus: it answered with an endless line.", 200)
        if response.ended and not self.finished:
            raise Unreachable("The server ended the stream.")

    def _line(self, line: bytes) -> Iterator[tuple[int, Answer]]:
        if not line:
            # A heartbeat.
            return
        answer = part_answer(line)
        if isinstance(answer.result, Unreachable):
            raise answer.result
        if answer.result is not None:
            if answer.part != self._answered + 1 or not self._sent:
                if isinstance(answer.result, Refused):
                    raise answer.result
                raise Refused("This is no bus: its answers are not in order.", 200)
            self._answered += 1
            part = self._sent.popleft()
            self._bytes -= len(part.data)
            self._retry = None
            yield part.number, answer.result
        if answer.last and (answer.result is not None or not self._end_sent or self._sent):
            raise Unreachable("The server ended the stream.")


def _chunk(data: bytes) -> bytes:
    """
    A chunk of HTTP/1.1 (RFC 9112, section 7.1); without data, the last one.
    """
    return b"%x\r\n%b\r\n" % (len(data), data)
