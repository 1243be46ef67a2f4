"""
The keys and certificates of TLS ports, and the authorities of client certificates, while
the bus runs: they are read again when the operator asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from ..access.certificates import Authorities
from ..message import Invalid
from ..web.certified import Certificates
from ..web.resource import BusResource
from ..web.site import Site
from .access_files import read
from .listen import read_again

__all__ = ["CertificateService", "read_authorities"]


def read_authorities(file: Path) -> Authorities:
    """
    The authorities of a file.

    Raises:
        Invalid: It cannot be read or used.  The text names the file.
    """
    return Authorities.parse(read(file), str(file))


class CertificateService:
    """
    Has keys, certificates and authorities read again when the operator asks for it.

    Args:
        site: What is served at the ports; remembers heads that were judged by certificates.
        bus: Has subscriptions that depend on client certificates.
        file: The file of the authorities; None if no client is asked for a certificate.
        certificates: The authorities that hold, if there is that file.
    """

    _log = Logger()

    def __init__(
        self,
        site: Site,
        bus: BusResource,
        file: Path | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self._site = site
        self._bus = bus
        self._file = file
        self._certificates = certificates
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
        Read the files again, for connections that are opened from now on.  All others go
        on, except that what somebody has begun ends if the authority of their certificate
        is not there any more.  If one of the files cannot be read or used, say so, and
        change nothing at any port.
        """
        try:
            authorities = None if self._file is None else read_authorities(self._file)
            factories = {
                text: read_again(text, self._site, authorities) for text in self._ports
            }
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
        if self._certificates is not None and authorities is not None:
            self._certificates.replace(authorities)
            self._site.heads.forget()
            self._bus.check_rights()
        self._log.info(
            "Read the keys and certificates of {ports} again", ports=", ".join(factories)
        )
