"""
Those who read: in every form, steadily, slowly, or for a moment at a time.  Each resumes
behind the last message that it has got.
"""

import asyncio
import json
import random
import time

from websockets.exceptions import WebSocketException

from soaking.connection import LOST, Connection
from soaking.ledger import Record, Wrong
from soaking.publishers import FOLDER, websocket

__all__ = ["FORMS", "Newest", "Reader"]

RETRY_SECONDS = 0.2
WAIT_SECONDS = 20
PREFIX = f"/msgbus/{FOLDER}"

# How long a slow reader reads, and reads nothing, in turn.
READ_SECONDS = 3
IDLE_SECONDS = (8, 20)


class Reader:
    """
    One who reads a channel, or the folder of all.

    Args:
        soak: Has the port, the ledger, and whether readers shall no longer leave.
        form: Of `FORMS`.
        channel: Which it reads; None for all.
        stay: Seconds after which it leaves, at the least and at the most; None if it stays.
        overflow: For a slow reader, what it asks the bus to do if too much waits for it.

    Attributes:
        name: What it is, for people.
        record: What it has got.
        visits: How often it has connected.
    """

    def __init__(self, soak, form, channel=None, stay=None, overflow=None):
        self.name = FORMS[form]
        if stay:
            self.name += ", comes and goes"
        if overflow:
            self.name += f", slow, {overflow}"
        self._overflow = overflow
        self._stay = stay
        self.record = Record(soak.ledger, channel)
        self.visits = 0
        self._soak = soak
        self._channel = channel
        self._read = getattr(self, f"_{form}")
        # Where a stream begins before the first message has come.
        self._begin = "all"

    async def run(self):
        """
        Read, and connect again, until cancelled.
        """
        while True:
            try:
                self.visits += 1
                self.record.resume()
                seconds = None
                if self._stay is not None and not self._soak.ending:
                    seconds = random.uniform(*self._stay)
                async with asyncio.timeout(seconds):
                    await self._read()
            except TimeoutError:
                # It has stayed for as long as it wanted to.
                pass
            except (*LOST, WebSocketException):
                await asyncio.sleep(RETRY_SECONDS)

    def _path(self, query):
        since = self.record.last or self._begin
        overflow = f"&overflow={self._overflow}" if self._overflow else ""
        return f"{self._channel or FOLDER}?since={since}{overflow}&{query}"

    async def _stream(self, query, version, take):
        """
        Read a stream, of which a function takes one item after the other.
        """
        connection = Connection(self._soak.port, small=self._overflow is not None)
        try:
            await connection.ask("GET", self._path(query), version=version)
            status, _ = await connection.answer()
            if status == 503:
                raise ConnectionError
            if status != 200:
                raise Wrong(f"A subscription was answered with {status}.")
            idle = time.monotonic() + READ_SECONDS
            while True:
                if self._overflow and not self._soak.ending and time.monotonic() > idle:
                    await asyncio.sleep(random.uniform(*IDLE_SECONDS))
                    idle = time.monotonic() + READ_SECONDS
                await take(connection)
        finally:
            connection.close()

    def _envelope(self, text):
        told = json.loads(text)
        if "gap" in told:
            self.record.gap(told["gap"])
        elif told != {"live": True}:
            self.record.message(told["id"], told["body"], told["channel"])

    async def _parts(self, version="1.1"):
        await self._stream("format=multipart", version, self._part)

    async def _parts_1_0(self):
        await self._parts("1.0")

    async def _part(self, connection):
        headers = {}
        while line := (await connection.line()).decode():
            if line.startswith("--"):
                continue
            name, _, value = line.partition(": ")
            if name == "Msgbus-Gap":
                self.record.gap(value)
            headers[name] = value
        if "Content-Length" in headers:
            body = await connection.exactly(int(headers["Content-Length"]))
            channel = headers["Content-Location"].replace(PREFIX, FOLDER, 1)
            self.record.message(headers["Msgbus-Id"], body.decode(), channel)

    async def _events(self):
        await self._stream("format=event-stream&envelope=1", "1.1", self._event)

    async def _event(self, connection):
        fields = {}
        while line := (await connection.line()).decode():
            name, _, value = line.partition(": ")
            fields[name] = value
        if fields.get("event") != "begin" and "data" in fields:
            self._envelope(fields["data"])

    async def _lines(self):
        await self._stream("format=ndjson&heartbeat=5", "1.1", self._line)

    async def _line(self, connection):
        if line := await connection.line():
            self._envelope(line)

    async def _websocket(self):
        async with websocket(self._soak.port, self._path("heartbeat=5")) as socket:
            async for text in socket:
                self._envelope(text)
        # An iteration ends without an error if the bus says goodbye.
        raise ConnectionError

    async def _polls(self):
        """
        One request for each message, which waits for it.
        """
        connection = Connection(self._soak.port)
        try:
            while True:
                query = f"format=message&wait={WAIT_SECONDS}"
                status, told, body = await connection.request("GET", self._path(query))
                if status == 503:
                    raise ConnectionError
                if status not in (200, 204):
                    raise Wrong(f"A request for a message was answered with {status}.")
                if "msgbus-gap" in told:
                    self.record.gap(told["msgbus-gap"])
                if status == 200:
                    channel = told["content-location"].replace(PREFIX, FOLDER, 1)
                    self.record.message(told["msgbus-id"], body.decode(), channel)
                elif self.record.last is None:
                    self._begin = told["msgbus-id"]
        finally:
            connection.close()


class Newest:
    """
    One who asks for the newest message, again and again.

    Attributes:
        received: How many there were.
    """

    def __init__(self, soak):
        self._soak = soak
        self.received = 0

    async def run(self):
        """
        Ask until cancelled.
        """
        last, before = (0, 0), None
        while True:
            life = await self._soak.alive()
            connection = Connection(self._soak.port)
            try:
                path = FOLDER + "?format=message"
                status, told, body = await connection.request("GET", path)
                if status == 200:
                    channel = told["content-location"].replace(PREFIX, FOLDER, 1)
                    ledger = self._soak.ledger
                    pair = ledger.id(
                        ledger.serial(told["msgbus-id"], body.decode(), channel)
                    )
                    # A kill may take away the newest message, before it was acknowledged.
                    if pair < last and life == before:
                        raise Wrong(f"The newest message was {last}, and is {pair}.")
                    last, before = pair, life
                    self.received += 1
            except LOST:
                pass
            finally:
                connection.close()
            await asyncio.sleep(0.1)


FORMS = {
    "parts": "parts",
    "parts_1_0": "parts, HTTP/1.0",
    "events": "events",
    "lines": "lines of JSON",
    "websocket": "WebSocket",
    "polls": "long polls",
}
