"""
A TCP proxy that goes silent, as a network does that is cut.
"""

import contextlib
import socket
import threading


class StallingProxy:
    """
    Passes on bytes to a port of this machine.  While it is stalled, connections stay open
    and new ones are accepted, but nothing is passed on, and nobody learns that an end was
    closed.  What was on its way comes after that, also from a connection whose other end
    is gone.
    """

    def __init__(self, port):
        self._port = port
        self._flowing = threading.Event()
        self._flowing.set()
        self._stalled = set()
        self._pairs = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def stall(self):
        """
        Pass on nothing.
        """
        self._flowing.clear()

    def flow(self):
        """
        Pass on everything again.
        """
        self._flowing.set()

    def stall_one(self, choose):
        """
        Pass on nothing, for ever, from the open connections that are chosen.

        Args:
            choose: Is given the port from which the proxy has connected.
        """
        for server in self._pairs:
            with contextlib.suppress(OSError):
                if choose(server.getsockname()[1]):
                    self._stalled.add(server)

    def close(self):
        """
        Serve no more.
        """
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.flow()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client):
        self._flowing.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            client.close()
            return
        self._pairs.append(server)
        for ends in ((client, server), (server, client)):
            threading.Thread(target=self._copy, args=(*ends, server), daemon=True).start()

    def _copy(self, source, target, server):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                if server in self._stalled:
                    return
                target.sendall(data)
        self._flowing.wait()
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
