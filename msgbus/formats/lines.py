"""
Reads a stream of lines.

No I/O: the decoder takes a stream in pieces of any size.
"""

from __future__ import annotations

from collections.abc import Iterator

from .multipart import TooLarge

__all__ = ["LineDecoder"]


class LineDecoder:
    """
    Cuts a stream into lines, which end with LF or CRLF.

    Args:
        max_line: Bytes of the longest line; a stream with a longer one cannot be read.
    """

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        # Pieces of the line that is not complete, and their bytes.
        self._begun: list[bytes] = []
        self._size = 0
        # Complete lines that were not iterated over.
        self._left: list[bytes] = []

    @property
    def is_inside(self) -> bool:
        """
        Has a line begun that is not complete?
        """
        return bool(self._size)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Take the next bytes of the stream.

        Returns:
            The lines that are complete now, without their ends; those that were not
            iterated over come from the next call.

        Raises:
            TooLarge: A line is too long.  Raised while one iterates.
        """
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = b"".join((*self._begun, lines[0]))
            self._begun, self._size = [], 0
        if rest:
            self._begun.append(rest)
            self._size += len(rest)
        lines.reverse()
        # The next line is the last of the list, so that it is cheap to take.
        self._left[:0] = lines
        return self._read()

    def last(self) -> bytes | None:
        """
        Take the end of a stream that is whole, and its last line, if that has no line end.
        """
        if not self._size:
            return None
        line = b"".join(self._begun)
        self._begun, self._size = [], 0
        return line.removesuffix(b"\r")

    def close(self) -> None:
        """
        Read nothing more, and release what was received.
        """
        self._begun, self._size, self._left = [], 0, []

    def _read(self) -> Iterator[bytes]:
        while self._left:
            line = self._left.pop().removesuffix(b"\r")
            if len(line) > self._max_line:
                raise self._too_large()
            yield line
        # A CR may belong to the end of the line.
        over = self._size - self._max_line
        if over > 1 or (over == 1 and not self._begun[-1].endswith(b"\r")):
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"A line has more than {self._max_line} bytes.")
