"""
A server that takes streams of publications, and can be told to fail at any place.
"""

import contextlib
import json
import re
import socket
import threading

from msgbus.formats.multipart import Decoder


class StreamBus:
    """
    Takes the parts of streams, one connection after the other.

    Args:
        cuts: For each connection in turn, after how many answers it is cut; the parts that
            were read until then are taken, whether they are answered or not.
        refuse: Called with a part; if it returns a line of an answer, that is sent instead
            of a receipt, and the stream ends if it has `published` in it.
        gate: The server reads only while this event is set.

    Attributes:
        heads: The heads of the requests.
        parts: Headers and bodies that were taken, each once by its key.
    """

    def __init__(self, cuts=(), refuse=lambda part: None, context=None):
        self._cuts = list(cuts)
        self._refuse = refuse
        self._context = context
        self.heads = []
        self.parts = []
        self.keys = {}
        self.gate = threading.Event()
        self.gate.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self):
        """
        Of the bus.
        """
        scheme = "https" if self._context else "http"
        return f"{scheme}://localhost:{self.port}/msgbus/"

    def close(self):
        """
        Serve no more.
        """
        self.gate.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with contextlib.suppress(OSError):
                    if self._context:
                        connection = self._context.wrap_socket(connection, server_side=True)
                    self._answer(connection)
                connection.close()

    def _answer(self, connection):
        file = connection.makefile("rb")
        head = b"".join(iter(file.readline, b"\r\n")).decode()
        if not head:
            return
        self.heads.append(head)
        cut = self._cuts.pop(0) if self._cuts else None
        decoder = Decoder(re.search("boundary=(.*)\r\n", head)[1])
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        number = 0
        while True:
            self.gate.wait()
            size = int(file.readline() or b"-1", 16)
            if size < 0:
                return
            data = file.read(size)
            file.readline()
            for part in decoder.feed(data):
                number += 1
                refused = self._refuse(part)
                told = {"part": number, **(refused or self._take(part))}
                if number == cut:
                    return
                line = json.dumps(told).encode() + b"\n"
                connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))
                if "published" in told:
                    connection.sendall(b"0\r\n\r\n")
                    return
            if not size:
                break
        decoder.end()
        line = json.dumps({"published": number, "repeated": 0, "id": None}).encode() + b"\n"
        connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(line), line))

    def _take(self, part):
        key = part.headers["idempotency-key"]
        if key in self.keys:
            return {"id": self.keys[key], "subscribers": 0, "repeated": True}
        self.parts.append(part)
        self.keys[key] = f"1-{len(self.parts)}"
        return {"id": self.keys[key], "subscribers": 1}
