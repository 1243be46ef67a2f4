"""
Real certificates, made for a test.
"""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Authority:
    """
    One that signs, and whose certificate clients trust, or servers, if it is for clients.
    """

    def __init__(self, folder, name="msgbus test authority"):
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        certificate = self._certificate(
            self._name, self._key, x509.BasicConstraints(ca=True, path_length=0)
        )
        self.file = folder / "ca.pem"
        self.file.write_bytes(certificate)

    def issue_nameless(self):
        """
        A file with a key and a certificate that names nobody but in its subject.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        extension = x509.BasicConstraints(ca=False, path_length=None)
        return self._write("nameless", key, extension)

    def issue(self, *names):
        """
        A file with a key and a certificate for these names and addresses.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName(
            [
                x509.IPAddress(ipaddress.ip_address(name))
                if name[0].isdigit()
                else x509.DNSName(name)
                for name in names
            ]
        )
        return self._write(names[0], key, alternatives)

    def issue_client(self, *names, days=1, usage=ExtendedKeyUsageOID.CLIENT_AUTH):
        """
        A file with a key and a certificate of a client, whose subject has these common
        names, whatever is in them.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)
                for name in names
            ]
        )
        extension = x509.ExtendedKeyUsage([usage])
        life = datetime.timedelta(days=days)
        certificate = self._certificate(subject, key, extension, life)
        file = self._folder / f"client{x509.random_serial_number()}.pem"
        file.write_bytes(_pem(key) + certificate)
        return file

    def _write(self, name, key, extension):
        file = self._folder / f"{name}.pem"
        file.write_bytes(_pem(key) + self._certificate(_name(name), key, extension))
        return file

    def _certificate(self, subject, key, extension, life=datetime.timedelta(days=1)):
        now = datetime.datetime.now(datetime.UTC)
        issuer_key = self._key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + life)
            .add_extension(extension, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key),
                critical=False,
            )
        )
        if subject == self._name:
            signs = {name: name == "key_cert_sign" for name in _USAGES}
            builder = builder.add_extension(x509.KeyUsage(**signs), critical=True)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
