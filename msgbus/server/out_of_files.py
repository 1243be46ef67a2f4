"""
What happens when no connection can be accepted, because the process or the machine has as
many open files as it may have.

Twisted closes the connections that wait, so that the process does not try again and again,
and logs four lines for each.  Here they are counted, and the log says it once.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from zope.interface import implementer

from ..web.journal import Attempt
from ..web.peer import Peer
from ..web.responses import Refusal
from ..web.site import Site

__all__ = ["watch_port"]

# For how long nothing is accepted after an error that Twisted would meet again at once.
PAUSE_SECONDS = 1.0

SENTENCE = "The bus has no file left for the connection."


def watch_port(port: IListeningPort, site: Site, reactor: Any) -> None:
    """
    Have the site count what cannot be accepted at this port.
    """
    if isinstance(port, tcp.Port):
        # All that a port logs about accepting goes by this attribute.
        observer = _Accepting(port, site, reactor)
        port._logger = Logger(namespace="twisted.internet.tcp.Port", observer=observer)


@implementer(ILogObserver)
class _Accepting:
    """
    Takes what a port logs.
    """

    def __init__(self, port: tcp.Port, site: Site, reactor: Any) -> None:
        self._port = port
        self._site = site
        self._reactor = reactor

    def __call__(self, event: LogEvent) -> None:
        """
        Take an event.
        """
        text = str(event.get("log_format"))
        if text.startswith("EMFILE recovery"):
            self._refuse(event.get("address"))
        elif text.startswith("Could not accept"):
            self._site.connections.refuse()
            # The connections still wait, so the port would be readable again at once.
            self._port.stopReading()
            self._reactor.callLater(PAUSE_SECONDS, self._go_on)
        elif "EMFILE" not in text:
            globalLogPublisher(event)

    def _refuse(self, address: object) -> None:
        host, port = (None, None)
        if isinstance(address, tuple) and len(address) >= 2:
            host, port = address[:2]
        self._site.connections.refuse()
        refusal = Refusal(503, SENTENCE, reason="connections")
        self._site.journal.refuses(Attempt(Peer(host, port=port)), refusal)

    def _go_on(self) -> None:
        if self._port.connected and not self._site.draining:
            self._port.startReading()
