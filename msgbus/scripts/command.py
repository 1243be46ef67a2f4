"""
What the tools have in common: options, the URL of the bus, complaints, and exit codes.
"""

from __future__ import annotations

import argparse
import getpass
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .. import __version__
from ..client.errors import BusError
from ..client.notices import Live, Notice, Subscribed
from ..client.url import BusURL, locate
from ..formats.multipart import Malformed
from ..headers import does_travel
from ..message import Invalid
from .terminal import clean

__all__ = [
    "FAILED",
    "OK",
    "WRONG_USE",
    "add_heartbeat_option",
    "add_subscription_options",
    "bus_url",
    "complain",
    "main",
    "new_local_parser",
    "new_parser",
    "real_number",
    "tell_notice",
    "whole_number",
]

N = TypeVar("N", int, float)

OK = 0
FAILED = 1
WRONG_USE = 2


def new_parser(
    name: str, does: str, examples: str, target: str | None = None
) -> argparse.ArgumentParser:
    """
    A parser with the options that all tools have which talk to a bus.

    Args:
        name: The command.
        does: One sentence for `--help`.
        examples: Lines for `--help`.
        target: The channel or folder that is used if the user gives none; the empty string
            is the root.  With None, the caller has to add the parameter `target`.
    """
    parser = new_local_parser(
        name,
        does,
        f"{examples}\n"
        "A bare CHANNEL stands for http://localhost:8888/msgbus/CHANNEL, or for a channel\n"
        "of the bus at MSGBUS_URL in the environment.  A URL begins with http://, https://,\n"
        "or http+unix://, such as http+unix://%2Frun%2Fmsgbus.sock/msgbus/CHANNEL.\n"
        "A password is taken from the URL, from --user, or from MSGBUS_PASSWORD, or asked\n"
        "for with --ask-password.",
    )
    who = parser.add_argument_group("who and where")
    who.add_argument(
        "--user",
        default="",
        metavar="NAME[:PASSWORD]",
        help="the name to send under, and the password, if the bus asks for one",
    )
    who.add_argument(
        "--ask-password",
        action="store_true",
        help="ask for the password in the terminal",
    )
    who.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="trust these certificates (PEM) only",
    )
    who.add_argument(
        "--certificate",
        type=Path,
        metavar="FILE",
        help="a private key and a certificate (PEM), for a server that asks for one",
    )
    if target is not None:
        parser.add_argument(
            "target",
            nargs="?",
            default=target,
            metavar="URL|CHANNEL",
            help=f"{target or 'everything'}, unless told",
        )
    return parser


def new_local_parser(name: str, does: str, examples: str) -> argparse.ArgumentParser:
    """
    A parser for a tool that talks to no bus; see `new_parser`.
    """
    parser = argparse.ArgumentParser(
        prog=name,
        description=does,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"msgbus {__version__}")
    return parser


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """
    An argparse type: a whole number between these two, which may be either of them.
    """
    return lambda text: _within(low, high, text, int)


def real_number(low: float, high: float) -> Callable[[str], float]:
    """
    An argparse type: a number of any kind between these two, such as a time or a rate.
    """
    return lambda text: _within(low, high, text, float)


def header(text: str) -> tuple[str, str]:
    """
    A header, or patterns for one, as an option gives it: its name in lower case, and what
    stands behind the colon.
    """
    name, colon, value = text.partition(":")
    if not colon or not does_travel(name.strip()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no NAME:VALUE of a header that travels with a message,"
            " such as ce-type:com.example.made"
        )
    return name.strip().lower(), value.strip()


def joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    """
    The values by name; those of options with the same name are joined to a list.
    """
    values: dict[str, str] = {}
    for name, value in headers:
        values[name] = f"{values[name]},{value}" if name in values else value
    return values


def _within(low: float, high: float, text: str, kind: Callable[[str], N]) -> N:
    try:
        number = kind(text)
    except ValueError:
        number = None
    # "nan" is a float, and fails this comparison.
    if number is None or not low <= number <= high:
        raise argparse.ArgumentTypeError(f"give {low:,} to {high:,}, not {text!r}")
    return number


def add_heartbeat_option(parser: argparse.ArgumentParser) -> None:
    """
    Add the option `--heartbeat`, for a tool that subscribes.
    """
    parser.add_argument(
        "--heartbeat",
        type=whole_number(5, 300),
        default=25,
        metavar="SECONDS",
        help="a server that is silent for twice as long is gone (5 to 300; default 25)",
    )


def add_subscription_options(parser: argparse.ArgumentParser) -> None:
    """
    Add the options that say which messages are wanted, and how many: `--type`, `--sender`,
    `--channel`, `--header`, `--heartbeat`, `--count`, `--since`, `--last`,
    `--last-of-each`, `--until` and `--interval`.
    """
    _add_filter_options(parser)
    add_heartbeat_option(parser)
    parser.add_argument(
        "-n",
        "--count",
        type=whole_number(1, 10**12),
        metavar="COUNT",
        help="end after so many",
    )
    replay = parser.add_mutually_exclusive_group()
    replay.add_argument(
        "--since",
        default="",
        metavar="WHEN",
        help="begin with history: an id, 10m, all",
    )
    replay.add_argument(
        "--last",
        type=whole_number(0, 999_999),
        default=0,
        metavar="COUNT",
        help="begin with the last so many",
    )
    replay.add_argument(
        "--last-of-each",
        action="store_true",
        help="begin with the newest of each channel of a folder",
    )
    parser.add_argument(
        "--until",
        choices=["now"],
        default="",
        help="with one of these: end where history does",
    )
    parser.add_argument(
        "--interval",
        default="",
        metavar="TIME",
        help="of each channel, only the newest that often, such as 2s",
    )


def _add_filter_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-t",
        "--type",
        default="",
        metavar="TYPES",
        help="only these, such as 'text/*,!text/html'",
    )
    parser.add_argument(
        "-s",
        "--sender",
        default="",
        metavar="SENDERS",
        help="only from these, such as '?*'",
    )
    parser.add_argument(
        "-c",
        "--channel",
        default="",
        metavar="CHANNELS",
        help="only these of a folder",
    )
    parser.add_argument(
        "--header",
        type=header,
        default=[],
        action="append",
        metavar="NAME:VALUES",
        help="only with these, such as 'ce-type:com.example.*'",
    )


def bus_url(arguments: argparse.Namespace, text: str) -> BusURL:
    """
    The URL that the user of a tool means, with name and password from `--user`, the URL
    or the environment.

    Args:
        text: A URL, or the name of a channel or folder.

    Raises:
        Invalid: It is neither, or the name or password cannot be sent.
    """
    if arguments.ask_password:
        # From now on it is as if `--user` had the password: a tool may have several URLs.
        name, _, _ = arguments.user.partition(":")
        arguments.user = f"{name}:{_ask_password()}"
        arguments.ask_password = False
    user, _, password = arguments.user.partition(":")
    return locate(text, os.environ).with_credentials(user, password)


def _ask_password() -> str:
    try:
        return getpass.getpass()
    except EOFError:
        raise Invalid("No password was given.") from None


def complain(name: str, problem: object) -> None:
    """
    Print a line on standard error.

    Args:
        name: The tool that complains.
    """
    print(f"{name}: {clean(str(problem))}", file=sys.stderr, flush=True)


def tell_notice(name: str, where: BusURL, notice: Notice) -> None:
    """
    Print what happened to a subscription on standard error, except that it has begun for
    the first time, and where history ends.
    """
    if notice not in (Subscribed(again=False), Live()):
        complain(name, f"{where}: {notice}")


def main(name: str, run: Callable[[], int]) -> int:
    """
    Run a tool.  An error becomes one line on standard error and an exit code.
    """
    _open_standard_streams()
    try:
        return run()
    except Invalid as error:
        complain(name, error)
        return WRONG_USE
    except (BusError, Malformed) as error:
        complain(name, error)
        return FAILED
    except BrokenPipeError:
        # The reader, such as `head`, has left.  Python flushes standard output once more at
        # exit, which would fail again, so that has to go to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        complain(name, f"{error.filename}: {error.strerror}" if error.filename else error)
        return FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _open_standard_streams() -> None:
    """
    Make sure that all three standard streams exist, and that no text that is printed or
    read raises an encoding error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The caller has closed it.  The next file or socket to be opened would get its
            # number, and with it the output that is meant for this stream.
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))
        errors = "backslashreplace" if number else "replace"
        getattr(sys, name).reconfigure(errors=errors)
