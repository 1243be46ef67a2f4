"""
A way in: a request for an endless stream of messages, in one of the formats.
"""

from __future__ import annotations

from functools import partial

from twisted.web import server
from twisted.web.server import NOT_DONE_YET

from ..fanout.backlog import Overflow
from ..fanout.member import Response
from ..formats.framing import Chunked
from ..formats.table import FORMATS, Asked
from .mount import Mount, finish
from .query import Wanted
from .site import Request

__all__ = ["stream"]


def stream(mount: Mount, request: server.Request, name: str, wanted: Wanted) -> int:
    """
    Answer with the messages of a channel or folder, as they are published.
    """
    form = FORMATS[wanted.format]
    framing = form.framing(Asked(mount.bus.boundary, mount.prefix, wanted.envelope))
    content_type = form.media_type + framing.parameters
    request.setHeader(b"Content-Type", content_type.encode("ascii"))
    request.setHeader(b"Cache-Control", b"no-store")
    request.setHeader(b"X-Accel-Buffering", b"no")
    cursor, begins = mount.begin(name, wanted)
    if begins is not None:
        request.setHeader(b"Msgbus-Id", begins.encode("ascii"))
    if request.method == b"HEAD":
        if cursor is not None:
            cursor.close()
        request.finish()
        return NOT_DONE_YET

    # The head goes out with the opening, in this turn of the reactor; what is published
    # from now on, at the end of the turn or later.
    request.write(framing.opening(begins))
    if isinstance(request, Request):
        request.begin_stream()
        if request.chunked:
            framing = Chunked(framing)
    outlet = mount.outlet(request, wanted.overflow is Overflow.LATEST)
    response = Response(outlet, partial(finish, request))
    mount.subscribe(request, name, wanted, framing, response, cursor)
    return NOT_DONE_YET
