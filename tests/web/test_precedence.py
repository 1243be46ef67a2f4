"""
Tests for who has sent a request that names several people at once: by a link, by the header
of a proxy, by a name and password, and by a certificate.
"""

from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.addresses import TrustedProxies
from msgbus.access.certificates import Authorities, ClientCertificate
from msgbus.access.channels import Channels
from msgbus.access.grant import Grant
from msgbus.access.links import sign
from msgbus.web.certified import Certificates
from msgbus.web.grants import Grants

from ..integration.certificates import Authority
from ..memory import ComeBefore, Server
from ..requests import authorization, post
from .test_rights import KEYS, NOW, OTHER

EVERYTHING = Channels(("*",))
LINK = sign(KEYS, Grant(EVERYTHING, EVERYTHING, 2 * NOW, "lena"))
EXPIRED = sign(KEYS, Grant(EVERYTHING, EVERYTHING, NOW - 1, "lena"))

LINKS = {"": None, f"?link={LINK}": "lena", f"?link={EXPIRED}": 401, "?link=x": 401}
NAMED = {"": None, "X-User: hugo\n": "hugo", "X-User:\n": None, "X-User: a/b\n": 400}
SHOWN = {
    "": None,
    authorization("paul:other"): "paul",
    authorization("paul:wrong"): 401,
    authorization("nobody:other"): 401,
    f"Authorization: Bearer {LINK}\n": "lena",
    f"Authorization: Bearer {EXPIRED}\n": 401,
    "Authorization: Digest x\n": 401,
}


class PrecedenceTests(SynchronousTestCase):
    """
    Requests that show any of these together.
    """

    def setUp(self):
        folder = Path(self.enterContext(TemporaryDirectory()))
        authority = Authority(folder)
        authorities = Authorities.parse(authority.file.read_bytes(), "")
        pem = authority.issue_client("cora").read_bytes()
        self.certificate = ClientCertificate(
            crypto.load_certificate(crypto.FILETYPE_PEM, pem)
        )
        self.server = Server(
            users={"paul": OTHER},
            rules="* publish *\n",
            grants=Grants(KEYS, None, lambda: NOW),
        )
        self.server.root._certificates = Certificates(authorities)
        self.server.root._user_header = "X-User"
        self.server.site.proxies = TrustedProxies.parse("192.0.2.1")
        self.server.site.heads._once = ComeBefore()
        self.senders = []
        self.server.bus.subscribe("", lambda message: self.senders.append(message.sender))
        self.count = 0

    def connect(self, trusted, certified):
        """
        A new connection, perhaps of the proxy.  Others come from an address of their own,
        so that none has to wait because another one gave a wrong password.
        """
        self.count += 1
        strange = f"198.18.{self.count // 250}.{self.count % 250}"
        peer = self.server.connect(client="192.0.2.1" if trusted else strange)
        # What the handshake of TLS would have brought.
        peer.protocol.client_certificate = self.certificate if certified else None
        return peer

    def expected(self, link, named, shown, certified):
        """
        Who sends such a request, or the status with which it is refused.
        """
        if link and "Bearer" in shown:
            return 400
        grant = LINKS[link] or (SHOWN[shown] if "Bearer" in shown else None)
        return grant or named or SHOWN[shown] or ("cora" if certified else "")

    def test_all(self):
        """
        A link or token decides, also if it does not hold; then the proxy that is trusted,
        and nobody else who sends its header; then a name and password, also wrong ones; and
        only without all of these, the certificate.  It is the same if the head is
        remembered, whoever else has sent such a head.
        """
        for link, header, shown in product(LINKS, NAMED, SHOWN):
            headers = f"Content-Type: a/b\n{header}{shown}"
            for trusted, certified in (*product((0, 1), (0, 1)), (0, 0)):
                named = NAMED[header] if trusted else None
                expected = self.expected(link, named, shown, certified)
                peer = self.connect(trusted, certified)
                client = ""
                if trusted and SHOWN[shown] == 401:
                    # So that nobody has to wait.
                    client = (
                        f"X-Forwarded-For: 203.0.{self.count // 250}.{self.count % 250}\n"
                    )
                for _ in range(2):
                    peer.send(post(f"/msgbus/x{link}", headers=headers + client))
                    data = peer.received() + peer.received()
                    told = self.senders.pop() if b" 204 " in data[:15] else int(data[9:12])
                    case = (link, header, shown, trusted, certified)
                    self.assertEqual(told, expected, case)
                    self.assertEqual(self.senders, [], case)
