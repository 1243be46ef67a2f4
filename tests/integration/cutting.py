"""
A TCP proxy that cuts its connections.
"""

import contextlib
import random
import socket
import threading


class CuttingProxy:
    """
    Passes on bytes to a port of this machine.  It cuts so many connections, one after the
    other, each after a random number of bytes, and then no more.

    Each second connection brings at least half of the most bytes: a client waits twice as
    long behind each connection that brought nothing, and would, by bad luck, wait for
    minutes.

    Attributes:
        cuts: How many connections it has yet to cut.
    """

    def __init__(self, port, cuts, most=20_000):
        self._port = port
        self.cuts = cuts
        self._most = most
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self):
        """
        Of the bus behind it.
        """
        return f"http://localhost:{self.port}/msgbus/"

    def close(self):
        """
        Serve no more.
        """
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    client.close()
                    continue
                left = None
                if self.cuts:
                    self.cuts -= 1
                    half = self._most // 2
                    left = [random.randint(1, half) + half * (self.cuts % 2)]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=_copy, args=(*ends, left), daemon=True).start()


def _copy(source, target, left):
    """
    Pass on bytes, until so many have been passed on in both directions together.
    """
    with contextlib.suppress(OSError):
        while data := source.recv(4096):
            if left is not None:
                left[0] -= len(data)
                if left[0] <= 0:
                    target.sendall(data[: random.randint(0, len(data))])
                    break
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
