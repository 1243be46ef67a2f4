"""
The clients: for Twisted programs, and for plain ones that may wait.

They share with the server what a message is and how a stream is read, and nothing else.

Read `exchange` first: what is said to a bus, and what the answers mean, without I/O.  Then
`url` (where a bus is), `client` with `endpoint` (by Twisted), and `blocking` (by the
standard library alone).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .exchange import BusError, Lost, Refused, Subscribed, Unreachable, Untrusted

if TYPE_CHECKING:
    from .client import Client, Closed, Subscription

__all__ = [
    "BusError",
    "Client",
    "Closed",
    "Lost",
    "Refused",
    "Subscribed",
    "Subscription",
    "Unreachable",
    "Untrusted",
]


def __getattr__(name: str) -> Any:
    # Not before they are asked for: `blocking` is here too, and imports no Twisted.
    if name in ("Client", "Closed", "Subscription"):
        return getattr(import_module(".client", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
