"""
Tests for `msgbus.server.service`.
"""

import os
import resource
import signal
import socket
import sys
from io import StringIO
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest import mock

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from msgbus.message import Message
from msgbus.server.listen import endpoint
from msgbus.server.service import BusService, CannotStart, _watchdog_seconds, notify

from ..memory import Server, log_lines
from ..requests import get, post

POST = post(body="hello")


class BusServiceTests(SynchronousTestCase):
    """
    The service in the life of a process.
    """

    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.lines = log_lines(self, "msgbus")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)

    def service(self, *texts, secret=None, **options):
        server = Server(secret=secret)
        endpoints = {text: endpoint(self.reactor, text) for text in texts}
        return BusService(self.reactor, endpoints, server.site, server.resource, **options)

    def listening(self, *addresses, **options):
        """
        A service that has started, and got these addresses.
        """
        service = self.service(**options)
        service._ports = [SimpleNamespace(getHost=lambda a=a: a) for a in addresses]
        service.startService()

    def warnings(self):
        return [text for level, text in self.lines if level == LogLevel.warn]

    def test_listens_once(self):
        """
        It listens at the privileged start, or at the start if there was no
        privileged one.
        """
        for starts in (["privilegedStartService", "startService"], ["startService"]):
            service = self.service("tcp:1:interface=127.0.0.1", "tcp:2:interface=127.0.0.1")
            for start in starts:
                getattr(service, start)()
            self.assertEqual([server[0] for server in self.reactor.tcpServers], [1, 2])
            self.reactor.tcpServers.clear()

    def test_port_in_use(self):
        """
        A port that cannot be had stops the start.
        """

        def refuse(*args, **kwargs):
            raise CannotListenError("127.0.0.1", 1, OSError(98, "Address already in use"))

        self.reactor.listenTCP = refuse
        self.addCleanup(setattr, sys, "excepthook", sys.excepthook)
        with self.assertRaises(CannotStart) as caught:
            self.service("tcp:1").startService()
        self.assertEqual(str(caught.exception), "Address already in use: tcp:1")
        said = StringIO()
        with mock.patch("sys.__stderr__", said):
            sys.excepthook(CannotStart, caught.exception, None)
        self.assertEqual(said.getvalue(), "Cannot start: Address already in use: tcp:1\n")

    def test_stops(self):
        """
        When it stops, nothing listens.
        """
        service = self.service("tcp:1")
        service.startService()
        self.successResultOf(service.stopService())
        self.assertEqual(service._ports, [])

    def test_file_limit(self):
        """
        It raises the limit of open files to the hard one, and says so.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
        self.service("tcp:1:interface=127.0.0.1").startService()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))
        self.assertIn(str(hard), self.lines[0][1])

    def test_warnings(self):
        """
        It says what else there is to warn of.
        """
        self.service(warnings=["a {b}"]).startService()
        self.assertEqual(self.warnings(), ["a {b}"])

    def test_file_limit_refused(self):
        """
        If it may not, it says so and goes on.
        """
        with mock.patch("resource.setrlimit", side_effect=ValueError("not allowed")):
            self.service("tcp:1:interface=127.0.0.1").startService()
        self.assertRegex(self.warnings()[0], r"stays at \d+: not allowed")

    def test_exposed(self):
        """
        Beyond the loopback, one warning says who can read and publish, and
        how to change it.
        """
        self.listening(
            IPv4Address("TCP", "0.0.0.0", 1),
            IPv6Address("TCP", "2001:db8::1", 2),
            IPv4Address("TCP", "127.0.0.1", 3),
        )
        (warning,) = self.warnings()
        self.assertRegex(
            warning, r"everybody.* 0\.0\.0\.0:1, 2001:db8::1:2 .*interface=127"
        )
        self.assertNotIn("127.0.0.1:3", warning)
        self.assertIn("--secret-file", warning)

    def test_not_exposed(self):
        """
        On the loopback, on a socket file, and with a password, it does not
        warn.
        """
        self.listening(IPv4Address("TCP", "0.0.0.0", 1), secret=b"secret")
        self.listening(
            IPv4Address("TCP", "127.0.0.1", 1),
            IPv6Address("TCP", "::1", 1),
            UNIXAddress(b"/x"),
        )
        self.assertEqual(self.warnings(), [])


class StopTests(SynchronousTestCase):
    """
    The end of a bus.
    """

    def setUp(self):
        self.server = Server()
        self.reactor = self.server.clock
        self.service = BusService(
            self.reactor, {}, self.server.site, self.server.resource, drain=10
        )
        self.service.running = True

    def stop(self):
        """
        The Deferred of a stop that has begun.
        """
        return self.service.stopService()

    def connect(self, request=""):
        peer = self.server.connect()
        peer.send(request)
        return peer

    def lose(self, *peers):
        """
        These have taken all, and the end with it.
        """
        for peer in peers:
            self.assertTrue(peer.closed)
            peer.leave(ConnectionDone())

    def test_idle(self):
        """
        Connections between two requests are closed at once; one that waits for its
        first, when a second is over.
        """
        new, old = self.connect(), self.connect(get("/"))
        stopped = self.stop()
        self.lose(old)
        self.reactor.advance(0.9)
        self.assertFalse(new.closed)
        self.reactor.advance(0.1)
        self.lose(new)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_streams(self):
        """
        A stream gets what it is owed, ends behind a delimiter, and closes.
        """
        boundary = self.server.bus.boundary
        for version, end in (("1.0", b""), ("1.1", b"0\r\n\r\n")):
            peer = self.connect(get(version=version))
            peer.received()
            peer.transport.producer.pauseProducing()
            self.server.bus.publish(Message("foo", b"owed"))
            stopped = self.stop()
            self.assertEqual(peer.received(), b"")
            peer.transport.producer.resumeProducing()
            received = peer.received()
            self.assertIn(b"owed", received)
            line_end = b"\r\n" * (2 if end else 1)
            self.assertTrue(received.endswith(f"--{boundary}".encode() + line_end + end))
            self.lose(peer)
            self.assertIsNone(self.successResultOf(stopped))
            self.assertEqual(self.server.bus._subscriptions, {})
            self.setUp()
            boundary = self.server.bus.boundary

    def test_in_flight(self):
        """
        A publication that has begun is answered, with `Connection: close`, and
        delivered before the streams end; none comes after it.
        """
        reader = self.connect(get())
        publisher = self.connect(POST[:-1])
        undecided, new = self.connect(POST[:40]), self.connect()
        stopped = self.stop()
        self.assertFalse(reader.closed)
        publisher.send(POST[-1:] + POST)
        code, headers, rest = publisher.answer()
        self.assertEqual((code, headers["Connection"], rest), (204, "close", b""))
        undecided.send(POST[40:])
        self.assertEqual(undecided.answer()[1]["Connection"], "close")
        new.send(POST[:40])
        self.reactor.advance(0.9)
        new.send(POST[40:])
        self.assertEqual(new.answer()[1]["Connection"], "close")
        self.lose(publisher, undecided, new)
        self.assertEqual(reader.received().count(b"\r\nhello\r\n"), 3)
        self.lose(reader)
        self.assertIsNone(self.successResultOf(stopped))

    def test_late(self):
        """
        A publication that takes too long is refused, not lost.
        """
        publisher = self.connect(POST[:-1])
        stopped = self.stop()
        self.reactor.advance(5)
        publisher.send(POST[-1:])
        self.assertEqual(publisher.answer()[0], 503)
        self.lose(publisher)
        self.assertIsNone(self.successResultOf(stopped))

    def test_cut(self):
        """
        When the time is up, what is left is cut.
        """
        peers = [self.connect(POST[:-1]), self.connect(get())]
        stopped = self.stop()
        self.reactor.advance(5)
        self.reactor.advance(4.9)
        self.assertNoResult(stopped)
        self.assertFalse(peers[0].closed)
        self.reactor.advance(0.1)
        self.lose(*peers)
        self.assertIsNone(self.successResultOf(stopped))

    def test_no_time(self):
        """
        With no time at all, what is written at once is all that is.
        """
        self.service._drain = 0
        peer = self.connect(get())
        peer.received()
        stopped = self.stop()
        self.assertEqual(peer.received(), b"0\r\n\r\n")
        self.reactor.advance(0)
        self.lose(peer)
        self.assertIsNone(self.successResultOf(stopped))

    def test_second_signal(self):
        """
        The first signal stops the reactor, the second cuts all connections.
        """
        self.reactor.stop = mock.Mock()
        peer = self.connect(POST[:-1])
        self.service._signalled("SIGTERM")
        self.reactor.stop.assert_called_once_with()
        stopped = self.stop()
        self.service._signalled("SIGTERM")
        self.lose(peer)
        self.assertIsNone(self.successResultOf(stopped))
        self.reactor.stop.assert_called_once_with()


class NotifyTests(SynchronousTestCase):
    """
    Words for systemd.
    """

    def listen(self, address):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(address)
        listener.settimeout(5)
        return listener

    def test_sockets(self):
        """
        The state is sent to the socket that systemd names, be it a file or
        abstract.
        """
        folder = self.enterContext(TemporaryDirectory())
        name = f"msgbus-test-{os.getpid()}"
        for address, bound in (
            (f"{folder}/s", f"{folder}/s"),
            (f"@{name}", f"\0{name}"),
        ):
            listener = self.listen(bound)
            with mock.patch.dict(os.environ, NOTIFY_SOCKET=address):
                notify("READY=1")
            self.assertEqual(listener.recv(100), b"READY=1")

    def test_nobody(self):
        """
        Without systemd, nothing is sent; where nobody listens, nothing is
        lost but the message.
        """
        with mock.patch.dict(os.environ, clear=True):
            notify("READY=1")
        with mock.patch.dict(os.environ, NOTIFY_SOCKET="/nowhere/s"):
            notify("READY=1")

    def test_watchdog(self):
        """
        Systemd hears of us twice as often as it asks for, if it does ask.
        """
        listener = self.listen(f"\0msgbus-watchdog-{os.getpid()}")
        environment = {
            "NOTIFY_SOCKET": f"@msgbus-watchdog-{os.getpid()}",
            "WATCHDOG_USEC": "4000000",
            "WATCHDOG_PID": str(os.getpid()),
        }
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        server = Server()
        service = BusService(server.clock, {}, server.site, server.resource)
        with mock.patch.dict(os.environ, environment):
            service._ready()
            server.clock.advance(2)
            service.running = True
            self.successResultOf(service.stopService())
            server.clock.advance(2)
        states = [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"STOPPING=1"]
        self.assertEqual([listener.recv(100) for _ in states], states)
        listener.setblocking(False)
        with self.assertRaises(BlockingIOError):
            listener.recv(100)

    def test_no_watchdog(self):
        """
        A watchdog of another process, or none, is none of ours.
        """
        for environment in (
            {},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "x"},
            {"WATCHDOG_USEC": "²"},
            {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        ):
            with mock.patch.dict(os.environ, environment, clear=True):
                self.assertIsNone(_watchdog_seconds(), environment)
