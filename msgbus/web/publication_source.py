"""
Reads messages in the body of a request: the parts of a multipart stream, or lines.

No I/O.  How they are published is up to `publication_stream`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..formats.caching import parse_cache_control
from ..formats.lines import LineDecoder
from ..formats.multipart import Decoder, Part
from ..formats.publication import Publication, parse_envelope
from ..headers import NO_HEADERS, Headers, headers_of
from ..ids import life_of, origin_of, parse_id, parse_origin
from ..message import Invalid, Message, is_folder
from .query import channel_name
from .visitor import Visitor

__all__ = ["Envelopes", "Parts", "RawLines", "Source", "Target", "Wish"]

T = TypeVar("T")

# A URL, absolute or relative; the query is no part of the path.
_LOCATION = re.compile(r"(?:[a-z][a-z0-9+.-]*://[^/?#]*(?=/))?([^?#]*)", re.IGNORECASE)

# How many messages that differ only in their bodies are remembered, and how many bytes of
# headers each may have for that, because there may be thousands of streams.
MAX_TEMPLATES = 256
MAX_TEMPLATE_HEADERS = 1000

# The headers that most parts have, and that do not travel.
_USUAL = {
    "cache-control",
    "content-length",
    "content-location",
    "content-type",
    "date",
    "from",
    "idempotency-key",
    "msgbus-id",
    "msgbus-origin",
}


Wish = tuple[Message, bytes, bool, bool, str | None]
"""
What is to be published: a message, its body, and the `keep`, `require` and `key` of
`Bus.submit`.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where a stream is published, and by whom.

    Attributes:
        name: The channel, or the folder below which each message names its own.
        prefixes: Where the bus is mounted, and where the publisher says that it is; see
            `Parts`.
        visitor: Who publishes.
        life: See `Bus.life`.
        milliseconds: Tells the time, in milliseconds since 1970.
    """

    name: str
    prefixes: tuple[str, ...]
    visitor: Visitor
    life: int
    milliseconds: Callable[[], int]

    def channel(self, location: str) -> str:
        """
        The channel of a message with this `Content-Location`: a path below the bus, or one
        that is relative to the folder.

        Raises:
            Invalid: It is not below the folder.
        """
        if not is_folder(self.name) or not location:
            return self.name
        match = _LOCATION.match(location)
        path = match[1] if match else location
        for prefix in self.prefixes:
            if path.startswith(prefix):
                return self.inside(channel_name(path.removeprefix(prefix).encode()))
        if path.startswith("/"):
            raise Invalid(
                f"The location {location[:200]!r} is not below {self.prefixes[0]!r}; if the"
                " stream is of a bus elsewhere, give its path in a header Msgbus-Prefix."
            )
        return self.name + channel_name(path.removeprefix("./").encode())

    def inside(self, channel: str) -> str:
        """
        This channel, if it is in the folder; the channel itself if there is no folder.

        Raises:
            Invalid: It is not.
        """
        if not is_folder(self.name):
            return self.name
        if not channel.startswith(self.name):
            raise Invalid(f"The channel {channel!r} is not in the folder {self.name!r}.")
        return channel

    def sender(self, named: str, channel: str) -> str:
        """
        Who has sent a message to this channel that names this sender.
        """
        believed = named and self.visitor.is_believed(channel)
        return named if believed else self.visitor.sender

    def origin(self, claimed: str, channel: str) -> str:
        """
        The origin of a message to this channel that claims this one.
        """
        if not claimed or self.visitor.may_relay(channel):
            return claimed
        # That this bus has published it first, anybody may say: it only means that their
        # message is not published.
        with suppress(Invalid):
            if life_of(parse_origin(claimed)) == self.life:
                return claimed
        return ""

    def rest(self, max_age: int | None, id: str) -> int | None:
        """
        What is left of a `max_age` for a message that another bus has given this id.
        """
        if max_age is None or not id:
            return max_age
        with suppress(Invalid):
            # Their clock may be ahead of ours.
            age = max(0, self.milliseconds() - parse_id(id)[0]) // 1000
            return max(0, max_age - age)
        return max_age


class Source(Protocol[T]):
    """
    A body that is read in pieces.
    """

    @property
    def is_inside(self) -> bool:
        """
        Has a message begun that is not complete?
        """

    def feed(self, data: bytes) -> Iterator[T]:
        """
        Take the next bytes.

        Returns:
            The messages that are complete now, as `wish` takes them.

        Raises:
            Malformed: The body cannot be read further.  Raised while one iterates.
        """

    def last(self) -> T | None:
        """
        Take the end of a body that is whole, and the message that it completes, if it
        completes one.

        Raises:
            Malformed: It does not end behind a message.
        """

    def close(self) -> None:
        """
        Read nothing more, and release what was received.
        """

    def judge_anew(self) -> None:
        """
        Remember nothing of what the publisher may do, because that has changed.
        """

    def wish(self, item: T) -> Wish | None:
        """
        What such a message asks for; None if it is no message, but tells something else.

        Raises:
            Invalid: It is faulty.
        """


class Parts:
    """
    The parts of a multipart stream, as a bus or a camera sends it.

    A part may have the headers `Content-Type`, `Content-Location`, `From`, `Msgbus-Id`,
    `Msgbus-Origin`, `Idempotency-Key` and `Cache-Control`, and those that travel with a
    message; all others are ignored.
    """

    def __init__(self, target: Target, boundary: str | None, max_body: int) -> None:
        self._target = target
        self._decoder = Decoder(boundary, max_body)
        self.feed = self._decoder.feed
        self.last = self._decoder.last
        self.close = self._decoder.close
        # The messages of parts without an origin, by what parts have in common.
        self._templates: dict[tuple[str, str, str, Headers], Message] = {}
        # The headers of the last part, and what they ask for, because equal headers are
        # often one object; see `RepeatedHead.read`.
        self._headers: dict[str, str] | None = None
        self._asked: tuple[Message, bool, str | None]

    @property
    def is_inside(self) -> bool:
        """
        Has a part begun that is not complete?
        """
        return self._decoder.is_inside

    def judge_anew(self) -> None:
        """
        Forget the senders and origins that were believed.
        """
        self._templates.clear()
        self._headers = None

    def wish(self, item: Part) -> Wish | None:
        """
        What a part asks for; None if it is the last of a stream of a bus, which only tells
        that the past ends there.
        """
        headers, body = item
        if headers is not self._headers:
            if not body and "msgbus-live" in headers and "content-type" not in headers:
                return None
            self._asked = self._read(headers)
            self._headers = headers
        message, keep, key = self._asked
        return message, body, keep, False, key

    def _read(self, headers: dict[str, str]) -> tuple[Message, bool, str | None]:
        find = headers.get
        message = self._template(
            find("content-type") or "application/octet-stream",
            find("content-location", ""),
            find("from", ""),
            NO_HEADERS if _USUAL.issuperset(headers) else headers_of(headers.items()),
        )
        if "msgbus-origin" in headers or "msgbus-id" in headers:
            origin = self._target.origin(_origin(headers), message.channel)
            message = message.with_origin(origin)
        keep, max_age = parse_cache_control(find("cache-control"))
        if max_age is not None:
            message = message.with_max_age(
                self._target.rest(max_age, find("msgbus-id", ""))
            )
        return message, keep, find("idempotency-key")

    def _template(
        self, content_type: str, location: str, sender: str, others: Headers
    ) -> Message:
        key = (content_type, location, sender, others)
        template = self._templates.get(key)
        if template is None:
            target = self._target
            channel = target.channel(location)
            template = Message(
                channel,
                b"",
                content_type,
                target.sender(sender, channel),
                headers=others,
            )
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            if others.size <= MAX_TEMPLATE_HEADERS:
                self._templates[key] = template
        return template


class Envelopes(LineDecoder):
    """
    Lines, each a message in an envelope, as a subscriber gets them.
    """

    def __init__(self, target: Target, max_line: int) -> None:
        super().__init__(max_line)
        self._target = target

    def judge_anew(self) -> None:
        """
        Do nothing: each line is judged by itself.
        """

    def wish(self, item: bytes) -> Wish | None:
        """
        What a line asks for; None if it is empty, or tells a gap.
        """
        publication = parse_envelope(item) if item.strip() else None
        if publication is None:
            return None
        return (
            self._message(publication),
            publication.body,
            publication.keep,
            publication.require,
            publication.key,
        )

    def _message(self, publication: Publication) -> Message:
        target = self._target
        channel = publication.channel
        channel = target.name if channel is None else target.inside(channel)
        return Message(
            channel,
            b"",
            publication.content_type,
            target.sender(publication.sender, channel),
            origin=target.origin(publication.origin, channel),
            headers=publication.headers,
            max_age=target.rest(publication.max_age, publication.id),
        )


class RawLines(LineDecoder):
    """
    Lines, each the body of a message, which all have one type.
    """

    def __init__(self, target: Target, max_line: int, content_type: str) -> None:
        super().__init__(max_line)
        self._template = Message(target.name, b"", content_type, target.visitor.sender)

    def judge_anew(self) -> None:
        """
        Do nothing: no line names a sender or an origin.
        """

    def wish(self, item: bytes) -> Wish:
        """
        A line is a message, also an empty one.
        """
        return self._template, item, True, False, None


def _origin(headers: dict[str, str]) -> str:
    """
    The origin of a part: what it says, or what its id says, if it is one of msgbus.
    """
    with suppress(Invalid):
        return headers.get("msgbus-origin") or origin_of(headers.get("msgbus-id", ""))
    return ""
