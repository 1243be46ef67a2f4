"""
A way in: a request for the channels below a folder (`?list`).

Which channels those are is up to `channel_search`.
"""

from __future__ import annotations

import json
from time import perf_counter
from urllib.parse import quote

from twisted.web import server
from twisted.web.server import NOT_DONE_YET

from ..bus.known_channels import KnownChannel
from ..formats.envelope import line, published_at
from .auth import visitor_of
from .channel_search import ChannelSearch
from .mount import Mount
from .query import WantedList
from .refusals import refuse
from .responses import answer
from .sorted_names import SortedNames
from .visitor import Denied

__all__ = ["ChannelLists"]

# For how long one search goes on before others have their turn; and the bytes that stand
# for a second of it, by which `Turns` lets searches take four milliseconds of each turn.
LOOK_SECONDS = 0.001
BYTES_A_SECOND = 64 * 1024 * 1000

# What may stand in the query of a URI beside letters and digits (RFC 3986, section 3.4).
_QUERY = "%&=!$'()*+,;:@/?"


class ChannelLists:
    """
    Answers requests with lists of channels.

    Args:
        mount: The bus whose channels they are.
    """

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._names = SortedNames(mount.bus.channel_names, mount.reactor.seconds)

    def list(self, request: server.Request, folder: str, wanted: WantedList) -> int:
        """
        Answer with the channels below a folder, as JSON, in a later turn of the reactor.

        Raises:
            Denied: The visitor may read nothing there.
        """
        search = ChannelSearch(
            self._mount.bus, self._names, visitor_of(request), folder, wanted
        )
        _List(self._mount, request, search).begin()
        return NOT_DONE_YET


class _List:
    """
    One list that is being made.
    """

    def __init__(
        self, mount: Mount, request: server.Request, search: ChannelSearch
    ) -> None:
        self._mount = mount
        self._request = request
        self._search = search
        self._rows: list[str] = []

    def begin(self) -> None:
        """
        Make the list in the next turns, and answer the request.
        """
        self._mount.fanout.turns.call(self._look)

    def _look(self) -> int:
        """
        Search on, and answer if everything is found.

        Returns:
            About how many bytes of work that was, for `Turns`.
        """
        if self._request._disconnected:
            return 0
        begun = perf_counter()
        done = self._search.look(begun + LOOK_SECONDS)
        # Not all at the end, because of many that takes some milliseconds.
        new = self._search.found[len(self._rows) :]
        self._rows += (line(_row(channel)).decode() for channel in new)
        if done:
            self._answer()
        else:
            self._mount.fanout.turns.call(self._look)
        return int((perf_counter() - begun) * BYTES_A_SECOND)

    def _answer(self) -> None:
        request, after = self._request, self._search.next
        try:
            self._search.check_rights()
        except Denied as denied:
            refuse(self._mount.journal, request, denied)
            return
        if after is not None:
            link = f'<{_address_after(request.uri, after)}>; rel="next"'
            request.setHeader(b"Link", link.encode("ascii"))
        request.setHeader(b"Msgbus-Prefix", self._mount.prefix.encode("ascii"))
        request.setHeader(b"Cache-Control", b"no-store")
        body = f'{{"channels": [{", ".join(self._rows)}], "next": {json.dumps(after)}}}'
        answer(request, 200, body, b"application/json")


def _row(channel: KnownChannel) -> dict[str, object]:
    """
    What the list says of one channel.
    """
    last = None
    if channel.last is not None:
        published = published_at(channel.last.id)
        last = {
            "id": channel.last.id,
            # RFC 3339, as in the envelopes of messages.
            "time": published and published.isoformat(timespec="milliseconds"),
            "type": channel.last.content_type,
        }
    return {"name": channel.name, "subscribers": channel.subscribers, "last": last}


def _address_after(uri: bytes, name: str) -> str:
    """
    The address of a list that begins behind this name, relative to that of the request.
    """
    items = uri.partition(b"?")[2].decode("latin-1").split("&")
    items = [quote(item, _QUERY) for item in items if not item.startswith("after=")]
    return f"?{'&'.join(items)}&after={quote(name, '')}"
