"""
msgsend: publish standard input, files, texts or lines, or have a channel forgotten.
"""

from __future__ import annotations

import argparse
import mimetypes
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import cast

from tqdm import tqdm

from ..client.blocking import Publisher, forget, stream
from ..client.blocking_stream import StreamPublisher
from ..client.errors import BusError, Refused
from ..client.notices import Notice
from ..client.options import Access, Fields
from ..client.responses import Answer
from ..client.url import BusURL
from ..message import Invalid
from .command import (
    FAILED,
    OK,
    WRONG_USE,
    bus_url,
    complain,
    header,
    joined,
    main,
    new_parser,
    real_number,
    whole_number,
)

__all__ = ["run"]

NAME = "msgsend"
DEFAULT_TYPE = "text/html"

# The largest message that is read into memory, in bytes.  Few buses take so much.
MAX_INPUT = 256 * 1024 * 1024

# How much of the input is read at once, to be cut into lines.
READ_BYTES = 64 * 1024

EXAMPLES = """\
  msgsend foo '<h1>hello world</h1>'
  date | msgsend -t text/plain foo
  msgsend cam -f *.jpg
  msgsend -t application/json -H ce-type:com.example.made --max-age 60 orders '{"id": 7}'
  msgsend --forget cam
  tail -f log | msgsend --lines -t text/plain logs/web
  msgsend --user alice:secret https://bus.example/msgbus/foo hello
"""


def run() -> int:
    """
    The console script.
    """
    return main(NAME, _run)


def _run() -> int:
    parser = new_parser(
        NAME, "Publish standard input, files, or texts, each as one message.", EXAMPLES
    )
    parser.add_argument("target", nargs="?", metavar="URL|CHANNEL")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a message")
    _add_options(parser)
    arguments = parser.parse_intermixed_args()
    if arguments.target is None:
        # As with `cp`, the last of the files is the destination.
        if len(arguments.files) < 2:
            parser.error("the following arguments are required: URL|CHANNEL")
        arguments.target = arguments.files.pop()
    given = bool(arguments.files) + bool(arguments.texts) + arguments.lines
    if given + arguments.forget > 1:
        parser.error("give files, texts, --lines, or --forget")
    if arguments.forget:
        return _forget(arguments)
    return (_send_lines if arguments.lines else _send)(arguments)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """
    What the messages are, and what is said of them.
    """
    parser.add_argument(
        "-t",
        "--type",
        help=f"media type; otherwise guessed from a file's name, or {DEFAULT_TYPE}",
    )
    parser.add_argument(
        "-H",
        "--header",
        type=header,
        default=[],
        action="append",
        metavar="NAME:VALUE",
        help="a header that travels with each message",
    )
    parser.add_argument(
        "--max-age",
        type=whole_number(0, 2**31),
        metavar="SECONDS",
        help="how long each message is kept and delivered",
    )
    parser.add_argument(
        "-f",
        "--file",
        nargs="+",
        default=[],
        action="extend",
        dest="files",
        help="publish these files",
    )
    parser.add_argument(
        "-l",
        "--lines",
        action="store_true",
        help="each line of the input is a message, an empty one too",
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="publish nothing: the bus forgets what it keeps of the channel",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print each message's id and subscribers",
    )
    parser.add_argument(
        "--timeout",
        type=real_number(0.01, 86400),
        default=30.0,
        metavar="SECONDS",
        help="how long to wait for the bus, and, once it has answered, to try again"
        " (default 30)",
    )


def _forget(arguments: argparse.Namespace) -> int:
    """
    Have the messages of a channel forgotten; the exit code.
    """
    where = bus_url(arguments, arguments.target)
    try:
        forget(where, patience=0, **_access(arguments))
    except (BusError, Invalid) as error:
        complain(NAME, f"the messages of {where} were not forgotten: {error}")
        return WRONG_USE if isinstance(error, Invalid) else FAILED
    return OK


def _send_lines(arguments: argparse.Namespace) -> int:
    """
    Publish all lines, or those before the first that fails, by one stream; the exit code.
    """
    where = bus_url(arguments, arguments.target)
    answered = 0

    def take(number: int, answer: Answer) -> None:
        nonlocal answered
        if isinstance(answer, Refused):
            raise answer
        publisher.patience = arguments.timeout
        answered = number
        if arguments.verbose:
            print(answer.id or "-", max(answer.subscribers, 0), flush=True)

    publisher = stream(
        where,
        take,
        # The first line is tried once, so that a mistyped port is told at once.
        patience=0,
        notify=partial(_tell, where),
        **_access(arguments),
    )
    content_type, fields = arguments.type or DEFAULT_TYPE, _fields(arguments)
    read = 0
    try:
        with publisher:
            for line in _lines(publisher):
                read += 1
                publisher.publish(_bounded(line), content_type, **fields)
    except Invalid as error:
        return _complain_of(f"line {read}", where, error, read - 1)
    except BusError as error:
        return _complain_of(f"line {answered + 1}", where, error, answered)
    return OK


def _lines(publisher: StreamPublisher) -> Iterator[bytes]:
    """
    The lines of the input as they come, without their ends.  Meanwhile the publisher goes
    on with its work.
    """
    source = cast(BufferedReader, sys.stdin.buffer)
    # The pieces of a line that is not complete.
    begun: list[bytes] = []
    size = 0
    while True:
        publisher.wait_for(source)
        data = source.read1(READ_BYTES)
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield b"".join([*begun, line])
            begun, size = [], 0
        begun.append(rest)
        size += len(rest)
        if (not data and size) or size > MAX_INPUT:
            yield b"".join(begun)
        if not data:
            return


def _access(arguments: argparse.Namespace) -> Access:
    """
    How to get to the bus.
    """
    return {
        "ca": arguments.ca,
        "certificate": arguments.certificate,
        "timeout": arguments.timeout,
    }


def _fields(arguments: argparse.Namespace) -> Fields:
    """
    What is said of each message.
    """
    return {"headers": joined(arguments.header), "max_age": arguments.max_age}


def _tell(where: BusURL, notice: Notice) -> None:
    complain(NAME, f"{where}: {notice}")


def _complain_of(what: str, where: BusURL, error: Exception, before: int) -> int:
    """
    Tell what was not published and why, and how many messages before it were; the exit
    code.
    """
    reason = error.strerror if isinstance(error, OSError) else error
    complain(NAME, f"{what} was not published to {where}: {reason}")
    if before:
        complain(NAME, f"{before} before it were")
    return WRONG_USE if isinstance(error, Invalid) else FAILED


def _send(arguments: argparse.Namespace) -> int:
    """
    Publish all messages, or those before the first that fails; the exit code.
    """
    where = bus_url(arguments, arguments.target)
    publisher = Publisher(
        where,
        # The first message is tried once, so that a mistyped port is told at once.
        patience=0,
        notify=partial(_tell, where),
        **_access(arguments),
    )
    sent = 0
    with publisher:
        for what, read, content_type in _messages(arguments):
            try:
                receipt = publisher.publish(read(), content_type, **_fields(arguments))
            except (BusError, Invalid, OSError) as error:
                return _complain_of(what, where, error, sent)
            publisher.patience = arguments.timeout
            sent += 1
            if arguments.verbose:
                print(receipt.id or "-", max(receipt.subscribers, 0), flush=True)
    return OK


def _messages(
    arguments: argparse.Namespace,
) -> Iterator[tuple[str, Callable[[], bytes], str]]:
    """
    For each message: what to call it in a complaint, a function that reads its body, and
    its type.
    """
    content_type = arguments.type or DEFAULT_TYPE
    source = sys.stdin.buffer
    if arguments.files:
        for file in _with_progress(arguments.files):
            yield repr(file), Path(file).read_bytes, arguments.type or _type_of(file)
    elif arguments.texts:
        for text in arguments.texts:
            # Bytes that are no UTF-8 came as lone surrogates, and become bytes again.
            body = text.encode("utf-8", "surrogateescape")
            yield f"the text {text!r}", partial(bytes, body), content_type
    else:
        yield "the input", lambda: _bounded(source.read(MAX_INPUT + 1)), content_type


def _type_of(file: str) -> str:
    """
    The media type that the name of a file suggests.
    """
    guessed, encoding = mimetypes.guess_type(file)
    # For `x.txt.gz` the guess is text/plain, encoded by gzip; but its body is no text.
    return "application/octet-stream" if encoding else guessed or DEFAULT_TYPE


def _bounded(body: bytes) -> bytes:
    """
    The body, if it is not too large.
    """
    if len(body) > MAX_INPUT:
        raise Invalid(f"It is larger than {MAX_INPUT} bytes.")
    return body


def _with_progress(files: list[str]) -> Iterable[str]:
    """
    The files; a progress bar shows how many of several have been published.
    """
    # For `tqdm`, `None` means: no bar if standard error is no terminal.
    disable = None if len(files) > 1 else True
    return tqdm(files, unit="file", disable=disable, file=sys.stderr)
