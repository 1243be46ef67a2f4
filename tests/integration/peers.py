"""
Raw clients over the reactor's own sockets.
"""

import re

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

LONGEST_MATCH = 16 * 1024


class Peer(Protocol):
    """
    One connection that keeps what it gets.
    """

    def __init__(self):
        self.data = bytearray()
        self._awaited = None
        self._searched = 0
        self.closed = Deferred()

    def dataReceived(self, data):
        """
        Keep it.
        """
        self.data += data
        self._look()

    def connectionLost(self, reason):
        """
        The server closed it.
        """
        self.closed.callback(None)

    def read(self, pattern):
        """
        A Deferred of all bytes up to the end of this pattern, once they came.
        """
        done = Deferred()
        self._awaited = (re.compile(pattern, re.DOTALL), done)
        self._searched = 0
        self._look()
        return done.addTimeout(30, reactor)

    def _look(self):
        if self._awaited is None:
            return
        pattern, done = self._awaited
        found = pattern.search(self.data, self._searched)
        if found is None:
            self._searched = max(0, len(self.data) - LONGEST_MATCH)
            return
        data = bytes(self.data[: found.end()])
        del self.data[: found.end()]
        self._awaited = None
        done.callback(data)


def connect(daemon):
    """
    A Deferred of a new connection.
    """
    return connectProtocol(HostnameEndpoint(reactor, b"127.0.0.1", daemon.port), Peer())


async def subscribe(daemon, path="foo", headers="", version="1.1"):
    """
    A connection that has subscribed.
    """
    peer = await connect(daemon)
    request = f"GET /msgbus/{path} HTTP/{version}\nHost: localhost\n{headers}\n"
    peer.transport.write(request.replace("\n", "\r\n").encode())
    await peer.read(rb"\r\n\r\n.*--msgbus[0-9a-f]{32}\r\n(?:\r\n)?")
    return peer


async def publish(peer, body, path="foo"):
    """
    Publish on a connection, and wait for the 204.
    """
    peer.transport.write(
        b"POST /msgbus/%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
    )
    answer = await peer.read(rb"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 "), answer


def check_gaps(stream, count):
    """
    See that a stream of messages, which begin with their eight-digit numbers
    and an x, has each of so many in order, or a gap that tells of it; and
    that it has a gap.
    """
    expected = missed = 0
    for gap, number in re.findall(rb"Msgbus-Gap: (\d+)|(\d{8})x", stream):
        if gap:
            missed += int(gap)
            expected += int(gap)
        else:
            assert int(number) == expected
            expected += 1
    assert missed > 0
    assert expected == count
