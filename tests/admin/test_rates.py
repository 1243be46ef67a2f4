"""
Tests for `msgbus.admin.rates`.
"""

from msgbus.admin.rates import GroupRates

from ..memory import Server
from ..requests import get, post


def test_group():
    """
    The rate of a group is that between the last two looks that were complete.
    """
    server = Server()
    mount = server.resource.mount
    server.connect().send(get())
    (group,) = mount.fanout.groups()
    rates = GroupRates(mount.fanout)
    assert rates.of(group) == 0
    for _ in rates.look(10):
        continue
    for _ in range(8):
        server.ask(post())
    look = rates.look(14)
    next(look)
    assert rates.of(group) == 0
    assert list(look) == []
    assert rates.of(group) == 2
