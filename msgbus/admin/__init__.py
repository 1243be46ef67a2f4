"""
What an operator sees of a running bus, at an address of its own.

Read `resource` first: what is at which path.  `metrics` are numbers for Prometheus,
`readiness` finds out whether messages get through, and `reactor_delay` measures how late
the reactor is.  `listings` are the lists of subscribers and channels, with their `rates`;
`events` tells what happens as messages, and `numbers` what the status page draws.
"""

from .metrics import Metrics
from .readiness import Readiness
from .resource import pages

__all__ = ["Metrics", "Readiness", "pages"]
