"""
msgbus-bridge: publish at one bus what is published at another.
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import unquote

from tqdm import tqdm
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults

from ..client.client import Client
from ..client.errors import BusError, Refused
from ..client.responses import Answer
from ..client.url import BusURL
from ..formats.multipart import Malformed
from ..ids import origin_of
from ..message import Invalid, Message, Receipt, is_folder
from .command import (
    FAILED,
    OK,
    add_subscription_options,
    bus_url,
    complain,
    joined,
    new_parser,
    tell_notice,
)
from .reactor import run_in_reactor

__all__ = ["run"]

NAME = "msgbus-bridge"

EXAMPLES = """\
  msgbus-bridge http://other:8888/msgbus/sensors/ sensors/
                                       what comes below sensors/ there, below sensors/ here
  msgbus-bridge --since all jobs http://other:8888/msgbus/jobs
                                       one channel, from all of its history on
  msgbus-bridge --sender '?*' http://a:8888/msgbus/ https://me:secret@b/msgbus/from-a/

Each message keeps its type, its headers, what is left of its max-age, its sender (if TO
asks for no password) and its origin, by which TO knows what it has already: bridges may run
in both directions, or in a ring.
"""


def run() -> int:
    """
    The console script.
    """
    parser = new_parser(
        NAME,
        "Publish at TO what is published at FROM, until Ctrl-C.  Connections that are lost"
        " are made again, and lose nothing that the history of FROM still has.",
        EXAMPLES,
    )
    parser.add_argument("source", metavar="FROM", help="a channel or folder")
    parser.add_argument(
        "target",
        metavar="TO",
        help="a channel, or a folder below which channels keep their names",
    )
    add_subscription_options(parser)
    arguments = parser.parse_args()
    return run_in_reactor(NAME, lambda reactor: _Bridge(reactor, arguments).work())


class _Bridge:
    """
    Subscribes at one bus, and publishes at the other.
    """

    def __init__(self, reactor: Any, arguments: argparse.Namespace) -> None:
        self._reactor = reactor
        self._arguments = arguments
        self._source = bus_url(arguments, arguments.source)
        self._target = bus_url(arguments, arguments.target)
        # The messages that were taken from FROM, and those of them that have no answer.
        self._taken = 0
        self._unanswered: deque[Message] = deque()
        # The id, at FROM, of the last message that was answered.
        self._last_id = ""
        self._refused = self._known = 0
        self._bar = tqdm(total=arguments.count, unit=" messages", disable=None)
        self._open()

    def _open(self) -> None:
        (bus, name), (other, below) = self._source.split(), self._target.split()
        files = {"ca": self._arguments.ca, "certificate": self._arguments.certificate}
        self._reading = Client(self._reactor, bus, **files)
        self._writing = Client(self._reactor, other, patience=math.inf, **files)
        self._stream = self._writing.stream(
            below,
            self._answered,
            notify=lambda notice: complain(NAME, f"{self._target}: {notice}"),
        )
        # A wrong password, say, is told before the first message.
        self._stream.connect()
        options = vars(self._arguments)
        wanted = ("type", "sender", "channel", "heartbeat", "since", "last", "last_of_each")
        self._subscription = self._reading.subscribe(
            name,
            self._pass_on,
            notify=partial(tell_notice, NAME, self._source),
            decode=False,
            header=joined(self._arguments.header),
            interval=options["interval"],
            overflow="latest" if options["interval"] else "",
            **{key: options[key] for key in (*wanted, "until")},
        )

    async def work(self) -> int:
        """
        Pass messages on, and tell at the end how many; the exit code.
        """
        ends = [self._read(), self._stream.ended()]
        try:
            await gatherResults(ends, consumeErrors=True)
        except FirstError as error:
            where = self._target if error.index else self._source
            error.subFailure.trap(BusError, Malformed)
            complain(NAME, f"{where}: {error.subFailure.value}")
            return FAILED
        except CancelledError:
            # Ctrl-C is the regular end.
            return OK
        finally:
            self._bar.close()
            self._print_result()
        return FAILED if self._refused else OK

    def _read(self) -> Deferred[None]:
        """
        Read until the subscription ends; then the stream may end too.
        """

        def end(result: None) -> None:
            self._stream.close().addErrback(lambda _: None)

        return self._subscription.done.addCallback(end)

    async def _pass_on(self, message: Message) -> None:
        self._taken += 1
        self._unanswered.append(message)
        published = self._stream.publish(
            message.body,
            message.content_type,
            channel=self._below(message.channel),
            sender=message.sender,
            id=_origin_id(message.id),
            origin=message.origin,
            headers=message.headers,
            max_age=message.max_age,
        )
        if self._taken == self._arguments.count:
            self._subscription.cancel()
        # The error that ends the stream is told by `ended`.
        with suppress(BusError):
            await published

    def _answered(self, number: int, answer: Answer) -> None:
        message = self._unanswered.popleft()
        self._last_id = message.id
        self._known += isinstance(answer, Receipt) and answer.repeated
        if isinstance(answer, Refused):
            self._refused += 1
            complain(NAME, f"{self._target}: {message.channel} {message.id}: {answer}")
        self._bar.update()

    def _below(self, channel: str) -> str:
        """
        The name of a channel of FROM below TO: what is below a folder keeps its name there,
        and a single channel has its last segment, as a file that is copied to a folder.
        """
        if not is_folder(self._target.channel_name):
            return ""
        folder, name = self._source.split()
        return name or channel.removeprefix(_name_of(folder, self._subscription.prefix))

    def _print_result(self) -> None:
        passed = self._taken - len(self._unanswered) - self._refused - self._known
        told = f"{passed} messages passed on, {self._known} known, {self._refused} refused"
        if self._last_id:
            told += f"; to continue behind them: --since {self._last_id}"
        complain(NAME, told)


def _name_of(folder: BusURL, prefix: str) -> str:
    """
    The name of a folder on a bus with this prefix.  If a proxy has changed the path, that
    is a guess.
    """
    path, prefix = unquote(folder.path), unquote(prefix)
    return path.removeprefix(prefix) if path.startswith(prefix) else folder.channel_name


def _origin_id(id: str) -> str:
    """
    This id, if it is one of a bus of msgbus; otherwise the empty string.
    """
    try:
        origin_of(id)
    except Invalid:
        return ""
    return id
