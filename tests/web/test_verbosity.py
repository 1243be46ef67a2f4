"""
Tests for `msgbus.web.verbosity`.
"""

import pytest

from msgbus.web.peer import Peer
from msgbus.web.verbosity import Verbosity

HERE = Peer("192.0.2.1", port=4711)


@pytest.mark.parametrize(
    ("exception", "user", "peer", "level"),
    [
        ("alice", "alice", HERE, 2),
        ("alice", "bob", HERE, 0),
        ("alice", "", HERE, 0),
        ("192.0.2.1", "", HERE, 2),
        ("192.0.2.2", "", HERE, 0),
        ("192.0.2.77/24", "", HERE, 2),
        ("2001:db8::/32", "", Peer("2001:db8::1"), 2),
        ("2001:db8::/32", "", HERE, 0),
        ("192.0.2.1", "", Peer("::ffff:192.0.2.1"), 2),
        ("fe80::1", "", Peer("fe80::1%eth0"), 2),
        ("192.0.2.1", "", Peer(None, is_local=True), 0),
    ],
)
def test_exceptions(exception, user, peer, level):
    """
    Of the users and addresses that are named, all is logged.
    """
    verbosity = Verbosity.of_all(0, [exception, "somebody else"])
    assert verbosity.of(user, peer) == level
    assert verbosity.most == 2


def test_everybody():
    """
    Without exceptions, the level holds for everybody; an exception lowers none.
    """
    for level in range(4):
        assert Verbosity(level).of("alice", HERE) == level
        assert Verbosity(level).most == level
    assert Verbosity.of_all(3, ["alice"]).of("alice", HERE) == 3
    assert Verbosity.of_all(1, ["alice"]).of("bob", HERE) == 1
