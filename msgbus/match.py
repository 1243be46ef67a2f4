"""
Patterns and filters: which messages a subscription asks for.

No I/O.  Both the patterns and the texts come from strangers, so matching takes no
more time than the length of the text times that of the pattern, whatever they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .message import Invalid, Message

__all__ = ["Pattern", "Filter", "EVERYTHING"]

MAX_CHARACTERS = 1000
MAX_GLOBS = 32

# Verdicts that a filter remembers: types and senders recur.
MAX_REMEMBERED = 64

# "*?*" and "?**" mean the same: one character, and then any.
_RUN = re.compile(r"[*?]*\*[*?]*")


@dataclass(frozen=True, slots=True)
class Pattern:
    """
    A comma-separated list of globs: `*` is any run of characters, slashes
    too, `?` is any one, and a leading `!` negates.  Nothing else is special;
    a text that holds a comma is reached by `?`.

    A list matches a text when a positive glob matches it, or it has none,
    and no negated one does.  Lists that mean the same compare equal: order,
    repetition and empty items do not count.

    Attributes:
        text: At most 1,000 characters and 32 globs.

    Raises:
        Invalid: The list is too long, or a `!` stands alone.
    """

    text: str = field(default="", compare=False)
    positive: tuple[str, ...] = field(init=False)
    negated: tuple[str, ...] = field(init=False)
    _wanted: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _unwanted: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

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
            ("_wanted", _compile(positive)),
            ("_unwanted", _compile(negated)),
        ):
            object.__setattr__(self, name, value)

    def matches(self, text: str) -> bool:
        """
        Does the list match the whole of this text?
        """
        if self._wanted is not None and not self._wanted.fullmatch(text):
            return False
        return self._unwanted is None or not self._unwanted.fullmatch(text)


@dataclass(frozen=True, slots=True, init=False)
class Filter:
    """
    The patterns of one subscription.  A message passes when all of them
    match; without any, every message passes.  Filters that mean the same
    compare equal.  A filter remembers its last verdicts, so that of two
    messages with equal type, sender and channel only the first costs a match.

    Attributes:
        type: Looked for in the content type, without its parameters and
            without regard to case.
        sender: Looked for in the sender.  A message without one has the
            empty sender: `*` matches it, `?*` and `alice` do not.
        channel: Looked for in the full name of the channel, for
            subscriptions of folders.

    Raises:
        Invalid: See `Pattern`.
    """

    type: Pattern
    sender: Pattern
    channel: Pattern
    _verdicts: dict[tuple[str, str, str], bool] = field(repr=False, compare=False)

    def __init__(self, type: str = "", sender: str = "", channel: str = "") -> None:
        type = ",".join(map(_essence, _globs(type)))
        object.__setattr__(self, "type", Pattern(type))
        object.__setattr__(self, "sender", Pattern(sender))
        object.__setattr__(self, "channel", Pattern(channel))
        object.__setattr__(self, "_verdicts", {})

    def matches(self, message: Message) -> bool:
        """
        Does this message pass?
        """
        # A channel that no pattern looks at must not crowd the memory.
        looked_at = self.channel.positive or self.channel.negated
        channel = message.channel if looked_at else ""
        key = (message.content_type, message.sender, channel)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = (
                self.type.matches(_essence(message.content_type))
                and self.sender.matches(message.sender)
                and self.channel.matches(channel)
            )
            if len(self._verdicts) == MAX_REMEMBERED:
                self._verdicts.clear()
            self._verdicts[key] = verdict
        return verdict


def _globs(text: str) -> list[str]:
    if len(text) > MAX_CHARACTERS:
        raise Invalid(f"A pattern has at most {MAX_CHARACTERS} characters.")
    globs = [glob for glob in text.split(",") if glob]
    if len(globs) > MAX_GLOBS:
        raise Invalid(f"A pattern has at most {MAX_GLOBS} globs.")
    return globs


def _shortest(run: re.Match[str]) -> str:
    return "?" * run[0].count("?") + "*"


def _essence(content_type: str) -> str:
    """
    The type and subtype alone, in lower case (RFC 9110, section 8.3.1).
    """
    return content_type.partition(";")[0].strip(" ").lower()


def _compile(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    """
    One regular expression for all globs, or None for none.

    Between two stars, the leftmost match is as good as any other, so what
    follows a star is an atomic group: once it has matched, it is never tried
    again, and a failure costs one pass over the text, not one for each way
    to share it out.
    """
    if not globs:
        return None
    return re.compile("|".join(map(_translate, globs)), re.DOTALL)


def _translate(glob: str) -> str:
    first, *rest = (
        "".join("." if c == "?" else re.escape(c) for c in literal)
        for literal in glob.split("*")
    )
    if not rest:
        return first
    *middle, last = rest
    # The last piece is anchored at the end, where `fullmatch` leaves one
    # place for it; a greedy star finds that place from the right.
    return first + "".join(f"(?>.*?{m})" for m in middle if m) + f".*{last}"


EVERYTHING = Filter()
