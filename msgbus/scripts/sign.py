"""
msgbus-sign: make links that carry a right, and the keys to sign them with.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import time
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from .. import __version__
from ..access.channels import NO_CHANNELS, Channels
from ..access.credentials import PARAMETER, link_of
from ..access.grant import BadGrant, Grant
from ..access.link_keys import MIN_SECRET_BYTES, BadKeys, Keys, format_key
from ..access.links import sign, verify
from ..access.verbs import Verb
from ..client.url import DEFAULT_URL, BusURL
from ..match import Filter
from ..message import Invalid
from .command import FAILED, OK, complain, main

__all__ = ["run"]

NAME = "msgbus-sign"

EXAMPLES = """\
  msgbus-sign --key links.key --new-key
  msgbus-sign --key links.key subscribe public/cam --for 1h
  msgbus-sign --key links.key subscribe 'sensors/*' news --for 30d --type 'text/*'
  msgbus-sign --key links.key publish,subscribe chat/ --for 8h --as alice
  msgbus-sign --key links.key --show 'https://bus.example/msgbus/public/cam?link=...'

The URL that is printed is all that somebody needs, in curl, <img>, EventSource or
WebSocket: give it only to those who may have it.  What stands behind link= is also a token
for Authorization: Bearer.  The first key of the file signs; remove its line, and all links
that it has signed are revoked.
"""

_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"([1-9][0-9]{0,11})([km]?)", re.IGNORECASE)
_UNIT_BYTES = {"": 1, "k": 1024, "m": 1024 * 1024}
_NUMBERED = re.compile(r"k([0-9]{1,9})")


def run() -> int:
    """
    The console script.
    """
    return main(NAME, _run)


def _run() -> int:
    arguments = _parser().parse_intermixed_args()
    file = arguments.key
    try:
        if arguments.new_key:
            return _add_key(file)
        keys = Keys.parse(file.read_bytes(), str(file))
        if arguments.show:
            return _show(keys, arguments.show)
    except (BadKeys, BadGrant) as error:
        complain(NAME, error)
        return FAILED
    if not arguments.verbs or not arguments.patterns or arguments.seconds is None:
        raise Invalid(
            "Say what the link allows, where, and for how long, such as:"
            " subscribe public/cam --for 1h."
        )
    grant = _grant(arguments)
    url = BusURL.parse(arguments.url or os.environ.get("MSGBUS_URL") or DEFAULT_URL)
    where = url.channel(_place([*grant.publish.patterns, *grant.subscribe.patterns]))
    where = where.with_parameters({PARAMETER: sign(keys, grant)})
    # `str()` does not show links.
    print(f"{where.base}{where.target}")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Print a URL that carries a right, signed with a key of the bus.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"msgbus {__version__}")
    parser.add_argument(
        "verbs",
        nargs="?",
        metavar="VERBS",
        help="publish, subscribe, or both with a comma between them",
    )
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="CHANNEL",
        help="a channel, a folder, which ends in a slash, or a pattern such as 'public/*'",
    )
    parser.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="the file of keys"
    )
    parser.add_argument(
        "--for",
        type=_seconds,
        dest="seconds",
        metavar="TIME",
        help="how long the link holds, such as 10m, 1h or 30d",
    )
    parser.add_argument("--type", default="", metavar="PATTERNS", help="only these types")
    parser.add_argument(
        "--sender", default="", metavar="PATTERNS", help="reads only what these have sent"
    )
    parser.add_argument(
        "--as",
        default="",
        dest="name",
        metavar="NAME",
        help="publishes under this name; otherwise, without a name",
    )
    parser.add_argument(
        "--max-message", type=_bytes, metavar="SIZE", help="such as 1000 or 64k"
    )
    parser.add_argument(
        "--url", metavar="URL", help=f"where the bus is (MSGBUS_URL, or {DEFAULT_URL})"
    )
    parser.add_argument(
        "--new-key",
        action="store_true",
        help="add a new key before those of the file, which is made if need be, and print"
        " its id",
    )
    parser.add_argument("--show", metavar="LINK", help="print what a link allows")
    return parser


def _grant(arguments: argparse.Namespace) -> Grant:
    """
    The grant that the arguments ask for.
    """
    verbs = arguments.verbs.split(",")
    for verb in verbs:
        if verb not in (Verb.PUBLISH, Verb.SUBSCRIBE):
            raise Invalid(f"{verb!r} is neither publish nor subscribe.")
    # A folder is all that is below it.
    channels = Channels(p + "*" if p.endswith("/") else p for p in arguments.patterns)
    return Grant(
        publish=channels if Verb.PUBLISH in verbs else NO_CHANNELS,
        subscribe=channels if Verb.SUBSCRIBE in verbs else NO_CHANNELS,
        expires=int(time.time()) + arguments.seconds,
        name=arguments.name,
        filter=Filter(arguments.type, arguments.sender),
        max_message=arguments.max_message,
    )


def _place(patterns: list[str]) -> str:
    """
    The name for the URL: the channel, if only one is allowed; otherwise the deepest folder
    that holds all of them.
    """
    first, *others = sorted(set(patterns))
    if not others and not re.search("[*?]", first):
        return first
    folders = [re.split("[*?]", p)[0].split("/")[:-1] for p in (first, *others)]
    common = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    return "".join(f"{parts[0]}/" for parts in common)


def _show(keys: Keys, text: str) -> int:
    """
    Print what a link, or a URL with a link, allows.
    """
    link = link_of(text.partition("?")[2].encode("utf-8", "replace")) or text
    grant = verify(keys, link, time.time())
    for verb in Verb:
        if patterns := grant.channels(verb).patterns:
            print(f"{verb}: {' '.join(patterns)}")
    for what, value in (
        ("type", grant.filter.type.text),
        ("sender", grant.filter.sender.text),
        ("as", grant.name),
        ("max-message", grant.max_message),
        ("key", grant.key),
    ):
        if value not in ("", None):
            print(f"{what}: {value}")
    print(f"until: {datetime.fromtimestamp(grant.expires, UTC):%Y-%m-%d %H:%M:%S} UTC")
    return OK


def _add_key(file: Path) -> int:
    """
    Put a new key before those of the file, which nobody else may read, and print its id.
    """
    old = file.read_bytes() if file.exists() else b""
    numbers = [0]
    if old:
        ids = Keys.parse(old, str(file)).secrets
        numbers += [int(found[1]) for id in ids if (found := _NUMBERED.fullmatch(id))]
    id = f"k{max(numbers) + 1}"
    line = format_key(id, secrets.token_bytes(MIN_SECRET_BYTES))
    # Written beside it, so that at no time there is half a file.
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as output:
            output.write(line.encode("ascii") + old)
            output.flush()
            os.fsync(output.fileno())
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    print(id)
    return OK


def _seconds(text: str) -> int:
    found = _DURATION.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"give a time such as 10m, 1h or 30d, not {text!r}"
        )
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"give a size such as 1000 or 64k, not {text!r}")
    return int(found[1]) * _UNIT_BYTES[found[2].lower()]
