"""
A server that says what it is told to, for what a bus would not say.
"""

import contextlib
import re
import socket
import threading


class Scripted:
    """
    Answers the first connection with the first of these, and so on; the last serves for
    all that come later.  It reads one request each, and closes, unless told to hold.

    Attributes:
        requests: As they came.
        held: Connections that it answered and did not close.
    """

    def __init__(self, *answers, hold=False, context=None):
        self._answers = list(answers)
        self._hold = hold
        self._context = context
        self.requests = []
        self.held = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self):
        """
        Of the bus that it is not.
        """
        scheme = "https" if self._context else "http"
        return f"{scheme}://localhost:{self.port}/msgbus/"

    def close(self):
        """
        Serve no more.
        """
        # The thread waits in `accept` until then.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.held:
            connection.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with contextlib.suppress(OSError):
                    self._answer(connection)

    def _answer(self, connection):
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65536)
        length = re.search(rb"Content-Length: (\d+)", request, re.IGNORECASE)
        end = request.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
        while len(request) < end:
            request += connection.recv(65536)
        self.requests.append(request)
        connection.sendall(
            self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        )
        if self._hold:
            self.held.append(connection)
        else:
            connection.close()
