"""
What a client says to a bus, and what it makes of the answers.

No I/O and no clock.  Shared by the clients, each of which has its own way to get bytes
to the bus and back.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from ..formats.multipart import Decoder, Malformed, Part, boundary_of
from ..ids import Gap
from ..message import Invalid, Message, Receipt
from .url import BusURL

__all__ = [
    "BusError",
    "Lost",
    "Notice",
    "Refused",
    "Stream",
    "Subscribed",
    "Unreachable",
    "Untrusted",
    "delay",
    "printable",
    "publication",
    "receipt",
    "refusal",
    "silence_of",
    "subscription",
]

# Of what a server says of its refusal, this much is read, and told.
SENTENCE_BYTES = 2048
_SENTENCE_CHARACTERS = 300

# Answers that another try may change (RFC 9110, section 15; RFC 6585, section 4).
_PASSING = (408, 429)

_FIRST_DELAY_SECONDS = 0.5
_LAST_DELAY_SECONDS = 60.0


class BusError(Exception):
    """
    What a bus, or the way to it, has against what was asked.  The text is one sentence,
    fit to be shown, in which a stranger's words have no control characters.
    """


class Refused(BusError):
    """
    The answer is no, and would be again.

    Attributes:
        status: Of the answer.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Untrusted(BusError):
    """
    The other end, or this one, did not prove by TLS who it is.
    """


class Unreachable(BusError):
    """
    There is no answer, or one that another try may change.
    """


@dataclass(frozen=True, slots=True)
class Subscribed:
    """
    The stream has begun, for the first time or again.
    """

    again: bool

    def __str__(self) -> str:
        return "Subscribed again." if self.again else "Subscribed."


@dataclass(frozen=True, slots=True)
class Lost:
    """
    The stream could not begin, or has ended, and will be asked for again.

    Attributes:
        reason: One sentence.
        seconds: Until then.
    """

    reason: str
    seconds: float

    def __str__(self) -> str:
        end = "" if self.reason.endswith((".", "?")) else "."
        return f"{self.reason}{end} Trying again in {self.seconds:.1f} s."


Notice = Subscribed | Lost | Gap
"""
What the owner of a subscription is told, beside messages.
"""


def publication(address: BusURL, message: Message, *, keep: bool = True) -> dict[str, str]:
    """
    The headers with which a message is published.  They are to be sent again with each
    repetition, so that the bus knows it.
    """
    headers = {
        **_who(address),
        "Content-Type": message.content_type,
        "Idempotency-Key": secrets.token_hex(16),
    }
    if not keep:
        headers["Cache-Control"] = "no-store"
    return headers


def subscription(address: BusURL, last_id: str = "") -> dict[str, str]:
    """
    The headers with which one subscribes.

    Args:
        last_id: Of the message behind which the stream is to begin, or the empty string.
    """
    headers = {**_who(address), "Accept": "multipart/x-mixed-replace"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    return headers


def _who(address: BusURL) -> dict[str, str]:
    """
    Basic authentication (RFC 7617).
    """
    if not address.user and not address.password:
        return {}
    pair = f"{address.user}:{address.password}".encode()
    return {"Authorization": f"Basic {b64encode(pair).decode()}"}


def receipt(status: int, head: Mapping[str, str], text: bytes) -> Receipt:
    """
    What the answer to a publication says; no id, and -1 subscribers, where the bus does
    not tell.

    Args:
        head: Its headers, with names in lower case.
        text: The first `SENTENCE_BYTES` of its body.

    Raises:
        Refused: It says no, or is none of a bus's.
        Unreachable: It may say yes at another time.
    """
    if status != 204:
        raise refusal(status, head, text)
    count = head.get("msgbus-subscribers", "")
    return Receipt(
        head.get("msgbus-id", ""),
        -1 if (known := _number(count)) is None else known,
    )


def refusal(status: int, head: Mapping[str, str], text: bytes) -> BusError:
    """
    What an answer means that is not the one that was hoped for; see `receipt`.
    """
    if 200 <= status < 300:
        kind = printable(head.get("content-type") or "nothing")
        return Refused(
            f"This is no bus: it answered {status} with {kind}; the address of one looks"
            " like http://HOST:8888/msgbus/CHANNEL.",
            status,
        )
    sentence = ""
    if head.get("content-type", "").lower().startswith("text/plain"):
        first = text.partition(b"\n")[0].removesuffix(b"\r")
        sentence = printable(first.decode("utf-8", "replace"))
    elif location := head.get("location"):
        sentence = f"It is at {printable(location)}."
    answered = f"The answer is {status}" + (f": {sentence}" if sentence else ".")
    if status in _PASSING or status >= 500:
        return Unreachable(answered)
    return Refused(answered, status)


def printable(text: str) -> str:
    """
    A stranger's words, short, on one line, and without what a terminal would obey.
    """
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean[:_SENTENCE_CHARACTERS].strip()


def silence_of(heartbeat: int) -> int:
    """
    For how many seconds a server may be silent that was asked for a heartbeat every so
    many; zero for ever.

    Raises:
        Invalid: It is neither 0 nor from 5 to 300.
    """
    if heartbeat and not 5 <= heartbeat <= 300:
        raise Invalid(f"A heartbeat comes every 5 to 300 seconds, not {heartbeat!r}.")
    return 2 * heartbeat


def delay(failures: int, random: float) -> float:
    """
    How many seconds to wait before the next try.

    Args:
        failures: How many tries have failed in a row.
        random: From 0 to 1, so that clients that failed together do not come together.
    """
    longest = min(_FIRST_DELAY_SECONDS * 2.0 ** min(failures, 20), _LAST_DELAY_SECONDS)
    return longest * (0.5 + random / 2)


class Stream:
    """
    What comes on one answer to a subscription: messages, and gaps.

    Args:
        name: Of the channel or folder, for servers that do not tell the channel.
        status: Of the answer.
        head: Its headers, with names in lower case.
        max_message: Bytes of the largest body; a larger one is `Malformed`.
        last_id: With which it was asked for.

    Attributes:
        last_id: Of the message behind which a next stream is to begin, or the empty
            string if that is not known.
        beats: Does the server send heartbeats, if asked to?

    Raises:
        Refused: The answer is none of a bus's.
        Unreachable: It may be one at another time.
    """

    def __init__(
        self,
        name: str,
        status: int,
        head: Mapping[str, str],
        max_message: int,
        last_id: str = "",
    ) -> None:
        content_type = head.get("content-type", "")
        try:
            if status != 200:
                raise Malformed
            self._decoder = Decoder(boundary_of(content_type), max_message)
        except Malformed:
            raise refusal(status, head, b"") from None
        self._parts: Iterator[Part] = iter(())
        # What of a part that was taken is not asked for yet.
        self._left: deque[Gap | Part] = deque()
        self._name = name
        self._prefix = head.get("msgbus-prefix", "/msgbus/")
        self.last_id = head.get("msgbus-id") or last_id
        self.beats = "msgbus-prefix" in head

    def feed(self, data: bytes) -> Iterator[Message | Gap]:
        """
        Take the next bytes of the stream.

        Returns:
            What they complete, made as it is asked for; what is not asked for comes with
            the next call.

        Raises:
            Malformed: On asking: it is no stream of a bus, and cannot be read further.
        """
        # At once, whenever the parts are asked for.
        self._parts = self._decoder.feed(data)
        return self._read()

    def end(self) -> str:
        """
        Take the end of the stream, and say what it was like.
        """
        try:
            self._decoder.end()
        except Malformed as error:
            return str(error)
        return "The server ended the stream."

    def _read(self) -> Iterator[Message | Gap]:
        while True:
            while self._left:
                item = self._left.popleft()
                yield item if isinstance(item, Gap) else self._message(item)
            part = next(self._parts, None)
            if part is not None:
                self._left += (*_gaps(part.headers), part)
                continue
            # It may be long until the part that a gap is told ahead of.
            self._left += _gaps(self._decoder.ahead)
            if not self._left:
                return

    def _message(self, part: Part) -> Message:
        try:
            message = self._made(part)
        except (Invalid, UnicodeDecodeError) as error:
            sentence = printable(str(error))
            raise Malformed(f"A part is no message: {sentence}") from None
        self.last_id = message.id or self.last_id
        return message

    def _made(self, part: Part) -> Message:
        if "content-location" in part.headers:
            return part.message(self._prefix)
        # The original msgbus tells it to subscribers of the root only.
        headers = {**part.headers, "content-location": quote(f"/{self._name}")}
        return replace(part, headers=headers).message("/")


def _gaps(headers: dict[str, str]) -> Iterator[Gap]:
    for count in headers.pop("msgbus-gap", "").split(","):
        if count := count.strip():
            yield Gap(_number(count))


def _number(text: str) -> int | None:
    """
    A count, if it is one that can be.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
