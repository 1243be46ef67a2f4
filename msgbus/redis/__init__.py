"""
The log of a bus of many processes, in a stream of a Redis server.

It is one of the logs that a bus can have; see `bus.log`.  Nodes, which are the processes of
one bus, talk to Redis only, and never to each other.

Read `log` first, then `scripts` (what Redis executes as one step, and what its keys are),
`loader` (reading the stream when a node starts), `appender` (adding messages to it),
`follower` (reading it as it grows) and `trimmer` (deleting what is no longer kept).
`address` is the URL of a log, `connection` one connection to Redis, `master` finds the
server to connect to, and `link` is a connection that is opened again when it has ended.
"""

from .address import RedisAddress
from .log import RedisLog

__all__ = ["RedisAddress", "RedisLog"]
