"""
`twistd msgbus --help`: what an operator may choose, checked while he can still read of his
mistakes.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path

from twisted.python import usage

from .. import __version__
from ..bus.history import Keep
from ..fanout.fanout import Limits
from ..message import Invalid
from ..web.origins import Origins
from .listen import CannotListen, endpoint

__all__ = ["Options"]

# As it is installed; in a checkout it is at the top.
_CHAT_DEMO = Path(__file__).parents[1] / "chatdemo"

DEFAULT_LISTEN = "tcp:8888:interface=127.0.0.1"

_EXAMPLES = """
Examples:

  twistd -n msgbus
      at http://localhost:8888/msgbus/, for this machine only

  twistd -n msgbus --listen tcp:8888 --secret-file password.txt
      for everybody who can reach this machine and knows the password

  twistd -n msgbus --listen ssl:8443:privateKey=key.pem:certKey=cert.pem
      over TLS

  twistd -n msgbus --docroot site
      and the files of site/ at http://localhost:8888/

  twistd -n msgbus --docroot chatdemo
      and a chat at http://localhost:8888/

  curl http://localhost:8888/msgbus/foo
      subscribes; a browser at that address shows a page

  curl http://localhost:8888/msgbus/foo -H 'Content-Type: text/plain' -d hello
      publishes
"""


class Options(usage.Options):
    """
    What an operator may choose.
    """

    synopsis = "[options]"
    longdesc = "What is posted to /msgbus/CHANNEL comes to everybody who gets it."

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        # Twisted takes docstrings with the line ends of their source.
        self.docs = {name: " ".join(doc.split()) for name, doc in self.docs.items()}
        self["listen"] = []
        self["allow-origin"] = []
        self["host"] = []
        self["max-message"] = 1024 * 1024
        limits = Limits()
        self["max-backlog"] = limits.backlog
        self["max-waiting"] = limits.waiting
        self["stall-timeout"] = limits.stall_seconds
        keep = Keep()
        self["history"] = keep.count
        self["history-age"] = keep.seconds
        self["history-bytes"] = keep.size
        self["history-file"] = None
        self["docroot"] = None
        self["secret"] = None
        self["drain"] = 10.0
        self["verbosity"] = 0
        self["warnings"] = []

    def opt_listen(self, endpoint: str) -> None:
        """
        Where to listen, as an endpoint string of Twisted, such as tcp:8888 or
        unix:/run/msgbus.sock; may be given several times.
        [default: tcp:8888:interface=127.0.0.1]
        """
        self["listen"].append(endpoint)

    def opt_allow_origin(self, origin: str) -> None:
        """
        An origin, such as https://app.example, whose web pages may publish
        and read here, beside the bus's own; may be given several times; '*'
        is any.
        """
        self["allow-origin"].append(origin)

    def opt_host(self, name: str) -> None:
        """
        A name by which clients on this machine, or a proxy in front of it,
        may call the bus, beside localhost and addresses; may be given several
        times; '*' is any.
        """
        self["host"].append(name)

    def opt_max_message(self, size: str) -> None:
        """
        The largest message that may be published, in bytes. [default: 1048576]
        """
        self["max-message"] = _bytes("--max-message", size)

    def opt_max_backlog(self, size: str) -> None:
        """
        How much may wait for a subscriber that does not read, in bytes; what
        becomes of it then, it may choose (?overflow=): if it does not, it gets
        no more until it has read that, and is told how many messages it missed.
        [default: 1000000]
        """
        self["max-backlog"] = _bytes("--max-backlog", size)

    def opt_max_waiting(self, size: str) -> None:
        """
        How much may wait for all subscribers together, in bytes; past it, those
        that are farthest behind are treated as past their backlog.
        [default: 268435456]
        """
        self["max-waiting"] = _bytes("--max-waiting", size)

    def opt_stall_timeout(self, seconds: str) -> None:
        """
        Seconds for which a subscriber may read nothing while something waits
        for it, before it is cut. [default: 300]
        """
        self["stall-timeout"] = _seconds("--stall-timeout", seconds)
        if self["stall-timeout"] == 0:
            raise usage.UsageError("--stall-timeout '0' would cut everybody.")

    def opt_history(self, count: str) -> None:
        """
        How many of the last messages of each channel are kept, for subscribers that
        come back or come late (?since=, ?last=); 0 keeps none. [default: 100]
        """
        if not re.fullmatch(r"[0-9]{1,9}", count):
            raise usage.UsageError(f"--history {count!r} is no number of messages.")
        self["history"] = int(count)

    def opt_history_age(self, seconds: str) -> None:
        """
        Seconds for which messages are kept. [default: as long as there is room]
        """
        self["history-age"] = _seconds("--history-age", seconds, digits=9)

    def opt_history_bytes(self, size: str) -> None:
        """
        How much is kept for all channels together, in bytes, with what messages
        and channels cost beyond their text; the oldest go first.
        [default: 67108864]
        """
        self["history-bytes"] = _bytes("--history-bytes", size)

    def opt_history_file(self, file: str) -> None:
        """
        A file that keeps the history over a restart; it is made if there is none.
        """
        # A daemon changes its folder.
        self["history-file"] = Path(file).absolute()

    def opt_docroot(self, folder: str) -> None:
        """
        A folder whose files are served beside the bus: not those that begin
        with a dot, nor what links lead to outside of it. Where there is no
        folder 'chatdemo', that name is the chat demo that comes with msgbus.
        """
        path = Path(folder)
        if folder.rstrip("/") == _CHAT_DEMO.name and not path.exists():
            path = _CHAT_DEMO
        if not path.is_dir():
            raise usage.UsageError(f"--docroot {folder!r} is no folder.")
        # A daemon changes its folder.
        self["docroot"] = path.absolute()

    opt_d = opt_docroot

    def opt_secret_file(self, file: str) -> None:
        """
        A file with a password that is asked for on everything, by Basic
        authentication, under any name. One line end at its end does not
        count.
        """
        try:
            secret = Path(file).read_bytes()
            mode = Path(file).stat().st_mode
        except OSError as error:
            raise usage.UsageError(f"--secret-file {file!r}: {error.strerror}.") from None
        if mode & stat.S_IROTH:
            self["warnings"].append(
                f"Everybody on this machine can read the password: chmod o= {file}"
            )
        self._take_secret(secret.removesuffix(b"\n").removesuffix(b"\r"))

    def opt_secret(self, secret: str) -> None:
        """
        The password itself. Others on this machine can see it: better give
        a --secret-file.
        """
        self["warnings"].append(
            "Everybody on this machine can see the password of --secret in the list of"
            " processes; --secret-file hides it"
        )
        self._take_secret(secret.encode("utf-8", "surrogateescape"))

    opt_s = opt_secret

    def _take_secret(self, secret: bytes) -> None:
        if not secret:
            raise usage.UsageError("An empty password keeps nobody out: give a longer one.")
        if self["secret"] is not None:
            raise usage.UsageError("There can be one password only.")
        self["secret"] = secret

    def opt_drain(self, seconds: str) -> None:
        """
        Seconds that a stop may take to deliver what subscribers are owed,
        before connections are cut. [default: 10]
        """
        self["drain"] = _seconds("--drain", seconds)

    def opt_verbose(self) -> None:
        """
        Log subscriptions; given twice or more, publications too.
        """
        self["verbosity"] += 1

    opt_v = opt_verbose

    def opt_version(self) -> None:
        """
        Print the version of msgbus, and end.
        """
        print(f"msgbus {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Read the command line; a mistake ends the process with one sentence,
        where Twisted would print all of the help before it.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]  # Twisted
        except usage.UsageError as error:
            raise SystemExit(f"msgbus: {error}  See twistd msgbus --help.") from None

    def getUsage(self, width: int | None = None) -> str:
        """
        The text of `--help`, with examples, which Twisted would wrap.
        """
        return super().getUsage(width) + _EXAMPLES

    def postOptions(self) -> None:
        """
        Find the operator's mistakes while there is somebody to read of them.
        """
        from twisted.internet import reactor

        if self["history-file"] is not None and not self["history"]:
            self["warnings"].append("--history 0 keeps nothing, in --history-file neither")
        if self["max-waiting"] < self["max-message"]:
            self["warnings"].append(
                "--max-waiting has no room for one message of --max-message:"
                " who gets such a one slowly is cut"
            )
        try:
            self["endpoints"] = {
                text: endpoint(reactor, text) for text in self["listen"] or [DEFAULT_LISTEN]
            }
            self["origins"] = Origins(self["allow-origin"], self["host"])
        except (CannotListen, Invalid) as error:
            raise usage.UsageError(str(error)) from None


def _bytes(option: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", value):
        raise usage.UsageError(f"{option} {value!r} is no number of bytes.")
    return int(value)


def _seconds(option: str, value: str, digits: int = 5) -> float:
    if not re.fullmatch(rf"[0-9]{{1,{digits}}}(\.[0-9]{{1,3}})?", value):
        raise usage.UsageError(f"{option} {value!r} is no number of seconds.")
    return float(value)
