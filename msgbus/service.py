"""
`twistd msgbus`: the options of an operator, and the service that they make.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Sequence
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python import usage

from . import __version__
from .answers import is_loopback
from .bus import Bus
from .message import Invalid
from .origin import Origins
from .web import BusResource, Root, Site

__all__ = ["Options", "makeService", "BusService", "endpoint"]

DEFAULT_LISTEN = "tcp:8888:interface=127.0.0.1"

# What an operator would have written, had he thought of it: room for many
# clients that come at once, and a socket file that is not everybody's.
_BACKLOG = re.compile(r"(haproxy:)?(tcp|tcp6|ssl|unix):")
_DEFAULTS = {"backlog": "1024", "mode": "660"}


_EXAMPLES = """
Examples:

  twistd -n msgbus
      at http://localhost:8888/msgbus/, for this machine only

  twistd -n msgbus --listen tcp:8888
      for everybody who can reach this machine

  twistd -n msgbus --listen ssl:8443:privateKey=key.pem:certKey=cert.pem
      over TLS

  curl http://localhost:8888/msgbus/foo
      subscribes

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
        self["verbosity"] = 0

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
        if not (size.isascii() and size.isdigit() and len(size) < 16):
            raise usage.UsageError(f"--max-message {size!r} is no number of bytes.")
        self["max-message"] = int(size)

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

        self["endpoints"] = [
            endpoint(reactor, text) for text in self["listen"] or [DEFAULT_LISTEN]
        ]
        try:
            self["origins"] = Origins(self["allow-origin"], self["host"])
        except Invalid as error:
            raise usage.UsageError(str(error)) from None


def makeService(options: Options) -> Service:
    """
    A bus with these options, ready to be started.
    """
    from twisted.internet import reactor

    bus = Bus(max_message=options["max-message"])
    root = Root()
    root.putChild(
        b"msgbus",
        BusResource(
            bus,
            cast(IReactorTime, reactor),
            origins=options["origins"],
            verbosity=options["verbosity"],
        ),
    )
    return BusService(options["endpoints"], Site(root, max_body=bus.max_message))


class BusService(Service):
    """
    Owns the ports: all of them listen, or the start fails.
    """

    _log = Logger()

    def __init__(
        self, endpoints: Sequence[IStreamServerEndpoint], factory: IProtocolFactory
    ) -> None:
        self._endpoints = endpoints
        self._factory = factory
        self._ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """
        Listen, while the process may still be root.
        """
        for endpoint in self._endpoints:
            listening = endpoint.listen(self._factory)
            failures: list[Any] = []
            listening.addCallbacks(self._ports.append, failures.append)
            for failure in failures:
                failure.raiseException()

    def startService(self) -> None:
        """
        Listen, unless that is done; `twist` knows no privileged start.
        """
        super().startService()  # type: ignore[no-untyped-call]  # Twisted
        if not self._ports:
            self.privilegedStartService()
        self._raise_file_limit()
        self._warn_of_strangers()

    def stopService(self) -> Deferred[Any]:
        """
        Stop listening.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    def _raise_file_limit(self) -> None:
        """
        Each subscriber is an open file.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            self._log.warn(
                "The limit of open files stays at {soft}: {error}", soft=soft, error=error
            )
            return
        self._log.info("Up to {limit} open files, each connection being one", limit=hard)

    def _warn_of_strangers(self) -> None:
        hosts = [port.getHost() for port in self._ports]
        exposed = [
            f"{host.host}:{host.port}"
            for host in hosts
            if isinstance(host, IPv4Address | IPv6Address) and not is_loopback(host)
        ]
        if exposed:
            self._log.warn(
                "There is no password: everybody who can reach {exposed} can read and"
                " publish all messages. For this machine only, use"
                " --listen " + DEFAULT_LISTEN,
                exposed=", ".join(exposed),
            )


def endpoint(reactor: object, text: str) -> IStreamServerEndpoint:
    """
    The endpoint that a string describes.

    Raises:
        UsageError: It describes none, or one whose files cannot be used.
    """
    try:
        parsed = serverFromString(reactor, _with_defaults(text))
    except Exception as error:  # Each kind of endpoint raises its own.
        raise usage.UsageError(f"Cannot --listen {text}: {error}") from error
    return cast(IStreamServerEndpoint, parsed)


def _with_defaults(endpoint: str) -> str:
    """
    The endpoint string with our defaults for what it does not say.
    """
    match = _BACKLOG.match(endpoint)
    if match is None:
        return endpoint
    for name, value in _DEFAULTS.items():
        if f":{name}=" not in endpoint and (name != "mode" or match[2] == "unix"):
            endpoint += f":{name}={value}"
    return endpoint
