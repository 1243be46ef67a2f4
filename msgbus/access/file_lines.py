"""
Cuts the files that an operator writes, of users and of rules, into lines.

No I/O.  A file that is damaged is refused as a whole: if the rest of it were used, a rule
or a user would be missing, and nobody would notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..invalid import Invalid

__all__ = ["BadFile", "Line", "file_lines"]

# The largest file, in bytes: some 10,000 lines.
MAX_BYTES = 1024 * 1024


class BadFile(Invalid):
    """
    A file of users or rules that cannot be used.

    Args:
        file: The name of the file, as the operator gave it.
        line: The number of the line that is wrong, from 1; None if it is the whole file.
        sentence: What is wrong with it, and what to do.
    """

    def __init__(self, file: str, line: int | None, sentence: str) -> None:
        place = file if line is None else f"{file}, line {line}"
        super().__init__(f"{place}: {sentence}")
        self.line = line


class Line(NamedTuple):
    """
    A line that is neither blank nor a comment, without its line end.
    """

    number: int
    text: str


def file_lines(data: bytes, file: str, bad: type[BadFile]) -> Iterator[Line]:
    """
    The lines of a file in UTF-8, without blank lines and those that begin with `#`.  Lines
    may end in CRLF.

    Args:
        bad: The class of the error that is raised.

    Raises:
        BadFile: The file is too large, begins with a byte order mark, is not UTF-8, holds
            a control character, or does not end in a line end.
    """
    if len(data) > MAX_BYTES:
        raise bad(file, None, f"The file is larger than {MAX_BYTES} bytes.")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise bad(
            file, 1, "The file begins with a byte order mark. Save it as UTF-8 without one."
        )
    *lines, rest = data.split(b"\n")
    for number, raw in enumerate(lines, 1):
        yield from _line(number, raw, file, bad)
    if rest:
        raise bad(
            file,
            len(lines) + 1,
            "The last line has no line end, so the file may have been cut off. If it was"
            " not, end the line.",
        )


def _line(number: int, raw: bytes, file: str, bad: type[BadFile]) -> Iterator[Line]:
    try:
        text = raw.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise bad(file, number, "The line is not UTF-8.") from None
    # Also refuses characters that cannot be seen, and spaces that only look like one: they
    # would make a name that never fits.
    for character in text.replace("\t", ""):
        if not character.isprintable():
            raise bad(
                file,
                number,
                f"The line holds {character!r}, which is a control character or cannot be"
                " seen.",
            )
    text = text.strip(" \t")
    if text and not text.startswith("#"):
        yield Line(number, text)
