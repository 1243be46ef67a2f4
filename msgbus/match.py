"""
Patterns and filters: which messages a subscription asks for.

No I/O.  Both patterns and texts come from strangers, who may choose them to be slow.  So
patterns are bounded such that no match takes longer than a tenth of a millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .headers import MAX_BYTES, does_travel
from .message import Invalid, Message

__all__ = ["Channels", "EVERYTHING", "Filter", "Pattern"]

MAX_CHARACTERS = 1000
MAX_GLOBS = 32
# What the globs of all patterns of a filter may cost together; see `_cost`.
MAX_COST = 80

# How many results a filter remembers, and how long the values of headers may be for that.
# The same types and senders come again and again.
MAX_REMEMBERED = 64
MAX_REMEMBERED_CHARACTERS = 1000

# A run of wildcards with a star in it.  "*?*" and "?**" mean the same as "?*": at least one
# character.
_RUN = re.compile(r"[*?]*\*[*?]*")


@dataclass(frozen=True, slots=True)
class Pattern:
    """
    A comma-separated list of globs.  In a glob, `*` matches any number of characters,
    slashes too, `?` matches any one character, and a leading `!` negates the glob.
    Nothing can be escaped; use `?` to match a comma in a text.

    A list matches a text if one of its positive globs does, or if it has no positive
    globs, and if none of its negated globs does.  Lists that mean the same are equal:
    order, repetition and empty items do not count.

    Attributes:
        text: The list as it was given; at most 1,000 characters and 32 globs.
        positive: The globs without `!`, normalized; none if one of them is `*`.
        negated: The globs behind a `!`, normalized.

    Raises:
        Invalid: The list is too long, or would take too long to match, or a `!` stands
            alone.
    """

    text: str = field(default="", compare=False)
    positive: tuple[str, ...] = field(init=False)
    negated: tuple[str, ...] = field(init=False)
    _wanted: tuple[_Glob, ...] = field(init=False, repr=False, compare=False)
    _unwanted: tuple[_Glob, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        globs = {_RUN.sub(_shortest, glob) for glob in _globs(self.text)}
        if "!" in globs:
            raise Invalid("A '!' negates the glob behind it, and there is none.")
        positive = tuple(sorted(g for g in globs if not g.startswith("!")))
        negated = tuple(sorted(g[1:] for g in globs if g.startswith("!")))
        if "*" in positive:
            positive = ()
        for name, value in (
            ("positive", positive),
            ("negated", negated),
            ("_wanted", tuple(map(_Glob, positive))),
            ("_unwanted", tuple(map(_Glob, negated))),
        ):
            object.__setattr__(self, name, value)
        _check_cost(self)

    def matches(self, text: str) -> bool:
        """
        Does the list match this text, from beginning to end?
        """
        if self._wanted and not any(glob.matches(text) for glob in self._wanted):
            return False
        return not any(glob.matches(text) for glob in self._unwanted)


class Channels(Protocol):
    """
    Some channels: a value that can be hashed and compared.
    """

    def allows(self, channel: str) -> bool:
        """
        Is this channel one of them?
        """

    def __hash__(self) -> int: ...


@dataclass(frozen=True, slots=True, init=False)
class Filter:
    """
    The patterns of one subscription.  A message passes if all of them match; an empty
    pattern matches everything.  Filters that mean the same are equal.

    A filter remembers its last results, so that the next message with the same type,
    sender and channel need not be matched again.

    Attributes:
        type: Matches the content type without its parameters, in any case.
        sender: Matches the sender.  A message without a sender has the empty one: `*`
            matches it, `?*` and `alice` do not.
        channel: Matches the full name of the channel; useful if a folder is subscribed to.
        headers: Names of headers, in lower case, each with a pattern that matches its
            value.  A message without the header has an empty one, as for the sender.
        readable: The channels that the subscriber may read; None for all.
        also: Another filter that a message has to pass, too; None if there is none.

    Raises:
        Invalid: See `Pattern`.
    """

    type: Pattern
    sender: Pattern
    channel: Pattern
    headers: tuple[tuple[str, Pattern], ...]
    readable: Channels | None
    also: Filter | None
    _results: dict[tuple[str, ...], bool] = field(repr=False, compare=False)

    def __init__(
        self,
        type: str = "",
        sender: str = "",
        channel: str = "",
        header: Mapping[str, str] | None = None,
    ) -> None:
        type = ",".join(map(_essence, _globs(type)))
        object.__setattr__(self, "type", Pattern(type))
        object.__setattr__(self, "sender", Pattern(sender))
        object.__setattr__(self, "channel", Pattern(channel))
        object.__setattr__(self, "headers", _header_patterns(header or {}))
        object.__setattr__(self, "readable", None)
        object.__setattr__(self, "also", None)
        object.__setattr__(self, "_results", {})
        others = tuple(pattern for _, pattern in self.headers)
        _check_cost(self.type, self.sender, self.channel, headers=others)

    def within(self, readable: Channels | None, also: Filter | None = None) -> Filter:
        """
        A filter with the patterns of this one, for a subscriber that may read these
        channels (all for None), and there only what passes the other filter, too.
        """
        filter = object.__new__(Filter)
        for name in ("type", "sender", "channel", "headers"):
            object.__setattr__(filter, name, getattr(self, name))
        object.__setattr__(filter, "readable", readable)
        object.__setattr__(filter, "also", also)
        object.__setattr__(filter, "_results", {})
        return filter

    @property
    def characters(self) -> int:
        """
        How long its patterns are together; matching a message takes longer with more.
        """
        patterns = (self.type, self.sender, self.channel, *(p for _, p in self.headers))
        own = sum(len(pattern.text) for pattern in patterns)
        return own if self.also is None else own + self.also.characters

    @property
    def reads_headers(self) -> bool:
        """
        Do the headers of a message matter?
        """
        return bool(self.headers) or (self.also is not None and self.also.reads_headers)

    def covers(self, channel: str) -> bool:
        """
        May the subscriber read this channel?
        """
        return self.readable is None or self.readable.allows(channel)

    def admits(self, channel: str) -> bool:
        """
        Can a message of this channel pass, whatever its type and sender?
        """
        return (
            self.covers(channel)
            and self.channel.matches(channel)
            and (self.also is None or self.also.admits(channel))
        )

    def matches(self, message: Message) -> bool:
        """
        Does this message pass?
        """
        if not self.covers(message.channel):
            return False
        if self.also is not None and not self.also.matches(message):
            return False
        # Without a channel pattern, one result is remembered for all channels.
        matters = self.channel.positive or self.channel.negated
        channel = message.channel if matters else ""
        key: tuple[str, ...] = (message.content_type, message.sender, channel)
        if self.headers:
            find = message.headers.get
            key += tuple([find(name, "") for name, _ in self.headers])
        result = self._results.get(key)
        if result is None:
            result = (
                self.type.matches(_essence(message.content_type))
                and self.sender.matches(message.sender)
                and self.channel.matches(channel)
                and all(
                    pattern.matches(value)
                    for (_, pattern), value in zip(self.headers, key[3:], strict=True)
                )
            )
            if len(self._results) == MAX_REMEMBERED:
                self._results.clear()
            # The values of headers are longer, and seldom come again.
            if sum(map(len, key[3:])) <= MAX_REMEMBERED_CHARACTERS:
                self._results[key] = result
        return result


def _header_patterns(header: Mapping[str, str]) -> tuple[tuple[str, Pattern], ...]:
    """
    Patterns for headers, in the order of their names.
    """
    patterns = []
    for name, text in sorted((name.lower(), text) for name, text in header.items()):
        if not does_travel(name):
            raise Invalid(f"No message has a header {name[:100]!r} by which to filter.")
        pattern = Pattern(text)
        if pattern.positive or pattern.negated:
            patterns.append((name, pattern))
    return tuple(patterns)


def _globs(text: str) -> list[str]:
    """
    The globs of a list, without empty ones.
    """
    if len(text) > MAX_CHARACTERS:
        raise Invalid(f"A pattern has at most {MAX_CHARACTERS} characters.")
    globs = [glob for glob in text.split(",") if glob]
    if len(globs) > MAX_GLOBS:
        raise Invalid(f"A pattern has at most {MAX_GLOBS} globs.")
    return globs


def _shortest(run: re.Match[str]) -> str:
    """
    The shortest run of wildcards that means the same: question marks, and one star.
    """
    return "?" * run[0].count("?") + "*"


def _essence(content_type: str) -> str:
    """
    The type and subtype alone, in lower case (RFC 9110, section 8.3.1).
    """
    return content_type.partition(";")[0].strip(" ").lower()


class _Glob:
    """
    One glob, cut at its stars.

    If the piece between two stars is at several places of the text, the leftmost one is as
    good as any other.  So no place is ever tried again, and the time does not grow with the
    number of ways to divide the text among the stars, as in a backtracking matcher.
    """

    __slots__ = ("_first", "_last", "_middle", "_sizes")

    def __init__(self, glob: str) -> None:
        first, *rest = glob.split("*")
        self._first = _piece(first)
        # None if there is no star.
        self._last = _piece(rest[-1]) if rest else None
        self._middle = tuple(_piece(piece).search for piece in rest[:-1] if piece)
        self._sizes = len(first), len(rest[-1]) if rest else 0

    def matches(self, text: str) -> bool:
        """
        Does it match this text, from beginning to end?
        """
        if self._last is None:
            return self._first.fullmatch(text) is not None
        begin, size = self._sizes
        end = len(text) - size
        if begin > end or not self._first.match(text) or not self._last.match(text, end):
            return False
        for search in self._middle:
            found = search(text, begin, end)
            if found is None:
                return False
            begin = found.end()
        return True


def _piece(text: str) -> re.Pattern[str]:
    """
    The regular expression for a piece without stars.  Python searches for one that is all
    literal in a time that does not depend on its length.
    """
    return re.compile("".join("." if c == "?" else re.escape(c) for c in text), re.DOTALL)


def _cost(glob: str, times: int = 1) -> int:
    """
    About how many microseconds it may take to find out that a glob does not match a text of
    1,000 characters, or so many times as many; measured, and rounded up.
    """
    cost = 1
    for piece in glob.split("*")[1:-1]:
        # A piece with a "?" in it may be compared as a whole at each place.
        cost += times * (2 * len(piece) if "?" in piece.strip("?") else 2)
    return cost


def _check_cost(*patterns: Pattern, headers: tuple[Pattern, ...] = ()) -> None:
    """
    Check that patterns can be matched quickly enough, also those for headers.
    """
    cost = sum(_cost(glob) for p in patterns for glob in (*p.positive, *p.negated))
    times = MAX_BYTES // 1000
    cost += sum(_cost(g, times) for p in headers for g in (*p.positive, *p.negated))
    if cost > MAX_COST:
        raise Invalid(
            "The patterns would take too long to match: give fewer globs, or fewer stars"
            " and question marks in them."
        )


EVERYTHING = Filter()
