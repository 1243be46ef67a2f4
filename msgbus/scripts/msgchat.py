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
from .command import FAILED, OK, address, complain, main, parser, tell, whole
from .terminal import clean

__all__ = ["run"]

NAME = "msgchat"
TYPE = "text/plain; charset=utf-8"

# For how long what was typed is sent again, while its writer waits for it.
PATIENCE_SECONDS = 5.0
MAX_LINE = 256 * 1024
# For how long a pipe's last words are waited for.
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
    made = parser(
        NAME,
        "Chat: what you type is published, and what others publish is shown.",
        EXAMPLES,
        "chat",
    )
    made.add_argument(
        "--last",
        type=whole(0, 999_999),
        default=20,
        metavar="COUNT",
        help="begin with the last so many messages (default 20)",
    )
    arguments = made.parse_args()
    where = address(arguments, arguments.target)
    room = _Room(where.with_credentials(where.user or _login_name()), arguments)
    if sys.stdin.isatty() and sys.stdout.isatty():
        return _talk(room)
    return _pipe(room)


class _Room:
    """
    One channel: publishes what is said, and prints what others say, in a thread.

    Attributes:
        name: That one speaks under.
        where: It is.
        ended: Why nothing more is heard, or None.
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
            notify=partial(tell, NAME, where),
        )
        self._messages = subscribe(
            where,
            last=arguments.last,
            ca=arguments.ca,
            certificate=arguments.certificate,
            notify=self._notify,
        )
        self._changed = threading.Condition()
        self._tried = False
        self._heard = ""

    def listen(self, on_end: Callable[[], object] = lambda: None) -> None:
        """
        Print what is said from now on; return once that has begun, or was tried.

        Args:
            on_end: Called when there is no more to hear.
        """
        threading.Thread(target=self._listen, args=[on_end], daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._tried)

    def say(self, text: str) -> str:
        """
        Publish one message; its id.

        Raises:
            BusError: It was not published.
        """
        return self._publisher.publish(text.encode("utf-8", "replace"), TYPE).id

    def wait_for(self, id: str) -> None:
        """
        Wait a bit until the message with this id was heard.
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
            # Of any kind: else one would talk on, and hear nothing.
            complain(NAME, f"{self.where}: {error}")
            self._try(error)
            on_end()

    def _notify(self, notice: Notice) -> None:
        tell(NAME, self.where, notice)
        self._try()

    def _try(self, ended: Exception | None = None) -> None:
        with self._changed:
            self._tried, self.ended = True, ended
            self._changed.notify_all()


def _talk(room: _Room) -> int:
    """
    On a terminal: what comes in is shown above what is being typed.
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
    # It also takes out what a terminal would obey.
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
                # It is there to be sent again.
                complain(NAME, error)
            else:
                text = ""
    return OK if room.ended is None else FAILED


def _pipe(room: _Room) -> int:
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
    A message as it is shown.
    """
    kind = message.content_type.partition(";")[0]
    text = f"[{kind}, {len(message.body)} bytes]"
    if kind.startswith("text/"):
        # No stranger begins a line.
        text = message.body.decode("utf-8", "replace").strip().replace("\n", "\n      ")
    # Nor does his name end before it does.
    sender = message.sender.translate(_BRACKETS) or "?"
    now = datetime.now().astimezone()
    return clean(f"{now:%H:%M} <{sender}> {text}")


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
