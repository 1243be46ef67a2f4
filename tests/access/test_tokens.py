"""
Tests for `msgbus.access.tokens`.
"""

import base64
import hmac
import json
import warnings

from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.channels import Channels
from msgbus.access.grant import INVALID_TOKEN, Grant
from msgbus.access.links import is_link
from msgbus.access.tokens import (
    MAX_TOKEN,
    BadKey,
    BadToken,
    TokenKey,
    Tokens,
    _OneAlgorithm,
)

NOW = 1_764_000_000
SECRET = b"a secret that is long enough for all of them, since it has 64 bytes."
RSA = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
ED = OKPKey.generate_key("Ed25519")
SIGNERS = {
    "HS256": OctKey.import_key(SECRET),
    "RS256": RSA,
    "PS256": RSA,
    "ES256": EC,
    "Ed25519": ED,
    "EdDSA": ED,
}
CLAIMS = {"sub": "alice", "exp": NOW + 60, "subscribe": ["public/*"]}


def public(algorithm):
    """
    What the operator has, to verify by this algorithm.
    """
    key = SIGNERS[algorithm]
    return SECRET if algorithm == "HS256" else key.as_pem(private=False)


def encoded(data):
    """
    Base64url without padding.
    """
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(header, claims, secret=SECRET):
    """
    A token with this header and these claims, which may be text, signed by HS256.
    """
    parts = (
        encoded((x if isinstance(x, str) else json.dumps(x)).encode())
        for x in (header, claims)
    )
    text = ".".join(parts)
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), 'sha256'))}"


def signed(claims, algorithm="HS256", header=None):
    """
    A token as an issuer makes it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # EdDSA is an old name.
        return jwt.encode(
            {"alg": algorithm, **(header or {})},
            claims,
            SIGNERS[algorithm],
            algorithms=[algorithm],
        )


HS256 = TokenKey.parse("HS256", SECRET, "f")


class TokenTests(SynchronousTestCase):
    """
    Tokens that are verified.
    """

    def verify(self, token, *keys, now=NOW, **options):
        return Tokens(keys or (HS256,), **options).verify(token, now)

    def assert_bad(self, token, why, *keys, **options):
        with self.assertRaisesRegex(BadToken, why) as caught:
            self.verify(token, *keys, **options)
        self.assertEqual(caught.exception.code, INVALID_TOKEN)

    def test_algorithms(self):
        """
        A token is verified by each kind of algorithm, without a warning.
        """
        grant = Grant(subscribe=Channels(["public/*"]), expires=NOW + 90, name="alice")
        for algorithm in SIGNERS:
            token = signed(CLAIMS, algorithm)
            key = TokenKey.parse(algorithm, public(algorithm), "f")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self.assertEqual(self.verify(token, key), grant, algorithm)
            self.assertFalse(is_link(token))

    def test_one_algorithm(self):
        """
        A key verifies by its own algorithm only, not even by another that it could do.
        """
        for algorithm in SIGNERS:
            keys = [
                TokenKey.parse(other, public(other), "f")
                for other in SIGNERS
                if other != algorithm
            ]
            self.assert_bad(signed(CLAIMS, algorithm), "has no key for tokens by", *keys)

    def test_public_key_as_secret(self):
        """
        A token that was signed by HMAC with a public key as the secret is refused.
        """
        pem = public("RS256")
        key = TokenKey.parse("RS256", pem, "f")
        for secret in (pem, pem.strip(), pem + b"\n"):
            self.assert_bad(raw({"alg": "HS256"}, CLAIMS, secret), "no key for", key)
            self.assert_bad(raw({"alg": "RS256"}, CLAIMS, secret), "does not fit", key)
            self.assert_bad(raw({"alg": "HS256"}, CLAIMS, secret), "not fit", key, HS256)

    def test_none(self):
        """
        A token that is not signed is refused, however it says so.
        """
        for name in ("none", "None", "NONE", "", "nOnE"):
            token = raw({"alg": name}, CLAIMS)
            unsigned = token.rpartition(".")[0] + "."
            for bad in (token, unsigned):
                self.assert_bad(bad, "has no key for tokens by")
        self.assert_bad(raw({}, CLAIMS), "has no key for tokens by")
        token = signed(CLAIMS).rpartition(".")[0]
        self.assert_bad(f"{token}.", "does not fit")
        self.assert_bad(token, "no JWT in the compact form")

    def test_headers(self):
        """
        Headers that bring a key, or that would change how the token is read, are refused.
        """
        self.verify(raw({"alg": "HS256", "typ": "at+JWT", "kid": "../../x"}, CLAIMS))
        jwk = OctKey.import_key(b"x" * 32).as_dict()
        for name, value in (
            ("crit", ["exp"]),
            ("crit", []),
            ("jku", "https://evil.example/keys"),
            ("jwk", jwk),
            ("x5u", "https://evil.example/cert"),
            ("x5c", ["AAAA"]),
            ("b64", False),
            ("zip", "DEF"),
            ("cty", "JWT"),
            ("enc", "A256GCM"),
        ):
            self.assert_bad(raw({"alg": "HS256", name: value}, CLAIMS), f"header '{name}'")
        self.assert_bad(raw({"alg": ["HS256"]}, CLAIMS), "header that is no text")
        self.assert_bad(raw({"alg": "HS256", "typ": "JOSE"}, CLAIMS), "'typ' is not JWT")
        self.assert_bad(raw('{"alg":"none","alg":"HS256"}', CLAIMS), "name one twice")
        self.assert_bad(raw('["HS256"]', CLAIMS), "no JSON object")
        self.assert_bad(raw("[" * 300, CLAIMS), "no JSON")
        self.assert_bad(raw({"alg": "HS256"}, "[" * 5000), "no JSON")

    def test_form(self):
        """
        Only the compact form is taken, and each part in one form.
        """
        token = signed(CLAIMS)
        header, payload, signature = token.split(".")
        flattened = {"protected": header, "payload": payload, "signature": signature}
        for bad in (
            "",
            "..",
            json.dumps(flattened),
            f"{token}.",
            f"{token}.{signature}",
            f"{token}=",
            f"{header}=.{payload}.{signature}",
            f" {token}",
            f"{token}\n",
            token.replace(".", ".\n"),
            f"{header}.{payload}!.{signature}",
            f"{header}.{payload}.{signature[:-1]}{chr(ord(signature[-1]) ^ 1)}",
            "ä.ä.ä",
        ):
            self.assert_bad(bad, "compact form|no JSON")
        self.assert_bad("A" * (MAX_TOKEN + 1), "longer than 8192")
        self.verify(raw({"alg": "HS256", "kid": "k" * 340}, CLAIMS))
        self.assert_bad(raw({"alg": "HS256", "kid": "k" * 400}, CLAIMS), "compact form")

    @given(
        st.text(max_size=40) | st.lists(st.binary(max_size=20).map(encoded)).map(".".join)
    )
    def test_garbage(self, token):
        """
        Any text is refused, and raises nothing else.
        """
        with self.assertRaises(BadToken):
            self.verify(token)

    @given(
        st.dictionaries(
            st.sampled_from(
                ["sub", "exp", "nbf", "iat", "aud", "publish", "subscribe", "x"]
            ),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats()
                | st.text(max_size=4),
                lambda inner: st.lists(inner, max_size=3),
            ),
        )
    )
    def test_any_claims(self, claims):
        """
        Claims of any type give a grant that expires, or are refused.
        """
        try:
            grant = self.verify(raw({"alg": "HS256"}, claims))
        except BadToken:
            return
        self.assertGreater(grant.expires, NOW)

    def test_times(self):
        """
        A token has to expire; it holds from its `nbf` and `iat`, with some seconds for
        clocks that differ.
        """

        def token(**changes):
            claims = {**CLAIMS, **changes}
            return raw({"alg": "HS256"}, {k: v for k, v in claims.items() if v is not None})

        self.verify(token(exp=NOW - 29, nbf=NOW + 30, iat=NOW + 30))
        self.assertEqual(self.verify(token(exp=NOW + 0.5), leeway=0).expires, NOW + 0.5)
        self.assert_bad(token(exp=None), "no 'exp'")
        self.assert_bad(token(exp=NOW - 30), "expired")
        self.assert_bad(token(exp=NOW), "expired", leeway=0)
        self.assert_bad(token(nbf=NOW + 31), "not valid yet")
        self.assert_bad(token(iat=NOW + 31), "not valid yet")
        for value in ("9999999999", True, [NOW + 60], 1e300, 10**400):
            self.assert_bad(token(exp=value), "'exp' is no time")
        for value in ("NaN", "Infinity", "1e999"):
            claims = json.dumps(CLAIMS).replace(str(NOW + 60), value)
            self.assert_bad(raw({"alg": "HS256"}, claims), "'exp' is no time")

    def test_leeway(self):
        """
        Clocks may differ by five minutes at most.
        """
        Tokens((HS256,), leeway=300)
        for leeway in (-1, 301):
            with self.assertRaises(ValueError):
                Tokens((HS256,), leeway=leeway)

    def test_audience(self):
        """
        If the bus has a name, the token is for it; if it has none, for nobody by name.
        """
        for aud in ("bus", ["other", "bus"]):
            self.verify(signed({**CLAIMS, "aud": aud}), audience="bus")
            self.assert_bad(signed({**CLAIMS, "aud": aud}), "was given no name")
        for aud in ("buses", "", [], ["other"], None, {"bus": 1}, [["bus"]]):
            self.assert_bad(
                raw({"alg": "HS256"}, {**CLAIMS, "aud": aud}),
                "not for 'bus'",
                audience="bus",
            )
        self.assert_bad(signed(CLAIMS), "not for 'bus'", audience="bus")

    def test_claims(self):
        """
        The claims say what is allowed, to whom; without a name, nobody is named.
        """
        claims = {"exp": NOW + 60, "publish": ["a", "b/*"], "subscribe": []}
        self.assertEqual(
            self.verify(signed(claims)),
            Grant(publish=Channels(["b/*", "a"]), expires=NOW + 90),
        )
        for changes, why in (
            ({"subscribe": "public/*"}, "no list of patterns"),
            ({"subscribe": [1]}, "no list of patterns"),
            ({"subscribe": {"*": 1}}, "no list of patterns"),
            ({"subscribe": ["a"] * 33}, "more than 32 patterns"),
            ({"subscribe": [""]}, "not understood"),
            ({"publish": ["!a"]}, "not understood"),
            ({"publish": ["a,b"]}, "not understood"),
            ({"sub": 7}, "'sub' is no text"),
            ({"sub": "a\r\nb"}, "cannot be a sender"),
            ({"sub": "\udc80"}, "cannot be a sender"),
        ):
            self.assert_bad(raw({"alg": "HS256"}, {**CLAIMS, **changes}), why)
        self.assert_bad(signed({"exp": NOW + 60}), "neither the claim")
        twice = json.dumps(CLAIMS)[:-1] + ',"subscribe":["*"]}'
        self.assert_bad(raw({"alg": "HS256"}, twice), "name one twice")

    def test_registry(self):
        """
        joserfc is offered no algorithm but that of the key.
        """
        for name in ("none", "HS384", "RS256"):
            with self.assertRaises(BadToken):
                _OneAlgorithm("HS256").get_alg(name)

    def test_rotation(self):
        """
        A token is tried with all keys of its algorithm.
        """
        others = [TokenKey.parse("HS256", bytes([i]) * 32, "f") for i in range(3)]
        self.verify(signed(CLAIMS), *others, HS256)
        self.assert_bad(signed(CLAIMS), "does not fit the keys", *others)


class KeyTests(SynchronousTestCase):
    """
    The keys of issuers.
    """

    def assert_bad(self, algorithm, data, why):
        with self.assertRaisesRegex(BadKey, f"^f: .*{why}"):
            TokenKey.parse(algorithm, data, "f")

    def test_no_secret(self):
        """
        A public key, a private key or a JWK is refused as a secret, in any disguise.
        """
        public_pem, private_pem = RSA.as_pem(private=False), RSA.as_pem(private=True)
        jwk = json.dumps(EC.as_dict()).encode()
        for data in (
            public_pem,
            private_pem,
            b"\n  " + public_pem,
            b"comment\n" + public_pem,
            public_pem.replace(b"\n", b"\r\n"),
            public_pem.replace(b"-----BEGIN", b"-----   BEGIN"),
            EC.as_pem(private=False),
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAA",
            jwk,
            b" \n" + jwk,
        ):
            self.assert_bad("HS256", data, "is no secret for HS256")
        self.assert_bad("HS256", RSA.as_der(private=False), "no key for HS256")

    def test_short_secret(self):
        """
        A secret has as many bytes as the hash at least; one line end does not count.
        """
        for algorithm, size in (("HS256", 32), ("HS384", 48), ("HS512", 64)):
            TokenKey.parse(algorithm, b"x" * size + b"\r\n", "f")
            self.assert_bad(algorithm, b"x" * (size - 1) + b"\n", f"at least {size} bytes")
        self.assert_bad("HS256", b"", "at least 32 bytes")

    def test_wrong_key(self):
        """
        A key of another kind, on another curve, too small, or private, is refused.
        """
        for algorithm, key in (
            ("ES256", RSA),
            ("RS256", EC),
            ("Ed25519", EC),
            ("RS256", ED),
        ):
            self.assert_bad(algorithm, key.as_pem(private=False), "no key for")
        other = ECKey.generate_key("P-384").as_pem(private=False)
        self.assert_bad("ES256", other, "no key for ES256")
        other = OKPKey.generate_key("Ed448").as_pem(private=False)
        self.assert_bad("EdDSA", other, "no key for EdDSA")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = RSAKey.generate_key(1024).as_pem(private=False)
            self.assert_bad("RS256", small, "no key for RS256")
        self.assert_bad("RS256", RSA.as_pem(private=True), "private key")
        self.assert_bad("RS256", b"-----BEGIN PUBLIC KEY-----\nAAAA\n", "no key for RS256")
        self.assert_bad("RS256", SECRET, "public key in PEM")

    def test_algorithm(self):
        """
        An algorithm that is not known, `none` too, is refused.
        """
        for algorithm in ("none", "hs256", "", "ES256K"):
            self.assert_bad(algorithm, SECRET, "is no algorithm for tokens")

    def test_not_shown(self):
        """
        A key does not show its secret.
        """
        self.assertNotIn("secret", repr(HS256))
