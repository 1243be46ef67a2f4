"""
Tests for `msgbus.client.requests`.
"""

from base64 import b64decode

from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.requests import publication_headers, subscription_headers
from msgbus.client.url import BusURL
from msgbus.message import Message

BUS = BusURL("http", "bus.example", 8888, "", "/msgbus/")
TEXT = Message("", b"hello", "text/plain; charset=utf-8")


class RequestTests(SynchronousTestCase):
    """
    The headers that are sent to a bus.
    """

    def test_publication(self):
        """
        A publication has its content type, and a key that no other publication has.
        """
        first, second = (publication_headers(BUS, TEXT) for _ in range(2))
        key = first["Idempotency-Key"]
        self.assertEqual(
            first,
            {"Content-Type": "text/plain; charset=utf-8", "Idempotency-Key": key},
        )
        self.assertEqual(len(bytes.fromhex(key)), 16)
        self.assertNotEqual(second["Idempotency-Key"], key)

    def test_not_kept(self):
        """
        A publication that history must not keep says so.
        """
        headers = publication_headers(BUS, TEXT, keep=False)
        del headers["Idempotency-Key"]
        self.assertEqual(
            headers,
            {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"},
        )

    def test_subscription(self):
        """
        A subscription asks for a multipart stream, which begins behind a message if an id
        is given.
        """
        accept = {"Accept": "multipart/x-mixed-replace"}
        self.assertEqual(subscription_headers(BUS), accept)
        self.assertEqual(
            subscription_headers(BUS, "1-2"), {**accept, "Last-Event-ID": "1-2"}
        )

    def test_authorization(self):
        """
        Name and password are sent by Basic authentication in UTF-8, also if one of them is
        empty.
        """
        for user, password, pair in (
            ("alice", "secret", "alice:secret"),
            ("ä", "a:b€", "ä:a:b€"),
            ("alice", "", "alice:"),
            ("", "secret", ":secret"),
        ):
            address = BUS.with_credentials(user, password)
            for headers in (
                publication_headers(address, TEXT),
                subscription_headers(address),
            ):
                scheme, _, value = headers["Authorization"].partition(" ")
                self.assertEqual(scheme, "Basic")
                self.assertEqual(b64decode(value, validate=True).decode(), pair)

    def test_colon_in_name(self):
        """
        A name with a colon cannot be sent (RFC 7617, section 2), so it is refused.
        """
        with self.assertRaises(ValueError):
            subscription_headers(BusURL.parse("http://a%3Ab:secret@h/"))
