"""
Tests for `msgbus.server.grant_files`, and for the options about links and tokens.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from joserfc.jwk import ECKey
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.channels import Channels
from msgbus.access.grant import BadGrant, Grant
from msgbus.access.link_keys import Keys, format_key
from msgbus.access.links import sign
from msgbus.bus.bus import Bus
from msgbus.server.grant_files import GrantService
from msgbus.server.options import Options
from msgbus.server.plugin import makeService
from msgbus.web import BusResource
from msgbus.web.grants import Grants

from ..memory import log_lines

KEY = format_key("k1", b"1" * 32)
OTHER = format_key("k2", b"2" * 32)
PEM = ECKey.generate_key("P-256").as_pem(private=False)
LINK = sign(Keys.parse(KEY.encode(), ""), Grant(subscribe=Channels(["a"]), expires=100))


class GrantFileTests(SynchronousTestCase):
    """
    Files of keys, at the start and at a reload.
    """

    def setUp(self):
        self.folder = Path(self.enterContext(TemporaryDirectory()))

    def file(self, name, content, mode=0o600):
        """
        The path of a file with this content.
        """
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return str(path)

    def parse(self, *arguments):
        """
        The options that these arguments make.
        """
        options = Options()
        options.parseOptions(arguments)
        return options

    def test_start(self):
        """
        A bus starts with keys for links, with several for tokens, or with both; it is
        guarded then.
        """
        links = self.file("links.key", KEY)
        pem = self.file("issuer.pem", PEM, 0o644)
        for arguments in (
            ["--link-keys", links],
            ["--jwt-key", f"ES256:{pem}", "--jwt-key", f"ES256:{pem}"],
            ["--link-keys", links, "--jwt-key", f"ES256:{pem}", "--jwt-audience", "bus"],
        ):
            options = self.parse(*arguments)
            self.assertEqual(options["warnings"], [])
            service = makeService(options)
            self.assertTrue(service._site.resource.guarded)
            self.assertIsNotNone(service.grants)

    def test_mistakes(self):
        """
        A file or an option that cannot be used is no start, and the sentence shows nothing
        of a secret.
        """
        pem = self.file("issuer.pem", PEM)
        links = self.file("links.key", KEY)
        for arguments, sentence in (
            (["--link-keys", "/nowhere"], "--link-keys '/nowhere': No such file"),
            (["--link-keys", self.file("empty", "")], "There is no key"),
            (["--link-keys", self.file("cut", KEY[:-3])], "line 1"),
            (["--link-keys", self.file("bom", "\ufeff" + KEY)], "byte order mark"),
            (["--jwt-key", pem], "is not ALGORITHM:FILE"),
            (["--jwt-key", f"none:{pem}"], "is not ALGORITHM:FILE"),
            (["--jwt-key", "ES256:/nowhere"], "/nowhere: No such file"),
            (["--jwt-key", f"HS256:{pem}"], "is no secret for HS256"),
            (["--jwt-key", f"ES384:{pem}"], "holds no key for ES384"),
            (["--link-keys", links, "--jwt-audience", "x"], "give a --jwt-key"),
        ):
            with self.assertRaisesRegex(SystemExit, sentence) as raised:
                self.parse(*arguments)
            self.assertNotIn(KEY[3:20], str(raised.exception))

    def test_readable_by_all(self):
        """
        Secrets that everybody on the machine can read cause a warning; a public key does
        not.
        """
        links = self.file("links.key", KEY, 0o644)
        secret = self.file("secret", "s" * 32, 0o644)
        for arguments in (["--link-keys", links], ["--jwt-key", f"HS256:{secret}"]):
            (warning,) = self.parse(*arguments)["warnings"]
            self.assertIn("chmod o=", warning)

    def test_reload(self):
        """
        A reload takes new keys; files that are broken by then keep the old ones, which is
        logged.
        """
        path = self.file("links.key", KEY)
        files = self.parse("--link-keys", path)["grant-files"]
        clock = Clock()
        grants = Grants(*files.load(), clock.seconds)
        service = GrantService(files, grants, BusResource(Bus(), clock))
        lines = log_lines(self, "msgbus.server")
        for broken in ("", "# none\n", KEY[:-4], "\0", "k1:short\n"):
            self.file("links.key", broken)
            service.reload()
            self.assertIn("stay as they were", lines.pop()[1])
            self.assertEqual(grants.verify(LINK).key, "k1")
        Path(path).unlink()
        service.reload()
        self.assertIn("No such file", lines.pop()[1])
        self.assertEqual(grants.verify(LINK).key, "k1")
        self.file("links.key", OTHER + KEY)
        service.reload()
        self.assertEqual(grants.verify(LINK).key, "k1")
        self.file("links.key", OTHER)
        service.reload()
        with self.assertRaisesRegex(BadGrant, "not known, or revoked"):
            grants.verify(LINK)
