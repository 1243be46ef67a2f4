"""
A server without sockets: the real site and resources, over transports in memory and a clock
that tests advance.  And a socket without a kernel, a thread pool without threads, and what
tests read from streams and from the log.
"""

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from msgbus.access.checker import PasswordChecker
from msgbus.access.rules import Rules
from msgbus.access.users import Users
from msgbus.bus.bus import Bus
from msgbus.formats.multipart import Decoder
from msgbus.web import BusResource, Root, Site
from msgbus.web.auth import portal_for, portal_with
from msgbus.web.visitor import Access


class ComeBefore(dict):
    """
    In place of the heads that have come once: all have.
    """

    def __contains__(self, hashed):
        return True

    def __delitem__(self, hashed):
        pass


class Reactor(Clock):
    """
    A clock that also takes results from threads, in its next turn.
    """

    def callFromThread(self, call, *args):
        self.callLater(0, call, *args)


class Server:
    """
    A bus at /msgbus/, as `twistd msgbus` serves it.

    Args:
        users: The hash of each user's password by the user's name; passwords are hashed in
            `pool`.
        rules: Who may do what, as lines of text.
        grants: Verifies links and tokens.
    """

    def __init__(
        self,
        max_message=1024 * 1024,
        origins=None,
        documents=None,
        secret=None,
        users=None,
        rules=None,
        grants=None,
        **options,
    ):
        self.clock = Reactor()
        self.bus = Bus(max_message=max_message)
        self.pool = InlinePool()
        portal = portal_for(secret) if secret else None
        self.access = None
        if users is not None:
            self.access = Access(Users(users), _rules(rules))
            self.checker = PasswordChecker(self.access.users, self.clock, self.pool)
            portal = portal_with(self.checker, self.access)
        self.root = Root(origins, documents, portal, self.access, grants)
        self.resource = BusResource(self.bus, self.clock, origins=origins, **options)
        self.root.putChild(b"msgbus", self.resource)
        self.site = Site(
            self.root,
            max_body=max_message,
            reactor=self.clock,
            journal=self.resource.mount.journal,
        )

    def allow(self, users, rules):
        """
        Have other users and rules from now on, as after a reload.
        """
        self.access.replace(Users(users), _rules(rules))
        self.checker.replace(self.access.users)
        self.site.heads.forget()
        self.resource.check_rights()

    def connect(self, address="127.0.0.1", **options):
        """
        A new connection to this address of the server; see `Peer`.
        """
        return Peer(self, address, **options)

    def ask(self, request, address="127.0.0.1"):
        """
        The answer to one request, on a connection of its own, as `Peer.answer` has it.
        """
        peer = self.connect(address)
        peer.send(request)
        answer = peer.answer()
        peer.leave(ConnectionDone())
        return answer

    def turn(self):
        """
        End this turn of the reactor.
        """
        self.clock.advance(0)


def _rules(text):
    return None if text is None else Rules.parse(text.encode(), "access")


class Peer:
    """
    One connection, seen from the client.
    """

    def __init__(self, server, address, client="192.0.2.1"):
        self.server = server
        self.transport = StringTransport(
            hostAddress=IPv4Address("TCP", address, 8888),
            peerAddress=IPv4Address("TCP", client, 4711),
        )
        self.protocol = server.site.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def send(self, data):
        """
        Send bytes; or text, whose bare line feeds are sent as CRLF.
        """
        if isinstance(data, str):
            data = data.replace("\n", "\r\n").encode()
        self.protocol.dataReceived(data)

    def received(self):
        """
        The bytes that came since the last call.
        """
        self.server.turn()
        data = self.transport.value()
        self.transport.clear()
        return data

    def answer(self):
        """
        The bytes that came since the last call, as the status, the headers and the body of
        an answer.
        """
        head, _, body = self.received().partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name] = value
        return int(status.split()[1]), headers, body

    def leave(self, reason):
        """
        Lose the connection for this reason.
        """
        self.protocol.connectionLost(Failure(reason))

    @property
    def closed(self):
        """
        Has the server closed the connection?
        """
        return self.transport.disconnecting or self.transport.disconnected


class Pipe:
    """
    An outlet that is a socket itself, which takes as many bytes as there is room for.
    """

    def __init__(self):
        self.room = 0
        self.got = bytearray()
        self.paused = False

    def send(self, data):
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.got += taken
        return len(taken)

    def sendmsg(self, pieces):
        return self.send(b"".join(pieces))

    def ask(self):
        return False

    def write(self, data):
        self.got += data

    def grant(self, member, size):
        """
        Make room for so many bytes, and tell the member so.
        """
        self.room = size
        member.resumeProducing()


class InlinePool:
    """
    A thread pool without threads: it runs what it is given at once; or, if `held` is a
    list, puts it there.
    """

    def __init__(self):
        self.held = None

    def start(self):
        pass

    stop = start

    def callInThreadWithCallback(self, done, call, *args):
        if self.held is not None:
            self.held.append((done, call, *args))
            return
        try:
            result = call(*args)
        except BaseException:
            done(False, Failure())
        else:
            done(True, result)


def log_lines(test, namespace=""):
    """
    The level and the text of each event that is logged from now until the test ends, by
    loggers whose namespace begins so; a list that grows.
    """
    lines = []

    def observe(event):
        if event["log_namespace"].startswith(namespace):
            lines.append((event["log_level"], event["log_format"].format(**event)))

    globalLogPublisher.addObserver(observe)
    test.addCleanup(globalLogPublisher.removeObserver, observe)
    return lines


def unchunked(data):
    """
    The chunks of a chunked body that has not ended, each without its size.
    """
    chunks = []
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(rest[:length])
        assert rest[length : length + 2] == b"\r\n", rest
        data = rest[length + 2 :]
    return chunks


def parts(data, boundary):
    """
    The parts of a multipart stream, which may be given from its beginning or from behind
    its first delimiter.
    """
    decoder = Decoder(boundary)
    opening = b"--" + boundary.encode()
    if not data.startswith(opening):
        data = opening + b"\r\n" + data
    return list(decoder.feed(data))
