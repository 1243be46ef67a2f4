"""
What the tools have in common: options, where the bus is, and how they end.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .. import __version__
from ..client.errors import BusError
from ..client.notices import Notice, Subscribed
from ..client.url import BusURL, locate
from ..formats.multipart import Malformed
from ..message import Invalid
from .terminal import clean

__all__ = [
    "FAILED",
    "OK",
    "WRONG_USE",
    "add_heartbeat",
    "address",
    "complain",
    "main",
    "parser",
    "seconds",
    "tell",
    "whole",
]

N = TypeVar("N", int, float)

OK = 0
FAILED = 1
WRONG_USE = 2


def parser(
    name: str, does: str, examples: str, target: str | None = None
) -> argparse.ArgumentParser:
    """
    One that knows the options of all tools.

    Args:
        target: Where the tool goes unless told, the empty name being the root; None for
            one that has to be told.
    """
    made = argparse.ArgumentParser(
        prog=name,
        description=does,
        epilog=f"examples:\n{examples}\n"
        "A bare CHANNEL stands for http://localhost:8888/msgbus/CHANNEL, or for a channel\n"
        "of the bus at MSGBUS_URL in the environment.  A URL begins with http://, https://,\n"
        "or http+unix://, such as http+unix://%2Frun%2Fmsgbus.sock/msgbus/CHANNEL.\n"
        "A password is taken from the URL, from --user, or from MSGBUS_PASSWORD.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"msgbus {__version__}")
    who = made.add_argument_group("who and where")
    who.add_argument(
        "--user",
        default="",
        metavar="NAME[:PASSWORD]",
        help="the name to send under, and the bus's password, if it has one",
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
        made.add_argument(
            "target",
            nargs="?",
            default=target,
            metavar="URL|CHANNEL",
            help=f"{target or 'everything'}, unless told",
        )
    return made


def whole(low: int, high: int) -> Callable[[str], int]:
    """
    The type of an option that is a whole number from one to another.
    """
    return lambda text: _within(low, high, text, int)


def seconds(low: float, high: float) -> Callable[[str], float]:
    """
    The same for a time, or a rate.
    """
    return lambda text: _within(low, high, text, float)


def _within(low: float, high: float, text: str, kind: Callable[[str], N]) -> N:
    try:
        number = kind(text)
    except ValueError:
        number = None
    # One that is not a number is not within.
    if number is None or not low <= number <= high:
        raise argparse.ArgumentTypeError(f"give {low:,} to {high:,}, not {text!r}")
    return number


def add_heartbeat(made: argparse.ArgumentParser) -> None:
    """
    An option of one that subscribes.
    """
    made.add_argument(
        "--heartbeat",
        type=whole(5, 300),
        default=25,
        metavar="SECONDS",
        help="a server that is silent for twice as long is gone (5 to 300; default 25)",
    )


def address(arguments: argparse.Namespace, text: str) -> BusURL:
    """
    Where a tool is to go, and under which name.

    Raises:
        Invalid: The text is neither a URL nor a name.
    """
    user, _, password = arguments.user.partition(":")
    return locate(text, os.environ).with_credentials(user, password)


def complain(name: str, problem: object) -> None:
    """
    One line on standard error.
    """
    print(f"{name}: {clean(str(problem))}", file=sys.stderr, flush=True)


def tell(name: str, where: BusURL, notice: Notice) -> None:
    """
    One line for what becomes of a subscription, but that it has begun.
    """
    if not isinstance(notice, Subscribed) or notice.again:
        complain(name, f"{where}: {notice}")


def main(name: str, run: Callable[[], int]) -> int:
    """
    Run a tool, and turn what goes wrong into one line and an exit code.
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
        # Who reads this has enough.  Nothing may be flushed into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        complain(name, f"{error.filename}: {error.strerror}" if error.filename else error)
        return FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _open_standard_streams() -> None:
    """
    See that there are all three, and that no text is too strange for them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # One that is closed; what is opened next would get its number.
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))
        errors = "backslashreplace" if number else "replace"
        getattr(sys, name).reconfigure(errors=errors)
