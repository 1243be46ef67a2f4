"""
The bus itself: who gets a published message, in which order, and which messages are kept.

It knows neither HTTP nor how a message becomes bytes; a subscriber is any Python callable.
`fanout` subscribes on behalf of open responses.

Read `bus` first, then `subscriptions` (who gets a message), `log` (what a bus needs of the
place where its messages are), `memory_log` (the log of one process), `id_sequence` (how
messages get their ids), `idempotency` (publications that are repeated), `history` (what is
kept), `cursor` (reading it again), `known_channels` (those with messages or subscribers),
`file_log` (when history is copied to a file), and `database` (that file).
"""

from .bus import Bus, Nobody, Stopping, TooLarge
from .history import History, Keep
from .subscriptions import Subscription

__all__ = ["Bus", "History", "Keep", "Nobody", "Stopping", "Subscription", "TooLarge"]
