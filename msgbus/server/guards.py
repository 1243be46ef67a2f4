"""
What decides who may use a bus: made as the options say, and read again when the operator
asks for it.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from ..access.checker import PasswordChecker, new_pool
from ..web.auth import portal_for, portal_with
from ..web.certified import Certificates
from ..web.grants import Grants
from ..web.resource import BusResource
from ..web.site import Site
from ..web.visitor import Access
from .certificates import CertificateService
from .grant_files import GrantService
from .listen import is_tls
from .options import Options
from .service import BusService
from .users import UserService

__all__ = ["Guards"]


class Guards:
    """
    All that a `Root` asks who may use what is below it.  What the options do not ask for is
    None.

    Attributes:
        portal: Checks passwords.
        access: The users and rules.
        grants: Verifies links and tokens.
        certificates: Checks client certificates.
    """

    def __init__(self, options: Options, reactor: IReactorTime) -> None:
        self._options = options
        secret, keys = options["secret"], options["grant-files"]
        authorities = options["authorities"]
        self.portal = portal_for(secret) if secret else None
        self.access = None
        if options["users-and-rules"] is not None:
            self.access = Access(*options["users-and-rules"])
            self._pool = new_pool()
            self._checker = PasswordChecker(self.access.users, reactor, self._pool)
            self.portal = portal_with(self._checker, self.access)
        self.grants = None if keys is None else Grants(*keys.load())
        self.certificates = None if authorities is None else Certificates(authorities)

    def reload_with(self, service: BusService, site: Site, bus: BusResource) -> None:
        """
        Have the files read again when the service is asked to.

        Args:
            service: Listens at the ports that are asked for.
            site: Is served there.
            bus: Has subscriptions that may lose a right.
        """
        options = self._options
        if self.access is not None:
            service.users = UserService(
                options["access-files"], self.access, self._checker, self._pool, site, bus
            )
        if self.grants is not None:
            service.grants = GrantService(options["grant-files"], self.grants, bus)
        if any(map(is_tls, options["endpoints"])):
            service.certificates = CertificateService(
                site, bus, options["client-ca"], self.certificates
            )
