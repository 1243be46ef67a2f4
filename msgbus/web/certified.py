"""
Who has sent a request over a connection whose client has shown a certificate, and what they
may do.

No I/O.  What a certificate proves is up to `access.certificates`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..access.certificates import Authorities, ClientCertificate
from ..match import Filter
from ..message import Invalid
from .visitor import Access, Denied, Visitor

__all__ = ["OR_CERTIFICATE", "Certificates", "Certified"]

# What is added to a refusal that asks for something else.
OR_CERTIFICATE = (
    " A client certificate would do, too, as in curl --cert FILE, without a name and a"
    " password."
)


class Certificates:
    """
    The authorities that hold at the moment, whose client certificates name their holders.

    Args:
        authorities: Those who may issue certificates.
        now: Gives the time, in seconds since 1970.

    Attributes:
        now: As given.
    """

    def __init__(
        self, authorities: Authorities, now: Callable[[], float] = time.time
    ) -> None:
        self.now = now
        self._authorities = authorities

    def replace(self, authorities: Authorities) -> None:
        """
        From now on, these hold.
        """
        self._authorities = authorities

    def check(self, certificate: ClientCertificate) -> None:
        """
        Check that a certificate was issued by one of the authorities, and holds now.  The
        handshake of TLS has checked that, too, but that may have been long ago.

        Raises:
            Denied: It was not, or does not.
        """
        if self.now() >= certificate.expires:
            raise Denied(403, "Your client certificate has expired.")
        if not certificate.is_issued_by(self._authorities):
            raise Denied(
                403, "Your client certificate is of no authority that this bus accepts."
            )


class Certified(Visitor):
    """
    Somebody who has shown a certificate, and nothing else: a user with its name, until it
    expires or its authority is removed.  There need not be such a user in the file of
    users.

    Args:
        certificates: Checks the certificate, now and whenever the authorities have changed.
        shown: The certificate.
        access: What holds for users; None if they may do everything.

    Raises:
        Denied: The certificate does not hold, or has no name that can be a user's.
    """

    __slots__ = ("_certificates", "_shown")

    def __init__(
        self, certificates: Certificates, shown: ClientCertificate, access: Access | None
    ) -> None:
        self._certificates = certificates
        self._shown = shown
        try:
            self.check_exists()
            name = shown.name
        except Invalid as error:
            raise Denied(403, f"Your client certificate names no user: {error}") from None
        super().__init__(name, access)
        # The name is proved, whether there are rules or not.
        self.user = name

    @property
    def is_limited(self) -> bool:
        """
        May they lose a right while the bus runs?  All certificates expire.
        """
        return True

    def seconds_left(self) -> float | None:
        """
        For how many seconds their rights last.
        """
        return self._shown.expires - self._certificates.now()

    def check_exists(self) -> None:
        """
        Check that the certificate still holds.

        Raises:
            Denied: It has expired, or its authority is not accepted any more.
        """
        self._certificates.check(self._shown)

    def check_enter(self) -> None:
        """
        Check that they may load documents: everybody may who may read any channel.

        Raises:
            Denied: They may not.
        """
        self.check_exists()
        super().check_enter()

    def check_publish(self, channel: str, require: bool = False) -> bool:
        """
        Check that they may publish to a channel; see `Visitor.check_publish`.
        """
        self.check_exists()
        return super().check_publish(channel, require)

    def check_publish_below(self, name: str) -> None:
        """
        Check that they may publish to a channel, or to any channel below a folder.

        Raises:
            Denied: They may not.
        """
        self.check_exists()
        super().check_publish_below(name)

    def check_subscribe(self, name: str, filter: Filter) -> Filter:
        """
        The filter with which they may subscribe; see `Visitor.check_subscribe`.
        """
        self.check_exists()
        return super().check_subscribe(name, filter)

    def _check_user(self, access: Access) -> None:
        # The certificate takes the place of a line in the file of users.
        self.check_exists()
