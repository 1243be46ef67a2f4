"""
Tests for what is left of clients that go at any moment: nothing, in anything that counts
what is open.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from msgbus.message import Message
from msgbus.web.connections import Connections
from msgbus.web.grants import Grants

from ..memory import ComeBefore, Server
from .test_rights import DOORS, KEYS, NOW, REMOVED, SECRET, USERS

RULES = """
alice  publish,subscribe,relay  *  rate=1000/s max-subscriptions=100 history=10
carol  subscribe                foo
dave   publish                  foo a/*
"""

# Where the client goes: after so much of its request, while its password is hashed, before
# or behind the turn in which it is answered, after a message has come, and when it has lost
# its right.
STAGES = ("in the head", "in the body", "hashed", "asked", "answered", "told", "denied")
VISITORS = ("nobody", "wrong password", "without the right", "with the right", "a link")


class LeftTests(SynchronousTestCase):
    """
    What is counted of clients that have gone.
    """

    def setUp(self):
        self.folder = Path(self.enterContext(TemporaryDirectory()))
        (self.folder / "x.txt").write_bytes(b"x")

    def start(self):
        """
        A new server, which takes each head for one that has come before.
        """
        server = Server(
            documents=self.folder,
            users=USERS,
            rules=RULES,
            grants=Grants(KEYS, None, lambda: NOW),
        )
        server.site.connections = Connections(1000, 1000)
        server.site.heads._once = ComeBefore()
        for channel in ("foo", "a/kept"):
            server.bus.publish(Message(channel, b"x" * 100_000, "text/plain", "eve"))
        return server

    def come_and_go(self, server, door, who, stage):
        """
        Send a request, and lose the connection at this stage.
        """
        peer = server.connect(client="198.18.0.1")
        data = door.request(who)
        end = data.index(b"\r\n\r\n") + 4
        if stage == "in the head":
            data = data[: end - 10]
        elif stage == "in the body":
            data = data[: (end + len(data)) // 2]
        if stage == "hashed":
            # No password is remembered.
            server.allow(dict.fromkeys(USERS, SECRET), RULES)
            server.allow(USERS, RULES)
            server.pool.held = []
        peer.send(data)
        if stage in STAGES[4:]:
            peer.received()
            peer.received()
            peer.send(door.rest)
        if stage in STAGES[5:]:
            for channel in ("foo", "a/live"):
                server.bus.publish(Message(channel, b"x", "text/plain", "eve"))
            peer.received()
        if stage == "denied":
            server.root._grants.replace(REMOVED, None)
            server.allow({"bob": USERS["bob"]}, "bob nothing *\n")
            server.turn()
        peer.leave(ConnectionDone())
        hashed, server.pool.held = server.pool.held or (), None
        for done, call, *args in hashed:
            done(True, call(*args))
        for _ in range(3):
            server.turn()
        if stage == "denied":
            server.root._grants.replace(KEYS, None)
            server.allow(USERS, RULES)

    def left(self, server):
        """
        All that is still counted, by where it is.
        """
        mount, connections = server.resource.mount, server.site.connections
        quotas = mount.quotas
        return {
            "channels": server.site.channels,
            "streams": server.site.streams,
            "connections": connections._count,
            "connections of an address": connections._of_address._open,
            "subscriptions": quotas._subscriptions._open,
            "of rules": {
                k: c._open for k, c in quotas._rule_subscriptions.items() if c._open
            },
            "subscribers": mount.subscribers,
            "rights": mount.rights._rights,
            "published streams": mount.publication_streams,
            "polls": server.resource._polls._requests,
            "groups": mount.fanout._groups,
            "passwords": server.root.sign_in._checking,
            "cursors": server.bus.history._readers,
            "timers": server.clock.getDelayedCalls(),
        }

    def test_nothing(self):
        """
        Whoever came to a door, and whenever they went, nothing is counted any more; nor if
        their head was remembered.
        """
        for stage in STAGES:
            server = self.start()
            for name, door in DOORS.items():
                for who in VISITORS:
                    for _ in range(2):
                        self.come_and_go(server, door, who, stage)
                        left = {k: v for k, v in self.left(server).items() if v}
                        self.assertEqual(left, {}, (stage, name, who))
