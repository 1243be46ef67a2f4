"""
What a request asks for: the channel in its path; the filter and the other choices of a
subscriber, or what a publisher requires, in its query; the format in its `Accept`.

No I/O.  The functions take bytes that strangers have sent, and return finished values;
`Invalid` is the only error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from ..fanout.choices import Live
from ..fanout.overflow import Overflow
from ..formats.stream_formats import STREAM_FORMATS
from ..ids import Since, parse_id
from ..match import EVERYTHING, Filter
from ..message import Invalid, check_name

__all__ = [
    "MESSAGE",
    "PAGE",
    "Wanted",
    "WantedList",
    "channel_name",
    "is_page_preferred",
    "parse_line_stream",
    "parse_list",
    "parse_subscription",
    "requires_subscriber",
]

T = TypeVar("T")

# The value of `Wanted.format` for the page that shows a stream, for a browser whose user
# has typed the address of a channel or followed a link to it.
PAGE = "page"
_PAGE_TYPE = "text/html"

# The format for one message instead of a stream: its body is the body of the answer.
MESSAGE = "message"

DEFAULT = next(iter(STREAM_FORMATS))
# The values of `?format=`: names of formats, and their media types.
_NAMES = {name: name for name in (*STREAM_FORMATS, MESSAGE)}
_NAMES |= {form.media_type: name for name, form in STREAM_FORMATS.items()}

_TEXT = "text/plain; charset=utf-8"

_YES_OR_NO = {"1": True, "0": False}

_ONLY_YES = {"1": True}

_SECONDS = re.compile(r"[1-9][0-9]{0,2}")
_HEARTBEAT_SECONDS = range(5, 301)
_WAIT_SECONDS = range(1, 301)
_OVERFLOWS = {kind.value: kind for kind in Overflow}

_PATTERNS = ("type", "sender", "channel")
_KNOWN = (
    *_PATTERNS,
    "format",
    "overflow",
    "heartbeat",
    "since",
    "last",
    "last-of-each",
    "envelope",
    "raw",
    "wait",
    "header",
    "until",
    "interval",
)
# Who gives one of these, says where the stream begins.
_BEGINNINGS = {"since", "last", "last-of-each"}

_LIST_KNOWN = ("list", "limit", "after", "channel")
_IS_LIST = {"": True, "1": True, "0": False}
_LIMIT = re.compile(r"[1-9][0-9]{0,3}")
_LIMITS = range(1, 1001)

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_INTERVAL = re.compile(r"([0-9]{1,9})(ms|[smhd])")
_INTERVAL_UNITS = {"ms": 0.001, **_UNIT_SECONDS}
_INTERVAL_SECONDS = (0.1, 3600)
_LAST = re.compile(r"[0-9]{1,6}")

_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_MAX_ACCEPT_RANGES = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What a subscriber asks for.

    Attributes:
        format: The name of one of `STREAM_FORMATS`, `MESSAGE` or `PAGE`.
        filter: Which messages it gets.
        overflow: What happens when too much waits for it.
        heartbeat: The seconds between two heartbeats, or None for the default of the
            format.
        since: Where its replay begins, or None for no replay.
        envelope: Whether an event stream has each message in an envelope.
        raw: Whether a WebSocket has messages without the envelope that they usually have.
        wait: For how many seconds a request for one message waits for it.
        live: What happens where its replay ends.
        interval: Seconds between two moments in which it is sent messages; zero if it is
            sent each at once.
    """

    filter: Filter = EVERYTHING
    format: str = DEFAULT
    overflow: Overflow = Overflow.DROP_NEWEST
    heartbeat: int | None = None
    since: Since | None = None
    envelope: bool = False
    raw: bool = False
    wait: int = 0
    live: Live = Live.UNTOLD
    interval: float = 0


@dataclass(frozen=True, slots=True)
class WantedList:
    """
    What somebody asks for who wants a list of channels.

    Attributes:
        page: Whether it is to be a page for a browser.
        filter: Its `channel` says which names are listed.
        limit: How many of them at most.
        after: The name behind which the list begins; None for its beginning.
    """

    page: bool = False
    filter: Filter = EVERYTHING
    limit: int = 100
    after: str | None = None


def channel_name(path: bytes) -> str:
    """
    The name of a channel or folder, from the path below the prefix of the bus.  The path
    is decoded before it is split, so `%2F` is a slash.

    Raises:
        Invalid: The path is no name; see `message.check_name`.
    """
    name = _decode("name", path)
    check_name(name)
    return name


def parse_subscription(
    query: bytes, accept: str | None = None, last_id: str | None = None
) -> Wanted:
    """
    What a subscriber asks for.

    Args:
        query: What follows the question mark.  Only `&` separates parameters.  If a pattern
            of the filter is given several times, the values are joined to one list.
            Unknown parameters are ignored.
        accept: The `Accept` header, if there is one.  `?format=` overrides it.
        last_id: The `Last-Event-ID` header, if there is one.  It overrides `?since=`,
            `?last=` and `?last-of-each=`, because a client that comes back repeats the
            query that it began with.

    Raises:
        Invalid: The value of a known parameter is not one that it may have.
    """
    parameters = _parameters(query)
    form = _choice(parameters, "format", _NAMES) or _preferred(accept or "*/*")
    since = Since(parse_id(last_id)) if last_id else _since(parameters)
    begins = bool(last_id or parameters.keys() & _BEGINNINGS)
    if form == MESSAGE and "last-of-each" in parameters:
        raise Invalid(
            "One message is not that of each channel: subscribe to a stream by another"
            " format than message, or leave out last-of-each."
        )
    if form == MESSAGE and not begins:
        since = Since(last=1)
    overflow = _choice(parameters, "overflow", _OVERFLOWS) or Overflow.DROP_NEWEST
    return Wanted(
        Filter(
            **{name: ",".join(parameters.get(name, ())) for name in _PATTERNS},
            header=_header_patterns(parameters.get("header", ())),
        ),
        form,
        overflow,
        _seconds(parameters, "heartbeat", _HEARTBEAT_SECONDS),
        since,
        _choice(parameters, "envelope", _YES_OR_NO) or False,
        _choice(parameters, "raw", _YES_OR_NO) or False,
        _seconds(parameters, "wait", _WAIT_SECONDS) or 0,
        _live(parameters, form, begins),
        _interval(parameters, overflow),
    )


def parse_list(query: bytes, accept: str | None = None) -> WantedList | None:
    """
    What somebody asks for who wants, by `?list`, a list of channels; None if they do not.

    Args:
        query: See `parse_subscription`.
        accept: The `Accept` header, if there is one.

    Raises:
        Invalid: The value of a parameter is not one that it may have.
    """
    if b"list" not in query:
        return None
    parameters = _parameters(query, _LIST_KNOWN)
    if not _choice(parameters, "list", _IS_LIST):
        return None
    limit = ",".join(parameters.get("limit", ["100"]))
    if not _LIMIT.fullmatch(limit) or int(limit) not in _LIMITS:
        raise Invalid(
            f"The limit of a list is {_LIMITS[0]} to {_LIMITS[-1]}, not {limit[:100]!r}."
        )
    after = parameters.get("after", [None])
    if len(after) > 1:
        raise Invalid("A list begins behind one name: give one 'after'.")
    return WantedList(
        is_page_preferred(accept),
        Filter(channel=",".join(parameters.get("channel", ()))),
        int(limit),
        after[0],
    )


def requires_subscriber(query: bytes) -> bool:
    """
    Does a publisher ask, by `?require=1`, to be refused if nobody subscribes?

    Raises:
        Invalid: The value is neither 1 nor 0.
    """
    parameters = _parameters(query, ("require",))
    return _choice(parameters, "require", _YES_OR_NO) or False


def parse_line_stream(query: bytes) -> str | None:
    """
    The type of the messages of a stream whose lines are bodies alone, by `?raw=1`; None for
    a stream of envelopes.

    Raises:
        Invalid: The value of a parameter is not one that it may have.
    """
    parameters = _parameters(query, ("raw", "type"))
    if not _choice(parameters, "raw", _YES_OR_NO):
        return None
    return ",".join(parameters.get("type", [_TEXT]))


def _header_patterns(values: Sequence[str]) -> dict[str, str]:
    """
    The patterns for headers, by name, of `?header=NAME:PATTERN`.

    Raises:
        Invalid: One of the values is something else.
    """
    patterns: dict[str, str] = {}
    for value in values:
        name, colon, pattern = value.partition(":")
        name, pattern = name.strip().lower(), pattern.strip()
        if not colon:
            raise Invalid(
                f"The header {value[:100]!r} has no pattern: give NAME:PATTERN, such as"
                " ce-type:com.example.*."
            )
        known = patterns.get(name)
        patterns[name] = pattern if known is None else f"{known},{pattern}"
    return patterns


def _since(parameters: dict[str, list[str]]) -> Since | None:
    values = [
        (name, value) for name in ("since", "last") for value in parameters.get(name, ())
    ]
    each = _choice(parameters, "last-of-each", _ONLY_YES) is not None
    if len(values) + each > 1:
        raise Invalid(
            "A replay begins at one point: give one 'since', or one 'last', or"
            " 'last-of-each'."
        )
    if each:
        return Since(each=True)
    match values:
        case []:
            return None
        case [("last", value)]:
            if not _LAST.fullmatch(value):
                raise Invalid(
                    f"{value[:100]!r} is no number of the last messages: give 1 to 999999."
                )
            return Since(last=int(value)) if int(value) else None
        case [(_, "now")]:
            return None
        case [(_, "all")]:
            return Since()
        case [(_, value)] if duration := _DURATION.fullmatch(value):
            return Since(seconds=int(duration[1]) * _UNIT_SECONDS[duration[2]])
    value = values[0][1]
    try:
        return Since(parse_id(value))
    except Invalid:
        raise Invalid(
            f"A replay does not begin at {value[:100]!r}: give the id of a message, a time"
            " such as 10m (s, m, h or d), all, or now."
        ) from None


def _live(parameters: dict[str, list[str]], form: str, begins: bool) -> Live:
    """
    What happens where the replay ends of somebody who asks for this format.

    Args:
        begins: Whether they say where the stream begins.

    Raises:
        Invalid: They want it to end where it cannot.
    """
    values = parameters.get("until")
    if values is None:
        return Live.TOLD if begins else Live.UNTOLD
    if values != ["now"]:
        value = ",".join(values)
        raise Invalid(
            f"A stream cannot end at {value[:100]!r}: give until=now, which ends it at the"
            " present, or leave until away."
        )
    if form == MESSAGE:
        raise Invalid("A single message has no until=now: leave it away.")
    if not begins:
        raise Invalid(
            "With until=now, a stream has only messages that are kept, and this one asks"
            " for none: add since, last or last-of-each, such as since=1h."
        )
    return Live.END


def _interval(parameters: dict[str, list[str]], overflow: Overflow) -> float:
    """
    The seconds of `?interval=`, or zero if it is not given.

    Raises:
        Invalid: It is out of range, or would lose messages that nobody allows to be lost.
    """
    values = parameters.get("interval")
    if values is None:
        return 0.0
    value = ",".join(values)
    match = _INTERVAL.fullmatch(value)
    shortest, longest = _INTERVAL_SECONDS
    seconds = int(match[1]) * _INTERVAL_UNITS[match[2]] if match else 0.0
    if not shortest <= seconds <= longest:
        raise Invalid(
            f"The interval is a time from 100ms to 1h, such as 2s, not {value[:100]!r}."
        )
    if overflow is not Overflow.LATEST:
        raise Invalid(
            "With an interval, only the newest message of each channel is sent: add"
            " overflow=latest."
        )
    return seconds


def _seconds(parameters: dict[str, list[str]], name: str, allowed: range) -> int | None:
    """
    The value of a parameter that counts seconds, or None if it is not given.

    Raises:
        Invalid: It is not allowed, or given more than once.
    """
    values = parameters.get(name)
    if values is None:
        return None
    value = ",".join(values)
    if not _SECONDS.fullmatch(value) or int(value) not in allowed:
        raise Invalid(
            f"The {name} is {allowed[0]} to {allowed[-1]} seconds, not {value[:100]!r}."
        )
    return int(value)


def _choice(parameters: dict[str, list[str]], name: str, choices: dict[str, T]) -> T | None:
    """
    What the value of a parameter stands for, or None if the parameter is not given.

    Raises:
        Invalid: The value is not one of the choices, or there are several.
    """
    values = parameters.get(name)
    if values is None:
        return None
    value = ",".join(values)
    if len(values) > 1 or value not in choices:
        raise Invalid(f"The {name} {value[:100]!r} is not one of: {', '.join(choices)}.")
    return choices[value]


def _parameters(query: bytes, known: Sequence[str] = _KNOWN) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for item in query.split(b"&"):
        name, _, value = item.partition(b"=")
        # Unknown parameters are ignored, so they need not be well-formed UTF-8.
        key = unquote_to_bytes(name).decode("utf-8", "replace")
        if key not in known:
            continue
        # HTML forms write a space as a plus, but a media type may have a plus itself, as
        # image/svg+xml does, and never a space.
        if key != "type":
            value = value.replace(b"+", b" ")
        values.setdefault(key, []).append(_decode(key, value))
    return values


def _decode(what: str, text: bytes) -> str:
    if _BAD_PERCENT.search(text):
        raise Invalid(f"The {what} has a '%' that two hexadecimal digits do not follow.")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid(f"The {what} is not UTF-8, percent-encoded.") from None


def is_page_preferred(accept: str | None) -> bool:
    """
    Does an `Accept` header ask for a page, as those of browsers do for what is opened in a
    window?
    """
    return _preferred(accept or "*/*") == PAGE


def _preferred(accept: str) -> str:
    """
    The format that an `Accept` header prefers (RFC 9110, section 12.5.1).

    A format is chosen only by its own media type; wildcards stand for the default format.
    Of equal qualities, a format that is named goes before the default.  A header that
    accepts none of the formats gets the default.  The page is chosen if its type is named
    and nothing is preferred to it, as in the headers of browsers.
    """
    ranges: dict[str, float] = {}
    for item in accept.split(",", _MAX_ACCEPT_RANGES)[:_MAX_ACCEPT_RANGES]:
        media, *parameters = (piece.strip().lower() for piece in item.split(";"))
        ranges[media] = max(_quality(parameters), ranges.get(media, 0.0))
    if 0 < ranges.get(_PAGE_TYPE, 0.0) == max(ranges.values()):
        return PAGE

    def liking(name: str) -> tuple[float, bool]:
        media = STREAM_FORMATS[name].media_type
        if media in ranges:
            return ranges[media], ranges[media] > 0
        covering = (f"{media.partition('/')[0]}/*", "*/*") if name == DEFAULT else ()
        return next((ranges[r] for r in covering if r in ranges), 0.0), False

    # `max` takes the first of equals, and the default is first.
    return max(STREAM_FORMATS, key=liking)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0
