"""
Those who do not behave: wrong passwords, garbage, requests that end in the middle, TLS to a
plain port, and readers that never read.
"""

import asyncio
import os
import random
import ssl
from contextlib import suppress

from soaking.connection import ANSWER_SECONDS, AUTHORIZATION, LOST, Connection, basic

__all__ = ["STRANGERS", "Stranger"]

POST = b"POST /msgbus/strange HTTP/1.1\r\nHost: localhost\r\n"
KNOWN = f"Authorization: {AUTHORIZATION}\r\n".encode()
STAY_SECONDS = 5


def client_hello():
    """
    What a client of TLS sends first.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(
        incoming, outgoing, server_hostname="localhost"
    )
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def random_bytes():
    """
    Some, with a line end now and then.
    """
    return os.urandom(random.randrange(1, 5000)) + b"\r\n\r\n"


def half_request():
    """
    A publication that ends in the head or in the body.
    """
    whole = (
        POST
        + KNOWN
        + b"Content-Type: text/plain\r\nContent-Length: 2000\r\n\r\n"
        + b"x" * 1999
    )
    return whole[: random.randrange(1, len(whole))]


def half_stream():
    """
    A stream of parts that ends in the middle of one, and has garbage in another.
    """
    type = b"Content-Type: multipart/mixed;boundary=B\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = b"--B\r\nContent-Length: 100\r\n\r\n" + os.urandom(random.randrange(200))
    return POST + KNOWN + type + b"%x\r\n%b\r\n" % (len(data), data)


def large_head():
    """
    More headers than the bus reads.
    """
    return POST + b"".join(b"A%d: b\r\n" % number for number in range(5000))


def odd_websocket():
    """
    A handshake, and then no frames.
    """
    head = (
        b"GET /msgbus/strange HTTP/1.1\r\nHost: localhost\r\n"
        + KNOWN
        + b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n\r\n"
    )
    return head + os.urandom(300)


STRANGERS = {
    "wrong passwords": None,
    "TLS to a plain port": client_hello,
    "random bytes": random_bytes,
    "half requests": half_request,
    "half streams": half_stream,
    "large heads": large_head,
    "frames that are none": odd_websocket,
    "readers that never read": None,
}


class Stranger:
    """
    One who does not behave, again and again.

    Attributes:
        name: Of `STRANGERS`.
        visits: How often it has come.
    """

    def __init__(self, soak, name, pause):
        self.name = name
        self.visits = 0
        self._soak = soak
        self._pause = pause

    async def run(self):
        """
        Misbehave until cancelled.
        """
        once = {
            "wrong passwords": self._guess,
            "readers that never read": self._never_read,
        }.get(self.name, self._send)
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * self._pause)
            self.visits += 1
            with suppress(LOST):
                await once()

    async def _send(self):
        """
        Send it, and see what the bus does about it for a moment, or leave at once.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self._soak.port)
        try:
            writer.write(STRANGERS[self.name]())
            if random.random() < 0.5:
                async with asyncio.timeout(STAY_SECONDS):
                    await reader.read()
        finally:
            writer.transport.abort()

    async def _guess(self):
        name = random.choice(["alice", "bob", f"nobody{self.visits % 1000}"])
        header = f"Authorization: {basic(name, f'guess{self.visits}')}"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._soak.port)
        try:
            writer.write(
                f"GET /msgbus/ HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode()
            )
            async with asyncio.timeout(ANSWER_SECONDS):
                status = (await reader.readline()).split()[1:2]
            if status and status[0] not in (b"401", b"429", b"503"):
                raise AssertionError(f"A wrong password was answered with {status}.")
        finally:
            writer.transport.abort()

    async def _never_read(self):
        """
        Subscribe, and wait until the bus cuts the connection.
        """
        connection = Connection(self._soak.port, small=True)
        try:
            await connection.ask("GET", "soak/?since=all")
            await asyncio.sleep(60)
        finally:
            connection.close()
