"""
What the failures of Twisted's connections mean, as errors of ours.
"""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error as network
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from .errors import NOTHING_LISTENS, BusError, Unreachable, Untrusted, printable

__all__ = ["explained"]


def explained(failure: Failure) -> BusError | CancelledError:
    """
    The error that a failure of Twisted's, or one of ours, means for the user of a client;
    a cancellation as it is.
    """
    error = failure.value
    while reasons := getattr(error, "reasons", None):
        # `ResponseFailed` and its like hold what led to them, in order of time.
        error = reasons[0].value
    if isinstance(error, BusError | CancelledError):
        return error
    if isinstance(error, VerificationError):
        return Untrusted("The certificate of the server is not for this host.")
    if isinstance(error, SSL.Error) and not isinstance(
        error, SSL.SysCallError | SSL.ZeroReturnError
    ):
        told = ", ".join(reason[-1] for reason in error.args[0]) if error.args else ""
        # A server that is killed during the handshake is not an untrusted one.
        kind = Unreachable if "eof" in told else Untrusted
        return kind(f"TLS failed: {told or 'no reason given'}.")
    if isinstance(error, network.ConnectionRefusedError):
        return Unreachable(NOTHING_LISTENS)
    if isinstance(error, network.ConnectionDone):
        return Unreachable("The server closed the connection; does it ask for TLS?")
    if isinstance(error, network.DNSLookupError):
        return Unreachable("The host is not known.")
    return Unreachable(printable(str(error)) or type(error).__name__)
