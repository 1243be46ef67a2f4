"""
Tests for `msgbus.server.settings`.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from msgbus.message import Message
from msgbus.server.options import Options
from msgbus.server.settings import RELOADED, SettingsService
from msgbus.web.connections import Connections

from ..memory import Server, log_lines
from ..requests import get, post

# A value of each option that is not its default.
OTHERS = """
max-message = 10
max-backlog = 20000
max-waiting = 30000
stall-timeout = 40
history = 2
history-age = 3600
history-bytes = 50000
max-channels = 60
rate = "7/min"
byte-rate = "8/min"
max-subscriptions = 9
max-connections = 11
max-address-connections = 12
verbose = true
verbose-for = ["alice"]
"""


class SettingsTests(SynchronousTestCase):
    """
    Options that are read again.
    """

    def setUp(self):
        self.lines = log_lines(self, "msgbus")
        self.server = Server()
        self.file = Path(self.enterContext(TemporaryDirectory()), "msgbus.toml")

    def begin(self, text="", *arguments):
        """
        A bus with the options of a file with this text.
        """
        self.file.write_text(text)
        options = Options()
        options.parseOptions(["--config", str(self.file), *arguments])
        self.settings = SettingsService(
            options, self.server.site, self.server.resource, lambda: None
        )

    def reload(self, text):
        """
        What is logged when the file is read again, with this text.
        """
        self.file.write_text(text)
        self.lines.clear()
        self.settings.reload()
        return [line for _, line in self.lines]

    def in_force(self):
        """
        What the bus works with.
        """
        mount, site = self.server.resource.mount, self.server.site
        quotas, limits, keep = mount.quotas, mount.fanout.limits, mount.bus.history.keep
        rate, byte_rate = (bucket.limiter.rate for bucket in quotas._user_buckets)
        return {
            "max-message": {mount.bus.max_message, site.max_body, site.heads.max_body},
            "max-backlog": limits.backlog,
            "max-waiting": limits.waiting,
            "stall-timeout": limits.stall_seconds,
            "history": keep.count,
            "history-age": keep.seconds,
            "history-bytes": keep.size,
            "max-channels": keep.channels,
            "rate": rate,
            "byte-rate": byte_rate,
            "max-subscriptions": quotas._subscriptions.limit,
            "max-connections": site.connections.most,
            "max-address-connections": site.connections._of_address.limit,
            "verbose": mount.journal.verbosity.level,
            "verbose-for": mount.journal.verbosity.names,
        }

    def test_all(self):
        """
        Every option of the table takes effect, and has its default again when it is not in
        the file any more.
        """
        self.begin()
        self.server.site.connections = Connections(None, 1000)
        before = self.in_force()
        (line,) = self.reload(OTHERS)
        self.assertEqual(line, f"Read {self.file} again: {', '.join(RELOADED)} changed")
        after = self.in_force()
        self.assertEqual(after.keys(), RELOADED.keys())
        for name in RELOADED:
            self.assertNotEqual(after[name], before[name], name)
        self.reload("")
        self.assertEqual(self.in_force(), before)

    def test_nothing(self):
        """
        If nothing has changed, that is what is logged, and nothing begins anew.
        """
        self.begin()
        self.reload("rate = '1/h'")
        client = self.server.connect(client="192.0.2.1")
        client.send(post())
        self.assertIn(b" 204 ", client.received())
        self.assertEqual(
            self.reload("rate = '1/h'"), [f"Read {self.file} again: no limit has changed"]
        )
        client.send(post())
        self.assertIn(b" 429 ", client.received())
        self.reload("rate = '2/h'")
        client.send(post())
        self.assertIn(b" 204 ", client.received())

    def test_command_line_wins(self):
        """
        What the command line has given stays.
        """
        self.begin("history = 5", "--history", "7", "-v")
        self.reload("history = 6\nverbose = false\nmax-channels = 8")
        in_force = self.in_force()
        self.assertEqual((in_force["max-channels"], in_force["verbose"]), (8, 1))
        self.assertEqual(in_force["history"], 7)

    def test_restart(self):
        """
        Each other option that differs from the start is told, as long as it does.
        """
        self.begin("listen = 'tcp:1'\ndrain = 5\nhost = 'a.example'")
        changed = "listen = 'tcp:2'\nhost = 'a.example'\nworkers = 3"
        for _ in range(2):
            *told, _ = self.reload(changed)
            self.assertEqual(
                told,
                [
                    f"{name} has changed in {self.file}, which takes a restart"
                    for name in ("drain", "listen", "workers")
                ],
            )
        self.assertEqual(
            len(self.reload("listen = 'tcp:1'\ndrain = 5\nhost = 'a.example'")), 1
        )

    def test_mistake(self):
        """
        If the file has a mistake, or is not there, nothing changes, and an error says why.
        """
        self.begin("history = 5")
        before = self.in_force()
        for text, why in (
            ("history = 6\nhistory-age = 'x'", "line 2: --history-age 'x' is no number"),
            ("history = 6\nfoo = 1", "line 2: There is no option 'foo'"),
            ("history =", "is no TOML"),
        ):
            (line,) = self.reload(text)
            self.assertIn("The options stay as they were", line)
            self.assertIn(why, line)
            self.assertEqual(self.lines[0][0], LogLevel.error)
        self.file.unlink()
        self.settings.reload()
        self.assertIn("No such file", self.lines[-1][1])
        self.assertEqual(self.in_force(), before)

    def test_streams_stay(self):
        """
        A stream that is open stays open, and what is too much for it now is dropped.
        """
        self.begin()
        peer = self.server.connect()
        peer.send(get("/msgbus/foo?format=ndjson"))
        peer.received()
        peer.transport.producer.pauseProducing()
        self.reload("max-backlog = 100")
        for _ in range(10):
            self.server.bus.publish(Message("foo", b"x" * 100, "text/plain"))
            self.server.clock.advance(0)
        peer.transport.producer.resumeProducing()
        self.server.clock.advance(0)
        received = peer.received()
        self.assertEqual(received.count(b'"body"'), 1)
        self.assertIn(b'"gap"', received)

    def test_docs(self):
        """
        docs/operations.md has a table of all options that are read again.
        """
        page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
        section = page.partition("\n## Options in a file\n")[2].partition("\n## ")[0]
        self.assertEqual(
            re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE), list(RELOADED)
        )
