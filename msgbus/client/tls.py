"""
TLS for Twisted clients, which verifies who is at the other end (RFC 9110, section 4.3.4).
"""

from __future__ import annotations

import re
from pathlib import Path

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

from ..message import Invalid

__all__ = ["tls_options"]

_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)


def tls_options(
    host: str, ca: Path | str | None, certificate: Path | str | None
) -> IOpenSSLClientConnectionCreator:
    """
    How to set up TLS with a host.

    Args:
        host: The name or address that the certificate of the server must be for.
        ca: A file of certificates (PEM) to trust, in place of those of the system.
        certificate: A file with a private key and its certificate (PEM) to show to the
            server, followed by the certificates between that one and a root.

    Raises:
        Invalid: A file cannot be read, or does not hold what it should.
    """
    roots = platformTrust()
    if ca is not None:
        roots = trustRootFromCertificates(_certificates(ca, _read(ca)))
    own: dict[str, object] = {}
    if certificate is not None:
        pem = _read(certificate)
        first, *chain = (c.original for c in _certificates(certificate, pem))
        try:
            key = KeyPair.load(pem, crypto.FILETYPE_PEM)
        except (SSL.Error, crypto.Error):
            raise Invalid(f"{str(certificate)!r} holds no private key (PEM).") from None
        own = {
            "privateKey": key.original,
            "certificate": first,
            "extraCertChain": chain,
        }
    # `Agent` speaks no other version of HTTP.
    return optionsForClientTLS(
        host,
        trustRoot=roots,
        acceptableProtocols=[b"http/1.1"],
        extraCertificateOptions=own,
    )


def _read(file: Path | str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise Invalid(f"{str(file)!r} cannot be read: {error.strerror}.") from None


def _certificates(file: Path | str, pem: bytes) -> list[Certificate]:
    """
    All certificates in the text of this file.
    """
    try:
        found = [Certificate.loadPEM(block) for block in _CERTIFICATE.findall(pem)]
    except (SSL.Error, crypto.Error):
        found = []
    if not found:
        raise Invalid(f"{str(file)!r} holds no certificate (PEM).")
    return found
