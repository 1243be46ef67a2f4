"""
An HTTP client over asyncio that is small enough to be believed.  It knows nothing of
msgbus's own code.
"""

import asyncio
import base64
import socket

__all__ = ["ANSWER_SECONDS", "AUTHORIZATION", "LOST", "Connection", "basic"]

ANSWER_SECONDS = 40

# What ends a connection when the bus is killed.
LOST = (OSError, EOFError, asyncio.TimeoutError)


def basic(name, password):
    """
    The value of `Authorization` for a name and a password.
    """
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


AUTHORIZATION = basic("alice", "secret")


class Connection:
    """
    One connection to the bus, for requests one after the other.

    Args:
        port: Of the bus, on the loopback.
        small: Whether the kernel keeps little of what is not read, as for a slow client.
    """

    def __init__(self, port, small=False):
        self._port = port
        self._small = small
        self._reader = self._writer = None
        self._body = None

    async def open(self):
        """
        Connect, if it is not connected.
        """
        if self._writer is not None:
            return
        raw = socket.socket()
        if self._small:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        raw.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._port))
        except BaseException:
            raw.close()
            raise
        self._reader, self._writer = await asyncio.open_connection(sock=raw, limit=1 << 16)

    async def ask(self, method, path, headers=(), body=b"", version="1.1"):
        """
        Send a request with the bus's password; its answer is read by `answer`.
        """
        await self.open()
        lines = [
            f"{method} /msgbus/{path} HTTP/{version}",
            "Host: localhost",
            f"Authorization: {AUTHORIZATION}",
            *headers,
        ]
        await self.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def write(self, data):
        """
        Send bytes, once the bus reads.
        """
        self._writer.write(data)
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._writer.drain()

    async def answer(self):
        """
        The status and the headers of an answer, of which the names are in lower case.
        """
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._answer()

    async def _answer(self):
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.rstrip().split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        self._body = Body(self._reader, headers.get("transfer-encoding") == "chunked")
        return int(status.split()[1]), headers

    async def request(self, method, path, headers=(), body=b""):
        """
        The status, the headers and the body of the answer to a request.
        """
        headers = [*headers, f"Content-Length: {len(body)}"] if body else headers
        await self.ask(method, path, headers, body)
        status, told = await self.answer()
        length = int(told.get("content-length", "0"))
        return status, told, await self._reader.readexactly(length)

    async def line(self):
        """
        The next line of the body, without its end.
        """
        return (await self._body.until(b"\n")).rstrip(b"\r\n")

    async def exactly(self, count):
        """
        The next so many bytes of the body.
        """
        return await self._body.exactly(count)

    def close(self):
        """
        Close the connection at once; it may be opened again.
        """
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = self._body = None


class Body:
    """
    The body of an answer, chunked or up to the end of the connection.
    """

    def __init__(self, reader, chunked):
        self._reader = reader
        self._chunked = chunked
        self._data = bytearray()

    async def _more(self):
        if not self._chunked:
            data = await self._reader.read(1 << 16)
        elif size := int(await self._reader.readuntil(b"\r\n"), 16):
            data = (await self._reader.readexactly(size + 2))[:-2]
        else:
            data = b""
        if not data:
            raise EOFError
        self._data += data

    async def until(self, end):
        """
        What comes up to the end of these bytes.
        """
        while (found := self._data.find(end)) < 0:
            await self._more()
        return self._take(found + len(end))

    async def exactly(self, count):
        """
        The next so many bytes.
        """
        while len(self._data) < count:
            await self._more()
        return self._take(count)

    def _take(self, count):
        data = bytes(self._data[:count])
        del self._data[:count]
        return data
