"""
msgbus-test-sub: subscribe often and count what comes, to measure a bus.
"""

from __future__ import annotations

import argparse
import resource
import time
from contextlib import suppress
from functools import partial
from typing import Any

from tqdm import tqdm
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ..client.client import Client
from ..client.notices import Live, Notice, Subscribed
from ..ids import Gap
from ..message import Message
from .command import (
    FAILED,
    OK,
    add_heartbeat_option,
    bus_url,
    complain,
    new_parser,
    real_number,
    whole_number,
)
from .latencies import Latencies
from .numbered import CHANNEL, Order, mark_in
from .reactor import run_in_reactor

__all__ = ["run"]

NAME = "msgbus-test-sub"

# How many connections may be under way, but not yet subscribed, at one time.
COMING = 100
# How many files a process needs beside its connections.
OTHER_FILES = 50

EXAMPLES = f"""\
  msgbus-test-sub                   what comes to '{CHANNEL}', until Ctrl-C
  msgbus-test-sub -c 1000 -n 500    a thousand connections, each of which waits for 500
  msgbus-test-pub --rate 50 -n 500  that, in another terminal, once it says so

It ends with 1 if anything was lost or came out of order.
"""


def run() -> int:
    """
    The console script.
    """
    parser = new_parser(
        NAME,
        "Subscribe often, and tell what is missing.",
        EXAMPLES,
        CHANNEL,
    )
    parser.add_argument(
        "-c",
        "--connections",
        type=whole_number(1, 10**9),
        default=1,
        metavar="N",
        help="so many (default 1)",
    )
    parser.add_argument(
        "-n",
        "--count",
        type=whole_number(1, 10**12),
        metavar="COUNT",
        help="end when each has so many",
    )
    parser.add_argument(
        "--idle",
        type=real_number(0.1, 86400),
        default=10.0,
        metavar="SECONDS",
        help="with -n: when nothing more has come for so long, it is lost (default 10)",
    )
    add_heartbeat_option(parser)
    arguments = parser.parse_args()
    allow_files(arguments.connections, parser)
    return run_in_reactor(NAME, lambda reactor: _Crowd(reactor, arguments).work())


def allow_files(connections: int, parser: argparse.ArgumentParser) -> None:
    """
    Raise this process's limit of open files as far as so many connections need, or exit
    with a message if it may not be raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if needed > hard:
        parser.error(f"this process may have {hard} open files: raise that with ulimit -n")
    if needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class _Crowd:
    """
    Many subscriptions to one channel.
    """

    def __init__(self, reactor: Any, arguments: argparse.Namespace) -> None:
        self._reactor = reactor
        self._arguments = arguments
        self._where = bus_url(arguments, arguments.target)
        self._client: Client | None = None
        self._orders = [Order() for _ in range(arguments.connections)]
        self._latencies = Latencies()
        self._subscribed = self._complete = self._gaps = 0
        self._first = self._last = 0.0
        self._refused: BaseException | None = None
        self._bar = tqdm(unit=" messages", disable=None)

    async def work(self) -> int:
        """
        Subscribe, count, and print the result; the exit code.
        """
        # Without `--count`, Ctrl-C is the regular end.
        with suppress(CancelledError):
            await self._subscribe()
            while self._refused is None and not self._done():
                await deferLater(self._reactor, 0.1)
        self._bar.close()
        if self._client is not None:
            await self._client.close()
        if self._refused is not None:
            complain(NAME, f"{self._where}: {self._refused}")
            return FAILED
        return self._tell()

    async def _subscribe(self) -> None:
        bus, name = self._where.split()
        self._client = client = Client(
            self._reactor,
            bus,
            ca=self._arguments.ca,
            certificate=self._arguments.certificate,
        )
        for number, order in enumerate(self._orders):
            subscription = client.subscribe(
                name,
                partial(self._count, order),
                heartbeat=self._arguments.heartbeat,
                notify=partial(self._notice, number),
            )
            subscription.done.addErrback(self._refuse)
            while number - self._subscribed >= COMING and self._refused is None:
                await deferLater(self._reactor, 0.01)
        while self._subscribed < len(self._orders) and self._refused is None:
            await deferLater(self._reactor, 0.01)
        if self._refused is None:
            print(f"{self._subscribed} subscribed", flush=True)

    def _count(self, order: Order, message: Message) -> None:
        self._last = time.monotonic()
        self._first = self._first or self._last
        found = mark_in(message.body)
        order.count(found)
        self._complete += order.received == self._arguments.count
        if found is not None and found.nanoseconds is not None:
            self._latencies.add((time.time_ns() - found.nanoseconds) / 1e6)
        self._bar.update()

    def _notice(self, number: int, notice: Notice) -> None:
        if isinstance(notice, Gap):
            self._gaps += 1
            complain(NAME, f"subscription {number}: {notice}")
        elif isinstance(notice, Subscribed):
            self._subscribed += not notice.again
        if (
            not isinstance(notice, Gap)
            and number == 0
            and notice not in (Subscribed(again=False), Live())
        ):
            # All subscriptions share one bus, so the first one speaks for them.
            complain(NAME, f"{self._where}: {notice}")

    def _refuse(self, failure: Failure) -> None:
        self._refused = failure.value

    def _done(self) -> bool:
        if self._arguments.count is None:
            return False
        if self._complete == len(self._orders):
            return True
        return bool(self._last) and time.monotonic() - self._last > self._arguments.idle

    def _tell(self) -> int:
        """
        Print what was counted; the exit code.
        """
        wanted = self._arguments.count or 0
        received = sum(order.received for order in self._orders)
        lost = sum(max(order.lost, wanted - order.received) for order in self._orders)
        disordered = sum(order.disordered for order in self._orders)
        took = max(self._last - self._first, 0.001)
        print(
            f"{received} messages in {took:.1f} s: {received / took:.1f} messages/s;"
            f" {lost} lost, {disordered} out of order, {self._gaps} gaps told"
            + (f"; {self._latencies}" if self._latencies.count else "")
        )
        return FAILED if lost or disordered or self._gaps else OK
