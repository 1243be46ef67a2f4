"""
The client for plain programs, which may wait: `publish`, `subscribe` and `Publisher`.
"""

from .client.blocking import Publisher, publish, subscribe

__all__ = ["Publisher", "publish", "subscribe"]
