"""
The client for plain programs, which may wait: `publish`, `stream`, `subscribe`,
`channels`, `forget` and `Publisher`.
"""

from .client.blocking import Publisher, channels, forget, publish, stream, subscribe

__all__ = ["Publisher", "channels", "forget", "publish", "stream", "subscribe"]
