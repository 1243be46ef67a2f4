"""
Refuses requests: answers each, and has the journal count and log it.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from twisted.web import server
from twisted.web.server import NOT_DONE_YET

from ..message import Invalid
from .auth import visitor_of
from .journal import Attempt, Journal
from .request import Request, peer_of
from .responses import Refusal, answer_refusal

__all__ = ["attempt_of", "journal_of", "refuse"]


def refuse(journal: Journal, request: server.Request, error: Exception) -> int:
    """
    Answer a request that is refused because of an error, which is a `Refusal` or one of
    `REFUSALS`, unless its client has gone.
    """
    if request._disconnected:
        return NOT_DONE_YET
    if not isinstance(error, Refusal) or error.is_refusal:
        journal.refuses(attempt_of(journal, request), error)
    return answer_refusal(request, error)


def attempt_of(journal: Journal, request: server.Request) -> Attempt:
    """
    What a request wants to do.
    """
    try:
        user = visitor_of(request).sender
    except (Refusal, Invalid):
        user = ""
    way = request.method.decode("ascii", "backslashreplace")
    path = request.path.decode("ascii", "backslashreplace")
    channel = ""
    if path.startswith(journal.prefix):
        name = unquote_to_bytes(path.removeprefix(journal.prefix))
        channel = name.decode("utf-8", "backslashreplace")
    return Attempt(peer_of(request), user, way, channel, path)


def journal_of(request: server.Request) -> Journal:
    """
    The journal of the site of a request; one that logs nothing if it is another site than
    ours.
    """
    if isinstance(request, Request) and not request._disconnected:
        return request.channel.site.journal
    return Journal()
