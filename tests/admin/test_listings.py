"""
Tests for `msgbus.admin.listings`.
"""

import pytest
from twisted.trial.unittest import SynchronousTestCase

from msgbus.admin.listings import ChannelList, SubscriberList
from msgbus.admin.rates import GroupRates
from msgbus.message import Message

from ..memory import Server
from ..requests import get
from ..web.websocket_testcase import UPGRADE


@pytest.mark.parametrize("milliseconds", [0, 1_700_000_000_000, 10**17])
def test_any_time(milliseconds):
    """
    A channel is listed whatever the time in the id of its last message is, which in a log
    that others write to may be any.
    """
    server = Server()
    id = f"{milliseconds}-1000000000000001"
    message = Message("foo", b"x", "text/plain").published(id)
    server.bus.history.add((milliseconds, 1000000000000001), message)
    assert [row["id"] for row in ChannelList(server.resource.mount).rows()] == [id]


class AnswerTests(SynchronousTestCase):
    """
    Answers with lists.
    """

    def setUp(self):
        self.server = Server()
        self.mount = self.server.resource.mount
        rates = GroupRates(self.mount.fanout)
        self.server.root.putChild(b"channels", ChannelList(self.mount))
        self.server.root.putChild(b"subscribers", SubscriberList(self.mount, rates))

    def test_failure(self):
        """
        Whoever asks for a list that cannot be made is told so.
        """
        self.mount.subscribers[1] = None
        status, _, sentence = self.server.ask(get("/channels"))
        self.assertEqual(status, 500)
        self.assertEqual(sentence, b"The list cannot be made; the log says why.\n")
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_nothing(self):
        """
        A part without rows is refused.
        """
        status, _, sentence = self.server.ask(get("/channels?limit=0"))
        self.assertEqual((status, sentence), (400, b"limit is a number from 1 to 1000.\n"))

    def test_ended_before(self):
        """
        A stream that was ended is not there any more, although its client has not yet
        closed the WebSocket.
        """
        peer = self.server.connect()
        peer.send(get(headers=UPGRADE))
        end = get("/subscribers/1", method="DELETE")
        self.assertEqual(self.server.ask(end)[0], 204)
        self.assertFalse(peer.closed)
        self.assertEqual(self.server.ask(end)[0], 404)
        self.assertEqual(self.server.ask(get("/subscribers/1"))[0], 404)
