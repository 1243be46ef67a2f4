"""
msgchat: chat in a terminal, or in a pipe.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial

from prompt_toolkit import PromptSession
from prompt_toolkit.patch_stdout import patch_stdout

from ..client.blocking import Publisher, subscribe
from ..client.errors import BusError
from ..client.notices import Notice
from ..client.url import BusURL
from ..ids import parse_id
from ..message import Invalid, Message
from .command import (
    FAILED,
    OK,
    bus_url,
    complain,
    main,
    new_parser,
    tell_notice,
    whole_number,
)
from .terminal import clean

__all__ = ["run"]

NAME = "msgchat"
TYPE = "text/plain; charset=utf-8"

# For how long a typed message is sent again while the bus is away.  Its writer waits.
PATIENCE_SECONDS = 5.0
MAX_LINE = 256 * 1024
# With a pipe for input: how long the tool waits to see its last message come back.
LAST_SECONDS = 10.0

_BRACKETS = {ord("<"): "(", ord(">"): ")"}

EXAMPLES = """\
  msgchat                       in the channel 'chat', under your login name
  msgchat --user alice lobby
  uptime | msgchat --user host lobby
"""


def run() -> int:
    """
    The console script.
    """
    return main(NAME, _run)


def _run() -> int:
    parser = new_parser(
        NAME,
        "Chat: what you type is published, and what others publish is shown.",
        EXAMPLES,
        "chat",
    )
    parser.add_argument(
        "--last",
        type=whole_number(0, 999_999),
        default=20,
        metavar="COUNT",
        help="begin with the last so many messages (default 20)",
    )
    arguments = parser.parse_args()
    where = bus_url(arguments, arguments.target)
    room = _Room(where.with_credentials(where.user or _login_name()), arguments)
    if sys.stdin.isatty() and sys.stdout.isatty():
        return _talk(room)
    return _pipe(room)


class _Room:
    """
    One channel: publishes what the user says, and prints in a thread what is said there.

    Attributes:
        name: The name of the user.
        where: The URL of the channel.
        ended: The error that has ended the subscription, or None.
    """

    def __init__(self, where: BusURL, arguments: argparse.Namespace) -> None:
        self.name = where.user
        self.where = where
        self.ended: Exception | None = None
        self._publisher = Publisher(
            where,
            ca=arguments.ca,
            certificate=arguments.certificate,
            patience=PATIENCE_SECONDS,
            notify=partial(tell_notice, NAME, where),
        )
        self._messages = subscribe(
            where,
            last=arguments.last,
            ca=arguments.ca,
            certificate=arguments.certificate,
            notify=self._notify,
        )
        self._changed = threading.Condition()
        # Whether the first attempt to subscribe has succeeded or failed.
        self._tried = False
        # The id of the latest message that was printed.
        self._heard = ""

    def listen(self, on_end: Callable[[], object] = lambda: None) -> None:
        """
        Print what is said from now on.  Returns once the first attempt to subscribe has
        succeeded or failed.

        Args:
            on_end: Called by the thread when the subscription has ended by an error.
        """
        threading.Thread(target=self._listen, args=[on_end], daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._tried)

    def say(self, text: str) -> str:
        """
        Publish one message, and return its id.

        Raises:
            BusError: The message was not published.
        """
        return self._publisher.publish(text.encode("utf-8", "replace"), TYPE).id

    def wait_for(self, id: str) -> None:
        """
        Wait until the message with this id, or a later one, was printed, but not for
        longer than `LAST_SECONDS`.
        """
        with suppress(Invalid), self._changed:
            wanted = parse_id(id)
            self._changed.wait_for(
                lambda: self.ended or (self._heard and parse_id(self._heard) >= wanted),
                LAST_SECONDS,
            )

    def _listen(self, on_end: Callable[[], object]) -> None:
        try:
            for message in self._messages:
                print(_line(message), flush=True)
                with self._changed:
                    self._heard = message.id
                    self._changed.notify_all()
        except Exception as error:
            # Every kind of error is told, or the user would talk on without hearing anyone.
            complain(NAME, f"{self.where}: {error}")
            self._try(error)
            on_end()

    def _notify(self, notice: Notice) -> None:
        tell_notice(NAME, self.where, notice)
        self._try()

    def _try(self, ended: Exception | None = None) -> None:
        with self._changed:
            self._tried, self.ended = True, ended
            self._changed.notify_all()


def _talk(room: _Room) -> int:
    """
    Chat on a terminal: messages are shown above the line that is being typed.
    """
    session: PromptSession[str] = PromptSession(erase_when_done=True)

    def leave() -> None:
        if room.ended is not None and session.app.is_running:
            session.app.exit(exception=EOFError)

    def leave_soon() -> None:
        loop = session.app.loop
        if loop is not None:
            loop.call_soon_threadsafe(leave)

    text = ""
    # Besides keeping the line at the bottom, this takes control characters out of what is
    # printed.
    with patch_stdout():
        print(f"{room.name} in {room.where}; Ctrl-D leaves", flush=True)
        room.listen(leave_soon)
        while room.ended is None:
            try:
                text = session.prompt(f"{room.name}> ", default=text, pre_run=leave)
            except (EOFError, KeyboardInterrupt):
                break
            if not text.strip():
                continue
            try:
                room.say(text)
            except BusError as error:
                # The text stays on the line, so that the user can send it again.
                complain(NAME, error)
            else:
                text = ""
    return OK if room.ended is None else FAILED


def _pipe(room: _Room) -> int:
    """
    Chat without a terminal: each line of standard input is published.
    """
    room.listen()
    last = ""
    for line in iter(lambda: sys.stdin.readline(MAX_LINE), ""):
        if room.ended is not None:
            break
        if line.strip():
            last = room.say(line.removesuffix("\n"))
    room.wait_for(last)
    return OK if room.ended is None else FAILED


def _line(message: Message) -> str:
    """
    A message as it is printed.
    """
    kind = message.content_type.partition(";")[0]
    text = f"[{kind}, {len(message.body)} bytes]"
    if kind.startswith("text/"):
        # Further lines are indented, so that nobody can imitate the head of a message.
        text = message.body.decode("utf-8", "replace").strip().replace("\n", "\n      ")
    # Angle brackets in a name are replaced, so that none can look as if it ended earlier.
    sender = message.sender.translate(_BRACKETS) or "?"
    now = datetime.now().astimezone()
    return clean(f"{now:%H:%M} <{sender}> {text}")


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
