"""
A way in: a request that has what is kept of a channel forgotten.
"""

from __future__ import annotations

from functools import partial

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.server import NOT_DONE_YET

from ..message import is_folder
from .auth import visitor_of
from .headers import check_origin, check_transfer_encoding
from .mount import Mount
from .query import channel_name
from .refusals import refuse
from .request import peer_of
from .responses import REFUSALS, Refusal, answer

__all__ = ["forget"]

_log = Logger()


def forget(mount: Mount, request: server.Request, path: bytes) -> int:
    """
    Forget the messages of a channel, and answer with 204 once none of them can come back:
    with a history file, once they are not on the disk any more.  Whoever may publish to the
    channel may do that, from the pages from which they may publish.

    Args:
        path: The path of the channel below the root of the bus, percent-encoded.

    Raises:
        Refusal: The request may not publish there, or names a folder.
        Invalid: The name is not valid; see `Mount.forget` for the other errors.
    """
    check_transfer_encoding(request)
    check_origin(request, mount.origins)
    channel = channel_name(path)
    if is_folder(channel):
        raise Refusal(
            400,
            "A DELETE forgets the messages of one channel: name one, without a slash at its"
            " end.",
        )
    forgotten = mount.forget(visitor_of(request), peer_of(request), channel)
    if forgotten is None:
        return answer(request, 204)
    forgotten.addCallbacks(lambda _: answer(request, 204), partial(_refuse, mount, request))
    forgotten.addErrback(partial(_log.failure, "Messages cannot be forgotten"))
    return NOT_DONE_YET


def _refuse(mount: Mount, request: server.Request, failure: Failure) -> None:
    error = failure.value
    if not isinstance(error, REFUSALS):
        failure.raiseException()
    refuse(mount.journal, request, error)
