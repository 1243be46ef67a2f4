"""
Tells `twistd` of the bus, importing nothing of it until it is chosen.
"""

from twisted.application.service import ServiceMaker

msgbus = ServiceMaker(
    "msgbus",
    "msgbus.server.plugin",
    "A publish/subscribe message bus over HTTP.",
    "msgbus",
)
