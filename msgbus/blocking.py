"""
The client for plain programs, which may wait: `publish`, `stream`, `subscribe`,
`channels` and `Publisher`.
"""

from .client.blocking import Publisher, channels, publish, stream, subscribe

__all__ = ["Publisher", "channels", "publish", "stream", "subscribe"]
