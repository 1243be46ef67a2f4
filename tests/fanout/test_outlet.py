"""
Tests for `msgbus.fanout.outlet`.
"""

import socket
from types import SimpleNamespace

from twisted.internet import tcp, unix
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from msgbus.fanout.outlet import SLICE_BYTES, BufferedOutlet, DirectOutlet, is_plain, tune


class PlainTests(SynchronousTestCase):
    """
    Sockets, and what is around them.
    """

    def transport(self, kind):
        return kind.__new__(kind)

    def test_plain(self):
        """
        Twisted's own stream transports are plain.
        """
        for kind in (tcp.Server, unix.Server):
            self.assertTrue(is_plain(self.transport(kind)))

    def test_wrapped(self):
        """
        What is around one is not, though it has all its attributes; nor is
        one that has become TLS, nor a client's, nor a stranger's.
        """
        plain = self.transport(tcp.Server)
        plain.socket = "below"
        for wrapper in (ProtocolWrapper, TLSMemoryBIOProtocol):
            around = (
                wrapper(None, None)
                if wrapper is ProtocolWrapper
                else self.transport(wrapper)
            )
            around.transport = plain
            self.assertEqual(around.socket, "below")
            self.assertFalse(is_plain(around))
        started = self.transport(tcp.Server)
        started.TLS = True

        class Inherited(tcp.Server):
            pass

        for other in (started, self.transport(tcp.Client), self.transport(Inherited)):
            self.assertFalse(is_plain(other))
        self.assertFalse(is_plain(StringTransport()))


class DirectTests(SynchronousTestCase):
    """
    The socket itself.
    """

    def setUp(self):
        ours, self.theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(self.theirs.close)
        ours.setblocking(False)
        self.calls = []
        self.transport = SimpleNamespace(
            socket=ours,
            producerPaused=False,
            startWriting=lambda: self.calls.append("startWriting"),
            write=lambda data: self.calls.append(data),
        )
        self.outlet = DirectOutlet(self.transport)

    def test_send(self):
        """
        What there is room for is with the peer at once; then none.
        """
        self.assertEqual(self.outlet.send(b"hello"), 5)
        self.assertEqual(self.theirs.recv(10), b"hello")
        big = bytes(10_000_000)
        self.assertLess(self.outlet.send(memoryview(big)), len(big))
        with self.assertRaises(BlockingIOError):
            while True:
                self.outlet.send(big)

    def test_sendmsg(self):
        """
        Pieces go out as one, and in order.
        """
        self.assertEqual(self.outlet.sendmsg([b"he", memoryview(b"xllox")[1:4]]), 5)
        self.assertEqual(self.theirs.recv(10), b"hello")

    def test_gone(self):
        """
        A peer that has gone is an error.
        """
        self.theirs.close()
        with self.assertRaises(OSError):
            self.outlet.send(b"hello")

    def test_ask(self):
        """
        Asking for room has Twisted look whether there is some, and resume the
        producer then, as if it had paused it.
        """
        self.assertFalse(self.outlet.ask())
        self.assertEqual(self.calls, ["startWriting"])
        self.assertTrue(self.transport.producerPaused)

    def test_write(self):
        """
        What must be taken goes to the transport.
        """
        self.outlet.write(memoryview(b"hello")[1:])
        self.assertEqual(self.calls, [b"ello"])


class TuneTests(SynchronousTestCase):
    """
    What the kernel is told.
    """

    def option(self, name):
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        return self.socket.getsockopt(level, getattr(socket, name))

    def test_tcp(self):
        """
        A TCP socket is watched over, and takes little beyond what is under
        way, also below a wrapper.
        """
        self.socket = socket.socket()
        self.addCleanup(self.socket.close)
        plain = SimpleNamespace(socket=self.socket)
        wrapper = ProtocolWrapper(None, None)
        wrapper.transport = plain
        for transport, seconds, unsent, expected in (
            (plain, 300, 128 * 1024, [1, 60, 15, 450_000, 128 * 1024]),
            (wrapper, 1.5, 16 * 1024, [1, 1, 1, 2250, 16 * 1024]),
            (plain, 99_999.0, 1, [1, 19_999, 4_999, 149_998_500, 1]),
        ):
            tune(transport, seconds, unsent)
            names = ("SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_USER_TIMEOUT")
            got = [self.option(name) for name in (*names, "TCP_NOTSENT_LOWAT")]
            self.assertEqual(got, expected)

    def test_others(self):
        """
        What is no TCP socket is left alone.
        """
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        tune(SimpleNamespace(socket=ours), 300, 1)
        tune(StringTransport(), 300, 1)


class BufferedTests(SynchronousTestCase):
    """
    Twisted's way.
    """

    def setUp(self):
        self.written = []
        self.outlet = BufferedOutlet(self.written.append, None)

    def test_send(self):
        """
        All is written, in slices, until the producer is paused.
        """
        data = bytes(SLICE_BYTES) + b"hello"
        self.assertEqual(self.outlet.send(data), len(data))
        self.assertEqual(self.written, [data[:SLICE_BYTES], b"hello"])

        def pause(data):
            self.outlet.paused = True

        outlet = self.outlet = BufferedOutlet(pause, None)
        self.assertEqual(outlet.send(data), SLICE_BYTES)
        self.assertEqual(outlet.send(data), 0)

    def test_sendmsg(self):
        """
        Pieces are written one by one, until the producer is paused.
        """
        self.assertEqual(self.outlet.sendmsg([b"he", memoryview(b"llo")]), 5)
        self.outlet.paused = True
        self.assertEqual(self.outlet.sendmsg([b"he", b"llo"]), 0)
        self.assertEqual(self.written, [b"he", b"llo"])

    def test_ask(self):
        """
        There is room unless it is paused.
        """
        self.assertTrue(self.outlet.ask())
        self.outlet.paused = True
        self.assertFalse(self.outlet.ask())
