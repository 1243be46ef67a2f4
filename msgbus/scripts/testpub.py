"""
msgbus-test-pub: publish numbered messages, to measure a bus.
"""

from __future__ import annotations

import argparse
import secrets
import time
from collections import deque
from itertools import count
from typing import Any

from tqdm import tqdm
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.task import deferLater

from ..client.client import Client
from ..client.errors import BusError, Refused
from ..client.responses import Answer
from ..client.stream_publisher import StreamPublisher
from .command import FAILED, OK, bus_url, complain, new_parser, real_number, whole_number
from .latencies import Latencies
from .numbered import CHANNEL, Mark, body_of
from .reactor import run_in_reactor

__all__ = ["run"]

NAME = "msgbus-test-pub"
# For how long a message is sent again, once a first one was published.
PATIENCE_SECONDS = 60.0

EXAMPLES = f"""\
  msgbus-test-pub                           hello world, once a second: watch it at
                                            http://localhost:8888/msgbus/{CHANNEL}
  msgbus-test-pub --rate 50 -n 1000         so many a second, a thousand of them
  msgbus-test-pub --flat -c 16 --size 1000  as fast as it goes, by 16 connections

msgbus-test-sub tells whether all of it arrives, and how fast.
"""


def run() -> int:
    """
    The console script.
    """
    parser = new_parser(
        NAME, "Publish numbered messages, to see what a bus does.", EXAMPLES, CHANNEL
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "-r",
        "--rate",
        type=real_number(0.001, 1_000_000),
        default=1.0,
        metavar="N",
        help="a second (default 1)",
    )
    pace.add_argument("--flat", action="store_true", help="as fast as it goes")
    parser.add_argument(
        "-n",
        "--count",
        type=whole_number(1, 10**12),
        metavar="COUNT",
        help="end after so many",
    )
    parser.add_argument(
        "--size",
        type=whole_number(0, 64 * 1024 * 1024),
        default=0,
        metavar="BYTES",
        help="of a message, at least",
    )
    parser.add_argument(
        "-c",
        "--connections",
        type=whole_number(1, 100_000),
        default=1,
        metavar="N",
        help="publishers at once",
    )
    arguments = parser.parse_args()
    return run_in_reactor(NAME, lambda reactor: _Flood(reactor, arguments).work())


class _Flood:
    """
    Several publishers at once, which share out the messages among themselves.
    """

    def __init__(self, reactor: Any, arguments: argparse.Namespace) -> None:
        self._reactor = reactor
        self._arguments = arguments
        self._where = bus_url(arguments, arguments.target)
        # Without options, bodies are plain pages for a browser.  With any, they hold what
        # `msgbus-test-sub` needs to measure.
        self._plain = (
            (arguments.rate, arguments.flat, arguments.connections) == (1, False, 1)
            and not arguments.size
            and arguments.count is None
        )
        # The places of the messages in the order of all publishers, from 1.
        self._places = iter(
            count(1) if arguments.count is None else range(1, arguments.count + 1)
        )
        self._answered = Latencies()
        self._streams: list[StreamPublisher] = []
        self._bar = tqdm(total=arguments.count, unit=" messages", disable=None)
        self._begun = time.monotonic()

    async def work(self) -> int:
        """
        Publish, and print how fast that went; the exit code.
        """
        complain(NAME, f"publishing to {self._where}")
        publishers = [
            Deferred.fromCoroutine(self._publish())
            for _ in range(self._arguments.connections)
        ]
        # A stream that has failed is told at once, and not only when a message is due.
        publishers += [stream.ended() for stream in self._streams]
        try:
            await gatherResults(publishers, consumeErrors=True)
        except FirstError as error:
            # All publishers do the same, so one error stands for all.
            error.subFailure.trap(BusError)
            complain(NAME, f"{self._where}: {error.subFailure.value}")
            return FAILED
        finally:
            self._bar.close()
            self._print_result()
        return OK

    async def _publish(self) -> None:
        """
        One publisher, with a stream of its own.
        """
        bus, name = self._where.split()
        client = Client(
            self._reactor,
            bus,
            ca=self._arguments.ca,
            certificate=self._arguments.certificate,
            # The first message is tried once, so that a mistyped port is told at once.
            patience=0,
        )
        # When the messages that have no answer yet were sent.
        sent: deque[int] = deque()

        def answered(number: int, answer: Answer) -> None:
            if isinstance(answer, Refused):
                raise answer
            stream.patience = PATIENCE_SECONDS
            self._answered.add((time.time_ns() - sent.popleft()) / 1e6)
            self._bar.update()

        stream = client.stream(name, answered)
        self._streams.append(stream)
        run = "" if self._plain else secrets.token_hex(8)
        for number, place in enumerate(self._places, 1):
            if not self._arguments.flat:
                await self._turn(place)
            now = time.time_ns()
            sent.append(now)
            body = body_of(Mark(run, number, now), self._arguments.size)
            await stream.publish(body, "text/html")
        await stream.close()

    async def _turn(self, place: int) -> None:
        """
        Wait until the message at this place is due by `--rate`, counted from the start: the
        delay of one message does not delay those behind it.
        """
        due = self._begun + (place - 1) / self._arguments.rate
        await deferLater(self._reactor, max(due - time.monotonic(), 0))

    def _print_result(self) -> None:
        took = time.monotonic() - self._begun
        answered = self._answered
        if answered.count:
            print(
                f"{answered.count} messages in {took:.1f} s:"
                f" {answered.count / took:.1f} messages/s; answered in {answered}"
            )
