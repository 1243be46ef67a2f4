"""
The operator, who has a status page open, looks at everything else, and now and then ends a
stream.
"""

import asyncio
import json
import random
from contextlib import suppress

from soaking.connection import ANSWER_SECONDS, LOST
from soaking.ledger import Wrong

__all__ = ["Operator"]

LOOK_SECONDS = 1
END_EVERY = 5
# Once may be because the machine is busy.
MOST_UNREADY = 2

# What the page asks for again and again, and what programs do.
PATHS = (
    "/",
    "/healthz",
    "/metrics",
    "/readyz",
    "/channels?sort=rate",
    "/subscribers?sort=waiting",
)


class Operator:
    """
    Looks at the bus by its own port.

    Attributes:
        port: Of the operator's address.
        looks: How often everything was looked at.
        events: How many lines of events have come.
        ended: How many streams were ended.
    """

    def __init__(self, soak, port):
        self.port = port
        self.looks = self.events = self.ended = 0
        self._soak = soak
        self._unready = 0

    async def run(self):
        """
        Look until cancelled.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            life = await self._soak.alive()
            try:
                await self._look()
            except (*LOST, ValueError):
                # A kill may have cut an answer in the middle.
                if self._soak.is_alive(life):
                    raise
                self._unready = 0

    async def watch(self):
        """
        Keep the events open, as the page does, until cancelled.
        """
        while True:
            life = await self._soak.alive()
            with suppress(*LOST):
                async for _ in self._lines("GET", "/events/?format=event-stream"):
                    self.events += 1
            if self._soak.is_alive(life):
                raise Wrong("The events of the bus have ended.")
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self):
        for path in PATHS:
            status, text = await self._ask("GET", path)
            if path == "/readyz":
                self._unready = 0 if status == 200 else self._unready + 1
                if self._unready > MOST_UNREADY:
                    raise Wrong(f"The bus is not ready: {text}")
            elif status != 200:
                raise Wrong(f"{path} was answered with {status}: {text}")
        self.looks += 1
        subscribers = json.loads(text)["subscribers"]
        if subscribers and self.looks % END_EVERY == 0:
            number = random.choice(subscribers)["subscriber"]
            status, text = await self._ask("DELETE", f"/subscribers/{number}")
            # It may have left.
            if status not in (204, 404):
                raise Wrong(f"The end of a stream was answered with {status}: {text}")
            self.ended += status == 204

    async def _ask(self, method, path):
        async with asyncio.timeout(ANSWER_SECONDS):
            lines = [line async for line in self._lines(method, path)]
        if not lines:
            raise ConnectionError
        end = lines.index("")
        return int(lines[0].split()[1]), "\n".join(lines[end + 1 :])

    async def _lines(self, method, path):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            while line := await reader.readline():
                yield line.decode().rstrip("\r\n")
        finally:
            writer.transport.abort()
