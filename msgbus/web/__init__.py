"""
The bus over HTTP: Twisted resources, what a request means, and what browsers load.

It decides who may do what and answers; it leaves the order of messages to `bus`, and the
bytes of streams to `fanout` and `formats`.

Read `resource` first: it decides what kind of request comes, and hands it to one of the
ways in, `publish`, `stream`, `poll` (with its `search`) and `websocket` (after its
`websocket_handshake`, by its `websocket_reader`), which share a `mount`; browsers get
`pages`.  What a request asks for is in `query` and `headers`; `responses` answers it in one
sentence.  `root` is the front door, with `origins` and `auth` (who may) and `documents`.
A `site` has connections, each a `channel` on which `request`s are read within limits; its
`repeater` answers those that repeat by their remembered `heads`.
"""

from .origins import Origins
from .request import Request
from .resource import BusResource
from .root import Root
from .site import Site

__all__ = ["BusResource", "Origins", "Request", "Root", "Site"]
