"""
Documents: files of a folder, served beside the bus.

Whatever the path of a request says, only a regular file is served, and only if its real
path, with all links followed, lies inside the folder.  Content types, ranges and dates are
left to `twisted.web.static`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

from twisted.web import server, static
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from .refusals import journal_of, refuse
from .responses import Refusal

__all__ = ["Document", "find"]

_INDEX = "index.html"

_RANGE = re.compile(rb"[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18}")
# Many overlapping ranges would turn a small file into a huge answer.
_MAX_RANGES = 8


def _not_found() -> Refusal:
    # A new one each time, because an exception keeps the frames it was raised through, and
    # with them the request.
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
        Answer with the document, or with a sentence that says why not.
        """
        if request._disconnected:
            # The client has gone while its password was checked.
            return NOT_DONE_YET
        try:
            return self._serve(request)
        except Refusal as refusal:
            return refuse(journal_of(request), request, refusal)

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
        # `If-Range` asks for a part of one version of the file (RFC 9110, section 13.1.5).
        # Its value is not compared: the answer is the whole file, which is always right.
        if ranges is None or request.requestHeaders.hasHeader(b"If-Range"):
            request.requestHeaders.removeHeader(b"Range")
        else:
            request.requestHeaders.setRawHeaders(b"Range", [ranges])
        return cast(int | bytes, _File(str(found), request).render_GET(request))  # type: ignore[no-untyped-call]  # Twisted


class _Gone(Resource):
    """
    The answer for a file that was removed after it had been found.
    """

    def render(self, request: server.Request) -> bytes:
        raise _not_found()


class _File(static.File):
    """
    One file, with the content type of its name.  A compressed file is served as it is,
    without a `Content-Encoding` that would make browsers decompress it.
    """

    childNotFound = _Gone()  # type: ignore[assignment,no-untyped-call]  # Twisted
    # Twisted annotates neither of these.
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
        Open the file, or refuse the request if it may not be read or has been removed.
        """
        try:
            file = cast(BinaryIO, super().openForReading())  # type: ignore[no-untyped-call]  # Twisted
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                later = [(b"Retry-After", b"10")]
                sentence = "The bus has too many open files; try again later."
                raise Refusal(503, sentence, later, "connections") from None
            raise _not_found() from None
        return cast(BinaryIO, _Announced(file, self.getsize(), self._request))


class _Announced:
    """
    A file that is read up to the size that `Content-Length` has announced, even if it
    grows or shrinks meanwhile.

    The client would take bytes beyond that size for the next answer.  If bytes are missing,
    only the end of the connection can tell the client so.
    """

    def __init__(self, file: BinaryIO, size: int, request: server.Request) -> None:
        self._file = file
        self._size = size
        self._request = request
        self.seek = file.seek
        self.close = file.close

    def read(self, size: int) -> bytes:
        """
        Read at most so many bytes, and none beyond the announced size.
        """
        left = self._size - self._file.tell()
        data = self._file.read(max(0, min(size, left)))
        if not data and left > 0 and size > 0:
            self._request.channel.persistent = False
        return data


def find(folder: Path, segments: list[str]) -> Path | None:
    """
    The file that a path names; the folder, if the path names one without the slash at its
    end; or None if there is nothing to serve.

    Args:
        folder: The document root.
        segments: The path, split at slashes and decoded, but not checked.  If the last
            segment is empty, the path names the index of a folder.
    """
    *folders, name = segments
    if any(not _is_plain(segment) for segment in folders) or not _is_plain(name or _INDEX):
        return None
    try:
        root = folder.resolve(strict=True)
        real = root.joinpath(*folders, name or _INDEX).resolve(strict=True)
        # A link without a dot may lead to a file or through a folder with one.
        inside = real.relative_to(root).parts
        if any(part.startswith(".") for part in inside):
            return None
        # Nothing but regular files: opening a pipe would block until somebody writes to it.
        return real if real.is_file() or (real.is_dir() and name) else None
    except (OSError, ValueError, RuntimeError):
        # It does not exist, lies outside, has too long a name, or is a loop of links.
        return None


def _is_plain(segment: str) -> bool:
    return (
        not segment.startswith(".")
        and not set(segment) & {"/", "\\", "\0"}
        and segment != ""
    )


def _ranges(headers: Sequence[bytes], size: int) -> bytes | None:
    """
    The value of a `Range` header in a spelling that `twisted.web.static` understands, or
    None if the header does not count, and the whole file is served (RFC 9110, section
    14.2).

    Args:
        size: Bytes of the file.
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
        # The last N bytes of a file that has fewer are all of them.
        ranges.append(piece if first else b"-%d" % min(int(last), size))
    # Of several ranges, pass on those that the file has.  If it has none of them, pass on
    # one, for which `static` answers 416.
    there = [r for r in ranges if r != b"-0" and int(r.partition(b"-")[0] or 0) < size]
    return b"bytes=" + b",".join(there or ranges[:1])
