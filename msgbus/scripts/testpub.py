"""
msgbus-test-pub: publish, to see what a bus does.
"""

from __future__ import annotations

import argparse
import secrets
import time
from itertools import count
from typing import Any

from tqdm import tqdm
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.task import deferLater

from ..client.client import Client
from ..client.errors import BusError
from .command import FAILED, OK, address, complain, parser, seconds, whole
from .flood import CHANNEL, Latencies, Mark, body
from .reactor import run_in_reactor

__all__ = ["run"]

NAME = "msgbus-test-pub"
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
    made = parser(
        NAME, "Publish numbered messages, to see what a bus does.", EXAMPLES, CHANNEL
    )
    pace = made.add_mutually_exclusive_group()
    pace.add_argument(
        "-r",
        "--rate",
        type=seconds(0.001, 1_000_000),
        default=1.0,
        metavar="N",
        help="a second (default 1)",
    )
    pace.add_argument("--flat", action="store_true", help="as fast as it goes")
    made.add_argument(
        "-n",
        "--count",
        type=whole(1, 10**12),
        metavar="COUNT",
        help="end after so many",
    )
    made.add_argument(
        "--size",
        type=whole(0, 64 * 1024 * 1024),
        default=0,
        metavar="BYTES",
        help="of a message, at least",
    )
    made.add_argument(
        "-c",
        "--connections",
        type=whole(1, 100_000),
        default=1,
        metavar="N",
        help="publishers at once",
    )
    arguments = made.parse_args()
    return run_in_reactor(NAME, lambda reactor: _flood(reactor, arguments))


async def _flood(reactor: Any, arguments: argparse.Namespace) -> int:
    where = address(arguments, arguments.target)
    # Alone it sends just what it says; else what `msgbus-test-sub` measures by.
    plain = (arguments.rate, arguments.flat, arguments.connections) == (1, False, 1)
    plain = plain and not arguments.size and arguments.count is None
    tries = iter(count(1) if arguments.count is None else range(1, arguments.count + 1))
    answered = Latencies()
    bar = tqdm(total=arguments.count, unit=" messages", disable=None)
    begun = time.monotonic()

    async def publisher() -> None:
        bus, name = where.split()
        client = Client(
            reactor,
            bus,
            ca=arguments.ca,
            certificate=arguments.certificate,
            # Somebody who mistypes a port is told so at once.
            patience=0,
        )
        run = "" if plain else secrets.token_hex(8)
        for own, overall in enumerate(tries, 1):
            if not arguments.flat:
                # When its turn is, however late the one before was.
                turn = begun + (overall - 1) / arguments.rate - time.monotonic()
                await deferLater(reactor, max(turn, 0))
            now = time.time_ns()
            await client.publish(
                name, body(Mark(run, own, now), arguments.size), "text/html"
            )
            client.patience = PATIENCE_SECONDS
            answered.add((time.time_ns() - now) / 1e6)
            bar.update()

    complain(NAME, f"publishing to {where}")
    publishers = [Deferred.fromCoroutine(publisher()) for _ in range(arguments.connections)]
    try:
        await gatherResults(publishers, consumeErrors=True)
    except FirstError as error:
        # What is wrong for one is so for all.
        error.subFailure.trap(BusError)
        complain(NAME, f"{where}: {error.subFailure.value}")
        return FAILED
    finally:
        bar.close()
        took = time.monotonic() - begun
        if answered.count:
            print(
                f"{answered.count} messages in {took:.1f} s:"
                f" {answered.count / took:.1f} messages/s; answered in {answered}"
            )
    return OK
