"""
A way in: a request whose body is a stream of messages, each of which is published as soon
as it has come.

How messages are read in the body is up to `publication_source`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, BinaryIO, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.web import server
from twisted.web.server import NOT_DONE_YET

from ..bus.bus import Stopping
from ..formats import multipart
from ..formats.multipart import Malformed, declared_boundary
from .auth import visitor_of
from .channel import REQUEST_BYTES_A_SECOND
from .headers import check_origin, check_transfer_encoding, header
from .journal import Attempt
from .mount import Mount
from .publication_source import Envelopes, Parts, RawLines, Source, Target
from .query import channel_name, parse_line_stream, requires_subscriber
from .quotas import Throttled
from .request import Request, peer_of
from .responses import REFUSALS, Refusal, status_of
from .stream_answer import StreamAnswer
from .streamed_body import MULTIPART, NDJSON
from .visitor import Visitor
from .websocket import ENVELOPE_BYTES, ENVELOPE_FACTOR

__all__ = ["PublicationStream", "publish_stream"]

# How many messages, and how many bytes, of one stream are published in one turn of the
# reactor.
MESSAGES_A_TURN = 128
BYTES_A_TURN = 256 * 1024

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
    if not mount.takes_streams:
        raise Stopping(mount.returns.next())
    check_transfer_encoding(request)
    check_origin(request, mount.origins)
    visitor = visitor_of(request)
    name = channel_name(path)
    source = _source(mount, request, visitor, name)
    visitor.check_publish_below(name)
    require = requires_subscriber(request.uri.partition(b"?")[2])
    told = NDJSON in (header(request, b"Accept", many=True) or "").lower()
    body = request.body if isinstance(request, Request) else None
    if body is not None:
        body.accept()
    answer = StreamAnswer(request, mount.reactor, told)
    stream = PublicationStream(mount, request, name, source, require, answer)
    mount.publication_streams.add(stream)
    right = mount.rights.depend(
        visitor,
        partial(_check, visitor, name, source),
        lambda denied: stream.fail(denied.status, str(denied)),
    )

    def gone(_: object) -> None:
        if right is not None:
            right.cancel()
        stream.gone()

    request.notifyFinish().addBoth(gone)
    if body is not None:
        body.start(stream, mount.fanout.limits.stall_seconds)
    else:
        # A request of another site has its whole body already.
        stream.receive(cast(BinaryIO, request.content).read())
        stream.end()
    return NOT_DONE_YET


def _check(visitor: Visitor, name: str, source: Source[Any]) -> None:
    """
    Judge anew whether a publisher may publish to a channel or folder, and whether they may
    name other senders.

    Raises:
        Denied: They may not publish there.
    """
    source.judge_anew()
    visitor.check_publish_below(name)


def _source(
    mount: Mount, request: server.Request, visitor: Visitor, name: str
) -> Source[Any]:
    content_type = header(request, b"Content-Type") or ""
    prefixes = [mount.prefix]
    if declared := header(request, b"Msgbus-Prefix"):
        prefixes.insert(0, declared)
    bus = mount.bus
    target = Target(name, tuple(prefixes), visitor, bus.life, bus.milliseconds)
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
    Publishes what is read in one body, in order.

    A limited number of messages is published in one turn of the reactor; the peer waits
    while there are more, and while too many wait to be written to the disk.

    Args:
        request: The request with that body.
        name: The channel or folder to which it publishes.
        source: Reads messages in it.
        require: Whether a message is refused if there is no subscriber for it.
        answer: Tells the publisher what becomes of its messages.
    """

    def __init__(
        self,
        mount: Mount,
        request: server.Request,
        name: str,
        source: Source[Any],
        require: bool,
        answer: StreamAnswer,
    ) -> None:
        self._mount = mount
        self._visitor = visitor_of(request)
        self._peer = peer_of(request)
        self._name = name
        self._body = request.body if isinstance(request, Request) else None
        self._source = source
        self._require = require
        # What has come and is not published yet, and whether that waits in `turns`.
        self._items: Iterator[Any] = iter(())
        self._queued = False
        self._paused = False
        # The message that the quotas of the publisher do not allow yet, and what ends that
        # wait.
        self._held: Any = None
        self._holding: IDelayedCall | None = None
        # When the message that is being received began, and how many bytes have come since;
        # None between messages.
        self._began: float | None = None
        self._come = 0
        # Called when all that has come is published; None as long as more may come.
        self._ending: Callable[[], None] | None = None
        # Whether nothing is published any more.
        self._ended = False
        self._answer = answer
        answer.has_room = self._go_on
        answer.refused = self._refused
        answer.broken = self._broken

    def receive(self, data: bytes) -> None:
        """
        Take the next bytes of the body.
        """
        if self._ended:
            return
        now = self._mount.reactor.seconds()
        if self._began is None:
            self._began, self._come = now, 0
        self._come += len(data)
        self._items = self._source.feed(data)
        if self._may_work():
            self._work()
            self._check_pace(now)
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
        Take nothing more, because the rest of the body cannot be read, or may not be
        published.
        """
        self._drop_held()
        self._end_by(partial(self._break, Refusal(status, sentence)))

    def stop(self) -> None:
        """
        Take nothing more, because the bus stops.
        """
        self._drop_held()
        self._end_by(partial(self._break, Stopping()))

    def gone(self) -> None:
        """
        The response has ended, or the publisher has gone.
        """
        self._mount.publication_streams.discard(self)
        self._drop_held()
        self._end_by(self._end)

    def stalled(self) -> bool:
        """
        Give up, if the rest of a message has not come for too long.
        """
        ending = self._ended or self._ending is not None
        if ending or self._paused or not self._source.is_inside:
            return True
        sentence = "The rest of the message did not come in time."
        self._break(Refusal(408, sentence), of_next=True)
        return False

    def _check_pace(self, now: float) -> None:
        """
        Give up, if the message that is being received dribbles: it may take as long as it
        may stall, and one second more for each KiB.
        """
        if self._began is None or self._ended:
            return
        seconds = self._mount.fanout.limits.stall_seconds
        if now - self._began > seconds + self._come / REQUEST_BYTES_A_SECOND:
            self._break(Refusal(408, "The message comes too slowly."), of_next=True)

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
        return not self._queued and not self._is_full

    @property
    def _is_full(self) -> bool:
        """
        Does the publisher have to wait, for the disk or because of its quotas?
        """
        return self._answer.is_full or self._holding is not None

    def _hold(self, item: Any, seconds: float) -> None:
        """
        Publish this message, and all behind it, not before so many seconds.
        """
        self._held = item
        self._holding = self._mount.reactor.callLater(seconds, self._release)

    def _drop_held(self) -> None:
        """
        Publish neither the message that the quotas do not allow yet, nor those behind it,
        because the stream ends before they do: it might be an hour until then.
        """
        if self._holding is not None:
            self._holding.cancel()
            # The body may have ended already, but it has not been published whole.
            self._holding = self._held = self._ending = None
            self._items = iter(())

    def _release(self) -> None:
        self._holding = None
        self._go_on()

    def _go_on(self) -> None:
        """
        Fewer messages wait for the disk, or the quotas allow more.
        """
        if not self._queued and not self._is_full:
            self._wait(more=True)

    def _broken(self) -> None:
        """
        A message was refused after it had waited, and the answer tells of it.
        """
        self._end()
        self._wait(more=False)

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
            held, self._held = self._held, None
            items = self._items if held is None else chain((held,), self._items)
            for item in islice(items, 0 if self._ended else MESSAGES_A_TURN):
                done += self._publish(item)
                count += 1
                if self._ended or self._holding is not None or done >= BYTES_A_TURN:
                    break
            else:
                more = count == MESSAGES_A_TURN
                if not more and self._ending is not None and not self._ended:
                    self._ending()
        except multipart.TooLarge as error:
            limit = self._mount.bus.max_message
            sentence = f"{error} A message has at most {limit} bytes here."
            self._break(Refusal(413, sentence), of_next=True)
        except Malformed as error:
            self._break(Refusal(400, str(error)), of_next=True)
        if count or not self._source.is_inside:
            self._began = None
        self._wait(more)
        self._answer.flush()
        return done

    def _wait(self, more: bool) -> None:
        """
        Wait for the next turn of the reactor, for the disk, for the quotas, or for more
        bytes, and have the peer wait for all but the last.

        Args:
            more: Whether there may be more to publish of what has come.
        """
        full = self._is_full
        if more and not full and not self._ended:
            self._queued = True
            self._mount.fanout.turns.call(self._work)
        paused = (more or full) and not self._ended
        if self._body is not None and self._paused != paused:
            self._paused = paused
            # The peer is not slow while it has to wait.
            self._began = None
            (self._body.pause if paused else self._body.resume)()

    def _publish(self, item: Any) -> int:
        """
        Publish one message.

        Returns:
            About how many bytes of work that was.
        """
        try:
            wish = self._source.wish(item)
            if wish is None:
                return 0
            message, body, keep, require, key = wish
            self._answer.add(
                self._mount.publish(
                    self._visitor,
                    self._peer,
                    message,
                    body,
                    keep,
                    self._require or require,
                    key,
                )
            )
            traffic = self._mount.counters.streams
            traffic.messages += 1
            traffic.bytes += len(body)
        except Throttled as error:
            self._hold(item, error.seconds)
            return 0
        except REFUSALS as error:
            self._refuse(error)
            return WORK_A_MESSAGE
        return WORK_A_MESSAGE + len(body)

    def _refuse(self, error: Exception) -> None:
        """
        Do not publish the next message.  A publisher that is told so at once may go on; for
        one that would not know, the stream ends here.
        """
        if self._answer.told and not isinstance(error, Stopping):
            self._refused(error)
            self._answer.refuse(status_of(error), str(error))
        else:
            self._break(error, of_next=True)

    def _refused(self, error: Exception) -> None:
        """
        Count and log that a message, or the rest of the stream, is refused.
        """
        attempt = Attempt(self._peer, self._visitor.sender, "stream", self._name)
        self._mount.journal.refuses(attempt, error)

    def _complete(self) -> None:
        """
        The body is whole, and all of it is published, but perhaps for the last message.
        """
        last = self._source.last()
        if last is not None:
            self._publish(last)
        if self._holding is None:
            self._end()
        else:
            self._ending = self._end

    def _break(self, error: Exception, of_next: bool = False) -> None:
        """
        Publish nothing any more, because of an error, which is a `Refusal` or one of
        `REFUSALS`; see `StreamAnswer.fail`.
        """
        self._refused(error)
        self._answer.fail(status_of(error), str(error), of_next)
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._drop_held()
        # This object and the decoder are parts of cycles, which may stay for long.
        self._source.close()
        self._answer.end()
