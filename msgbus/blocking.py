"""
The client for plain programs, which may wait: `publish`, `stream`, `subscribe` and
`Publisher`.
"""

from .client.blocking import Publisher, publish, stream, subscribe

__all__ = ["Publisher", "publish", "stream", "subscribe"]
