"""
Tests for `msgbus.access.certificates`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.certificates import Authorities, BadAuthorities, ClientCertificate
from msgbus.message import Invalid

from ..integration.certificates import Authority


def shown(file):
    """
    The certificate of a file, as a client shows it.
    """
    return ClientCertificate(
        crypto.load_certificate(crypto.FILETYPE_PEM, file.read_bytes())
    )


class CertificateTestCase(SynchronousTestCase):
    """
    Certificates that were really signed.
    """

    def setUp(self):
        self.folder = Path(self.enterContext(TemporaryDirectory()))
        self.authority = self.new_authority("one")

    def new_authority(self, name):
        """
        An authority with a folder of its own.
        """
        folder = self.folder / name
        folder.mkdir()
        return Authority(folder, f"msgbus test authority {name}")


class NameTests(CertificateTestCase):
    """
    The user that a certificate names.
    """

    def test_names(self):
        """
        The name is the common name, whatever it looks like: nothing in it is a pattern.
        """
        for name in ("alice", "*", "%u", "..", "-", "[a-z]", "sensor-1", "Ærø", "x" * 255):
            file = self.authority.issue_client(name)
            self.assertEqual(shown(file).name, name)

    def test_no_names(self):
        """
        A certificate names nobody if it has no common name, or several, or one that could
        not be in a file of users.
        """
        for names in (
            (),
            ("alice", "bob"),
            ("alice\0.example",),
            ("a/b",),
            ("@users",),
            ("#alice",),
            ("alice:x",),
            (" alice",),
            ("alice\n",),
            ("ali\u202ece",),
            ("x" * 256,),
            ("é" * 128,),
            ("x" * 10_000,),
        ):
            file = self.authority.issue_client(*names)
            with self.assertRaises(Invalid, msg=names):
                shown(file).name  # noqa: B018 # It is a property.

    def test_expires(self):
        """
        It is known when a certificate expires, also if that was long ago.
        """
        soon, late = (
            shown(self.authority.issue_client("alice", days=days)).expires
            for days in (-1, 1000)
        )
        self.assertAlmostEqual(late - soon, 1001 * 86400, delta=60)


class AuthorityTests(CertificateTestCase):
    """
    Files of authorities, and what they have issued.
    """

    def parse(self, *files):
        """
        The authorities of these files together.
        """
        text = b"".join(file.read_bytes() for file in files)
        return Authorities.parse(text, "ca.pem")

    def test_issued(self):
        """
        A certificate is accepted from any of the authorities, and from no other, even one
        of the same name.
        """
        other = self.new_authority("other")
        twin = Authority(self.new_authority("twin")._folder, "msgbus test authority one")
        alice = shown(self.authority.issue_client("alice"))
        for accepted, authorities in (
            (True, (self.authority,)),
            (True, (other, self.authority)),
            (False, (other,)),
            (False, (twin,)),
            (True, (self.authority,)),
        ):
            files = [each.file for each in authorities]
            self.assertEqual(alice.is_issued_by(self.parse(*files)), accepted, files)

    def test_fingerprint(self):
        """
        Two certificates with the same name are told apart.
        """
        first, second = (
            shown(self.authority.issue_client("alice")).fingerprint for _ in range(2)
        )
        self.assertNotEqual(first, second)

    def test_bad_files(self):
        """
        A file without certificates, with one that is cut off, or with one that may not
        issue others, is refused, and the sentence names it.
        """
        good = self.authority.file.read_bytes()
        client = self.authority.issue_client("alice").read_bytes()
        leaf = client[client.index(b"-----BEGIN CERTIFICATE") :]
        for text, reason in (
            (b"", "no certificates"),
            (b"\0\xff", "no certificates"),
            (good[:-40], ""),
            (good + good[:-40], ""),
            (leaf, "CN=alice.*no authority's"),
            (good + leaf, "CN=alice.*no authority's"),
            (good + client, "something else"),
        ):
            with self.assertRaisesRegex(BadAuthorities, f"^ca.pem: .*{reason}"):
                Authorities.parse(text, "ca.pem")
