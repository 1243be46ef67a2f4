"""
A crowd: many subscribers that connect to one server as fast as it answers.

Their requests, and the check of what they receive, are up to `publish`.
"""

import select
import ssl
import time
from itertools import islice

from load import SILENCE_SECONDS, connect, receive

__all__ = ["Crowd"]

# So many subscribers wait for the head of their response at the same time.
AT_ONCE = 64


class Subscriber:
    """
    One connection that subscribes.

    Attributes:
        text: All bytes that have come.
        latency: Seconds from connecting to the complete head of the response; None before.
    """

    def __init__(self, connection, request):
        self.socket = connection
        self._request = request
        self._begun = time.perf_counter()
        self._asked = False
        self.text = b""
        self.latency = None

    def begin(self):
        """
        Send the request; with TLS, only once the handshake is done, which this drives.
        """
        if isinstance(self.socket, ssl.SSLSocket):
            try:
                self.socket.do_handshake()
            except ssl.SSLWantReadError:
                return
        self._asked = True
        self.socket.send(self._request)

    def look(self):
        """
        Read what has come, or go on with the handshake.
        """
        if not self._asked:
            self.begin()
            return
        data = receive(self.socket)
        if data is None:
            return
        self.text += data
        if not data or not self.text.startswith(b"HTTP/1.1 200 "[: len(self.text)]):
            raise SystemExit(
                f"A subscriber's stream ended, or is none: {self.text[-1000:]!r}"
            )
        if self.latency is None and b"\r\n\r\n" in self.text:
            self.latency = time.perf_counter() - self._begun


class Crowd:
    """
    Subscribers of one server.
    """

    def __init__(self, daemon, context):
        self._daemon = daemon
        self._context = context
        self._epoll = select.epoll()
        self._by_fileno = {}
        self.members = []

    def arrive(self, requests, progress):
        """
        Connect one subscriber for each of these requests; return when all have received
        the heads of their responses.
        """
        left = iter(requests)
        waiting = set()
        while len(self.members) < len(requests) or waiting:
            for request in islice(left, AT_ONCE - len(waiting)):
                waiting.add(self._subscribe(request))
            waiting.difference_update(m for m in self._look() if m.latency is not None)
            progress((len(self.members) - len(waiting)) / len(requests))

    def _subscribe(self, request):
        connection = connect(self._daemon)
        connection.setblocking(False)
        if self._context is not None:
            connection = self._context.wrap_socket(
                connection, server_hostname="localhost", do_handshake_on_connect=False
            )
        member = Subscriber(connection, request)
        self.members.append(member)
        self._by_fileno[connection.fileno()] = member
        self._epoll.register(connection, select.EPOLLIN)
        member.begin()
        return member

    def wait_for(self, end):
        """
        Wait until each subscriber has received these bytes.
        """
        missing = {member for member in self.members if end not in member.text}
        while missing:
            missing.difference_update(m for m in self._look() if end in m.text)

    def _look(self):
        """
        Wait for data, and read it.

        Yields:
            Each subscriber that had some.
        """
        ready = self._epoll.poll(SILENCE_SECONDS)
        if not ready:
            raise SystemExit(f"Nothing came for {SILENCE_SECONDS} s, but more is due.")
        for fileno, _ in ready:
            self._by_fileno[fileno].look()
            yield self._by_fileno[fileno]

    def close(self):
        """
        Close all connections.
        """
        for member in self.members:
            member.socket.close()
        self._epoll.close()
