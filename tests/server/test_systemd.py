"""
Tests for `msgbus.server.systemd`.
"""

import os
import socket
from tempfile import TemporaryDirectory
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from msgbus.server.systemd import notify, watchdog_seconds

from .no_files import no_files


class NotifyTests(SynchronousTestCase):
    """
    Notifications to systemd.
    """

    def listen(self, address):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(address)
        listener.settimeout(5)
        return listener

    def test_sockets(self):
        """
        The state is sent to the socket that `NOTIFY_SOCKET` names, a file or an abstract
        one.
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
        Without `NOTIFY_SOCKET`, nothing is sent; if nobody listens there, the notification
        is lost without an error.
        """
        with mock.patch.dict(os.environ, clear=True):
            notify("READY=1")
        with mock.patch.dict(os.environ, NOTIFY_SOCKET="/nowhere/s"):
            notify("READY=1")

    def test_no_files(self):
        """
        If there is no file left for a socket, the notification is lost without an error.
        """
        with mock.patch.dict(os.environ, NOTIFY_SOCKET="/nowhere/s"), no_files():
            notify("WATCHDOG=1")

    def test_no_watchdog(self):
        """
        A `WATCHDOG_USEC` that is zero, malformed, or meant for another process is ignored.
        """
        for environment in (
            {},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "x"},
            {"WATCHDOG_USEC": "²"},
            {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        ):
            with mock.patch.dict(os.environ, environment, clear=True):
                self.assertIsNone(watchdog_seconds(), environment)
