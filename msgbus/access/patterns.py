"""
Patterns over names, as rules have them: literal text, stars, and the user's own name.

No I/O.  `match` has the patterns that subscribers give; they are not used here, because a
rule may name the user, and because a decision has to be quick however the names of users
and channels were chosen.  No name is ever made into a pattern or a regular expression: it
is only compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from ..message import Invalid, check_name

__all__ = ["Glob", "Pattern"]

# Escapes as in a URL.  Several in a row may be one character.
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_USER = "%u"


@dataclass(frozen=True, slots=True)
class Glob:
    """
    Literal pieces of text with a star between each two.  A star matches any number of
    characters, slashes too.  Globs are equal if their pieces are.

    Attributes:
        pieces: At least one.  A piece between two stars is not empty.
    """

    pieces: tuple[str, ...]
    _searches: tuple[re.Pattern[str] | None, ...] = field(
        default=(), repr=False, compare=False
    )

    @property
    def searches(self) -> int:
        """
        How many pieces have to be searched for, since they may be anywhere in the text.
        """
        return len(self.pieces[1:-1])

    def reaches(self, prefix: str) -> bool:
        """
        Does it match any text that begins so?
        """
        first = self.pieces[0]
        return first.startswith(prefix) or (
            len(self.pieces) > 1 and prefix.startswith(first)
        )

    def covers(self, prefix: str) -> bool:
        """
        Does it surely match every text that begins so?
        """
        return self.pieces[1:] == ("",) and prefix.startswith(self.pieces[0])

    def matches(self, text: str) -> bool:
        """
        Does it match this text, from beginning to end?
        """
        first = self.pieces[0]
        if len(self.pieces) == 1:
            return text == first
        last = self.pieces[-1]
        at, end = len(first), len(text) - len(last)
        if at > end or not text.startswith(first) or not text.endswith(last):
            return False
        if len(self.pieces) == 2:
            return True
        # If a piece is at several places, the leftmost one is as good as any other.
        for piece, search in zip(self.pieces[1:-1], self._searches, strict=True):
            at = _find(piece, search, text, at)
            if at < 0:
                return False
            at += len(piece)
        return at <= end


def _find(piece: str, search: re.Pattern[str] | None, text: str, start: int) -> int:
    """
    Where a piece is first found in the text at or behind `start`, or -1.
    """
    # `str.find` may take the length of the piece times that of the text.  A search for a
    # regular expression that is all literal never does.
    if search is not None:
        found = search.search(text, start)
        return found.start() if found else -1
    # The piece holds the user's name, with a slash before it, and there are few slashes in
    # the name of a channel: at most 32.
    offset = piece.index("/")
    slash = text.find("/", start + offset)
    while slash >= 0 and not text.startswith(piece, slash - offset):
        slash = text.find("/", slash + 1)
    return slash - offset if slash >= 0 else -1


@dataclass(frozen=True, slots=True)
class Pattern:
    """
    A pattern as it is written.  `*` matches any number of characters, slashes too, and
    `%20` is a space, as in a URL, so that every character can be written.  `%u`, as a
    whole segment, is the user's name.

    Attributes:
        pieces: What is between the stars; each piece is what is between two `%u`.

    Raises:
        Invalid: The text is no pattern.
    """

    pieces: tuple[tuple[str, ...], ...]
    _searches: tuple[re.Pattern[str] | None, ...] = field(repr=False, compare=False)
    _for_all: Glob | None = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """
        Read a pattern.
        """
        if "?" in text:
            raise Invalid(
                f"In {text!r} there is a '?'. The only wildcard of a rule is '*'; the"
                " character itself is written %3F."
            )
        _check_segments(text)
        first, *rest = re.split(r"\*+", text)
        pieces = [tuple(map(_unescape, piece.split(_USER))) for piece in (first, *rest)]
        searches = [
            re.compile(re.escape(piece[0])) if len(piece) == 1 else None
            for piece in pieces[1:-1]
        ]
        for_all = None
        if all(len(piece) == 1 for piece in pieces):
            # No user's name is in it, so it is the same for all.
            for_all = Glob(tuple(piece[0] for piece in pieces), tuple(searches))
        return cls(tuple(pieces), tuple(searches), for_all)

    @property
    def searches(self) -> int:
        """
        See `Glob.searches`.
        """
        return len(self.pieces[1:-1])

    def for_user(self, name: str | None) -> Glob | None:
        """
        The pattern with a user's name in place of each `%u`.

        Returns:
            None if it matches nothing for this user, because there is a `%u` in it, and
            the name is no segment: it is missing or empty, holds a slash, begins with a
            dot, or breaks another rule for the names of channels.
        """
        if self._for_all is not None:
            return self._for_all
        if name is None or not _is_segment(name):
            return None
        return Glob(tuple(name.join(piece) for piece in self.pieces), self._searches)


def _check_segments(text: str) -> None:
    for segment in text.split("/"):
        if _USER in segment and segment != _USER:
            raise Invalid(
                f"In {text!r}, the user's name has to be a whole segment, as in a/%u/b."
            )


def _unescape(text: str) -> str:
    """
    The text that is meant by one with escapes.
    """
    if "%" in _ESCAPES.sub("", text):
        raise Invalid(
            f"In {text!r}, two hexadecimal digits have to follow each '%', as in a URL;"
            " a '%' itself is written %25."
        )
    try:
        return _ESCAPES.sub(lambda run: unquote_to_bytes(run[0]).decode("utf-8"), text)
    except UnicodeDecodeError:
        raise Invalid(f"The escapes in {text!r} are not UTF-8.") from None


def _is_segment(name: str) -> bool:
    """
    Can this be one segment of the name of a channel?
    """
    if not name or "/" in name:
        return False
    try:
        check_name(name)
    except Invalid:
        return False
    return True
