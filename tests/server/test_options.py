"""
Tests for `msgbus.server.options`.
"""

import re
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from msgbus.server.options import Options
from msgbus.web.origins import Origins


class OptionTests(SynchronousTestCase):
    """
    The options of `twistd msgbus`.
    """

    def parse(self, *arguments):
        options = Options()
        options.parseOptions(arguments)
        return options

    def test_defaults(self):
        """
        Without any option, the bus listens at one endpoint, and allows no foreign web
        pages.
        """
        options = self.parse()
        self.assertEqual(options["max-message"], 1024 * 1024)
        self.assertEqual(options["origins"], Origins())
        self.assertEqual(options["verbosity"], 0)
        self.assertEqual(len(options["endpoints"]), 1)

    def test_several(self):
        """
        `--listen`, `--allow-origin` and `--host` may be given several times.
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
        Each `-v` and `--verbose` raises the verbosity by one.
        """
        for arguments, verbosity in ((["-v"], 1), (["-vvv"], 3), (["--verbose", "-v"], 2)):
            self.assertEqual(self.parse(*arguments)["verbosity"], verbosity)
        arguments = "--verbose-for", "alice", "--verbose-for", "192.0.2.0/24"
        self.assertEqual(self.parse(*arguments)["verbose-for"], ["alice", "192.0.2.0/24"])

    def test_mistakes(self):
        """
        A mistake ends the process with a sentence that quotes the wrong value.
        """
        for arguments, sentence in (
            (["--listen", "nowhere:1"], "Cannot --listen nowhere:1: Unknown endpoint type"),
            (["--listen", "tcp:http:x=y"], "Cannot --listen tcp:http:x=y: "),
            (
                ["--listen", "ssl:1:privateKey=/nowhere"],
                "Cannot --listen ssl:1:.*No such file",
            ),
            (["--listen", "8888"], "Unknown endpoint type: '8888'; .* such as tcp:8888"),
            (["--listen", "systemd:domain=INET:name=x"], "systemd has passed no socket"),
            (["--listen", "tls:/nowhere:port=0"], "no PEM file with a key.* in '/nowhere'"),
            (["--listen", "tls:docs:port=0"], "no PEM file with a key.* in 'docs'"),
            (["--workers", "0"], "--workers '0' is no number of processes"),
            (["--workers", "2"], "messages are in Redis: give a --log"),
            (
                ["--workers", "2", "--log", "redis://x", "--admin", "tcp:9090"],
                "write {worker} into --admin .* tcp:909{worker}",
            ),
            (["--max-message", "1M"], "--max-message '1M' is no number"),
            (["--rate", "often"], "--rate: 'often' is no rate"),
            (["--byte-rate", "0/s"], "--byte-rate: '0/s' is no rate"),
            (["--max-subscriptions", "0"], "--max-subscriptions '0' is no number"),
            (["--trusted-proxy", "10.0.0.1/8"], "'10.0.0.1/8' is no network"),
            (["--user-header", "X-User"], "give --trusted-proxy and --users"),
            (["--user-header", "X User"], "'X User' is no name of a header"),
            (["--proxy-header", "forwarded"], "give its address by --trusted-proxy"),
            (["--max-message", "-1"], "--max-message '-1' is no number"),
            (["--allow-origin", "a.example"], "'a.example' is no origin"),
            (["--host", "http://x"], "'http://x' is no host"),
            (["--docroot", "/nowhere"], "--docroot '/nowhere' is no folder"),
            (["--secret-file", "/nowhere"], "--secret-file '/nowhere': No such file"),
            (["--secret", ""], "empty password"),
            (["--secret", "a", "-s", "b"], "one password only"),
            (["--max-backlog", "lots"], "--max-backlog 'lots' is no number of bytes"),
            (["--history", "-1"], "--history '-1' is no number of messages"),
            (["--history-age", "1h"], "--history-age '1h' is no number of seconds"),
            (["--history-bytes", "1G"], "--history-bytes '1G' is no number of bytes"),
            (["--max-channels", "0"], "--max-channels '0' is no number of channels"),
            (["--max-waiting", ""], "--max-waiting '' is no number of bytes"),
            (["--stall-timeout", "x"], "--stall-timeout 'x' is no number of seconds"),
            (["--stall-timeout", "0"], "would cut everybody"),
            (["--drain", "soon"], "--drain 'soon' is no number of seconds"),
            (["--drain", "-1"], "--drain '-1' is no number of seconds"),
            (["--log", "http://:secret@x"], "--log: .*is none of Redis: give redis://"),
            (["--log", "redis://x", "--history-file", "f"], "leave out --history-file"),
            (["extra"], "."),
        ):
            with self.assertRaisesRegex(SystemExit, sentence):
                self.parse(*arguments)

    def test_secret_file(self):
        """
        The password is the content of the file without one line end at its end; a file that
        everybody can read causes a warning.
        """
        file = Path(self.enterContext(TemporaryDirectory()), "secret")
        for content, secret in (
            (b"x", b"x"),
            (b"x\n", b"x"),
            (b"x\r\n", b"x"),
            (b" x\n\n", b" x\n"),
        ):
            file.write_bytes(content)
            file.chmod(0o640)
            options = self.parse("--secret-file", str(file))
            self.assertEqual((options["secret"], options["warnings"]), (secret, []))
        file.chmod(0o644)
        (warning,) = self.parse("--secret-file", str(file))["warnings"]
        self.assertIn("chmod", warning)
        file.write_bytes(b"\n")
        with self.assertRaisesRegex(SystemExit, "empty password"):
            self.parse("--secret-file", str(file))

    def test_password_of_log(self):
        """
        The password of a log can be in a file, like that of `--secret-file`; in the URL
        itself, it causes a warning.
        """
        file = Path(self.enterContext(TemporaryDirectory()), "secret")
        url = f"redis://localhost/0?password-file={file}"
        with self.assertRaisesRegex(SystemExit, "--log '.*': No such file"):
            self.parse("--log", url)
        file.touch(0o640)
        with self.assertRaisesRegex(SystemExit, "--log: there is no password in"):
            self.parse("--log", url)
        file.write_bytes(b"x\n")
        options = self.parse("--log", url)
        self.assertEqual(options["log"].server.password, "x")
        self.assertEqual(options["warnings"], [])
        file.chmod(0o644)
        (warning,) = self.parse("--log", url)["warnings"]
        self.assertIn("chmod", warning)
        (warning,) = self.parse("--log", "redis://:x@localhost/0")["warnings"]
        self.assertIn("?password-file=FILE in its URL hides it", warning)

    def test_secret(self):
        """
        A password on the command line works, and causes a warning.
        """
        for option in ("--secret", "-s"):
            options = self.parse(option, "é")
            self.assertEqual(options["secret"], "é".encode())
            self.assertIn("--secret-file", options["warnings"][0])

    def test_room(self):
        """
        A `--max-waiting` that is smaller than `--max-message` causes a warning.
        """
        (warning,) = self.parse("--max-waiting", "1000000")["warnings"]
        self.assertIn("no room for one message", warning)
        options = self.parse("--max-waiting", "9", "--max-message", "9")
        self.assertEqual(options["warnings"], [])

    def test_docroot(self):
        """
        The document root is made absolute, because a daemon changes its working directory.
        """
        for option in ("--docroot", "-d"):
            self.assertTrue(self.parse(option, ".")["docroot"].is_absolute())

    def test_chat_demo(self):
        """
        `--docroot chatdemo` is the chat demo of the package, unless there is a folder of
        that name.
        """
        self.enterContext(chdir(self.enterContext(TemporaryDirectory())))
        chat = self.parse("--docroot", "chatdemo")["docroot"]
        self.assertEqual({"index.html", "chat.js"}, {file.name for file in chat.iterdir()})
        Path("chatdemo").mkdir()
        self.assertEqual(
            self.parse("-d", "chatdemo/")["docroot"], Path("chatdemo").absolute()
        )

    def test_help(self):
        """
        The help lists the options, and ends with examples.
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


class DocsTests(SynchronousTestCase):
    """
    What docs/operations.md says of limits.
    """

    def test_defaults(self):
        """
        The limits of the table are the defaults of the options.
        """
        page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
        table = page.partition("\n## Limits\n")[2].partition("\n\nA user is")[0]
        said = re.findall(r"`(--[a-z-]+) ([0-9]\S*)`", table)
        self.assertGreater(len(said), 10)
        defaults = Options()
        for option, value in said:
            given = Options()
            given.parseOptions([option, value])
            name = option.removeprefix("--")
            self.assertEqual(given[name], defaults[name], option)
