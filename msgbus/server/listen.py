"""
Where to listen: Twisted's endpoint strings, with defaults of our own, and with checks that
Twisted leaves to the first connection.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import cast

import OpenSSL
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import SubjectAlternativeName, load_pem_x509_certificates
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ..access.certificates import Authorities
from .access_files import CannotRead
from .adopting import Adopting
from .cannot_start import cannot_start
from .tls import Asking, Nowhere

__all__ = ["CannotListen", "asks_clients", "endpoint", "is_tls", "open_ports", "read_again"]

# Defaults that Twisted does not have: a long queue of connections, for many clients that
# come at once, and a socket file that only its owner and group can use.
_BACKLOG = re.compile(r"(haproxy:)?(tcp|tcp6|ssl|tls|unix):")
_IP = re.compile(r"(tcp|tcp6|ssl):")
_TLS = re.compile(r"(haproxy:)?(ssl|tls):")
_SYSTEMD = re.compile(r"^(haproxy:|)systemd:.*")
_PEM_FOLDER = re.compile(r"(?:haproxy:)?tls:((?:[^:\\]|\\.)*)")
_DEFAULTS = {"backlog": "1024", "mode": "660"}


class CannotListen(ValueError):
    """
    An endpoint string describes no endpoint that can be used.  The text is one sentence for
    the operator.
    """


def endpoint(
    reactor: object,
    text: str,
    authorities: Authorities | None = None,
    inherited: int | None = None,
) -> IStreamServerEndpoint:
    """
    The endpoint that an endpoint string describes.

    Args:
        authorities: Those by whom clients at `ssl:` may show certificates; None asks for
            none.
        inherited: The number of the open file that is the listening socket, if this process
            has inherited it.  Then the address of the endpoint string is not used.

    Raises:
        CannotListen: It describes no endpoint, or one whose key or certificate files cannot
            be used.
    """
    try:
        if inherited is not None:
            reactor = Adopting(reactor, inherited)
            text = _SYSTEMD.sub(r"\1tcp:0", text)
        if is_tls(text):
            _connections(text, Factory(), authorities)
            reactor = Asking(reactor, authorities)
        return cast(IStreamServerEndpoint, serverFromString(reactor, _with_defaults(text)))
    except Exception as error:  # Each kind of endpoint raises its own.
        raise CannotListen(
            f"Cannot --listen {text}: {_reason(error)}; it should be such as tcp:8888 or"
            " ssl:8443:privateKey=key.pem:certKey=cert.pem."
        ) from error


def open_ports(
    endpoints: dict[str, IStreamServerEndpoint], served: IProtocolFactory
) -> dict[str, IListeningPort]:
    """
    Listen at all of these endpoints.

    Args:
        endpoints: By their endpoint strings.
        served: Takes the connections.

    Returns:
        The ports, by the endpoint strings.

    Raises:
        CannotStart: It is impossible to listen at one of them.
    """
    ports: dict[str, IListeningPort] = {}
    for text, each in endpoints.items():
        failures: list[Failure] = []
        listening = maybeDeferred(each.listen, served)
        listening.addCallbacks(partial(ports.__setitem__, text), failures.append)
        if failures:
            error = failures[0].value
            # The error of the socket gives a shorter reason than Twisted's.
            reason = getattr(error, "socketError", error)
            reason = getattr(reason, "strerror", None) or reason
            raise cannot_start(f"{reason}: {text}") from error
    return ports


def on_loopback(text: str) -> str:
    """
    The endpoint string, with an address that only this machine can reach if it gives none.
    """
    if _IP.match(text) is None or ":interface=" in text:
        return text
    address = r"\:\:1" if text.startswith("tcp6:") else "127.0.0.1"
    return f"{text}:interface={address}"


def is_private(text: str) -> bool:
    """
    Can only this machine reach the port of this endpoint string?
    """
    if text.startswith("unix:"):
        return True
    address = re.search(r":interface=((?:[^:\\]|\\.)*)", text)
    return (
        _IP.match(text) is not None
        and address is not None
        and address[1].replace("\\", "") in ("127.0.0.1", "::1", "localhost")
    )


def is_tls(text: str) -> bool:
    """
    Does this endpoint string name files with a key and a certificate?
    """
    return _TLS.match(text) is not None


def asks_clients(text: str) -> bool:
    """
    Can the port of this endpoint string ask its clients for certificates?  Twisted keeps
    those of `tls:` to itself.
    """
    found = _TLS.match(text)
    return found is not None and found[2] == "ssl"


def read_again(
    text: str, served: IProtocolFactory, authorities: Authorities | None
) -> IProtocolFactory:
    """
    Read the files again that the endpoint string of a TLS port names.

    Args:
        served: Takes the connections of the port, behind TLS.
        authorities: See `endpoint`.

    Returns:
        The factory for new connections of the port.

    Raises:
        CannotRead: They cannot be read or used.
    """
    try:
        return _connections(text, served, authorities)
    except Exception as error:  # Each kind of endpoint raises its own.
        raise CannotRead(f"{text}: {_reason(error)}.") from None


def _connections(
    text: str, served: IProtocolFactory, authorities: Authorities | None
) -> IProtocolFactory:
    """
    The factory that a TLS port would have if it were opened now.

    Raises:
        Exception: The endpoint string is wrong, or its files cannot be used.
    """
    if folder := _PEM_FOLDER.match(text):
        _check_certificates(Path(folder[1].replace("\\", "")))
    reactor = Nowhere()
    failures: list[Failure] = []
    asking = Asking(reactor, authorities)
    serverFromString(asking, text).listen(served).addErrback(failures.append)
    if failures:
        failures[0].raiseException()
    return cast(IProtocolFactory, reactor.factory)


def _reason(error: Exception) -> object:
    # The text of an error of OpenSSL is a list of tuples, each with a reason at its end.
    if isinstance(error, OpenSSL.SSL.Error | OpenSSL.crypto.Error) and error.args:
        reasons = "; ".join(str(reason) for *_, reason in error.args[0])
        return f"no usable key or certificate in PEM ({reasons})"
    if isinstance(error, KeyError):
        return f"systemd has passed no socket of the name {error}"
    return error


def _check_certificates(folder: Path) -> None:
    """
    Check the folder of a `tls:` endpoint, which picks a certificate by the name that a
    client asks for.

    Raises:
        ValueError: No client could connect, because there is no key with a certificate, or
            a certificate names no host.
    """
    files = {file: file.read_bytes() for file in folder.glob("*.pem")}
    pem = b"".join(files.values())
    if b"PRIVATE KEY-----" not in pem or b"BEGIN CERTIFICATE-----" not in pem:
        raise ValueError(
            f"there is no PEM file with a key and a certificate in {str(folder)!r}"
        )
    for file, content in files.items():
        if b"BEGIN CERTIFICATE-----" in content and b"PRIVATE KEY-----" in content:
            _check_certificate(file, content)


def _check_certificate(file: Path, content: bytes) -> None:
    """
    Check a file with a key and its certificate.

    Raises:
        ValueError: They do not belong together, or the certificate names no host.
    """
    certificates = load_pem_x509_certificates(content)
    extensions = certificates[0].extensions
    if not any(isinstance(e.value, SubjectAlternativeName) for e in extensions):
        raise ValueError(
            f"the certificate in {str(file)!r} has no subjectAltName, by which it is found"
            " for a client"
        )
    # Twisted would go on without the certificate, and serve no client.
    key = load_pem_private_key(content, None).public_key()
    if key not in [certificate.public_key() for certificate in certificates]:
        raise ValueError(f"the key in {str(file)!r} is not that of the certificate")


def _with_defaults(endpoint: str) -> str:
    """
    The endpoint string, with our default for each setting that it does not give.
    """
    match = _BACKLOG.match(endpoint)
    if match is None:
        return endpoint
    for name, value in _DEFAULTS.items():
        if f":{name}=" not in endpoint and (name != "mode" or match[2] == "unix"):
            endpoint += f":{name}={value}"
    return endpoint
