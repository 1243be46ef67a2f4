"""
msgdump: show, save, or hand on the messages of a channel or folder.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from textwrap import indent

from ..client.blocking import subscribe
from ..client.errors import BusError
from ..formats.envelope import envelope, published_at
from ..formats.multipart import Malformed
from ..headers import shown_name
from ..ids import parse_id
from ..message import Invalid, Message
from .command import (
    FAILED,
    OK,
    add_subscription_options,
    bus_url,
    complain,
    joined,
    main,
    new_parser,
    tell_notice,
    whole_number,
)
from .terminal import clean

__all__ = ["run"]

NAME = "msgdump"

EXAMPLES = """\
  msgdump                                   everything
  msgdump -q sensors/                       what comes below sensors/, without bodies
  msgdump --last 1 -n 1 cam --save .        the newest picture
  msgdump -t 'text/*' -s '?*' chat --since 10m
  msgdump --json --since 1h --until now logs/ | jq -r .body
  msgdump --interval 2s sensors/            the newest of each channel, every two seconds
  msgdump --last-of-each sensors/           the state of all sensors, and what changes
  msgdump jobs --jobs 4 --exec sh -c 'wc -c; echo "$MSGBUS_SENDER"'

With --exec, a command gets the body on its standard input, and the rest in MSGBUS_ID,
MSGBUS_CHANNEL, MSGBUS_SENDER, MSGBUS_TYPE and MSGBUS_TIME, and its headers in variables
such as MSGBUS_HEADER_CE_TYPE.
"""


def run() -> int:
    """
    The console script.
    """
    return main(NAME, _run)


def _run() -> int:
    parser = new_parser(
        NAME,
        "Subscribe to a channel or folder, and show each message as it comes.",
        EXAMPLES,
        "",
    )
    add_subscription_options(parser)
    _add_output_options(parser)
    arguments = parser.parse_args()
    if arguments.command == []:
        parser.error("--exec needs a command")
    if arguments.save is not None and not arguments.save.is_dir():
        parser.error(f"{str(arguments.save)!r} is no folder; make it first")
    return _dump(arguments)


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    """
    Options that say what becomes of each message.
    """
    parser.add_argument("-q", "--quiet", action="store_true", help="do not show bodies")
    parser.add_argument("--json", action="store_true", help="an object a line")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="DIR",
        help="each body to a file, named by its id",
    )
    parser.add_argument(
        "--jobs",
        type=whole_number(1, 1000),
        default=1,
        metavar="COUNT",
        help="so many commands at once",
    )
    parser.add_argument(
        "--exec",
        nargs=argparse.REMAINDER,
        dest="command",
        metavar="COMMAND",
        help="run this for each; all that follows is its own",
    )


def _dump(arguments: argparse.Namespace) -> int:
    """
    Show messages until there were enough, or all that were kept with `--until now`, the
    subscription fails, or Ctrl-C; the exit code.
    """
    where = bus_url(arguments, arguments.target)
    messages = subscribe(
        where,
        type=arguments.type,
        sender=arguments.sender,
        channel=arguments.channel,
        header=joined(arguments.header),
        since=arguments.since,
        last=arguments.last,
        last_of_each=arguments.last_of_each,
        heartbeat=arguments.heartbeat,
        # An envelope tells the coding, and has the body as it came.
        decode=not arguments.json,
        until=arguments.until,
        interval=arguments.interval,
        overflow="latest" if arguments.interval else "",
        ca=arguments.ca,
        certificate=arguments.certificate,
        notify=partial(tell_notice, NAME, where),
    )
    tally = _Tally()
    commands = _Commands(arguments.command or [], arguments.jobs)
    try:
        for message in islice(messages, arguments.count):
            tally.count(message)
            if arguments.save is not None:
                _save(message, arguments.save)
            if arguments.command:
                commands.start(message)
            elif arguments.json:
                told = envelope(message, _published(message), not arguments.quiet)
                print(told.decode(), flush=True)
            else:
                _print(message, arguments.quiet or arguments.save is not None)
    except (BusError, Malformed) as error:
        complain(NAME, f"{where}: {error}")
        return FAILED
    except KeyboardInterrupt:
        complain(NAME, tally)
    finally:
        messages.close()
        commands.finish()
    return FAILED if commands.failed else OK


class _Tally:
    """
    How many messages and bytes came, and how fast; printed after Ctrl-C.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._messages = 0
        self._bytes = 0

    def count(self, message: Message) -> None:
        """
        Count one message.
        """
        self._messages += 1
        self._bytes += len(message.body)

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self._begun, 0.001)
        return (
            f"{self._messages} messages, {self._bytes} bytes in {seconds:.1f} s:"
            f" {self._messages / seconds:.1f} messages/s,"
            f" {self._bytes / seconds:.0f} bytes/s"
        )


class _Commands:
    """
    Runs a command for each message.

    Args:
        jobs: How many commands may run at the same time.

    Attributes:
        failed: Whether a command could not be run, or exited with another code than 0.
    """

    def __init__(self, command: list[str], jobs: int) -> None:
        self.failed = False
        self._command = command
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(jobs)
        self._running: set[Future[None]] = set()

    def start(self, message: Message) -> None:
        """
        Run the command for this message.  Waits first while `jobs` commands are running.
        """
        if len(self._running) == self._jobs:
            self._running = wait(self._running, return_when=FIRST_COMPLETED).not_done
        self._running.add(self._pool.submit(self._run, message))

    def finish(self) -> None:
        """
        Wait for the commands that still run.
        """
        self._pool.shutdown()

    def _run(self, message: Message) -> None:
        # In bytes, because the encoding of the locale may lack characters of a name.
        told = {
            b"MSGBUS_ID": message.id,
            b"MSGBUS_CHANNEL": message.channel,
            b"MSGBUS_SENDER": message.sender,
            b"MSGBUS_TYPE": message.content_type,
            b"MSGBUS_TIME": _published(message).isoformat(),
            **{_variable(name): value for name, value in message.headers.items()},
        }
        environment = {**os.environb, **{name: s.encode() for name, s in told.items()}}
        try:
            code = subprocess.run(  # noqa: S603  # the user's own command
                self._command, input=message.body, env=environment, check=False
            ).returncode
            problem = f"ended with {code}" if code else None
        except OSError as error:
            problem = f"did not run: {error.strerror}"
        if problem:
            self.failed = True
            complain(NAME, f"{self._command[0]} {problem}, for {message.id}")


def _variable(header: str) -> bytes:
    """
    The name of the environment variable for a header, as CGI makes it (RFC 3875, section
    4.1.18).
    """
    return b"MSGBUS_HEADER_%b" % re.sub("[^A-Z0-9]", "_", header.upper()).encode()


def _published(message: Message) -> datetime:
    """
    The local time at which a message was published, or that of now if its id holds no time.
    """
    return (published_at(message.id) or datetime.now(UTC)).astimezone()


def _print(message: Message, quiet: bool) -> None:
    """
    Print a line about a message, and its body unless told to be quiet.
    """
    when = _published(message).isoformat(" ", "milliseconds")[:23]
    head = (
        f"{when} {message.channel or '/'} {message.sender or '-'} {message.content_type}"
        f" {len(message.body)}\n"
    )
    for name, value in message.headers.items():
        head += f"  {shown_name(name)}: {value}\n"
    body = b"" if quiet else message.body
    if sys.stdout.isatty():
        head, body = clean(head), _shown(body)
    out = sys.stdout.buffer
    out.write(head.encode())
    out.write(body)
    if body and not body.endswith(b"\n"):
        out.write(b"\n")
    out.flush()


def _shown(body: bytes) -> bytes:
    """
    A body as it is shown on a terminal.
    """
    try:
        text = clean(body.decode("utf-8"))
    except UnicodeDecodeError:
        text = "(not text)"
    # Every line is indented, so that no body can imitate the line about a message.
    return indent(text, "  ", lambda _: True).encode()


def _save(message: Message, folder: Path) -> None:
    """
    Write the body to a file named by the id.  The file appears when it is complete.
    """
    try:
        parse_id(message.id)
        name = message.id
    except Invalid:
        # An id of another form comes from a strange server, and could hold slashes.
        name = f"{time.time_ns()}"
    part = folder / f".{name}.part"
    part.write_bytes(message.body)
    part.replace(folder / name)
