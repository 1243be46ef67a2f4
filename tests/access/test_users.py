"""
Tests for `msgbus.access.users` and `.passwords`.
"""

import argon2
import bcrypt
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access import passwords
from msgbus.access.passwords import check_hash, hash_password, verify
from msgbus.access.users import BadUsers, Users, check_user
from msgbus.message import Invalid

# What `htpasswd -nb alice secret` of apache2-utils 2.4 prints, by the option for the hash.
HTPASSWD = {
    "B": "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW",
    "m": "$apr1$2OF4vfEU$Hzobd43m30nMaPfodvbE81",
    "s": "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "d": "4IG1UCCh22Jnc",
    "p": "secret",
    "2": "$5$V2rd4k304BonSU36$b7LPIfbjnWuC.Hj4RJ7cngnBsqspHNlPoHTJa4b3FA.",
    "5": "$6$h3tbYg.FnHydXUuK$I8oG1.mWh52xXqMF9ki9FhqAhAQp6KGpcBjfINdyMyGZalmZf..Hsf8kOm0w"
    "w48ldbRckvaV3IOV65cBtRDC70",
}
GOOD = HTPASSWD["B"]


class FileTests(SynchronousTestCase):
    """
    The file of users.
    """

    def refusal(self, data):
        with self.assertRaises(BadUsers) as caught:
            Users.parse(data, "users")
        return str(caught.exception)

    def test_htpasswd(self):
        """
        A file as `htpasswd -B` writes it is taken, with comments, blank lines and CRLF too.
        """
        data = f"# Us.\n\nalice:{GOOD}\r\nbob smith:{GOOD}\n".encode()
        users = Users.parse(data, "users")
        self.assertEqual(len(users), 2)
        self.assertEqual(users.hash_of("alice"), GOOD)
        self.assertIn("bob smith", users)
        self.assertIsNone(users.hash_of("carol"))

    def test_weak(self):
        """
        All other hashes are refused, with a sentence that names them and says what to do,
        and without the hash.
        """
        for option, kind in (
            ("m", "hashed by MD5"),
            ("s", "hashed by SHA-1"),
            ("d", "plain text, hashed by crypt, or not understood"),
            ("p", "plain text, hashed by crypt, or not understood"),
            ("2", "hashed by SHA-256 by crypt"),
            ("5", "hashed by SHA-512 by crypt"),
        ):
            hashed = HTPASSWD[option]
            self.assertEqual(
                self.refusal(f"a:{GOOD}\nbob smith:{hashed}\n".encode()),
                f"users, line 2: The password is {kind}, and only bcrypt and Argon2 are"
                " taken. Set it anew: msgbus-passwd users 'bob smith'",
            )

    def test_damaged(self):
        """
        A damaged file, or a line that is not understood, is refused, never skipped.
        """
        good = f"alice:{GOOD}\n".encode()
        for data, start in (
            (b"", "users: There is no user"),
            (b"# alice\n", "users: There is no user"),
            (
                b"\xef\xbb\xbf" + good,
                "users, line 1: The file begins with a byte order mark",
            ),
            (good + b"bob:\0\n", "users, line 2: The line holds '\\x00'"),
            (good + b"bob\n", "users, line 2: The line is not NAME:HASH"),
            (good + b"bob:\n", "users, line 2: The line is not NAME:HASH"),
            (good + b":" + good, "users, line 2: The name of the user is empty"),
            (good + good, "users, line 2: The user 'alice' is also in line 1"),
            (good + b"\xff:x\n", "users, line 2: The line is not UTF-8"),
            (good[:-1], "users, line 1: The last line has no line end"),
            (good[:-2] + b"\n", "users, line 1: The password is hashed by a bcrypt or"),
            (good[:-1] + b":x\n", "users, line 1: The password is hashed by a bcrypt or"),
            (good.replace(b"$05$", b"$31$"), "users, line 1: The cost of the bcrypt hash"),
            (good.replace(b"$05$", b"$03$"), "users, line 1: The cost of the bcrypt hash"),
            (
                good.replace(b"2y", b"2x"),
                "users, line 1: The password is hashed by a faulty",
            ),
            (b"@users:" + good[6:], "users, line 1: The name '@users' begins with '@'"),
            (b"a/b:" + good[6:], "users, line 1: The name 'a/b' holds a colon or a slash"),
        ):
            with self.subTest(start=start):
                refusal = self.refusal(data)
                self.assertEqual(refusal[: len(start)], start)

    def test_no_secret_in_refusals(self):
        """
        No refusal shows what may be a password.
        """
        for data in (b"alice:hunter2\n", b"hunter2\n", b"alice:$2y$hunter2\n"):
            self.assertNotIn("hunter2", self.refusal(data))

    def test_names(self):
        """
        A name that could be a group, a comment, two fields or a path is refused.
        """
        for name in ("*", "..", "%u", "-", "[a-z]", "é", "a b", "x" * 255, "a%2Fb", "a@b"):
            check_user(name)
        for name in ("", "@a", "#a", "a:b", "a/b", "a\0", "a\n", " a", "a ", "x" * 256,
                     "\u200b", "\ud800", "é" * 128):  # fmt: skip
            with self.assertRaises(Invalid, msg=repr(name)):
                check_user(name)

    @given(st.binary(max_size=100))
    def test_garbage(self, data):
        """
        Anything is either users or refused.
        """
        try:
            Users.parse(data, "users")
        except BadUsers as error:
            self.assertTrue(str(error).startswith("users"))


class PasswordTests(SynchronousTestCase):
    """
    Hashes of passwords.
    """

    def test_htpasswd(self):
        """
        Passwords that `htpasswd -B` has hashed are verified.
        """
        self.assertTrue(verify(b"secret", GOOD))
        self.assertFalse(verify(b"Secret", GOOD))
        self.assertFalse(verify(b"", GOOD))

    def test_round_trip(self):
        """
        A new hash is one that is taken, and that Apache takes.
        """
        hashed = hash_password("pässword".encode())
        self.assertRegex(hashed, r"^\$2y\$10\$.{53}$")
        check_hash(hashed)
        self.assertTrue(verify("pässword".encode(), hashed))
        self.assertFalse(verify(b"password", hashed))

    def test_length(self):
        """
        What bcrypt would cut off can neither be set nor is it right.
        """
        self.assertTrue(verify(b"x" * 72, hash_password(b"x" * 72)))
        for password in (b"x" * 73, b"", b"a\0b"):
            with self.assertRaises(Invalid):
                hash_password(password)
        hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
        self.assertFalse(verify(b"x" * 73, hashed))

    def test_argon2(self):
        """
        Argon2 is verified, and refused if it takes more than is sensible.
        """
        hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        hashed = hasher.hash("secret")
        check_hash(hashed)
        self.assertTrue(verify(b"secret", hashed))
        self.assertFalse(verify(b"\xff", hashed))
        self.assertFalse(verify(b"secret", hashed[:-3] + "AAA"))
        for wrong in (
            hashed.replace("m=64", "m=99999999"),
            hashed.replace("t=1", "t=101"),
            hashed.replace("t=1", "t=0"),
            hashed[:40],
        ):
            with self.assertRaises(Invalid):
                check_hash(wrong)

    def test_no_argon2(self):
        """
        Without argon2-cffi, an Argon2 hash is refused, with a sentence that says what to
        install.
        """
        self.patch(passwords, "argon2", None)
        hashed = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("x")
        with self.assertRaisesRegex(Invalid, r"pip install 'msgbus\[argon2\]'"):
            check_hash(hashed)

    @given(st.text("./09AZazOeu", min_size=53, max_size=53))
    def test_any_hash(self, tail):
        """
        A hash is refused, or verified without an error.
        """
        for end in "", ".":
            hashed = f"$2y$04${tail[:21]}{end or tail[21]}{tail[22:52]}{end or tail[52]}"
            try:
                check_hash(hashed)
            except Invalid:
                self.assertFalse(end)
            else:
                self.assertFalse(verify(b"secret", hashed))
