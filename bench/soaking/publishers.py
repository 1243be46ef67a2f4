"""
Those who publish, each in another form, as fast as they are told to.

A message counts as acknowledged if the bus has answered before it would do so without
having written the message.  Then no kill may take it away.
"""

import asyncio
import json
import random
import time

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from soaking.connection import AUTHORIZATION, LOST, Connection
from soaking.ledger import Wrong, body_of

__all__ = ["CHANNELS", "PUBLISHERS", "Publisher"]

FOLDER = "soak/"
CHANNELS = ["soak/a", "soak/b", "soak/c"]

# The bus answers after a second even if the disk has not.
SURE_SECONDS = 0.9
RETRY_SECONDS = 0.3
# So many messages are in a stream, and so many keep a WebSocket, before the next begins.
STREAM_MESSAGES = 100

TEXT = "Content-Type: text/plain"
LINES = "Content-Type: application/x-ndjson"
PARTS = "Content-Type: multipart/x-mixed-replace;boundary=soak"
CHUNKED = "Transfer-Encoding: chunked"
RECEIPTS = "Accept: application/x-ndjson"


def chunk(data):
    """
    The same bytes as one chunk, the last if there are none.
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


def part(body, channel, key):
    """
    A message as a part of a stream to the folder, with its end.
    """
    return (
        f"{TEXT}\r\nContent-Location: {channel.removeprefix(FOLDER)}\r\n"
        f'Idempotency-Key: "{key}"\r\nContent-Length: {len(body)}\r\n\r\n'
        f"{body}\r\n--soak\r\n"
    ).encode()


class Publisher:
    """
    One who publishes.

    Args:
        soak: Has the port, the ledger, and whether publishing has ended.
        form: Of `PUBLISHERS`.
        pause: Seconds between two messages, on average.

    Attributes:
        published: How many messages it has sent.
        acknowledged: How many the bus has acknowledged in time.
        unsure: How many it has acknowledged late, or to readers only.
        unanswered: How many had no answer, because the bus was killed.
    """

    def __init__(self, soak, form, pause):
        self.form = form
        self._soak = soak
        self._pause = pause
        self._due = time.monotonic()
        self._connection = Connection(soak.port)
        self._publish = getattr(self, f"_{form}")
        self.published = self.acknowledged = self.unsure = self.unanswered = 0

    async def run(self):
        """
        Publish until publishing has ended.
        """
        while not self._soak.ending:
            try:
                await self._publish()
            except (*LOST, WebSocketException):
                await asyncio.sleep(RETRY_SECONDS)
            self._connection.close()

    async def _next(self):
        """
        The body and the channel of the next message, once it is time to publish it.
        """
        # Late answers do not lower the rate, but nor does a pause make a burst of a minute.
        now = time.monotonic()
        self._due = max(self._due, now - 1) + random.uniform(0.5, 1.5) * self._pause
        await asyncio.sleep(max(0.0, self._due - now))
        self.published += 1
        # Until there is an answer.
        self.unanswered += 1
        return body_of(self.form, self.published), random.choice(CHANNELS)

    def _told(self, id, body, channel, begun):
        self.unanswered -= 1
        if time.monotonic() - begun > SURE_SECONDS:
            self.unsure += 1
        else:
            self.acknowledged += 1
            self._soak.ledger.acknowledge(id, body, channel)

    async def publish_to(self, channel):
        """
        Publish one message to this channel, and return its id.
        """
        self.published += 1
        body = body_of(self.form, self.published)
        id, _ = await self._one("POST", body=body, channel=channel)
        self._soak.ledger.acknowledge(id, body, channel)
        return id

    async def _one(self, method, *headers, body, channel):
        """
        Publish one message by a request of its own, and return its id.
        """
        begun = time.monotonic()
        if CHUNKED in headers:
            await self._connection.ask(
                method, channel, [TEXT, *headers], chunk(body.encode()) + chunk(b"")
            )
            status, told = await self._connection.answer()
        else:
            status, told, _ = await self._connection.request(
                method, channel, [TEXT, *headers], body.encode()
            )
        if status == 503:
            raise ConnectionError
        if status != 204:
            raise Wrong(f"A publication was answered with {status}.")
        return told["msgbus-id"], begun

    async def _post(self):
        while not self._soak.ending:
            body, channel = await self._next()
            id, begun = await self._one("POST", body=body, channel=channel)
            self._told(id, body, channel, begun)

    async def _post_new(self):
        body, channel = await self._next()
        id, begun = await self._one("POST", "Connection: close", body=body, channel=channel)
        self._told(id, body, channel, begun)

    async def _put_chunked(self):
        while not self._soak.ending:
            body, channel = await self._next()
            id, begun = await self._one("PUT", CHUNKED, body=body, channel=channel)
            self._told(id, body, channel, begun)

    async def _repeated(self):
        """
        Each message until it is acknowledged, and then once more.
        """
        while not self._soak.ending:
            body, channel = await self._next()
            key = f'Idempotency-Key: "{self.form}-{self.published}"'
            id = None
            while id is None:
                try:
                    id, begun = await self._one("POST", key, body=body, channel=channel)
                except LOST:
                    self._connection.close()
                    await asyncio.sleep(RETRY_SECONDS)
            self._told(id, body, channel, begun)
            if time.monotonic() - begun < SURE_SECONDS:
                again, _ = await self._one("POST", key, body=body, channel=channel)
                if again != id:
                    raise Wrong(f"{id} was repeated, and became {again}.")

    async def _parts(self):
        path, first = FOLDER, b"--soak\r\n"
        await self._stream(path, PARTS, first, part)

    async def _lines(self):
        await self._stream(f"{FOLDER}?format=ndjson", LINES, b"\n", line)

    async def _stream(self, path, type, first, framed):
        """
        A stream in which each message has its receipt.
        """
        await self._connection.ask("POST", path, [type, CHUNKED, RECEIPTS], chunk(first))
        status, _ = await self._connection.answer()
        if status != 200:
            raise ConnectionError
        for number in range(1, STREAM_MESSAGES + 1):
            body, channel = await self._next()
            begun = time.monotonic()
            data = framed(body, channel, f"{self.form}-{self.published}")
            await self._connection.write(chunk(data))
            while not (told := await self._connection.line()):
                pass
            told = json.loads(told)
            if told.get("part") != number or "error" in told:
                if told.get("status") == 503:
                    raise ConnectionError
                raise Wrong(f"Part {number} of a stream was answered with {told}.")
            self._told(told["id"], body, channel, begun)
        await self._connection.write(chunk(b""))
        while not (told := await self._connection.line()):
            pass
        if json.loads(told)["published"] != STREAM_MESSAGES:
            raise Wrong(f"A stream of {STREAM_MESSAGES} messages ended with {told}.")

    async def _raw_lines(self):
        """
        A stream as a shell script publishes it: the answer comes at its end.
        """
        channel = random.choice(CHANNELS)
        path = f"{channel}?format=ndjson&raw=1&type=text/plain"
        await self._connection.ask("POST", path, [LINES, CHUNKED])
        sent = 0
        while sent < STREAM_MESSAGES // 4 and not self._soak.ending:
            body, _ = await self._next()
            await self._connection.write(chunk(body.encode() + b"\n"))
            sent += 1
        begun = time.monotonic()
        await self._connection.write(chunk(b""))
        status, told = await self._connection.answer()
        answer = json.loads(
            await self._connection.exactly(int(told.get("content-length", "0")))
        )
        if (status, answer.get("published")) != (200, sent):
            raise Wrong(f"A stream of {sent} was answered with {status}, {answer}.")
        self.unanswered -= sent
        if time.monotonic() - begun > SURE_SECONDS:
            self.unsure += sent
            return
        self.acknowledged += sent
        last = self.published
        names = (f"{self.form}:{number}" for number in range(last - sent + 1, last + 1))
        self._soak.ledger.acknowledge_names(names)

    async def _websocket(self):
        async with websocket(self._soak.port, FOLDER + "?sender=nobody") as socket:
            for _ in range(STREAM_MESSAGES):
                body, channel = await self._next()
                begun = time.monotonic()
                sent = {"type": "text/plain", "body": body, "channel": channel}
                await socket.send(json.dumps(sent | {"ack": self.published}))
                told = json.loads(await socket.recv())
                if told.get("ack") != self.published or "id" not in told:
                    raise Wrong(f"A message by WebSocket was answered with {told}.")
                self._told(told["id"], body, channel, begun)

    async def _websocket_raw(self):
        """
        Who publishes so is told nothing, but reads the message itself.
        """
        channel = random.choice(CHANNELS)
        async with websocket(self._soak.port, channel + "?raw=1") as socket:
            for _ in range(STREAM_MESSAGES // 4):
                body, _ = await self._next()
                await socket.send(body)
                while await socket.recv() != body:
                    pass
                self.unanswered -= 1
                self.unsure += 1


PUBLISHERS = {
    "post": "POST",
    "post_new": "POST, a new connection each",
    "put_chunked": "PUT, chunked",
    "repeated": "POST, repeated by its Idempotency-Key",
    "parts": "a stream of parts, with receipts",
    "lines": "a stream of lines, with receipts",
    "raw_lines": "a stream of raw lines",
    "websocket": "WebSocket, with receipts",
    "websocket_raw": "WebSocket, raw",
}


def line(body, channel, key):
    """
    A message as a line of a stream.
    """
    told = {"type": "text/plain", "body": body, "channel": channel, "key": key}
    return json.dumps(told).encode() + b"\n"


def websocket(port, path):
    """
    A WebSocket to the bus, to be entered.
    """
    return connect(
        f"ws://127.0.0.1:{port}/msgbus/{path}",
        additional_headers={"Authorization": AUTHORIZATION},
        max_size=None,
        proxy=None,
    )
