"""
TLS client certificates: the authorities that an operator trusts to issue them, and the name
that a certificate proves.

No I/O.  That a client has the key of the certificate that it shows is proven in the
handshake of TLS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from ..message import Invalid
from .users import check_user

__all__ = ["Authorities", "BadAuthorities", "ClientCertificate"]


class BadAuthorities(Invalid):
    """
    A file of authorities cannot be used.  The text names it.
    """


class ClientCertificate:
    """
    A certificate that a client has shown.

    Args:
        certificate: As it was shown, not verified yet.
        chain: All certificates that were shown, by which it is verified.

    Attributes:
        fingerprint: The SHA-256 of the certificate, which tells it from all others.
    """

    def __init__(self, certificate: crypto.X509, chain: Sequence[crypto.X509] = ()) -> None:
        self._certificate = certificate
        self._chain = chain
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        self.fingerprint = hashlib.sha256(der).digest()
        # Those who are known to have issued it.
        self._issuers: Authorities | None = None

    @cached_property
    def name(self) -> str:
        """
        The name of its holder: the common name of its subject.

        Raises:
            Invalid: There is none, or several, or it cannot be the name of a user; see
                `check_user`.
        """
        try:
            subject = self._certificate.to_cryptography().subject
            names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        except ValueError as error:
            raise Invalid(f"It is malformed: {error}.") from None
        if len(names) != 1:
            raise Invalid(f"Its subject has {len(names)} common names, and not one.")
        name = names[0].value
        if not isinstance(name, str):
            raise Invalid("Its common name is no text.")
        check_user(name)
        return name

    @cached_property
    def expires(self) -> float:
        """
        When it expires, in seconds since 1970.

        Raises:
            Invalid: It does not say so.
        """
        try:
            expires = self._certificate.to_cryptography().not_valid_after_utc
        except ValueError as error:
            raise Invalid(f"It is malformed: {error}.") from None
        return expires.timestamp()

    def is_issued_by(self, authorities: Authorities) -> bool:
        """
        Was it issued by one of these authorities, directly or by others of the chain?
        """
        if self._issuers is authorities:
            return True
        context = crypto.X509StoreContext(
            authorities.store, self._certificate, list(self._chain)
        )
        try:
            context.verify_certificate()
        except crypto.X509StoreContextError:
            return False
        self._issuers = authorities
        return True


class Authorities:
    """
    Those whose client certificates are accepted.

    Args:
        certificates: Their own certificates; at least one.

    Attributes:
        store: The same for OpenSSL.
    """

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        self._certificates = [crypto.X509.from_cryptography(each) for each in certificates]
        self.store = crypto.X509Store()
        for certificate in self._certificates:
            self.store.add_cert(certificate)

    @classmethod
    def parse(cls, text: bytes, file: str) -> Authorities:
        """
        Read certificates in PEM.

        Args:
            file: Its name, for errors.

        Raises:
            BadAuthorities: There are none, or one is no authority's.
        """
        try:
            certificates = x509.load_pem_x509_certificates(text)
        except ValueError as error:
            raise BadAuthorities(f"{file}: no certificates in PEM ({error}).") from None
        if text.count(b"-----BEGIN") != len(certificates):
            raise BadAuthorities(
                f"{file}: a certificate is cut off, or something else is in the file."
            )
        for certificate in certificates:
            if not _may_sign(certificate):
                raise BadAuthorities(
                    f"{file}: the certificate of {certificate.subject.rfc4514_string()!r}"
                    " is no authority's; name those who issue the certificates of clients."
                )
        return cls(certificates)

    def have_clients_asked(self, context: SSL.Context) -> None:
        """
        From now on, ask each client for a certificate by one of these authorities; the
        client may show none, but a wrong or an expired one ends the handshake.
        """
        store = context.get_cert_store()
        if store is None:  # for mypy: only a context that was taken apart has none
            raise ValueError("The context has no store of certificates.")
        for certificate in self._certificates:
            store.add_cert(certificate)
        # Browsers and others with several certificates choose one by these names.
        context.set_client_ca_list([each.get_subject() for each in self._certificates])
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE)


def _may_sign(certificate: x509.Certificate) -> bool:
    """
    Is this the certificate of an authority (RFC 5280, section 4.2.1.9)?
    """
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (ValueError, x509.ExtensionNotFound):
        return False
    return constraints.value.ca
