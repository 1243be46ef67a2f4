"""
Fan-out: one message to many open responses, each as fast as its reader.

It takes messages from a `bus`, has them written by `formats`, and gives the bytes to
sockets.  What a request means, and what the head of a response says, is up to `web`.

Read `fanout` first, then `group` (subscribers that get the same bytes) and its `member`s:
those that are `level`, those for which something waits in the `backlog` (or just the
`latest` message of each channel), and those that are sent a `replay` of what was kept.
`outlet` is how bytes get into a socket.  `heartbeats` and `turns` say when.
"""

from .fanout import Fanout, Limits

__all__ = ["Fanout", "Limits"]
