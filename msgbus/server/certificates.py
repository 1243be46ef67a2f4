"""
The keys and certificates of TLS ports while the bus runs: they are read again when the
operator asks for it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from ..message import Invalid
from ..web.site import Site
from .listen import read_again

__all__ = ["CertificateService"]


class CertificateService:
    """
    Has keys and certificates read again when the operator asks for it.

    Args:
        site: What is served at the ports.
    """

    _log = Logger()

    def __init__(self, site: Site) -> None:
        self._site = site
        self._ports: dict[str, Any] = {}  # Twisted's ports, which have a `factory`

    def listens(self, text: str, port: IListeningPort) -> None:
        """
        Take a port into care.

        Args:
            text: The endpoint string of the port, which names the files.
        """
        self._ports[text] = port

    def reload(self) -> None:
        """
        Read the files again, for connections that are opened from now on; all others go on.
        If one of the files cannot be read or used, say so, and change nothing at any port.
        """
        try:
            factories = {text: read_again(text, self._site) for text in self._ports}
        except Invalid as error:
            self._log.error(
                "Keys and certificates of TLS stay as they were, because they cannot be"
                " read: {error}",
                error=error,
            )
            return
        for text, factory in factories.items():
            port = self._ports[text]
            # The factories count the ports that they serve.
            factory.doStart()
            before, port.factory = port.factory, factory
            before.doStop()
        self._log.info(
            "Read the keys and certificates of {ports} again", ports=", ".join(factories)
        )
