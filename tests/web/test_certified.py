"""
Tests for `msgbus.web.certified`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.certificates import Authorities, ClientCertificate
from msgbus.access.limits import Rate
from msgbus.access.rules import Rules
from msgbus.access.users import Users
from msgbus.match import EVERYTHING
from msgbus.web.certified import Certificates, Certified
from msgbus.web.peer import Peer
from msgbus.web.quotas import Quotas, QuotaSizes, Throttled
from msgbus.web.visitor import Access, Denied

from ..integration.certificates import Authority

RULES = b"alice publish,subscribe a\n* nothing *\n"


class CertifiedTests(SynchronousTestCase):
    """
    Somebody who has shown a certificate.
    """

    def setUp(self):
        folder = Path(self.enterContext(TemporaryDirectory()))
        self.authority = Authority(folder)
        self.authorities = Authorities.parse(self.authority.file.read_bytes(), "")
        pem = self.authority.issue_client("alice").read_bytes()
        self.shown = ClientCertificate(crypto.load_certificate(crypto.FILETYPE_PEM, pem))
        self.time = self.shown.expires - 10
        self.certificates = Certificates(self.authorities, lambda: self.time)

    def visitor(self, rules=RULES, users=None):
        """
        Alice, where these rules hold.
        """
        access = None
        if rules is not None:
            access = Access(Users(users or {}), Rules.parse(rules, ""))
        return Certified(self.certificates, self.shown, access)

    def all_checks(self, visitor, channel="a"):
        """
        What somebody may be asked for who publishes or subscribes to a channel.
        """
        yield lambda: visitor.check_publish(channel)
        yield lambda: visitor.check_publish_below(channel)
        yield lambda: visitor.check_subscribe(channel, EVERYTHING)

    def test_rules(self):
        """
        The rules for users hold, without a line in the file of users, and whatever
        password a user of that name has there.
        """
        for users in (None, {"alice": "hash", "bob": "hash"}):
            visitor = self.visitor(users=users)
            self.assertEqual(visitor.sender, "alice")
            for check in self.all_checks(visitor):
                check()
            visitor.check_enter()
            for check in self.all_checks(visitor, "b"):
                with self.assertRaisesRegex(Denied, "Line 2") as raised:
                    check()
                self.assertEqual(raised.exception.status, 403)

    def test_without_rules(self):
        """
        Without users and rules, they may do everything, but not name other senders.
        """
        visitor = self.visitor(rules=None)
        for check in self.all_checks(visitor):
            check()
        self.assertFalse(visitor.is_believed("a"))

    def test_counts_as_a_user(self):
        """
        Limits of each user hold, by the name of the certificate, with rules and without:
        also for a program on the bus's own machine, which has no address that counts.
        """
        local = Peer(None, is_local=True)
        for rules in (RULES, None):
            quotas = Quotas(QuotaSizes(Rate(2, 60), None), lambda: 0.0)
            for _ in range(2):
                quotas.charge_publication(self.visitor(rules), local, 1)
            with self.assertRaises(Throttled):
                quotas.charge_publication(self.visitor(rules), local, 1)

    def test_expires(self):
        """
        Every right ends when the certificate expires, also one that was asked for before.
        """
        for rules in (RULES, None):
            self.time = self.shown.expires - 10
            visitor = self.visitor(rules)
            for check in self.all_checks(visitor):
                check()
            self.assertTrue(visitor.is_limited)
            self.assertEqual(visitor.seconds_left(), 10)
            self.time += 10
            for check in (*self.all_checks(visitor), visitor.check_enter):
                with self.assertRaisesRegex(Denied, "expired"):
                    check()
            with self.assertRaisesRegex(Denied, "expired"):
                self.visitor(rules)

    def test_replaced(self):
        """
        Every right ends when its authority is replaced, and is back with it.
        """
        folder = Path(self.enterContext(TemporaryDirectory()))
        other = Authorities.parse(Authority(folder).file.read_bytes(), "")
        visitor = self.visitor()
        self.certificates.replace(other)
        for check in (*self.all_checks(visitor), visitor.check_enter):
            with self.assertRaisesRegex(Denied, "of no authority"):
                check()
        self.certificates.replace(self.authorities)
        for check in self.all_checks(visitor):
            check()
