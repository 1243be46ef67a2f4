"""
Answers the publisher of a stream: what has become of its messages.

How they are published is up to `publication_stream`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.web import server

from ..formats.envelope import line
from ..formats.framing import HEARTBEAT_SECONDS
from ..message import Receipt
from .mount import when_published
from .responses import answer, set_stream_headers, status_of
from .streamed_body import NDJSON

__all__ = ["StreamAnswer"]

# The answer is full while so many messages wait to be written to the disk.
MAX_PENDING = 1024


@dataclass(slots=True)
class _Pending:
    """
    A message for which the publisher has to wait, because it is not on the disk yet, or an
    earlier one is not.

    Attributes:
        number: Its number, counted from 1.
        result: Its receipt, or the line that tells why there is none; None at first.
    """

    number: int
    result: Receipt | bytes | None = None


class StreamAnswer:
    """
    The answer to the publisher of a stream.

    Args:
        request: Its request.
        reactor: The lines of one of its turns are sent together.
        told: Whether there is a line for each message.  If not, the publisher is answered
            once, at the end, because it may not read before.

    Attributes:
        has_room: Called when the answer is not full any more.
        refused: Called with the error when a message is refused that had to wait.
        broken: Called then, too, if the publisher is answered only at the end.
        told: As given.
        count: How many messages there have been, published or not.
    """

    def __init__(
        self,
        request: server.Request,
        reactor: IReactorTime,
        told: bool,
    ) -> None:
        self.told = told
        self.count = 0
        self._request = request
        self._reactor = reactor
        self.has_room: Callable[[], object] = bool
        self.refused: Callable[[Exception], object] = bool
        self.broken: Callable[[], object] = bool
        # Why the stream has ended before its end, as told then; empty if it has not.
        self._error: dict[str, object] = {}
        self._published = 0
        self._repeated = 0
        self._last_id: str | None = None
        # The messages from the first one on that is not on the disk yet.
        self._pending: deque[_Pending] = deque()
        # Lines that are to be sent.
        self._lines: list[bytes] = []
        self._flushing = False
        self._ended = False
        # An empty line from time to time, because proxies cut answers that are silent.
        self._beating = LoopingCall(request.write, b"\n")
        self._beating.clock = reactor
        if told:
            request.setHeader(b"Content-Type", NDJSON.encode("ascii"))
            set_stream_headers(request)
            # The publisher may wait for the head of the answer before it sends anything.
            request.write(b"")
            self._beating.start(HEARTBEAT_SECONDS, now=False)

    @property
    def is_full(self) -> bool:
        """
        Do so many messages wait for the disk that no more should be published?
        """
        return len(self._pending) >= MAX_PENDING

    def add(self, receipt: Receipt | Deferred[Receipt]) -> None:
        """
        The next message is published.
        """
        self.count += 1
        if isinstance(receipt, Deferred):
            pending = _Pending(self.count)
            self._pending.append(pending)
            when_published(
                receipt, partial(self._settle, pending), partial(self._refused, pending)
            )
        elif self._pending:
            self._pending.append(_Pending(self.count, receipt))
        else:
            self._acknowledge(self.count, receipt)

    def refuse(self, status: int, sentence: str) -> None:
        """
        The next message is not published, and the stream goes on.
        """
        self.count += 1
        told = _refusal(self.count, status, sentence)
        if self._pending:
            self._pending.append(_Pending(self.count, told))
        else:
            self._lines.append(told)

    def fail(self, status: int, sentence: str, of_next: bool) -> None:
        """
        The stream ends here because of an error.

        Args:
            of_next: Whether it is one of the next message.
        """
        self._error = {"status": status, "error": sentence}
        if of_next:
            self._error = {"part": self.count + 1, **self._error}

    def end(self) -> None:
        """
        There are no more messages: the answer ends once all are on the disk.
        """
        self._ended = True
        if self._beating.running:
            self._beating.stop()
        self.flush()

    def flush(self) -> None:
        """
        Send what there is to be told.
        """
        self._flushing = False
        lines, self._lines = self._lines, []
        request = self._request
        if request._disconnected or request.finished:
            return
        at_end = self._ended and not self._pending
        if at_end:
            lines.append(self._summary())
            if not self.told:
                status = self._error.get("status", 200)
                answer(request, int(str(status)), lines[0], b"application/json")
                return
        if lines:
            request.write(b"".join(lines))
        if at_end:
            request.finish()

    def _refused(self, pending: _Pending, error: Exception) -> None:
        """
        A message that waited is not published after all.  For a publisher that is not told
        of each message, the stream ends here.
        """
        self.refused(error)
        told = _refusal(pending.number, status_of(error), str(error))
        if self.told:
            self._settle(pending, told)
            return
        if not self._error:
            self._error = json.loads(told)
        self._settle(pending, b"")
        self.broken()

    def _settle(self, pending: _Pending, result: Receipt | bytes) -> None:
        """
        It is known what becomes of a message: it is on the disk, or will not be.
        """
        pending.result = result
        was_full = self.is_full
        while self._pending and (first := self._pending[0].result) is not None:
            number = self._pending.popleft().number
            if isinstance(first, Receipt):
                self._acknowledge(number, first)
            elif self.told:
                self._lines.append(first)
        if was_full and not self.is_full:
            self.has_room()
        if not self._flushing:
            # Not at once: hundreds of messages are written to the disk together.
            self._flushing = True
            self._reactor.callLater(0, self.flush)

    def _acknowledge(self, number: int, receipt: Receipt) -> None:
        self._last_id = receipt.id
        if receipt.repeated:
            self._repeated += 1
        else:
            self._published += 1
        if self.told:
            rest = b', "repeated": true}\n' if receipt.repeated else b"}\n"
            told = (number, receipt.id.encode("ascii"), receipt.subscribers, rest)
            self._lines.append(b'{"part": %d, "id": "%b", "subscribers": %d%b' % told)

    def _summary(self) -> bytes:
        summary = {
            "published": self._published,
            "repeated": self._repeated,
            "id": self._last_id,
            **self._error,
        }
        return line(summary) + b"\n"


def _refusal(number: int, status: int, sentence: str) -> bytes:
    """
    The line that tells that the message with this number is not published.
    """
    return line({"part": number, "status": status, "error": sentence}) + b"\n"
