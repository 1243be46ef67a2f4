"""
Whether messages get through the bus.
"""

from __future__ import annotations

import secrets
from functools import partial

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..bus.bus import Stopping
from ..fanout.member import Response
from ..fanout.outlet import BufferedOutlet
from ..formats.ndjson import NdjsonFraming
from ..match import EVERYTHING
from ..message import Message
from ..web.mount import Mount
from ..web.site import Site

__all__ = ["Readiness"]

# A message that takes longer gets through too slowly to call the bus ready.
PATIENCE_SECONDS = 2.0

SILENT = "A message that the bus has sent itself has not come: deliveries stand still."


class Readiness:
    """
    Sends a message through the bus, to a subscription that is made for it.  Nobody else
    gets the message, and it has no place in the order of messages.

    Args:
        mount: The bus.
        site: Its connections.
    """

    def __init__(self, mount: Mount, site: Site, reactor: IReactorTime) -> None:
        self._mount = mount
        self._site = site
        self._reactor = reactor

    async def trouble(self) -> str:
        """
        A sentence that says why the bus cannot do its work; empty if it can.
        """
        if self._site.draining or self._mount.closed:
            return str(Stopping())
        if trouble := self._mount.bus.log.trouble:
            return trouble
        return await self._deliver()

    async def _deliver(self) -> str:
        # Unguessable, so that nobody else subscribes to it.
        name = f"ready-{secrets.token_hex(16)}"
        body = secrets.token_hex(16).encode("ascii")
        came: Deferred[None] = Deferred()

        def write(data: bytes) -> None:
            if body in data and not came.called:
                came.callback(None)

        outlet = BufferedOutlet(write, lambda: None)
        member = self._mount.fanout.subscribe(
            name, EVERYTHING, NdjsonFraming(), Response(outlet, lambda: None)
        )
        message = Message(name, body, "text/plain").published("0-0", body)
        self._reactor.callLater(0, partial(self._mount.bus.probe, message))
        try:
            await came.addTimeout(PATIENCE_SECONDS, self._reactor)
        except defer.TimeoutError:
            return SILENT
        finally:
            member.stopProducing()
        return ""
