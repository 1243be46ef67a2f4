"""
Fan-out: one message to many open responses, each as fast as its reader.

It takes messages from a `bus`, has them written by `formats`, and gives the bytes to
sockets.  What a request means, and what the head of a response says, is up to `web`.

Read `fanout` first, then `group` (subscribers that get the same bytes), `backlog` (what
waits for those who do not read), `replay` (what was kept before they came), and `outlet`
(how bytes get into a socket).
"""

from .fanout import Fanout, Limits

__all__ = ["Fanout", "Limits"]
