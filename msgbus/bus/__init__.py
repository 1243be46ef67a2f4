"""
The bus itself: who gets a published message, in which order, and what is kept of it.

It knows neither HTTP nor how a message is written; a subscriber is any Python callable.
`fanout` subscribes on behalf of open responses.

Read `bus` first, then `history` (what is kept, and reading it again), `store` (a copy of
that in a file), and `idempotency` (publications that are repeated).
"""

from .bus import Bus, Nobody, Stopping, Subscription, TooLarge
from .history import History, Keep

__all__ = ["Bus", "History", "Keep", "Nobody", "Stopping", "Subscription", "TooLarge"]
