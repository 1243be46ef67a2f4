"""
Fan-out: sends one message to many open responses, to each as fast as its client reads.

It takes messages from a `bus`, has them turned into bytes by `formats`, and gives the bytes
to sockets.  What a request means, and what the head of a response says, is up to `web`.

Read `fanout` first, then `group` (subscribers that get the same bytes) and its `member`s:
those that are `level`, those for which something waits in the `backlog` (or just the
`latest` message of each channel), and those that are `replaying`, each sent a `replay` of
kept messages.  A group can be `paced`: what it is sent next is `pending`.
`choices` are those of a subscriber, among them the `overflow`, which says what happens
when too much waits, and `counters` count it.
`outlet` is how bytes get into a socket.  `heartbeats` says which members are due for a
heartbeat, and `turns` how much replays may do in one turn of the reactor.
"""

from .fanout import Fanout, Limits

__all__ = ["Fanout", "Limits"]
