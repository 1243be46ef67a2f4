"""
Key updates that no client library sends by themselves (RFC 8446, section 4.6.3): records
made by hand, for tests.
"""

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HANDSHAKE, KEY_UPDATE = 22, 24
APPLICATION_DATA = 23


class RecordWriter:
    """
    Writes the records of a client of TLS 1.3, from the first after its handshake, for the
    cipher suite TLS_AES_256_GCM_SHA384.

    Args:
        keys: The file to which `ssl` has written the secrets of one connection.
    """

    def __init__(self, keys):
        lines = (line.split() for line in keys.read_text().splitlines())
        (self._secret,) = (
            bytes.fromhex(fields[2])
            for fields in lines
            if fields and fields[0] == "CLIENT_TRAFFIC_SECRET_0"
        )
        self._number = 0

    def _expand(self, label, size):
        label = b"tls13 " + label
        info = struct.pack("!HB", size, len(label)) + label + b"\0"
        return HKDFExpand(SHA384(), size, info).derive(self._secret)

    def record(self, content, kind=APPLICATION_DATA):
        """
        One record.
        """
        nonce = int.from_bytes(self._expand(b"iv", 12)) ^ self._number
        self._number += 1
        head = struct.pack("!BHH", APPLICATION_DATA, 0x303, len(content) + 1 + 16)
        sealed = AESGCM(self._expand(b"key", 32)).encrypt(
            nonce.to_bytes(12), content + bytes([kind]), head
        )
        return head + sealed

    def key_update(self, is_requested):
        """
        One that asks, or does not ask, for one of the server.
        """
        update = self.record(
            struct.pack("!BBHB", KEY_UPDATE, 0, 1, is_requested), HANDSHAKE
        )
        self._secret = self._expand(b"traffic upd", 48)
        self._number = 0
        return update
