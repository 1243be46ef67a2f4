"""
Tests for `msgbus.service`.
"""

import resource
from types import SimpleNamespace
from unittest import mock

from twisted.application.service import IService
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from msgbus.origin import Origins
from msgbus.service import BusService, Options, endpoint, makeService


class OptionTests(SynchronousTestCase):
    """
    What an operator may say.
    """

    def parse(self, *arguments):
        options = Options()
        options.parseOptions(arguments)
        return options

    def test_defaults(self):
        """
        Without a word, the bus is for this machine alone.
        """
        options = self.parse()
        self.assertEqual(options["max-message"], 1024 * 1024)
        self.assertEqual(options["origins"], Origins())
        self.assertEqual(options["verbosity"], 0)
        self.assertEqual(len(options["endpoints"]), 1)

    def test_several(self):
        """
        Places to listen, origins and hosts may be given several times.
        """
        options = self.parse(
            *("--listen", "tcp:1", "--listen", "unix:x"),
            *("--allow-origin", "https://a.example", "--allow-origin", "https://b.example"),
            *("--host", "a.example", "--host", "b.example"),
        )
        self.assertEqual(len(options["endpoints"]), 2)
        self.assertEqual(
            options["origins"],
            Origins(["https://a.example", "https://b.example"], ["a.example", "b.example"]),
        )

    def test_verbosity(self):
        """
        Each v counts.
        """
        for arguments, verbosity in ((["-v"], 1), (["-vvv"], 3), (["--verbose", "-v"], 2)):
            self.assertEqual(self.parse(*arguments)["verbosity"], verbosity)

    def test_mistakes(self):
        """
        A mistake is said in a sentence, with what was given.
        """
        for arguments, sentence in (
            (["--listen", "nowhere:1"], "Cannot --listen nowhere:1: Unknown endpoint type"),
            (["--listen", "tcp:http:x=y"], "Cannot --listen tcp:http:x=y: "),
            (
                ["--listen", "ssl:1:privateKey=/nowhere"],
                "Cannot --listen ssl:1:.*No such file",
            ),
            (["--max-message", "1M"], "--max-message '1M' is no number"),
            (["--max-message", "-1"], "--max-message '-1' is no number"),
            (["--allow-origin", "a.example"], "'a.example' is no origin"),
            (["--host", "http://x"], "'http://x' is no host"),
            (["extra"], "."),
        ):
            with self.assertRaisesRegex(UsageError, sentence):
                self.parse(*arguments)

    def test_help(self):
        """
        The help has each option with its words, and examples.
        """
        text = str(Options())
        for word in (
            "--listen",
            "--allow-origin",
            "--host",
            "--max-message",
            "-v",
            "Examples",
        ):
            self.assertIn(word, text)

    def test_make_service(self):
        """
        Options make a service.
        """
        verifyObject(IService, makeService(self.parse("--max-message", "7")))


class EndpointTests(SynchronousTestCase):
    """
    Endpoint strings, and what we add to them.
    """

    def listen(self, text):
        reactor = MemoryReactorClock()
        endpoint(reactor, text).listen(mock.sentinel.factory)
        return reactor

    def test_backlog(self):
        """
        An endpoint that names no backlog gets a long one.
        """
        for text, backlog in (
            ("tcp:1", 1024),
            ("tcp:1:backlog=7", 7),
            ("tcp:1:interface=\\:\\:1", 1024),
        ):
            self.assertEqual(self.listen(text).tcpServers[0][2], backlog)

    def test_unix(self):
        """
        A socket file is for its owner and group, unless it says otherwise.
        """
        for text, mode in (("unix:/x", 0o660), ("unix:/x:mode=666", 0o666)):
            _, _, backlog, given, _ = self.listen(text).unixServers[0]
            self.assertEqual((backlog, given), (1024, mode))


class BusServiceTests(SynchronousTestCase):
    """
    The service in the life of a process.
    """

    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.lines = []

        def observe(event):
            if event["log_namespace"].startswith("msgbus"):
                text = event["log_format"].format(**event)
                self.lines.append((event["log_level"], text))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)

    def service(self, *texts):
        return BusService([endpoint(self.reactor, text) for text in texts], None)

    def listening(self, *addresses):
        """
        A service that has started, and got these addresses.
        """
        service = self.service()
        service._ports = [SimpleNamespace(getHost=lambda a=a: a) for a in addresses]
        service.startService()

    def warnings(self):
        return [text for level, text in self.lines if level == LogLevel.warn]

    def test_listens_once(self):
        """
        It listens at the privileged start, or at the start if there was no
        privileged one.
        """
        for starts in (["privilegedStartService", "startService"], ["startService"]):
            service = self.service("tcp:1:interface=127.0.0.1", "tcp:2:interface=127.0.0.1")
            for start in starts:
                getattr(service, start)()
            self.assertEqual([server[0] for server in self.reactor.tcpServers], [1, 2])
            self.reactor.tcpServers.clear()

    def test_port_in_use(self):
        """
        A port that cannot be had stops the start.
        """

        def refuse(*args, **kwargs):
            raise CannotListenError("127.0.0.1", 1, OSError("in use"))

        self.reactor.listenTCP = refuse
        with self.assertRaises(CannotListenError):
            self.service("tcp:1").startService()

    def test_stops(self):
        """
        When it stops, nothing listens.
        """
        service = self.service("tcp:1")
        service.startService()
        self.successResultOf(service.stopService())
        self.assertEqual(service._ports, [])

    def test_file_limit(self):
        """
        It raises the limit of open files to the hard one, and says so.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
        self.service("tcp:1:interface=127.0.0.1").startService()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))
        self.assertIn(str(hard), self.lines[0][1])

    def test_file_limit_refused(self):
        """
        If it may not, it says so and goes on.
        """
        with mock.patch("resource.setrlimit", side_effect=ValueError("not allowed")):
            self.service("tcp:1:interface=127.0.0.1").startService()
        self.assertRegex(self.warnings()[0], r"stays at \d+: not allowed")

    def test_exposed(self):
        """
        Beyond the loopback, one warning says who can read and publish, and
        how to change it.
        """
        self.listening(
            IPv4Address("TCP", "0.0.0.0", 1),
            IPv6Address("TCP", "2001:db8::1", 2),
            IPv4Address("TCP", "127.0.0.1", 3),
        )
        (warning,) = self.warnings()
        self.assertRegex(warning, r"everybody.* 0\.0\.0\.0:1, 2001:db8::1:2 .*--listen")
        self.assertNotIn("127.0.0.1:3", warning)

    def test_not_exposed(self):
        """
        On the loopback and on a socket file, it does not warn.
        """
        self.listening(
            IPv4Address("TCP", "127.0.0.1", 1),
            IPv6Address("TCP", "::1", 1),
            UNIXAddress(b"/x"),
        )
        self.assertEqual(self.warnings(), [])
