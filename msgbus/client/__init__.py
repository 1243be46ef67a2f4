"""
The clients: one for Twisted programs, and one that blocks, for programs without Twisted.

They share with the server what a message is and how a stream is read, and nothing else.
What both clients decide in the same way is in modules without I/O; they differ in how they
send, read and wait.

Read `url` first (where a bus is), then `options` (what the user of a client may choose),
`errors` (what may fail), `requests` (what is sent), `responses` (what comes back), `stream`
(the messages in a response), `notices` (what a subscriber is told beside messages), `retry`
(when to try again), `resumable` (one subscription over several streams), and
`channel_pages` (a list of channels).  Publishing by a stream is in `publication_stream`
(what is sent again on another connection) and `response_reader` (a response that comes
while the request is sent).

`client`, `subscription` and `stream_publisher` are the client for Twisted, on top of
`agent` (one request), `stream_reader` (one stream of messages), `stream_connection` (one
connection of a stream of publications), `endpoint` and `tls` (the connection), and
`failures` (what Twisted's errors mean).  `blocking` and `blocking_stream` are the client
that blocks, on top of `blocking_http`; it needs only the standard library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .channel_pages import Channel
from .errors import BusError, Closed, Refused, Unreachable, Untrusted
from .notices import Live, Lost, Subscribed

if TYPE_CHECKING:
    from .client import Client
    from .stream_publisher import StreamPublisher
    from .subscription import Subscription

__all__ = [
    "BusError",
    "Channel",
    "Client",
    "Closed",
    "Live",
    "Lost",
    "Refused",
    "StreamPublisher",
    "Subscribed",
    "Subscription",
    "Unreachable",
    "Untrusted",
]

# Names that need Twisted, and the modules that hold them.  They are imported when they are
# first used, because `blocking`, in this package too, has to work without Twisted.
_BY_TWISTED = {
    "Client": ".client",
    "StreamPublisher": ".stream_publisher",
    "Subscription": ".subscription",
}


def __getattr__(name: str) -> Any:
    if name in _BY_TWISTED:
        return getattr(import_module(_BY_TWISTED[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
