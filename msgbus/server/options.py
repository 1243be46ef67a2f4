"""
The options of `twistd msgbus`, checked before it becomes a daemon, while the operator can
still see what is wrong.
"""

from __future__ import annotations

import getopt
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python import usage

from .. import __version__
from ..access.addresses import X_FORWARDED_FOR, TrustedProxies
from ..access.limits import Rate
from ..access.rules import ANONYMOUS, Rules, Verb
from ..access.users import Users
from ..bus.history import Keep
from ..fanout.fanout import Limits
from ..message import Invalid
from ..redis import RedisAddress
from ..web.origins import Origins
from ..web.quotas import QuotaSizes
from .access_files import AccessFiles
from .certificates import read_authorities
from .config_file import ConfigFile
from .grant_files import GrantFiles
from .line_file import LineFile
from .listen import CannotListen, asks_clients, endpoint, is_private, on_loopback
from .logging import CannotLog, log_to
from .worker import Worker

__all__ = ["Options"]

# Where the demo is installed.  In a checkout it is not there, but in the top folder.
_CHAT_DEMO = Path(__file__).parents[1] / "chatdemo"

# What stands for the number of a worker.
_WORKER = "{worker}"

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
    The command line of `twistd msgbus`.  The docstrings of the methods are the help texts.
    """

    synopsis = "[options]"
    longdesc = "What is posted to /msgbus/CHANNEL comes to everybody who gets it."

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted
        # Twisted would print the docstrings with the line breaks of the source.
        self.docs = {name: " ".join(doc.split()) for name, doc in self.docs.items()}
        # The options of the command line, by their long names.
        self["given"] = frozenset()
        self["config"] = self["config-file"] = None
        self["listen"] = []
        self["trusted-proxy"] = []
        self["proxy-header"] = None
        self["user-header"] = None
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
        self["max-channels"] = keep.channels
        self["history-file"] = None
        self["log"] = None
        self["workers"] = 1
        self["arguments"] = []
        self["admin"] = self["admin-secret"] = None
        self["docroot"] = None
        self["secret"] = None
        self["users"] = None
        self["access"] = None
        self["access-files"] = self["users-and-rules"] = None
        self["check-access"] = None
        self["link-keys"] = None
        self["jwt-key"] = []
        self["jwt-audience"] = ""
        self["grant-files"] = None
        self["client-ca"] = self["authorities"] = None
        self["drain"] = 10.0
        self["max-connections"] = None
        self["max-memory"] = None
        self["max-address-connections"] = 1000
        sizes = QuotaSizes()
        self["rate"] = sizes.publications
        self["byte-rate"] = sizes.content_bytes
        self["max-subscriptions"] = sizes.subscriptions
        self["verbosity"] = 0
        self["verbose-for"] = []
        self["log-json"] = False
        self["access-log"] = None
        self["log-files"] = []
        self["warnings"] = []

    def opt_config(self, file: str) -> None:
        """
        A file of options, in TOML: each by its long name, as in max-message = 65536; those
        that may be given several times as lists. The command line wins. Limits and the
        verbosity are read again at SIGHUP.
        """
        # A daemon changes its working directory.
        self["config"] = Path(file).absolute()

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
        and read here, as the bus's own pages may; may be given several times;
        '*' is any.
        """
        self["allow-origin"].append(origin)

    def opt_host(self, name: str) -> None:
        """
        A host name by which clients on this machine, or a proxy in front of the
        bus, may call it, in addition to localhost and IP addresses; may be given
        several times; '*' is any.
        """
        self["host"].append(name)

    def opt_trusted_proxy(self, network: str) -> None:
        """
        The address of a proxy in front of the bus, or its network, such as 10.0.0.0/8,
        or 'unix' for all who connect to a Unix socket; may be given several times. The
        addresses of clients that it names are believed, for limits and logs.
        """
        self["trusted-proxy"].append(network)

    def opt_proxy_header(self, name: str) -> None:
        """
        The header in which trusted proxies name their clients: x-forwarded-for or
        forwarded. [default: x-forwarded-for]
        """
        self["proxy-header"] = name

    def opt_user_header(self, name: str) -> None:
        """
        The header in which trusted proxies name the user whom they have signed in, such
        as X-Remote-User. Believed from their addresses only; the proxy has to remove it
        from what clients send. The rules of --access hold for these users, who need not
        be in --users.
        """
        if not re.fullmatch(r"[A-Za-z0-9-]{1,100}", name):
            raise usage.UsageError(f"--user-header {name[:100]!r} is no name of a header.")
        self["user-header"] = name

    def opt_max_message(self, size: str) -> None:
        """
        The largest message that may be published, in bytes. [default: 1048576]
        """
        self["max-message"] = _bytes("--max-message", size)

    def opt_max_backlog(self, size: str) -> None:
        """
        How many bytes of messages may wait for a subscriber that reads too slowly.
        Past that, messages are dropped for it until it has read what waits, and it is
        told how many it missed; with ?overflow= it may choose otherwise.
        [default: 1000000]
        """
        self["max-backlog"] = _bytes("--max-backlog", size)

    def opt_max_waiting(self, size: str) -> None:
        """
        How many bytes may wait for all subscribers together. Past that, those that
        are farthest behind are treated as past --max-backlog.
        [default: 268435456]
        """
        self["max-waiting"] = _bytes("--max-waiting", size)

    def opt_stall_timeout(self, seconds: str) -> None:
        """
        Seconds after which the connection of a subscriber is cut if something waits
        for it and it reads nothing, or of a publisher of a stream if the rest of a
        message does not come. [default: 300]
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
        Seconds for which messages are kept at most. [default: as long as there is
        room]
        """
        self["history-age"] = _seconds("--history-age", seconds, digits=9)

    def opt_history_bytes(self, size: str) -> None:
        """
        How many bytes the history of all channels may take together, with what it
        takes to keep a message or a channel beyond its text; the newest message of each
        channel goes last. [default: 67108864]
        """
        self["history-bytes"] = _bytes("--history-bytes", size)

    def opt_max_channels(self, count: str) -> None:
        """
        How many channels may have a history; when there are more, those that have been
        silent for longest lose theirs. [default: 10000]
        """
        if not re.fullmatch(r"[1-9][0-9]{0,8}", count):
            raise usage.UsageError(f"--max-channels {count!r} is no number of channels.")
        self["max-channels"] = int(count)

    def opt_history_file(self, file: str) -> None:
        """
        A file that keeps the history over a restart; it is made if there is none.
        """
        # A daemon changes its working directory.
        self["history-file"] = Path(file).absolute()

    def opt_log(self, url: str) -> None:
        """
        Where the messages are, if several processes serve one bus: a stream in Redis, as
        redis://[user:password@]host[:port]/[db]?stream=msgbus, or with rediss:// for
        TLS, or redis+unix:///path/of/socket?db=0, or where sentinels tell which Redis is
        the master, redis+sentinel://host[:port],host[:port]/[db]?master=NAME. All of them
        have to be given the same. ?password-file=FILE keeps the password out of the list
        of processes; with ?wait=N, a publication is answered when N replicas have it.
        [default: in the memory of this process]
        """

        hidden: list[str] = []

        def read_password(file: str) -> str:
            hidden.append(self._read_secret("log", file).decode())
            if not hidden[-1]:
                raise usage.UsageError(f"--log: there is no password in {file!r}.")
            return hidden[-1]

        try:
            address = self["log"] = RedisAddress.parse(url, read_password)
        except Invalid as error:
            raise usage.UsageError(f"--log: {error}") from None
        if address.server.password not in ("", *hidden):
            self._warn_of_password("log", "?password-file=FILE in its URL")

    def opt_workers(self, count: str) -> None:
        """
        How many processes serve the bus at the same ports, to use as many cores of this
        machine; takes --log. Limits of connections and rates hold for each of them.
        [default: 1]
        """
        if not re.fullmatch(r"[1-9][0-9]{0,2}", count):
            raise usage.UsageError(f"--workers {count!r} is no number of processes.")
        self["workers"] = int(count)

    def opt_admin(self, endpoint: str) -> None:
        """
        Where the operator finds metrics for Prometheus and whether the bus works, as an
        endpoint string: on the loopback unless it says otherwise, and on other addresses
        only with --admin-secret-file. With --workers, each of them has an address of its
        own: {worker} in the string stands for its number, from 1.
        """
        self["admin"] = endpoint

    def opt_admin_secret_file(self, file: str) -> None:
        """
        A file with the password that is asked for at --admin, by Basic authentication with
        any name.
        """
        self["admin-secret"] = self._read_secret("admin-secret-file", file)
        if not self["admin-secret"]:
            raise usage.UsageError(f"--admin-secret-file: there is none in {file!r}.")

    def opt_docroot(self, folder: str) -> None:
        """
        A folder whose files are served beside the bus, except those whose
        names begin with a dot, and those outside of it to which links lead. If
        there is no folder 'chatdemo', that name is the chat demo that comes with
        msgbus.
        """
        path = Path(folder)
        if folder.rstrip("/") == _CHAT_DEMO.name and not path.exists():
            path = _CHAT_DEMO
        if not path.is_dir():
            raise usage.UsageError(f"--docroot {folder!r} is no folder.")
        # A daemon changes its working directory.
        self["docroot"] = path.absolute()

    opt_d = opt_docroot

    def opt_secret_file(self, file: str) -> None:
        """
        A file with a password that every request has to give, by Basic
        authentication, under any name. One line end at the end of the file is
        not part of it.
        """
        self._take_secret(self._read_secret("secret-file", file))

    def opt_secret(self, secret: str) -> None:
        """
        The password itself. Others on this machine can see it in the list of
        processes; --secret-file hides it.
        """
        self._warn_of_password("secret", "--secret-file")
        self._take_secret(secret.encode("utf-8", "surrogateescape"))

    opt_s = opt_secret

    def _warn_of_password(self, option: str, instead: str) -> None:
        """
        Warn of a password that is the value of an option, unless it is in a file that not
        everybody can read.

        Args:
            instead: What hides it.
        """
        if option in self["given"]:
            self["warnings"].append(
                f"Everybody on this machine can see the password of --{option} in the list"
                f" of processes; {instead} hides it"
            )
        elif self["config"] is not None:
            self._warn_if_readable(self["config"], "password")

    def _warn_if_readable(self, file: Path, what: str) -> None:
        if file.stat().st_mode & stat.S_IROTH:
            self["warnings"].append(
                f"Everybody on this machine can read the {what}: chmod o= {file}"
            )

    def _read_secret(self, option: str, file: str) -> bytes:
        """
        The password in a file, without one line end at its end.
        """
        try:
            secret = Path(file).read_bytes()
            self._warn_if_readable(Path(file), "password")
        except OSError as error:
            raise usage.UsageError(f"--{option} {file!r}: {error.strerror}.") from None
        return secret.removesuffix(b"\n").removesuffix(b"\r")

    def _take_secret(self, secret: bytes) -> None:
        if not secret:
            raise usage.UsageError("An empty password keeps nobody out: give a longer one.")
        if self["secret"] is not None:
            raise usage.UsageError("There can be one password only.")
        self["secret"] = secret

    def opt_users(self, file: str) -> None:
        """
        A file of users and hashes of their passwords, as msgbus-passwd and htpasswd -B
        write it. Everybody has to give a name and password of it, unless the rules of
        --access allow something to those who do not. Read again at SIGHUP.
        """
        # A daemon changes its working directory.
        self["users"] = Path(file).absolute()

    def opt_access(self, file: str) -> None:
        """
        A file of rules that say who may publish and subscribe to what; see
        docs/access.md. Without it, every user may do everything. Read again at SIGHUP.
        """
        self["access"] = Path(file).absolute()

    def opt_check_access(self, question: str) -> None:
        """
        Do not serve, but say whether somebody may do something, and by which line of
        --access, as for 'alice publish chat/x'; '@anonymous' is somebody without a name.
        """
        self["check-access"] = question

    def opt_client_ca(self, file: str) -> None:
        """
        A file of certificates, in PEM, of authorities. At endpoints ssl:, a client may show
        a certificate that one of them has issued; its common name is then the name of a
        user, who needs no password. Without --users or --secret-file, nobody else may do
        anything, unless the rules of --access allow it. Read again at SIGHUP.
        """
        self["client-ca"] = Path(file).absolute()

    def opt_link_keys(self, file: str) -> None:
        """
        A file of keys, as msgbus-sign makes it. Whoever shows a link that was signed with
        one of them may do what the link says. Without --users or --secret-file, nobody
        else may do anything. Read again at SIGHUP.
        """
        self["link-keys"] = self._secret_file("link-keys", file)

    def opt_jwt_key(self, key: str) -> None:
        """
        An algorithm and a file with a key for it, as ES256:issuer.pem: whoever shows a
        JWT that this key verifies may do what its claims say; may be given several
        times. A secret of HS256 is in the file as it is, every other key as PEM. Without
        --users or --secret-file, nobody else may do anything. Read again at SIGHUP.
        """
        from ..access.tokens import ALGORITHMS

        algorithm, colon, file = key.partition(":")
        if algorithm not in ALGORITHMS or not colon or not file:
            raise usage.UsageError(
                f"--jwt-key {key!r} is not ALGORITHM:FILE, with one of"
                f" {', '.join(ALGORITHMS)}."
            )
        secret = algorithm.startswith("HS")
        path = self._secret_file("jwt-key", file) if secret else Path(file).absolute()
        self["jwt-key"].append((algorithm, path))

    def opt_jwt_audience(self, name: str) -> None:
        """
        The name of this bus, which has to be in the claim 'aud' of each JWT. Without it,
        a JWT with 'aud' is refused.
        """
        self["jwt-audience"] = name

    def _secret_file(self, option: str, file: str) -> Path:
        """
        The absolute path of a file of secrets; a daemon changes its working directory.
        """
        path = Path(file).absolute()
        try:
            self._warn_if_readable(path, f"keys of --{option}")
        except OSError as error:
            raise usage.UsageError(f"--{option} {file!r}: {error.strerror}.") from None
        return path

    def opt_rate(self, rate: str) -> None:
        """
        How many messages each user, and each address, may publish, such as 100/s,
        1000/min or 60/30s; 'none' is any number. Addresses of this machine are not
        limited. [default: 20000/10s]
        """
        self["rate"] = _rate("--rate", rate)

    def opt_byte_rate(self, rate: str) -> None:
        """
        How many bytes of messages each user, and each address, may publish, such as
        1M/s, 64M/min; 'none' is any number. [default: 256M/10s]
        """
        self["byte-rate"] = _rate("--byte-rate", rate)

    def opt_max_subscriptions(self, count: str) -> None:
        """
        How many streams each user, and each address, may have open at once; 'none' is
        any number. [default: 1000]
        """
        self["max-subscriptions"] = _count("--max-subscriptions", count)

    def opt_max_connections(self, count: str) -> None:
        """
        How many connections there may be. [default: as many as the limit of open files
        has room for]
        """
        self["max-connections"] = _count("--max-connections", count)

    def opt_max_address_connections(self, count: str) -> None:
        """
        How many connections there may be from one address; 'none' is any number.
        Addresses of this machine, and those of trusted proxies, are not limited.
        [default: 1000]
        """
        self["max-address-connections"] = _count("--max-address-connections", count)

    def opt_max_memory(self, size: str) -> None:
        """
        How many bytes of memory the process may take. Near that, new subscriptions are
        refused. [default: what systemd or the container allows, divided by --workers]
        """
        self["max-memory"] = _bytes("--max-memory", size)

    def opt_drain(self, seconds: str) -> None:
        """
        Seconds that a stop may take to answer requests and to deliver what
        subscribers are owed, before connections are cut. [default: 10]
        """
        self["drain"] = _seconds("--drain", seconds)

    def opt_verbose(self) -> None:
        """
        Log subscriptions and what is refused; given twice or more, publications too.
        """
        self["verbosity"] += 1

    opt_v = opt_verbose

    def opt_verbose_for(self, who: str) -> None:
        """
        A user, an address, or a network such as 192.0.2.0/24, of whom everything is
        logged, as with -vv; may be given several times.
        """
        if not who:
            raise usage.UsageError("--verbose-for takes the name of a user or an address.")
        self["verbose-for"].append(who)

    def opt_access_log(self, file: str) -> None:
        """
        A file to which a line is written for each request, in the Combined Log Format,
        without its query; at the end of the answer. It costs much of the speed at which
        the bus answers publications.
        """
        self["access-log"] = file

    def opt_log_json(self) -> None:
        """
        Log one JSON object a line.
        """
        self["log-json"] = True

    def opt_version(self) -> None:
        """
        Print the version of msgbus, and end.
        """
        print(f"msgbus {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Read the command line.  A mistake ends the process with one sentence; Twisted would
        print the whole help before it.
        """
        arguments = sys.argv[1:] if options is None else list(options)
        self["arguments"], self["given"] = arguments, self._names(arguments)
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]  # Twisted
        except usage.UsageError as error:
            raise SystemExit(f"msgbus: {error}  See twistd msgbus --help.") from None

    def _names(self, arguments: list[str]) -> frozenset[str]:
        """
        The long names of these options.
        """
        try:
            given, _ = getopt.getopt(arguments, self.shortOpt, self.longOpt)
        except getopt.GetoptError:
            # Twisted says what is wrong.
            return frozenset()
        return frozenset(self.synonyms[option.lstrip("-")] for option, _ in given)

    def _take_config(self) -> None:
        """
        Take the options of `--config` that the command line does not give.

        Raises:
            Invalid: They cannot be used.
        """
        if self["config"] is None:
            return
        config = ConfigFile.read(self["config"], self)
        for name in config.values:
            if name not in self["given"]:
                config.apply(name, self)
        self["config-file"] = config

    def getUsage(self, width: int | None = None) -> str:
        """
        The text of `--help`.  The examples are added here, because Twisted would wrap their
        lines.
        """
        return super().getUsage(width) + _EXAMPLES

    def postOptions(self) -> None:
        """
        Check what depends on more than one option, and parse endpoints and origins.

        Raises:
            UsageError: An endpoint, an origin or a host name is wrong.
        """
        try:
            self._take_config()
        except Invalid as error:
            raise usage.UsageError(str(error)) from None
        if self["history-file"] is not None and not self["history"]:
            self["warnings"].append("--history 0 keeps nothing, in --history-file neither")
        if self["history-file"] is not None and self["log"] is not None:
            raise usage.UsageError(
                "With --log, the history is in Redis: leave out --history-file."
            )
        if self["workers"] > 1 and self["log"] is None:
            raise usage.UsageError(
                "Several --workers serve one bus only if its messages are in Redis: give a"
                " --log."
            )
        if self["max-waiting"] < self["max-message"]:
            self["warnings"].append(
                "--max-waiting has no room for one message of --max-message:"
                " who gets such a one slowly is cut"
            )
        self._check_grants()
        self._check_access()
        listen = self["listen"] or [DEFAULT_LISTEN]
        proxied = [text for text in listen if text.startswith("haproxy:")]
        if proxied and not self._is_guarded():
            self["warnings"].append(
                "There is no password: everybody whom the proxy lets through to"
                f" {', '.join(proxied)} can read and publish all messages. Ask for one by"
                " --secret-file, or have the proxy ask"
            )
        if self["client-ca"] is not None and not any(map(asks_clients, listen)):
            raise usage.UsageError(
                "Only endpoints ssl: ask for client certificates: --listen at one, such as"
                " ssl:8443:privateKey=key.pem:certKey=cert.pem."
            )
        try:
            if self["client-ca"] is not None:
                self["authorities"] = read_authorities(self["client-ca"])
            self["endpoints"] = self._endpoints(listen)
            self["admin"] = self._admin()
            self["origins"] = Origins(self["allow-origin"], self["host"])
            self["proxies"] = self._proxies()
        except (CannotListen, Invalid) as error:
            raise usage.UsageError(str(error)) from None
        self._begin_log()

    def _begin_log(self) -> None:
        """
        Have the log go where it should.

        Raises:
            UsageError: It cannot.
        """
        from twisted.internet import reactor

        is_worker = self["worker"] is not None
        runner = getattr(self, "parent", None)
        try:
            file = log_to(runner, reactor, self["log-json"], is_worker)
            self["access-log"] = self._access_log()
        except CannotLog as error:
            raise usage.UsageError(str(error)) from None
        files = (file, self["access-log"])
        self["log-files"] = [each for each in files if each is not None]

    def _access_log(self) -> LineFile | None:
        """
        The access log.  The parent of workers answers no requests.

        Raises:
            CannotLog: It cannot be opened.
        """
        path = self["access-log"]
        if path is None or (self["workers"] > 1 and self["worker"] is None):
            return None
        try:
            return LineFile(path)
        except OSError as error:
            raise CannotLog(f"Cannot write to {path}: {error.strerror}.") from None

    def _endpoints(self, listen: Sequence[str]) -> dict[str, IStreamServerEndpoint]:
        """
        Where to listen, by the endpoint strings.  A worker listens at the sockets that it
        has inherited.

        Raises:
            CannotListen: It is impossible there.
        """
        from twisted.internet import reactor

        self["worker"] = worker = Worker.from_environment()
        texts = list(dict.fromkeys(listen))
        sockets = [None] * len(texts) if worker is None else worker.sockets
        return {
            text: endpoint(reactor, text, self["authorities"], descriptor)
            for text, descriptor in zip(texts, sockets, strict=True)
        }

    def _admin(self) -> tuple[str, IStreamServerEndpoint] | None:
        """
        Where the operator's address is, with its endpoint string.

        Raises:
            CannotListen: It is impossible there.
            Invalid: Strangers could reach it.
        """
        from twisted.internet import reactor

        text = self["admin"]
        if text is None:
            if self["admin-secret"] is not None:
                raise Invalid("The password of --admin-secret-file is for --admin.")
            return None
        if self["workers"] > 1 and _WORKER not in text:
            raise Invalid(
                f"With --workers, each has an address of its own for the operator: write"
                f" {_WORKER} into --admin where the number of the worker is to be, as in"
                f" tcp:909{_WORKER} or unix:admin-{_WORKER}.sock."
            )
        worker = self["worker"]
        number = 1 if worker is None else worker.number
        text = on_loopback(text.replace(_WORKER, str(number)))
        if self["admin-secret"] is None and not is_private(text):
            raise Invalid(
                "With --admin at an address that others can reach, give a password by"
                " --admin-secret-file."
            )
        return text, endpoint(reactor, text)

    def _is_guarded(self) -> bool:
        """
        Is anything asked for: a password, a link or a token, or a certificate?
        """
        asked = ("secret", "users-and-rules", "grant-files", "client-ca")
        return any(self[name] is not None for name in asked)

    def _check_grants(self) -> None:
        """
        Read the files of keys.

        Raises:
            UsageError: They cannot be used.
        """
        keys, audience = tuple(self["jwt-key"]), self["jwt-audience"]
        if audience and not keys:
            raise usage.UsageError("--jwt-audience is about JWTs: give a --jwt-key.")
        if self["link-keys"] is None and not keys:
            return
        files = GrantFiles(self["link-keys"], keys, audience)
        try:
            files.load()
        except Invalid as error:
            raise usage.UsageError(str(error)) from None
        self["grant-files"] = files

    def _proxies(self) -> TrustedProxies:
        """
        The proxies that are trusted.

        Raises:
            Invalid: They are not given as they should be.
        """
        header = self["proxy-header"] or X_FORWARDED_FOR
        if self["user-header"] and not (self["trusted-proxy"] and self["users"]):
            raise Invalid("With --user-header, give --trusted-proxy and --users.")
        if self["trusted-proxy"]:
            return TrustedProxies.parse(",".join(self["trusted-proxy"]), header)
        if self["proxy-header"]:
            raise Invalid("Only a proxy is believed: give its address by --trusted-proxy.")
        return TrustedProxies()

    def _check_access(self) -> None:
        """
        Read the files of users and rules.

        Raises:
            UsageError: They cannot be used, or the options contradict each other.
            SystemExit: A question was answered; 0 if the answer is yes, otherwise 1.
        """
        if self["users"] is None and (self["client-ca"] is None or self["access"] is None):
            if self["access"] is not None or self["check-access"] is not None:
                raise usage.UsageError("Rules are about users: give their file by --users.")
            return
        if self["secret"] is not None:
            raise usage.UsageError(
                f"With --{'access' if self['users'] is None else 'users'} there is no"
                " password for everybody."
            )
        files = AccessFiles(self["users"], self["access"])
        try:
            users, rules = files.load()
            self["access-files"], self["users-and-rules"] = files, (users, rules)
            if self["check-access"] is None:
                return
            allowed, sentence = _answer(
                self["check-access"], users, rules, self["client-ca"] is not None
            )
        except Invalid as error:
            raise usage.UsageError(str(error)) from None
        print(sentence)
        raise SystemExit(0 if allowed else 1)


def _answer(
    question: str, users: Users, rules: Rules | None, certified: bool
) -> tuple[bool, str]:
    """
    The answer to `--check-access`, and a sentence that says why.

    Args:
        certified: Whether client certificates may name users who are not in the file.
    """
    words = question.split()
    if len(words) != 3 or words[1] not in [verb.value for verb in Verb]:
        raise usage.UsageError(
            "--check-access asks 'NAME publish CHANNEL', with one of publish, subscribe"
            f" and relay, not {question!r}."
        )
    name, verb, channel = words
    if name != ANONYMOUS and name not in users and not certified:
        return False, f"There is no user {name!r}."
    if rules is None:
        if name == ANONYMOUS:
            return False, "Everybody has to give a name and a password."
        return True, "Without --access, every user may do everything."
    decision = rules.decide(None if name == ANONYMOUS else name, Verb(verb), channel)
    return decision.allowed, decision.sentence


def _rate(option: str, value: str) -> Rate | None:
    if value == "none":
        return None
    try:
        return Rate.parse(value)
    except Invalid as error:
        raise usage.UsageError(f"{option}: {error}") from None


def _count(option: str, value: str) -> int | None:
    if value == "none":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", value):
        raise usage.UsageError(f"{option} {value!r} is no number, such as 100, or none.")
    return int(value)


def _bytes(option: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", value):
        raise usage.UsageError(f"{option} {value!r} is no number of bytes.")
    return int(value)


def _seconds(option: str, value: str, digits: int = 5) -> float:
    if not re.fullmatch(rf"[0-9]{{1,{digits}}}(\.[0-9]{{1,3}})?", value):
        raise usage.UsageError(f"{option} {value!r} is no number of seconds.")
    return float(value)
