"""
A way in: a request for one message (`?format=message`), which may wait until there is one.

How the message is found is up to `search`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from twisted.web import http, server
from twisted.web.server import NOT_DONE_YET

from ..bus.bus import Stopping
from ..fanout.backlog import SLICE_BYTES
from ..fanout.member import Response
from ..formats.framing import Framing
from ..formats.multipart_framing import gap_value, location
from ..headers import shown_name
from ..ids import Gap, format_id
from ..message import Message
from .auth import visitor_of
from .headers import expose, header
from .mount import Mount, finish
from .query import Wanted
from .quotas import Opened
from .refusals import refuse
from .request import Request, peer_of
from .responses import Refusal, answer
from .rights import check_unchanged
from .search import Search
from .visitor import Denied

__all__ = ["Body", "Polls"]

# The destinations of a browser's request (Fetch standard, section 2.2.5) for which the
# answer would act in the name of the page: scripts, workers and style sheets.
_CODE = {
    "audioworklet",
    "paintworklet",
    "script",
    "serviceworker",
    "sharedworker",
    "style",
    "worker",
    "xslt",
}


@dataclass(frozen=True, slots=True)
class Body(Framing):
    """
    A framing that adds nothing: a message is written as its body alone.
    """

    @property
    def form(self) -> str:
        """
        See `Framing.form`.
        """
        return "message"

    def pieces(self, message: Message) -> tuple[bytes, ...]:
        """
        The body.
        """
        return (message.body,)

    def gap(self, count: int | None) -> bytes:
        """
        Nothing, because a gap is told in the head of the response.
        """
        return b""

    @property
    def heartbeat(self) -> bytes:
        """
        Nothing, because there are no heartbeats.
        """
        return b""


class Polls:
    """
    Answers requests with one message each, and keeps those that wait for one.

    Args:
        mount: The bus that they are for.
    """

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._may_wait = True
        self._requests: dict[Search, server.Request] = {}

    def poll(self, request: server.Request, name: str, wanted: Wanted) -> int:
        """
        Answer with one message of a channel or folder, whose body is the body of the
        response, or with 204 if there is none.

        Raises:
            Refusal: A web page would take the message for a script or a style sheet.
        """
        if header(request, b"Sec-Fetch-Dest") in _CODE:
            raise Refusal(403, "A message is no script and no style sheet of a page.")
        tags = header(request, b"If-None-Match", many=True) or ""
        if not self._may_wait:
            wanted = replace(wanted, wait=0)

        def respond(message: Message | None) -> None:
            gone(None)
            self._respond(request, message, search.gap, tags)

        mount = self._mount
        search = Search(mount.bus, mount.reactor, mount.fanout.turns, name, wanted, respond)
        self._requests[search] = request
        # Kept in a variable, because a request that has lost its connection has no channel.
        channel = request.channel if isinstance(request, Request) else None
        if channel is not None:
            channel.waits = True

        visitor = visitor_of(request)
        quotas = mount.quotas
        opened: Opened = ()
        if wanted.wait:
            opened = quotas.open_subscription(visitor, peer_of(request), name)

        def denied(error: Denied) -> None:
            gone(None)
            refuse(mount.journal, request, error)

        right = mount.rights.depend(
            visitor, partial(check_unchanged, visitor, name, wanted.filter), denied
        )

        def gone(_: object) -> None:
            nonlocal opened
            search.stop()
            quotas.close_subscription(opened)
            opened = ()
            if right is not None:
                right.cancel()
            self._requests.pop(search, None)
            if channel is not None:
                channel.waits = False

        request.notifyFinish().addErrback(gone)
        search.look()
        return NOT_DONE_YET

    def stop_waiting(self) -> None:
        """
        Answer the requests that wait for a message to be published, and let no later
        request wait.
        """
        self._may_wait = False
        for search in tuple(self._requests):
            search.hurry()

    def close(self) -> None:
        """
        Refuse the requests for which a message is still looked for.
        """
        for search, request in tuple(self._requests.items()):
            search.stop()
            refuse(self._mount.journal, request, Stopping(self._mount.returns.next()))

    def _respond(
        self, request: server.Request, message: Message | None, gap: Gap | None, tags: str
    ) -> None:
        """
        Answer with what the search has found.

        Args:
            gap: What is missing before the message.
            tags: The value of `If-None-Match`, or the empty string.
        """
        if gap is not None:
            request.setHeader(b"Msgbus-Gap", gap_value(gap.count))
        if message is None:
            # The search has seen all messages up to the newest, so the client may go on
            # behind that one.
            newest = format_id(self._mount.bus.newest)
            request.setHeader(b"Msgbus-Id", newest.encode("ascii"))
            request.setHeader(b"Cache-Control", b"no-store")
            answer(request, 204)
            return
        self._describe(request, message)
        # A list matches if one of its tags does, and weak tags count (RFC 9110, section
        # 13.1.2).
        if tags.strip() == "*" or f'"{message.id}"' in tags:
            request.setResponseCode(http.NOT_MODIFIED)
            request.finish()
            return
        request.setHeader(b"Content-Type", message.content_type.encode("utf-8"))
        request.setHeader(b"Content-Length", b"%d" % len(message.body))
        # A body of at most 64 KiB may wait in the buffer of the transport, as parts of
        # other responses do.  A larger one waits in fan-out, whose memory is limited.
        if request.method == b"HEAD" or len(message.body) <= SLICE_BYTES:
            request.write(message.body)
            request.finish()
        else:
            self._send(request, message)

    def _describe(self, request: server.Request, message: Message) -> None:
        """
        Set the headers that a message has in a 200 and in a 304 alike.
        """
        id = message.id.encode("ascii")
        request.setHeader(b"Msgbus-Id", id)
        if message.origin:
            request.setHeader(b"Msgbus-Origin", message.origin.encode("ascii"))
        # To somebody with a link or token, it says `no-store` already.
        if not request.responseHeaders.hasHeader(b"Cache-Control"):
            cached = b"no-cache"
            if message.max_age is not None:
                cached += b", max-age=%d" % message.max_age
            request.setHeader(b"Cache-Control", cached)
        request.responseHeaders.addRawHeader(b"Vary", b"Sec-Fetch-Dest")
        path = location(self._mount.prefix, message.channel)
        request.setHeader(b"Content-Location", path.encode("ascii"))
        if message.sender:
            request.setHeader(b"From", message.sender.encode("utf-8"))
        request.setHeader(b"ETag", b'"%s"' % id)
        for name, value in message.headers.items():
            request.setHeader(shown_name(name).encode("ascii"), value.encode("utf-8"))
        expose(request, message.headers)

    def _send(self, request: server.Request, message: Message) -> None:
        """
        Send a large body, as fast as the client reads it.
        """
        request.write(b"")
        response = Response(
            self._mount.outlet(request, latest=False), partial(finish, request)
        )
        member = self._mount.fanout.answer(message, Body(), response)
        request.registerProducer(member, True)
        request.notifyFinish().addBoth(lambda _: member.stopProducing())
