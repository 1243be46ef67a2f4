"""
Tests for `msgbus.server.config_file`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from msgbus.server.options import Options


class ConfigFileTests(SynchronousTestCase):
    """
    Options in a file.
    """

    def setUp(self):
        self.file = Path(self.enterContext(TemporaryDirectory()), "msgbus.toml")

    def parse(self, text, *arguments):
        """
        The options of a command line that names a file with this text.
        """
        self.file.write_text(text)
        options = Options()
        options.parseOptions([*arguments, "--config", str(self.file)])
        return options

    def test_takes(self):
        """
        Options take texts, numbers, lists and `true` as they take the same from a command
        line.
        """
        options = self.parse(
            'listen = ["tcp:1", "tcp:2"]\nhost = "a.example"\nmax-message = 1_000\n'
            'max-backlog = "2000"\nstall-timeout = 1.5\nrate = "7/s"\nverbose = true\n'
        )
        given = Options()
        given.parseOptions(
            [
                *("--listen", "tcp:1", "--listen", "tcp:2", "--host", "a.example"),
                *("--max-message", "1000", "--max-backlog", "2000"),
                *("--stall-timeout", "1.5", "--rate", "7/s", "-v"),
            ]
        )
        for name in (
            "max-message",
            "max-backlog",
            "stall-timeout",
            "rate",
            "verbosity",
            "origins",
            "listen",
        ):
            self.assertEqual(options[name], given[name], name)
        self.assertEqual(self.parse("verbose = false")["verbosity"], 0)
        self.assertEqual(self.parse("verbose = 2")["verbosity"], 2)

    def test_command_line_wins(self):
        """
        What the command line gives, by a long or a short name, is not taken from the file.
        """
        text = 'listen = "tcp:1"\nhistory = 7\nmax-channels = 8\ndocroot = "/nowhere"'
        options = self.parse(text, "--listen", "tcp:2", "--history=9", "-d", "/")
        self.assertEqual(options["listen"], ["tcp:2"])
        self.assertEqual((options["history"], options["max-channels"]), (9, 8))

    def test_mistakes(self):
        """
        A mistake ends the start with a sentence that names the file and, if it can, the
        line.
        """
        for text, sentence in (
            ("history = ", r"msgbus.toml is no TOML: Invalid value \(at .*\)"),
            ("# x\nhistry = 1", "toml, line 2: There is no option 'histry' here"),
            ("[limits]\nhistory = 1", "toml, line 1: There is no option 'limits' here"),
            ("\nconfig = 'x'", "toml, line 2: There is no option 'config' here"),
            ("version = true", "toml, line 1: There is no option 'version' here"),
            ("history = [1]", "toml, line 1: 'history' should be a text or a number"),
            ("history = true", "toml, line 1: 'history' should be a text or a number"),
            ("verbose = -1", "toml, line 1: 'verbose' should be true, or how often"),
            ("verbose = 'x'", "toml, line 1: 'verbose' should be true, or how often"),
            ("host = 1", "toml, line 1: 'host' should be a text, or a list of texts"),
            ("host = ['a', 1]", "toml, line 1: 'host' should be a text, or a list"),
            ("\n\nhistory = 'x'", "toml, line 3: --history 'x' is no number of messages"),
            ("'history' = -1", "toml, line 1: --history '-1' is no number of messages"),
            ("workers = 2", "messages are in Redis: give a --log"),
        ):
            with self.assertRaisesRegex(SystemExit, sentence):
                self.parse(text)
        self.file.write_bytes(b"\xff")
        with self.assertRaisesRegex(SystemExit, "toml is no TOML: .*utf-8"):
            Options().parseOptions(["--config", str(self.file)])
        with self.assertRaisesRegex(SystemExit, "/nowhere: No such file"):
            Options().parseOptions(["--config", "/nowhere"])

    def test_password(self):
        """
        A password in the file is not in the list of processes; a warning says if everybody
        can read the file.
        """
        for mode, warnings in ((0o640, 0), (0o644, 1)):
            self.file.touch()
            self.file.chmod(mode)
            options = self.parse("secret = 'x'")
            self.assertEqual(options["secret"], b"x")
            self.assertEqual(len(options["warnings"]), warnings)
        self.assertIn("chmod o= ", options["warnings"][0])
