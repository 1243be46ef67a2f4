"""
Tests for `msgbus.server.service`.
"""

import os
import resource
import signal
import socket
import sys
from io import StringIO
from types import SimpleNamespace
from unittest import mock

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from msgbus.message import Message
from msgbus.server.cannot_start import CannotStart
from msgbus.server.listen import endpoint
from msgbus.server.service import BusService

from ..memory import Server, log_lines
from ..requests import get, post

POST = post(body="hello")


class BusServiceTests(SynchronousTestCase):
    """
    The start of the service, and what it warns of.
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
        Start a service that listens at these addresses.
        """
        service = self.service(**options)
        service._ports = [SimpleNamespace(getHost=lambda a=a: a) for a in addresses]
        service.startService()

    def warnings(self):
        return [text for level, text in self.lines if level == LogLevel.warn]

    def test_listens_once(self):
        """
        The service listens at the privileged start, or at the start if there was no
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
        If a port is in use, the start fails with `CannotStart`, of which the process prints
        one sentence instead of a traceback.
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
        A service that has stopped listens at no port.
        """
        service = self.service("tcp:1")
        service.startService()
        self.successResultOf(service.stopService())
        self.assertEqual(service._ports, [])

    def test_file_limit(self):
        """
        The start raises the limit of open files to the hard limit, and logs it.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
        self.service("tcp:1:interface=127.0.0.1").startService()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))
        self.assertIn(str(hard), self.lines[0][1])

    def test_warnings(self):
        """
        The warnings that the service is given are logged at the start, as they are.
        """
        self.service(warnings=["a {b}"]).startService()
        self.assertEqual(self.warnings(), ["a {b}"])

    def test_file_limit_refused(self):
        """
        If the limit of open files cannot be raised, that is logged, and the service starts.
        """
        with mock.patch("resource.setrlimit", side_effect=ValueError("not allowed")):
            self.service("tcp:1:interface=127.0.0.1").startService()
        self.assertRegex(self.warnings()[0], r"stays at \d+: not allowed")

    def test_exposed(self):
        """
        A service without a password that listens beyond the loopback logs one warning, with
        the addresses and what to do.
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
        A service that has a password, or listens only on the loopback and on socket files,
        logs no such warning.
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
    The stop of the service.
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
        Begin to stop; returns the Deferred of the stop.
        """
        return self.service.stopService()

    def connect(self, request=""):
        peer = self.server.connect()
        peer.send(request)
        return peer

    def lose(self, *peers):
        """
        Check that the server has closed these connections, and close them from the other
        end too.
        """
        for peer in peers:
            self.assertTrue(peer.closed)
            peer.leave(ConnectionDone())

    def test_idle(self):
        """
        A connection between two requests is closed at once; one that has not had a request
        yet, after a second.
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
        A stream is sent what it is owed, ends behind a delimiter, and is closed.
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
            self.assertEqual(self.server.bus._subscriptions.by_name, {})
            self.setUp()
            boundary = self.server.bus.boundary

    def test_in_flight(self):
        """
        A publication that has begun is answered with `Connection: close`, and delivered
        before the streams end; no later request of the connection is read.
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
        A publication that takes more than half of the drain time is refused with 503.
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
        When the drain time is over, the connections that are left are cut.
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
        With no drain time at all, a stream still gets the end that can be written at once.
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
        The first signal stops the reactor, and a second one cuts all connections.
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
    Notifications to systemd.
    """

    def test_status(self):
        """
        Every few seconds, a line says how many subscribers there are, and how much has been
        published and delivered since the line before; while the bus stops, how many
        connections are left.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        server = Server()
        service = BusService(server.clock, {}, server.site, server.resource)
        states = []
        service._notify = states.append
        service._ready()
        peers = [server.connect() for _ in range(2)]
        for peer in peers:
            peer.send(get("/msgbus/foo?format=ndjson"))
        for _ in range(20):
            server.ask(POST)
        server.clock.advance(5)
        service.running = True
        stopped = service.stopService()
        for peer in peers:
            peer.leave(ConnectionDone())
        server.clock.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(
            [state for state in states if state.startswith("STATUS=")],
            [
                "STATUS=0 subscribers, 0 connections",
                "STATUS=2 subscribers, 2 connections; 4 messages/s in, 8 messages/s out",
                "STATUS=Stopping: 2 connections left",
                "STATUS=Stopped",
            ],
        )

    def test_watchdog(self):
        """
        Watchdog notifications are sent twice as often as systemd requires, until the
        service has stopped.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(f"\0msgbus-watchdog-{os.getpid()}")
        listener.settimeout(5)
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
        states = [
            b"READY=1",
            b"STATUS=0 subscribers, 0 connections",
            b"WATCHDOG=1",
            b"WATCHDOG=1",
            b"STOPPING=1",
            b"STATUS=Stopping: 0 connections left",
            b"STATUS=Stopped",
        ]
        self.assertEqual([listener.recv(100) for _ in states], states)
        listener.setblocking(False)
        with self.assertRaises(BlockingIOError):
            listener.recv(100)
