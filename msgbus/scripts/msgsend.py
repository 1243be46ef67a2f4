"""
msgsend: publish standard input, files, texts or lines.
"""

from __future__ import annotations

import argparse
import mimetypes
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from ..blocking import Publisher
from ..exchange import BusError
from ..message import Invalid
from .command import FAILED, OK, WRONG_USE, address, complain, main, parser

__all__ = ["run"]

NAME = "msgsend"
DEFAULT_TYPE = "text/html"

EXAMPLES = """\
  msgsend foo '<h1>hello world</h1>'
  date | msgsend -t text/plain foo
  msgsend cam -f *.jpg
  tail -f log | msgsend --lines -t text/plain logs/web
  msgsend --user alice:secret https://bus.example/msgbus/foo hello
"""


def run() -> int:
    """
    The console script.
    """
    return main(NAME, _run)


def _run() -> int:
    made = parser(
        NAME, "Publish standard input, files, or texts, each as one message.", EXAMPLES
    )
    made.add_argument("target", nargs="?", metavar="URL|CHANNEL")
    made.add_argument("texts", nargs="*", metavar="TEXT", help="a message")
    made.add_argument(
        "-t",
        "--type",
        help=f"media type; otherwise guessed from a file's name, or {DEFAULT_TYPE}",
    )
    made.add_argument(
        "-f",
        "--file",
        nargs="+",
        default=[],
        action="extend",
        dest="files",
        help="publish these files",
    )
    made.add_argument(
        "-l", "--lines", action="store_true", help="each line of the input is a message"
    )
    made.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print each message's id and subscribers",
    )
    made.add_argument(
        "--timeout",
        type=float,
        default=30,
        metavar="SECONDS",
        help="how long to wait for the bus, and, once it has answered, to try again"
        " (default 30)",
    )
    arguments = made.parse_intermixed_args()
    if arguments.target is None:
        # As with cp, the last is where they go.
        if len(arguments.files) < 2:
            made.error("the following arguments are required: URL|CHANNEL")
        arguments.target = arguments.files.pop()
    if bool(arguments.files) + bool(arguments.texts) + arguments.lines > 1:
        made.error("give files, texts, or --lines")
    return _send(arguments)


def _send(arguments: argparse.Namespace) -> int:
    where = address(arguments, arguments.target)
    publisher = Publisher(
        where,
        ca=arguments.ca,
        certificate=arguments.certificate,
        timeout=arguments.timeout,
        # Somebody who mistypes a port is told so at once.
        patience=0,
        notify=lambda notice: complain(NAME, f"{where}: {notice}"),
    )
    sent = 0
    with publisher:
        for what, body, content_type in _messages(arguments):
            try:
                receipt = publisher.publish(body, content_type)
            except (BusError, Invalid) as error:
                complain(NAME, f"{what} was not published to {where}: {error}")
                if sent:
                    complain(NAME, f"{sent} before it were")
                return WRONG_USE if isinstance(error, Invalid) else FAILED
            publisher.patience = arguments.timeout
            sent += 1
            if arguments.verbose:
                print(receipt.id or "-", max(receipt.subscribers, 0), flush=True)
    return OK


def _messages(arguments: argparse.Namespace) -> Iterator[tuple[str, bytes, str]]:
    """
    What to call it, a body, and its type.
    """
    content_type = arguments.type or DEFAULT_TYPE
    if arguments.files:
        for file in _with_progress(arguments.files):
            guessed = mimetypes.guess_type(file)[0]
            yield file, Path(file).read_bytes(), arguments.type or guessed or DEFAULT_TYPE
    elif arguments.texts:
        for text in arguments.texts:
            # As it was typed, also what is no UTF-8.
            body = text.encode("utf-8", "surrogateescape")
            yield f"the text {text!r}", body, content_type
    elif arguments.lines:
        for number, line in enumerate(sys.stdin.buffer, 1):
            yield f"line {number}", line.removesuffix(b"\n"), content_type
    else:
        yield "standard input", sys.stdin.buffer.read(), content_type


def _with_progress(files: list[str]) -> Iterable[str]:
    # Where standard error is no terminal, `None` means no bar.
    disable = None if len(files) > 1 else True
    return tqdm(files, unit="file", disable=disable, file=sys.stderr)
