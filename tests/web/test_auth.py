"""
Tests for `msgbus.web.auth`.
"""

from twisted.trial.unittest import SynchronousTestCase

from msgbus.message import Invalid
from msgbus.web.auth import sender_of

from ..requests import basic


class SenderTests(SynchronousTestCase):
    """
    The sender that an `Authorization` header names.
    """

    def test_user(self):
        """
        The sender is the user of Basic authentication, whatever the password; the scheme
        may be in any case.
        """
        self.assertEqual(sender_of(basic(b"alice:secret:x")), "alice")
        self.assertEqual(sender_of(basic(b"alice:").replace("Basic ", "bAsIc  ")), "alice")
        self.assertEqual(sender_of(basic("älice:".encode())), "älice")

    def test_nobody(self):
        """
        Without a user, without the header, or with another scheme, the sender is the empty
        string.
        """
        for authorization in (None, "", basic(b":secret"), "Bearer YWxpY2U6"):
            self.assertEqual(sender_of(authorization), "")

    def test_broken(self):
        """
        A header whose scheme is Basic, but whose credentials are malformed, is refused.
        """
        for authorization in (
            "Basic",
            "Basic !!!!",
            "Basic YWxpY2U",
            basic(b"alice"),
            basic(b"\xff:"),
        ):
            with self.assertRaisesRegex(Invalid, "not Basic"):
                sender_of(authorization)
