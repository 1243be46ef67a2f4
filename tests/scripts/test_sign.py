"""
Tests for `msgbus.scripts.sign`.
"""

import os
import re
import stat
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.channels import Channels
from msgbus.access.credentials import link_of
from msgbus.access.grant import Grant
from msgbus.access.link_keys import Keys
from msgbus.access.links import verify
from msgbus.match import Filter
from msgbus.scripts import sign


class SignTests(SynchronousTestCase):
    """
    The tool that makes links.
    """

    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "links.key"
        self.assertEqual(self.run_tool("--new-key"), (0, "k1\n", ""))

    def run_tool(self, *arguments, key=None, environment=()):
        """
        Its exit code, and what it prints on its two outputs.
        """
        out, err = TextIOWrapper(BytesIO()), TextIOWrapper(BytesIO())
        command = [sign.NAME, "--key", str(key or self.file), *arguments]
        with (
            patch.object(sys, "argv", command),
            patch.object(sys, "stdin", TextIOWrapper(BytesIO())),
            patch.dict(os.environ, dict(environment)),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                code = sign.run()
            except SystemExit as exit:
                code = exit.code
            out.flush()
            err.flush()
        return code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()

    def link(self, *arguments):
        """
        The URL that it prints, without the link, and the grant of the link.
        """
        code, out, err = self.run_tool(*arguments)
        self.assertEqual((code, err), (0, ""))
        url, _, query = out.strip().partition("?")
        keys = Keys.parse(self.file.read_bytes(), "f")
        return url, verify(keys, link_of(query.encode()), time.time())

    def test_link(self):
        """
        It prints the URL of the channel, with a link that holds for the time that was
        asked for.
        """
        before = int(time.time())
        url, grant = self.link("subscribe", "public/cam", "--for", "1h")
        self.assertEqual(url, "http://localhost:8888/msgbus/public/cam")
        self.assertIn(int(grant.expires) - before, range(3600, 3660))
        self.assertEqual(
            grant,
            Grant(subscribe=Channels(["public/cam"]), expires=grant.expires, key="k1"),
        )

    def test_options(self):
        """
        Options narrow the right, and say where the bus is.
        """
        options = (
            "--type=image/*", "--sender=bob", "--as=alice", "--max-message=64k",
            "--url=https://u:secret@bus.example/m/",
        )  # fmt: skip
        url, grant = self.link("publish,subscribe", "chat/", "--for", "2d", *options)
        self.assertEqual(url, "https://bus.example/m/chat/")
        channels = Channels(["chat/*"])
        expected = Grant(
            channels,
            channels,
            grant.expires,
            "alice",
            Filter("image/*", "bob"),
            65536,
            "k1",
        )
        self.assertEqual(grant, expected)

    def test_place(self):
        """
        The URL is that of the one channel, or of the deepest folder that holds all.
        """
        for patterns, place in (
            (["a b/ä"], "a%20b/%C3%A4"),
            (["a/"], "a/"),
            (["a/b/*"], "a/b/"),
            (["a/b*/c"], "a/"),
            (["a/b/c", "a/b/d"], "a/b/"),
            (["a/bc", "a/bd/e"], "a/"),
            (["ab/x", "ac/x"], ""),
            (["*"], ""),
        ):
            url, _ = self.link("subscribe", *patterns, "--for", "1m")
            self.assertEqual(url, f"http://localhost:8888/msgbus/{place}")

    def test_environment(self):
        """
        The bus may be named in the environment.
        """
        _, out, _ = self.run_tool(
            "subscribe",
            "a",
            "--for",
            "1s",
            environment={"MSGBUS_URL": "http://b/m/"}.items(),
        )
        self.assertTrue(out.startswith("http://b/m/a?link="))

    def test_new_key(self):
        """
        A new key signs from then on, older ones still verify, and nobody else may read the
        file.
        """
        _, old, _ = self.run_tool("publish", "a", "--for", "1h")
        self.file.chmod(0o644)
        self.assertEqual(self.run_tool("--new-key"), (0, "k2\n", ""))
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual(self.link("publish", "a", "--for", "1h")[1].key, "k2")
        code, out, _ = self.run_tool("--show", old.strip())
        self.assertEqual(code, 0)
        self.assertRegex(out, r"\Apublish: a\nkey: k1\nuntil: \d{4}-\d\d-\d\d .* UTC\n\Z")
        self.assertEqual(len(list(self.file.parent.glob(f"{self.file.name}*"))), 1)

    def test_show(self):
        """
        It says what a link allows, with or without its URL, and why it is refused.
        """
        arguments = (
            "publish,subscribe",
            "b/*",
            "a",
            "--for",
            "1h",
            "--as",
            "al",
            "--type",
            "x/*",
        )
        _, out, _ = self.run_tool(*arguments)
        for text in (out.strip(), out.strip().partition("link=")[2]):
            code, shown, _ = self.run_tool("--show", text)
            lines = ["publish: a b/*", "subscribe: a b/*", "type: x/*", "as: al", "key: k1"]
            self.assertEqual((code, shown.splitlines()[:-1]), (0, lines))
        code, shown, err = self.run_tool("--show", "x.y")
        self.assertEqual((code, shown), (1, ""))
        self.assertIn("not complete, or was changed", err)

    def test_wrong(self):
        """
        What is wrong is said in one line, and nothing is printed.
        """
        good = ("subscribe", "a", "--for", "1h")
        for arguments, why in (
            (("subscribe", "a"), "Say what the link allows"),
            (("subscribe", "--for", "1h"), "Say what the link allows"),
            ((), "Say what the link allows"),
            (("read", "a", "--for", "1h"), "'read' is neither publish nor subscribe"),
            (("subscribe", "!a", "--for", "1h"), "no pattern of a right"),
            (("subscribe", "", "--for", "1h"), "no pattern of a right"),
            (("subscribe", "a", "--for", "1"), "give a time such as"),
            (("subscribe", "a", "--for", "0h"), "give a time such as"),
            (("subscribe", "a", "--for", "999999999d"), "before the year 10000"),
            ((*good, "--max-message", "0"), "give a size such as"),
            ((*good, "--as", " x"), "begins or ends with a space"),
            ((*good, "--type", "!"), "negates"),
            ((*good, "--url", "ftp://a"), "no URL of a bus"),
        ):
            code, out, err = self.run_tool(*arguments)
            self.assertEqual((code, out), (2, ""), err)
            self.assertIn(why, re.sub(r"\s+", " ", err))

    def test_no_key(self):
        """
        A file of keys that is missing or broken is named, and not written to.
        """
        missing = self.file.with_name("missing")
        code, _, err = self.run_tool("subscribe", "a", "--for", "1h", key=missing)
        self.assertEqual(code, 1)
        self.assertIn(f"{missing}: No such file", err)
        self.file.write_text("k1:short\n")
        for arguments in (("subscribe", "a", "--for", "1h"), ("--new-key",)):
            code, _, err = self.run_tool(*arguments)
            self.assertEqual(code, 1)
            self.assertIn(f"{self.file}, line 1: ", err)
        self.assertEqual(self.file.read_text(), "k1:short\n")
