"""
The response to a subscription: bytes in; messages, gaps and the end of history out.

No I/O.  Several streams that follow one another are one `ResumableStream`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import quote

from ..formats.coding import CODING, decoded
from ..formats.multipart import Decoder, Malformed, Part, boundary_of
from ..ids import Gap
from ..message import Invalid, Message
from .errors import printable
from .notices import Live
from .responses import count_of, refusal, seconds_of

__all__ = ["Item", "Stream"]

Item = Message | Gap | Live
"""
What comes in a stream.
"""


class Stream:
    """
    Reads the response to one subscription.

    Args:
        name: The channel or folder that was subscribed to.  It is taken for the channel of
            messages where the server does not tell that.
        status: The status code of the response.
        head: Its headers, with names in lower case.
        max_message: The largest body that is taken, in bytes; a larger one is `Malformed`.
        last_id: The id that the request had as `Last-Event-ID`, or the empty string.
        decodes: Whether content codings are undone, where that is possible.

    Attributes:
        prefix: The path of the bus, as the server tells it, percent-encoded.
        last_id: The id of the message behind which the next stream is to begin, or the
            empty string if none is known.
        beats: Whether the server sends heartbeats when it is asked to.

    Raises:
        Refused: The response is not that of a bus.
        Unreachable: The server may give a stream at another time.
    """

    def __init__(
        self,
        name: str,
        status: int,
        head: Mapping[str, str],
        max_message: int,
        last_id: str = "",
        decodes: bool = False,
    ) -> None:
        content_type = head.get("content-type", "")
        try:
            if status != 200:
                raise Malformed
            self._decoder = Decoder(boundary_of(content_type), max_message)
        except Malformed:
            raise refusal(status, head, b"") from None
        self._parts: Iterator[Part] = iter(())
        # The notices and the message of a decoded part that the caller has not asked for
        # yet.
        self._left: deque[Gap | Live | Part] = deque()
        self._name = name
        self._max_message = max_message
        self._decodes = decodes
        self.prefix = head.get("msgbus-prefix", "/msgbus/")
        self.last_id = head.get("msgbus-id") or last_id
        # The original msgbus, which knows no heartbeats, does not tell its prefix either.
        self.beats = "msgbus-prefix" in head

    def feed(self, data: bytes) -> Iterator[Item]:
        """
        Take the next bytes of the stream.

        Returns:
            An iterator of the messages and notices that they complete.  What the caller
            does not take from it is in the iterator that the next call returns.

        Raises:
            Malformed: By the iterator: this is no stream of a bus, and cannot be read
                further.
        """
        # The decoder takes the bytes now, even if the iterator is used later or never.
        self._parts = self._decoder.feed(data)
        return self._read()

    def end(self) -> str:
        """
        Take the end of the stream, and return a sentence that says how it ended.
        """
        try:
            self._decoder.end()
        except Malformed as error:
            return str(error)
        return "The server ended the stream."

    @property
    def retry_seconds(self) -> float:
        """
        After how many seconds the server has asked its client to come back, before it ended
        the stream; 0 if it has not.
        """
        return seconds_of(self._decoder.ahead.get("msgbus-retry", ""))

    def _read(self) -> Iterator[Item]:
        """
        The notices and messages of the parts that are complete, each notice before the
        message in whose head it was told.
        """
        while True:
            while self._left:
                item = self._left.popleft()
                yield self._message(item) if isinstance(item, Part) else item
            part = next(self._parts, None)
            if part is not None:
                self._left += _notices(part.headers)
                # The last part has nothing but a notice, if the stream ends where history
                # does.
                if part.headers or part.body:
                    self._left.append(part)
                continue
            # They may be told long before the part in whose head they stand is complete.
            self._left += _notices(self._decoder.ahead)
            if not self._left:
                return

    def _message(self, part: Part) -> Message:
        try:
            message = self._made(part)
        except (Invalid, UnicodeDecodeError) as error:
            sentence = printable(str(error))
            raise Malformed(f"A part is no message: {sentence}") from None
        self.last_id = message.id or self.last_id
        if self._decodes and CODING in message.headers:
            with suppress(Invalid):
                return decoded(message, self._max_message)
        return message

    def _made(self, part: Part) -> Message:
        if "content-location" in part.headers:
            return part.message(self.prefix)
        # The original msgbus tells the channel to subscribers of the root only.
        headers = {**part.headers, "content-location": quote(f"/{self._name}")}
        return part._replace(headers=headers).message("/")


def _notices(headers: dict[str, str]) -> Iterator[Gap | Live]:
    """
    Take the notices out of the headers of a part, so that none is told twice.
    """
    for count in headers.pop("msgbus-gap", "").split(","):
        if count := count.strip():
            yield Gap(count_of(count))
    if headers.pop("msgbus-live", None) is not None:
        yield Live()
