"""
A way in: a request whose body is a stream of messages, each of which is published as soon
as it has come.

How messages are read in the body is up to `publication_source`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

from twisted.internet.defer import Deferred
from twisted.web import server
from twisted.web.server import NOT_DONE_YET

from ..bus.bus import Stopping
from ..formats import multipart
from ..formats.envelope import line
from ..formats.multipart import Malformed, declared_boundary
from ..message import Receipt
from .auth import sender_of
from .headers import check_origin, check_transfer_encoding, header
from .mount import STOPPING, Mount
from .publication_source import Envelopes, Parts, RawLines, Source, Target
from .query import channel_name, parse_line_stream, requires_subscriber
from .request import Request
from .responses import REFUSALS, Refusal, answer, set_stream_headers, status_of
from .streamed_body import MULTIPART, NDJSON
from .websocket import ENVELOPE_BYTES, ENVELOPE_FACTOR

__all__ = ["PublicationStream", "publish_stream"]

# How many messages, and how many bytes, of one stream are published in one turn of the
# reactor.
MESSAGES_A_TURN = 128
BYTES_A_TURN = 256 * 1024

# While so many messages wait to be written to the disk, no more are read.
MAX_PENDING = 1024

# About what a message costs beside its bytes, in bytes of work as `turns` counts them.
WORK_A_MESSAGE = 512


def publish_stream(mount: Mount, request: server.Request, path: bytes) -> int:
    """
    Publish the messages in the body of a request, each as soon as it is complete, and
    answer at the end of the body.

    Args:
        path: The path of the channel or folder below the root of the bus, percent-encoded.

    Raises:
        Refusal: The request may not publish, or is faulty.
        Invalid: Its name or query is not valid.
        Stopping: The bus is about to stop, and would have to wait for the end of the body.
    """
    if request._disconnected:
        # While the password was checked.
        return NOT_DONE_YET
    if not mount.takes_streams:
        raise Stopping(STOPPING)
    check_transfer_encoding(request)
    check_origin(request, mount.origins)
    source = _source(mount, request, channel_name(path))
    require = requires_subscriber(request.uri.partition(b"?")[2])
    told = NDJSON in (header(request, b"Accept", many=True) or "").lower()
    body = request.body if isinstance(request, Request) else None
    if body is not None:
        body.accept()
    stream = PublicationStream(mount, request, source, require, told)
    mount.publication_streams.add(stream)
    request.notifyFinish().addBoth(stream.gone)
    if body is not None:
        body.start(stream, mount.fanout.limits.stall_seconds)
    else:
        # A request of another site has its whole body already.
        stream.receive(cast(BinaryIO, request.content).read())
        stream.end()
    return NOT_DONE_YET


def _source(mount: Mount, request: server.Request, name: str) -> Source[Any]:
    content_type = header(request, b"Content-Type") or ""
    prefixes = [mount.prefix]
    if declared := header(request, b"Msgbus-Prefix"):
        prefixes.insert(0, declared)
    target = Target(
        name,
        tuple(prefixes),
        sender_of(header(request, b"Authorization")),
        isinstance(request, Request) and request.is_open,
    )
    max_message = mount.bus.max_message
    if content_type.partition(";")[0].strip().lower() == MULTIPART:
        try:
            return Parts(target, declared_boundary(content_type), max_message)
        except Malformed as error:
            raise Refusal(400, str(error)) from None
    raw_type = parse_line_stream(request.uri.partition(b"?")[2])
    if raw_type is None:
        return Envelopes(target, ENVELOPE_FACTOR * max_message + ENVELOPE_BYTES)
    return RawLines(target, max_message, raw_type)


class PublicationStream:
    """
    Publishes what is read in one body, in order, and answers.

    A limited number of messages is published in one turn of the reactor; the peer waits
    while there are more, and while too many wait to be written to the disk.

    Args:
        request: The request with that body.
        source: Reads messages in it.
        require: Whether a message is refused if there is no subscriber for it.
        told: Whether the publisher is sent a line for each message.  If not, it is answered
            once, at the end, because it may not read before.
    """

    def __init__(
        self,
        mount: Mount,
        request: server.Request,
        source: Source[Any],
        require: bool,
        told: bool,
    ) -> None:
        self._mount = mount
        self._request = request
        self._client = request.getClientAddress
        self._body = request.body if isinstance(request, Request) else None
        self._source = source
        self._require = require
        self._told = told
        # What has come and is not published yet, and whether that waits in `turns`.
        self._items: Iterator[Any] = iter(())
        self._queued = False
        self._paused = False
        # Called when all that has come is published; None as long as more may come.
        self._ending: Callable[[], None] | None = None
        # Whether nothing is published any more.
        self._ended = False
        # What is told at the end: how many messages were read, and what became of them.
        self._read = 0
        self._published = 0
        self._repeated = 0
        self._last_id: str | None = None
        self._error: dict[str, object] = {}
        # The messages from the first one on that is not on the disk yet.
        self._pending: deque[_Pending] = deque()
        # Lines that are to be sent to the publisher.
        self._lines: list[bytes] = []
        if told:
            request.setHeader(b"Content-Type", NDJSON.encode("ascii"))
            set_stream_headers(request)
            # The publisher may wait for the head of the answer before it sends anything.
            request.write(b"")

    def receive(self, data: bytes) -> None:
        """
        Take the next bytes of the body.
        """
        if self._ended:
            return
        self._items = self._source.feed(data)
        if self._may_work():
            self._work()
        elif self._body is not None:
            # Over TLS, bytes that were read before the pause may come during it; and the
            # connection resumes by itself once the peer has read what it was sent.
            self._body.pause()

    def end(self) -> None:
        """
        Take the end of the body.
        """
        self._end_by(self._complete)

    def fail(self, status: int, sentence: str) -> None:
        """
        Take nothing more, because the rest of the body cannot be read.
        """
        self._end_by(partial(self._break, status, sentence))

    def stop(self) -> None:
        """
        Take nothing more, because the bus stops.
        """
        self._end_by(partial(self._break, 503, STOPPING))

    def gone(self, _: object) -> None:
        """
        The response has ended, or the publisher has gone.
        """
        self._mount.publication_streams.discard(self)
        self._end_by(self._break_off)

    def stalled(self) -> bool:
        """
        Give up, if the rest of a message has not come for too long.
        """
        if self._paused or self._ending is not None or not self._source.is_inside:
            return True
        self._break(408, "The rest of the message did not come in time.", self._read + 1)
        self._say()
        return False

    def _end_by(self, ending: Callable[[], None]) -> None:
        if self._ending is None and not self._ended:
            self._ending = ending
            if self._may_work():
                self._work()

    def _may_work(self) -> bool:
        """
        May messages be published now?  If not, `_work` is called later: in a turn of the
        reactor, or when fewer messages wait for the disk.
        """
        return not self._queued and len(self._pending) < MAX_PENDING

    def _work(self) -> int:
        """
        Publish what may be published in this turn of the reactor.

        Returns:
            About how many bytes of work that was; see `Turns.call`.
        """
        self._queued = False
        done = count = 0
        more = True
        try:
            while (
                more and not self._ended and count < MESSAGES_A_TURN and done < BYTES_A_TURN
            ):
                item = next(self._items, None)
                if item is not None:
                    done += self._publish(item)
                    count += 1
                    continue
                more = False
                if self._ending is not None:
                    self._ending()
        except multipart.TooLarge as error:
            limit = self._mount.bus.max_message
            sentence = f"{error} A message has at most {limit} bytes here."
            self._break(413, sentence, self._read + 1)
        except Malformed as error:
            self._break(400, str(error), self._read + 1)
        self._wait(more)
        self._say()
        return done

    def _wait(self, more: bool) -> None:
        """
        Wait for the next turn of the reactor, for the disk, or for more bytes, and have the
        peer wait for the first two.

        Args:
            more: Whether there may be more to publish of what has come.
        """
        full = len(self._pending) >= MAX_PENDING
        if more and not full and not self._ended:
            self._queued = True
            self._mount.fanout.turns.call(self._work)
        paused = (more or full) and not self._ended
        if self._body is not None and self._paused != paused:
            self._paused = paused
            (self._body.pause if paused else self._body.resume)()

    def _publish(self, item: Any) -> int:
        """
        Publish one message.

        Returns:
            About how many bytes of work that was.
        """
        self._read += 1
        try:
            wish = self._source.wish(item)
            if wish is None:
                self._read -= 1
                return 0
            message, body, keep, require, key = wish
            receipt = self._mount.publish(
                self._client, message, body, keep, self._require or require, key
            )
        except REFUSALS as error:
            self._refuse(error)
            return WORK_A_MESSAGE
        if isinstance(receipt, Deferred):
            pending = _Pending(self._read)
            self._pending.append(pending)
            receipt.addCallback(partial(self._written, pending))
        elif self._pending:
            self._pending.append(_Pending(self._read, receipt))
        else:
            self._acknowledge(self._read, receipt)
        return WORK_A_MESSAGE + len(body)

    def _written(self, pending: _Pending, receipt: Receipt) -> None:
        """
        A message is on the disk.
        """
        pending.result = receipt
        waited = len(self._pending) >= MAX_PENDING
        while self._pending and (result := self._pending[0].result) is not None:
            number = self._pending.popleft().number
            if isinstance(result, Receipt):
                self._acknowledge(number, result)
            else:
                self._lines.append(result)
        if waited and len(self._pending) < MAX_PENDING and not self._queued:
            self._wait(more=True)
        self._say()

    def _acknowledge(self, number: int, receipt: Receipt) -> None:
        self._last_id = receipt.id
        if receipt.repeated:
            self._repeated += 1
        else:
            self._published += 1
        if self._told:
            rest = b', "repeated": true}\n' if receipt.repeated else b"}\n"
            told = (number, receipt.id.encode("ascii"), receipt.subscribers, rest)
            self._lines.append(b'{"part": %d, "id": "%b", "subscribers": %d%b' % told)

    def _refuse(self, error: Exception) -> None:
        """
        Do not publish the message that was read last.  A publisher that is told so at once
        may go on; for one that would not know, the stream ends here.
        """
        status = status_of(error)
        if not self._told or isinstance(error, Stopping):
            self._break(status, str(error), self._read)
            return
        told = line({"part": self._read, "status": status, "error": str(error)}) + b"\n"
        if self._pending:
            self._pending.append(_Pending(self._read, told))
        else:
            self._lines.append(told)

    def _complete(self) -> None:
        """
        The body is whole, and all of it is published, but perhaps for the last message.
        """
        last = self._source.last()
        if last is not None:
            self._publish(last)
        self._ended = True

    def _break(self, status: int, sentence: str, number: int | None = None) -> None:
        """
        Publish nothing any more, because of an error.

        Args:
            number: That of the message that is faulty, counted from 1.
        """
        self._ended = True
        self._error = {"status": status, "error": sentence}
        if number is not None:
            self._error = {"part": number, **self._error}

    def _break_off(self) -> None:
        """
        Publish nothing any more, because the publisher has gone.
        """
        self._ended = True

    def _say(self) -> None:
        """
        Tell the publisher what has become of its messages; at the end, of all.
        """
        lines, self._lines = self._lines, []
        request = self._request
        if request._disconnected or request.finished:
            return
        if self._ended and not self._pending:
            summary = line(
                {
                    "published": self._published,
                    "repeated": self._repeated,
                    "id": self._last_id,
                    **self._error,
                }
            )
            lines.append(summary + b"\n")
            if not self._told:
                status = cast(int, self._error.get("status", 200))
                answer(request, status, b"".join(lines), b"application/json")
                return
        if lines:
            request.write(b"".join(lines))
        if self._ended and not self._pending:
            request.finish()


@dataclass(slots=True)
class _Pending:
    """
    A message for whose place in order, or on the disk, or for that of an earlier one, the
    publisher has to wait.

    Attributes:
        number: Its number, counted from 1.
        result: Its receipt, or the line that tells why there is none; None at first.
    """

    number: int
    result: Receipt | bytes | None = None
