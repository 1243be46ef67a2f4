"""
The bus as a resource: decides what kind of request it has got, and hands the request to the
way in for that kind.

Each way in is a module: `publish`, `forget`, `stream`, `poll`, `websocket` and
`channel_list`.  Browsers get `pages`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.web import server
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ..bus.bus import Bus
from ..fanout.fanout import Limits
from ..message import is_folder
from .auth import visitor_of
from .channel_list import ChannelLists
from .forget import forget
from .headers import (
    allow_travelling,
    check_host,
    foreign_page,
    header,
    is_preflight,
    set_safety_headers,
)
from .mount import Mount
from .origins import Origins
from .pages import MODULES, SIGN_IN, list_page, live_page, module, sign_in
from .poll import Polls
from .publication_stream import publish_stream
from .publish import publish
from .query import MESSAGE, PAGE, channel_name, parse_list, parse_subscription
from .quotas import Quotas
from .refusals import refuse
from .request import peer_of
from .responses import REFUSALS, Refusal, answer
from .stream import stream
from .streamed_body import is_streamed
from .websocket import open_websocket
from .websocket_handshake import wants_websocket

__all__ = ["BusResource"]

_METHODS = b"GET, HEAD, POST, PUT, DELETE, OPTIONS"

_PREFLIGHT = (
    (b"Access-Control-Allow-Methods", _METHODS),
    (
        b"Access-Control-Allow-Headers",
        b"Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match,"
        b" Last-Event-ID",
    ),
    (b"Access-Control-Max-Age", b"600"),
)


class BusResource(Resource):
    """
    A bus over HTTP: `POST` and `PUT` publish, `GET` subscribes, `DELETE` forgets what is
    kept, and the rest of the path names the channel or folder.

    In a `Site` of `web.site`, all limits hold.  The resource works in any other site, too,
    but that site decides about everything that happens before it renders the resource.

    Args:
        bus: What to publish to and subscribe at.
        reactor: Where fan-out runs.
        prefix: The path at which the resource is mounted, percent-encoded, with a slash at
            both ends; subscribers are told it in `Content-Location`.
        origins: Which web pages may use it.
        verbosity: 1 logs subscriptions and refusals, 2 publications too.
        limits: What may wait for subscribers that do not read.
        quotas: How much each user and address may publish and subscribe.

    Attributes:
        mount: Publishes and subscribes.
    """

    isLeaf = True

    def __init__(
        self,
        bus: Bus,
        reactor: IReactorTime,
        *,
        prefix: str = "/msgbus/",
        origins: Origins | None = None,
        verbosity: int = 0,
        limits: Limits | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        self._origins = origins or Origins()
        self.mount = Mount(bus, reactor, prefix, self._origins, verbosity, limits, quotas)
        self._polls = Polls(self.mount)
        self._lists = ChannelLists(self.mount)

    def stop_waiting(self) -> None:
        """
        Answer the requests that wait for a message by `?wait=`, and those whose bodies are
        streams, and let no later request wait or have such a body.
        """
        mount = self.mount
        mount.returns.expect(len(mount.subscribers))
        mount.takes_streams = False
        self._polls.stop_waiting()
        for publishing in tuple(mount.publication_streams):
            publishing.stop()

    def check_rights(self) -> None:
        """
        End what somebody has begun who has lost the right to it; to be called when users,
        rules or keys have been replaced.
        """
        self.mount.rights.check()

    def close(self) -> None:
        """
        End all streams, each once its subscriber has been sent all that waits for it.
        Requests for which a message is still looked for, and all later requests, are
        answered with 503.
        """
        self.mount.close()
        self._polls.close()

    def render(self, request: server.Request) -> int:
        """
        Answer one request.
        """
        if request._disconnected:
            # The client has gone while its password was checked.
            return NOT_DONE_YET
        try:
            set_safety_headers(request, self._origins)
            check_host(request, self._origins)
            self.mount.check_open()
            return self._render_method(request)
        except Refusal as refusal:
            return refuse(self.mount.journal, request, refusal)
        except REFUSALS as error:
            return refuse(self.mount.journal, request, error)

    def _render_method(self, request: server.Request) -> int:
        if request.method == b"OPTIONS":
            return self._options(request)
        if not request.postpath:
            return self._redirect(request)
        path = _path_below(request)
        if request.method in (b"POST", b"PUT"):
            content_type = header(request, b"Content-Type") or ""
            if is_streamed(request.method, request.uri, content_type.encode()):
                return publish_stream(self.mount, request, path)
            return publish(self.mount, request, path)
        if request.method == b"DELETE":
            return forget(self.mount, request, path)
        if request.method not in (b"GET", b"HEAD"):
            raise Refusal(
                405,
                "A channel takes POST or PUT to publish, GET to subscribe, and DELETE to"
                " forget its messages.",
                [(b"Allow", _METHODS)],
            )
        if path.startswith(MODULES):
            return module(request, path)
        if path == SIGN_IN:
            return sign_in(request)
        return self._subscribe(request, path)

    def _subscribe(self, request: server.Request, path: bytes) -> int:
        name = channel_name(path)
        query = request.uri.partition(b"?")[2]
        accept = header(request, b"Accept", many=True)
        visitor = visitor_of(request)
        if (wanted_list := parse_list(query, accept)) is not None:
            if not is_folder(name):
                raise Refusal(400, "A list is of a folder, whose address ends in a slash.")
            visitor.check_subscribe(name, wanted_list.filter)
            if wanted_list.page:
                return list_page(request, path)
            return self._lists.list(request, name, wanted_list)
        wanted = parse_subscription(query, accept, header(request, b"Last-Event-ID"))
        if wanted.since is not None and wanted.since.each and not is_folder(name):
            raise Refusal(
                400,
                "The newest message of each channel is of a folder, whose address ends in a"
                " slash; for the newest of this channel, give last=1.",
            )
        filter = visitor.check_subscribe(name, wanted.filter)
        since = self.mount.within_history(visitor, name, wanted.since)
        wanted = replace(wanted, filter=filter, since=since)
        stays_open = wanted.wait if wanted.format == MESSAGE else wanted.format != PAGE
        if stays_open:
            self.mount.check_room()
            self.mount.quotas.check_subscribe(visitor, peer_of(request), name)
        if wants_websocket(request):
            return open_websocket(self.mount, request, name, wanted)
        # A proxy may serve the bus at another path.  `Content-Location` of each message
        # begins with this path, so that a client can cut it off.
        request.setHeader(b"Msgbus-Prefix", self.mount.prefix.encode("ascii"))
        if wanted.format == PAGE:
            return live_page(request, path)
        if wanted.format == MESSAGE:
            return self._polls.poll(request, name, wanted)
        return stream(self.mount, request, name, wanted)

    def _options(self, request: server.Request) -> int:
        origin = header(request, b"Origin")
        request.setHeader(b"Allow", _METHODS)
        if is_preflight(request):
            if not self._origins.allows(origin):
                raise foreign_page(origin)
            for name, value in _PREFLIGHT:
                request.setHeader(name, value)
            allow_travelling(request)
        return answer(request, 204)

    def _redirect(self, request: server.Request) -> int:
        _, question, query = request.uri.partition(b"?")
        location = self.mount.prefix.encode("ascii") + question + query
        raise Refusal(
            308,
            f"The root of the bus is {self.mount.prefix}, with a slash at its end.",
            [(b"Location", location)],
        )


def _path_below(request: server.Request) -> bytes:
    """
    The path below the resource, still percent-encoded.  Twisted has decoded `postpath`, but
    the number of its segments tells where the path below the resource begins.
    """
    segments = request.uri.partition(b"?")[0].split(b"/")
    depth = len(cast(list[bytes], request.postpath))
    return b"/".join(segments[-depth:])
