"""
The bus over HTTP: Twisted resources, what a request means, and what browsers load.

It decides who may do what and answers; it leaves the order of messages to `bus`, and the
bytes of streams to `fanout` and `formats`.

Read `resource` first: it has a method for each way in.  Then `query` (what a request asks
for), `responses` (how it is answered in one sentence), `origins` and `auth` (who may),
`websocket`, `poll`, `pages` and `documents` (the other ways), and `site` (limits on what
strangers send).
"""

from .origins import Origins
from .resource import BusResource, Root
from .site import Request, Site

__all__ = ["BusResource", "Origins", "Request", "Root", "Site"]
