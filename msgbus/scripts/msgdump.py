"""
msgdump: show, save, or hand on the messages of a channel or folder.
"""

from __future__ import annotations

import argparse
import os
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
from ..ids import parse_id
from ..message import Invalid, Message
from .command import FAILED, OK, add_heartbeat, address, complain, main, parser, tell, whole
from .terminal import clean

__all__ = ["run"]

NAME = "msgdump"

EXAMPLES = """\
  msgdump                                   everything
  msgdump -q sensors/                       what comes below sensors/, without bodies
  msgdump --last 1 -n 1 cam --save .        the newest picture
  msgdump -t 'text/*' -s '?*' chat --since 10m
  msgdump --json logs/ | jq -r .body
  msgdump jobs --jobs 4 --exec sh -c 'wc -c; echo "$MSGBUS_SENDER"'

With --exec, a command gets the body on its standard input, and the rest in MSGBUS_ID,
MSGBUS_CHANNEL, MSGBUS_SENDER, MSGBUS_TYPE and MSGBUS_TIME.
"""


def run() -> int:
    """
    The console script.
    """
    return main(NAME, _run)


def _run() -> int:
    made = parser(
        NAME,
        "Subscribe to a channel or folder, and show each message as it comes.",
        EXAMPLES,
        "",
    )
    made.add_argument(
        "-t",
        "--type",
        default="",
        metavar="TYPES",
        help="only these, such as 'text/*,!text/html'",
    )
    made.add_argument(
        "-s",
        "--sender",
        default="",
        metavar="SENDERS",
        help="only from these, such as '?*'",
    )
    made.add_argument(
        "-c",
        "--channel",
        default="",
        metavar="CHANNELS",
        help="only these of a folder",
    )
    add_heartbeat(made)
    made.add_argument("-q", "--quiet", action="store_true", help="do not show bodies")
    made.add_argument(
        "-n",
        "--count",
        type=whole(1, 10**12),
        metavar="COUNT",
        help="end after so many",
    )
    replay = made.add_mutually_exclusive_group()
    replay.add_argument(
        "--since",
        default="",
        metavar="WHEN",
        help="begin with history: an id, 10m, all",
    )
    replay.add_argument(
        "--last",
        type=whole(0, 999_999),
        default=0,
        metavar="COUNT",
        help="begin with the last so many",
    )
    made.add_argument("--json", action="store_true", help="an object a line")
    made.add_argument(
        "--save",
        type=Path,
        metavar="DIR",
        help="each body to a file, named by its id",
    )
    made.add_argument(
        "--jobs",
        type=whole(1, 1000),
        default=1,
        metavar="COUNT",
        help="so many commands at once",
    )
    made.add_argument(
        "--exec",
        nargs=argparse.REMAINDER,
        dest="command",
        metavar="COMMAND",
        help="run this for each; all that follows is its own",
    )
    arguments = made.parse_args()
    if arguments.command == []:
        made.error("--exec needs a command")
    if arguments.save is not None and not arguments.save.is_dir():
        made.error(f"{str(arguments.save)!r} is no folder; make it first")
    return _dump(arguments)


def _dump(arguments: argparse.Namespace) -> int:
    where = address(arguments, arguments.target)
    messages = subscribe(
        where,
        type=arguments.type,
        sender=arguments.sender,
        channel=arguments.channel,
        since=arguments.since,
        last=arguments.last,
        heartbeat=arguments.heartbeat,
        ca=arguments.ca,
        certificate=arguments.certificate,
        notify=partial(tell, NAME, where),
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
    How much came, and how fast.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._messages = 0
        self._bytes = 0

    def count(self, message: Message) -> None:
        """
        One more.
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
    Runs a command for each message, so many at once and no more.
    """

    def __init__(self, command: list[str], jobs: int) -> None:
        self.failed = False
        self._command = command
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(jobs)
        self._running: set[Future[None]] = set()

    def start(self, message: Message) -> None:
        """
        Run it, once there is room.
        """
        if len(self._running) == self._jobs:
            self._running = wait(self._running, return_when=FIRST_COMPLETED).not_done
        self._running.add(self._pool.submit(self._run, message))

    def finish(self) -> None:
        """
        Wait for those that run.
        """
        self._pool.shutdown()

    def _run(self, message: Message) -> None:
        # In bytes, because a locale may not have all that UTF-8 has.
        told = {
            b"MSGBUS_ID": message.id,
            b"MSGBUS_CHANNEL": message.channel,
            b"MSGBUS_SENDER": message.sender,
            b"MSGBUS_TYPE": message.content_type,
            b"MSGBUS_TIME": _published(message).isoformat(),
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


def _published(message: Message) -> datetime:
    """
    When it was published, or, where its id does not tell, now.
    """
    return (published_at(message.id) or datetime.now(UTC)).astimezone()


def _print(message: Message, quiet: bool) -> None:
    when = _published(message).isoformat(" ", "milliseconds")[:23]
    head = (
        f"{when} {message.channel or '/'} {message.sender or '-'} {message.content_type}"
        f" {len(message.body)}\n"
    )
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
    What of a body a terminal gets to see.
    """
    try:
        text = clean(body.decode("utf-8"))
    except UnicodeDecodeError:
        text = "(not text)"
    # No stranger's line looks like one of ours.
    return indent(text, "  ", lambda _: True).encode()


def _save(message: Message, folder: Path) -> None:
    """
    Write the body to a file that is there whole, or not at all.
    """
    try:
        parse_id(message.id)
        name = message.id
    except Invalid:
        # Nothing else may name a file.
        name = f"{time.time_ns()}"
    part = folder / f".{name}.part"
    part.write_bytes(message.body)
    part.replace(folder / name)
