"""
The bus over HTTP: Twisted resources, what a request means, and what browsers load.

It decides who may do what and answers; it leaves the order of messages to `bus`, and the
bytes of streams to `fanout` and `formats`.

Read `resource` first: it decides what kind of request it has got, and hands the request to
one of the ways in: `publish`, `forget` (what is kept of a channel), `publication_stream`
(many messages in one request, whose `streamed_body` is read by a `publication_source`, and
which gets a `stream_answer`), `stream`, `poll` (with its `search`), `websocket` (with its
`websocket_handshake` and `websocket_reader`) and `channel_list` (with its `channel_search`
in `sorted_names`).  The ways in share a `mount`, which counts in `quotas` what everybody
may do, in `counters` what is done, knows each `subscriber`, and when the bus stops, tells
clients when to come back (`returns`); browsers get `pages`.  What a request asks for is
read by `query` and `headers`; `responses` answers in one sentence, and `refusals` when
something is refused.  The `journal` logs what clients do and what is refused to them, with
the `verbosity` that the operator wants.

`root` is the root of the site, with `origins`, `auth` and `sign_in` (who may use the bus),
`visitor` (what they may do), `grants` and `bearer` (the same for links and tokens),
`certified` (the same for client certificates), `rights` (what ends when they do),
`documents` (files beside the bus) and `front` (the page in their place).  A `site` has as
many `connections` as it may, and a `shortage` says when there are too many.  Each of them
has a `peer` at its other end, and is a `channel`, on which `request`s are read within
limits; its `repeater` answers requests whose `heads` are remembered, without having them
parsed again.  If it is asked for, there is an `access_log`.
"""

from .auth import portal_for, portal_with
from .origins import Origins
from .request import Request
from .resource import BusResource
from .root import Root
from .site import Site
from .visitor import Access

__all__ = [
    "Access",
    "BusResource",
    "Origins",
    "Request",
    "Root",
    "Site",
    "portal_for",
    "portal_with",
]
