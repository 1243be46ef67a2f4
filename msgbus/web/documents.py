"""
Documents: files of a folder, served beside the bus.

Whatever a path says, nothing is served but a regular file whose real path lies
inside the real folder.  Types, ranges and dates are `twisted.web.static`'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

from twisted.web import server, static
from twisted.web.resource import Resource

from .responses import Refusal

__all__ = ["Document", "find"]

_INDEX = "index.html"

# Overlapping ranges turn a small file into a large answer.
_RANGE = re.compile(rb"[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18}")
_MAX_RANGES = 8


def _not_found() -> Refusal:
    # A new one each time: an exception keeps what it was raised through.
    return Refusal(404, "Nothing is here; the bus is at /msgbus/.")


class Document(Resource):
    """
    The document that the path of a request names.

    Args:
        folder: The document root.
    """

    isLeaf = True

    def __init__(self, folder: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._folder = folder

    def render(self, request: server.Request) -> int | bytes:
        """
        Serve it, or say why not.
        """
        try:
            return self._serve(request)
        except Refusal as refusal:
            return refusal.answer(request)

    def _serve(self, request: server.Request) -> int | bytes:
        if request.method not in (b"GET", b"HEAD"):
            raise Refusal(405, "A document can be read only.", [(b"Allow", b"GET, HEAD")])
        path, question, query = request.uri.partition(b"?")
        segments = [
            *cast(list[bytes], request.prepath),
            *cast(list[bytes], request.postpath),
        ]
        found = find(self._folder, [os.fsdecode(segment) for segment in segments])
        if found is None:
            raise _not_found()
        if found.is_dir():
            raise Refusal(
                308,
                "A folder's name has a slash at its end.",
                [(b"Location", path + b"/" + question + query)],
            )
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        try:
            size = found.stat().st_size
        except OSError:
            raise _not_found() from None
        ranges = _ranges(request.requestHeaders.getRawHeaders(b"Range", []), size)
        # We keep no old versions to answer an If-Range from.
        if ranges is None or request.requestHeaders.hasHeader(b"If-Range"):
            request.requestHeaders.removeHeader(b"Range")
        else:
            request.requestHeaders.setRawHeaders(b"Range", [ranges])
        return cast(int | bytes, _File(str(found), request).render_GET(request))  # type: ignore[no-untyped-call]  # Twisted


class _Gone(Resource):
    """
    What is answered for a file that has gone in this moment.
    """

    def render(self, request: server.Request) -> bytes:
        raise _not_found()


class _File(static.File):
    """
    One file, under the type of its name, and never transparently decompressed.
    """

    childNotFound = _Gone()  # type: ignore[assignment,no-untyped-call]  # Twisted
    # Twisted annotates neither; a packed file is what it is, not its content.
    contentEncodings: dict[str, str] = {}  # noqa: RUF012
    contentTypes: dict[str, str] = {  # noqa: RUF012
        **static.File.contentTypes,
        ".gz": "application/gzip",
        ".bz2": "application/x-bzip2",
        ".js": "text/javascript",
        ".mjs": "text/javascript",
    }

    def __init__(self, path: str, request: server.Request) -> None:
        super().__init__(path, defaultType="application/octet-stream")
        self._request = request

    def openForReading(self) -> BinaryIO:
        """
        Open it, unless it is not for us to read, or gone in this moment.
        """
        try:
            file = cast(BinaryIO, super().openForReading())  # type: ignore[no-untyped-call]  # Twisted
        except OSError:
            raise _not_found() from None
        return cast(BinaryIO, _Announced(file, self.getsize(), self._request))


class _Announced:
    """
    A file of just the size that its reader was told, whatever it becomes.

    Bytes beyond it would be read as the next answer; if some are missing, only
    the end of the connection can tell.
    """

    def __init__(self, file: BinaryIO, size: int, request: server.Request) -> None:
        self._file = file
        self._size = size
        self._request = request
        self.seek = file.seek
        self.close = file.close

    def read(self, size: int) -> bytes:
        """
        What there is, up to so many bytes and the end that was told.
        """
        left = self._size - self._file.tell()
        data = self._file.read(max(0, min(size, left)))
        if not data and left > 0 and size > 0:
            self._request.channel.persistent = False
        return data


def find(folder: Path, segments: list[str]) -> Path | None:
    """
    The regular file that a path names, with an empty last segment for the
    index of a folder; the folder, if its name lacks the slash; else None.

    Args:
        folder: The document root.
        segments: Decoded; any strings.
    """
    *folders, name = segments
    if any(not _is_plain(segment) for segment in folders) or not _is_plain(name or _INDEX):
        return None
    try:
        root = folder.resolve(strict=True)
        real = root.joinpath(*folders, name or _INDEX).resolve(strict=True)
        # A link may lead to what its name does not tell.
        inside = real.relative_to(root).parts
        if any(part.startswith(".") for part in inside):
            return None
        # Opening a pipe would wait for its writer.
        return real if real.is_file() or (real.is_dir() and name) else None
    except (OSError, ValueError, RuntimeError):
        # Not there, outside, too long, or a loop of links.
        return None


def _is_plain(segment: str) -> bool:
    return (
        not segment.startswith(".")
        and not set(segment) & {"/", "\\", "\0"}
        and segment != ""
    )


def _ranges(headers: Sequence[bytes], size: int) -> bytes | None:
    """
    The ranges that are asked for, in a form that `static` understands, or
    None for all of the file (RFC 9110, section 14.2).
    """
    if len(headers) != 1 or not headers[0].startswith(b"bytes="):
        return None
    pieces = [piece.strip() for piece in headers[0].removeprefix(b"bytes=").split(b",")]
    if len(pieces) > _MAX_RANGES or not all(map(_RANGE.fullmatch, pieces)):
        return None
    ranges = []
    for piece in pieces:
        first, _, last = piece.partition(b"-")
        if first and last and int(first) > int(last):
            return None
        # A suffix longer than the file is all of it.
        ranges.append(piece if first else b"-%d" % min(int(last), size))
    # Of several, `static` can only take those that the file has.
    there = [r for r in ranges if r != b"-0" and int(r.partition(b"-")[0] or 0) < size]
    return b"bytes=" + b",".join(there or ranges[:1])
