"""
Tokens: JWTs (RFC 7519) that an issuer has signed, for those who have one.

By joserfc, because its compact form takes a key that belongs to one kind of algorithm, and
it parses what is given as an HMAC secret, to find public keys in any disguise; PyJWT takes
plain bytes as keys, which several of its advisories of 2026 are about.

Only the compact form is read, with the algorithm that was configured for the key.  Nothing
in a token chooses how it is verified, and no key is fetched from anywhere.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from ..message import Invalid
from .channels import NO_CHANNELS, Channels
from .grant import BadGrant, Grant

__all__ = ["ALGORITHMS", "BadKey", "BadToken", "TokenKey", "Tokens"]

# In characters.
MAX_TOKEN = 8192
MAX_HEADER = 512
MAX_PATTERNS = 32
MAX_LEEWAY_SECONDS = 300
# RFC 7518, section 3.3.
MIN_RSA_BITS = 2048

# The kind of key of each algorithm.  "EdDSA" is the older name of Ed25519 (RFC 9864).
ALGORITHMS: dict[str, type[OctKey | RSAKey | ECKey | OKPKey]] = {
    **dict.fromkeys(("HS256", "HS384", "HS512"), OctKey),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSAKey),
    **dict.fromkeys(("ES256", "ES384", "ES512"), ECKey),
    **dict.fromkeys(("Ed25519", "EdDSA"), OKPKey),
}

# What a header may hold; only `alg` and `typ` are looked at.  All that names or brings a
# key (`jku`, `jwk`, `x5u`, `x5c`), or changes how a token is read (`crit`, `b64`, `zip`,
# `cty`), is refused.
_HEADERS = {"alg", "kid", "typ", "x5t", "x5t#S256"}
# RFC 7519, section 5.1, and RFC 9068, section 2.1.
_TYPES = {"jwt", "application/jwt", "at+jwt", "application/at+jwt"}

# PEM, SSH keys and JWKs, which are keys of another kind and no secrets.
_NO_SECRET = re.compile(rb"-----\s*BEGIN|---- BEGIN|\A\s*(?:ssh-|ecdsa-|\{)")

_BROKEN = "The token is no JWT in the compact form: three parts of base64url, and dots."


class BadKey(Exception):
    """
    A key that cannot verify tokens.  The text names the file, and says what is wrong in one
    sentence.
    """


class BadToken(BadGrant):
    """
    A token that gives no right.
    """


@dataclass(frozen=True, slots=True)
class TokenKey:
    """
    A key of an issuer.

    Attributes:
        algorithm: The only one for which it is used.
    """

    algorithm: str
    _key: Key = field(repr=False)

    @classmethod
    def parse(cls, algorithm: str, data: bytes, file: str) -> TokenKey:
        """
        Read a key.

        Args:
            algorithm: One of `ALGORITHMS`.
            data: For `HS256` and its like, the secret, as it is but for one line end; at
                least as many bytes as the algorithm's hash has (RFC 7518, section 3.2).
                Otherwise the public key, as PEM.
            file: Its name, for errors.

        Raises:
            BadKey: The key does not fit the algorithm.
        """
        kind = ALGORITHMS.get(algorithm)
        if kind is None:
            raise BadKey(
                f"{file}: {algorithm!r} is no algorithm for tokens; they are:"
                f" {', '.join(ALGORITHMS)}."
            )
        if kind is OctKey:
            data = data.removesuffix(b"\n").removesuffix(b"\r")
            _check_secret(algorithm, data, file)
        elif b"-----BEGIN" not in data:
            raise BadKey(f"{file}: A key for {algorithm} is a public key in PEM.")
        try:
            key = kind.import_key(data)
            _check_fits(algorithm, key)
        except (ValueError, TypeError, JoseError):
            raise BadKey(f"{file}: It holds no key for {algorithm}.") from None
        if not isinstance(key, OctKey) and key.is_private:
            raise BadKey(
                f"{file}: It holds a private key; to verify tokens, give the public one."
            )
        return cls(algorithm, key)


@dataclass(frozen=True, slots=True)
class Tokens:
    """
    Verifies tokens.

    Attributes:
        keys: The keys of the issuers.  A token is tried with all whose algorithm it names.
        audience: The name of this bus, one of which `aud` has to be; or the empty string if
            it has no name.  Then a token with `aud` is for somebody else (RFC 7519, section
            4.1.3).
        leeway: How many seconds clocks may differ, at most 300.
    """

    keys: Sequence[TokenKey]
    audience: str = ""
    leeway: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.leeway <= MAX_LEEWAY_SECONDS:
            raise ValueError(f"The leeway is 0 to {MAX_LEEWAY_SECONDS} seconds.")

    def verify(self, token: str, now: float) -> Grant:
        """
        The grant that a token carries.

        The claim `sub` is the name; `publish` and `subscribe` are lists of patterns, one of
        which at least is there; `exp` is required, and `nbf` and `iat` are respected.

        Args:
            token: From an `Authorization` header; see `credentials.bearer_of`.
            now: In seconds since 1970.

        Raises:
            BadToken: The token gives no right.
        """
        if len(token) > MAX_TOKEN:
            raise BadToken(f"The token is longer than {MAX_TOKEN} characters.")
        algorithm = _algorithm(token)
        keys = [key for key in self.keys if key.algorithm == algorithm]
        if not keys:
            raise BadToken(f"The bus has no key for tokens by {algorithm[:20]!r}.")
        for key in keys:
            payload = _verified(token, key)
            if payload is not None:
                break
        else:
            raise BadToken("The token's signature does not fit the keys of this bus.")
        claims = _object(payload)
        expires = self._expiry(claims, now)
        self._check_audience(claims)
        return _grant(claims, expires)

    def _expiry(self, claims: dict[str, Any], now: float) -> float:
        """
        The time at which a token that holds now stops to, whichever clock is late.
        """
        exp, nbf, iat = (_time(claims, name) for name in ("exp", "nbf", "iat"))
        if exp is None:
            raise BadToken("The token has no 'exp': it has to expire.")
        if now >= exp + self.leeway:
            raise BadToken("The token has expired.")
        if max(nbf or 0, iat or 0) > now + self.leeway:
            raise BadToken("The token is not valid yet.")
        return exp + self.leeway

    def _check_audience(self, claims: dict[str, Any]) -> None:
        given = claims.get("aud", [])
        audiences = given if isinstance(given, list) else [given]
        if self.audience and self.audience not in audiences:
            raise BadToken(f"The token is not for {self.audience!r}, by its 'aud'.")
        if not self.audience and audiences:
            raise BadToken("The token has an 'aud', and this bus was given no name for it.")


class _OneAlgorithm(JWSRegistry):
    """
    What joserfc may use: one algorithm, and no other by any other name.
    """

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm])
        self._algorithm = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._algorithm:
            raise BadToken("The token's algorithm is not that of the key.")
        # Without joserfc's warning that "EdDSA" is an old name: issuers still use it.
        return self.algorithms[name]


def _grant(claims: dict[str, Any], expires: float) -> Grant:
    """
    What these claims allow.
    """
    name = claims.get("sub", "")
    if not isinstance(name, str):
        raise BadToken("The token's 'sub' is no text.")
    publish, subscribe = (_channels(claims, verb) for verb in ("publish", "subscribe"))
    if publish is None and subscribe is None:
        raise BadToken("The token has neither the claim 'publish' nor 'subscribe'.")
    try:
        return Grant(publish or NO_CHANNELS, subscribe or NO_CHANNELS, expires, name)
    except Invalid as error:
        raise BadToken(f"The token's 'sub' cannot be a sender: {error}") from None


def _check_secret(algorithm: str, data: bytes, file: str) -> None:
    needed = int(algorithm[2:]) // 8
    if _NO_SECRET.search(data):
        raise BadKey(
            f"{file}: A public key or certificate is no secret for {algorithm}: whoever"
            " knows it could make tokens."
        )
    if len(data) < needed:
        raise BadKey(f"{file}: A secret for {algorithm} has at least {needed} bytes.")


def _check_fits(algorithm: str, key: Key) -> None:
    """
    Raises:
        ValueError, JoseError: The key is too small, or is on another curve.
    """
    JWSRegistry.algorithms[algorithm].check_key(key)
    if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS:
        raise ValueError("too small")
    if isinstance(key, OKPKey) and key.curve_name != "Ed25519":
        raise ValueError("another curve")


def _algorithm(token: str) -> str:
    """
    The algorithm that a token names in its header, which is checked here in full, before
    anything is computed.
    """
    parts = token.split(".")
    if len(parts) != 3 or len(parts[0]) > MAX_HEADER:
        raise BadToken(_BROKEN)
    header, *_ = map(_decoded, parts)
    headers = _object(header)
    for name in sorted(headers.keys() - _HEADERS):
        raise BadToken(f"The token has the header {name[:20]!r}, which is not taken here.")
    if not all(isinstance(value, str) for value in headers.values()):
        raise BadToken("The token has a header that is no text.")
    if headers.get("typ", "JWT").lower() not in _TYPES:
        raise BadToken("The token's 'typ' is not JWT.")
    return str(headers.get("alg", ""))


def _verified(token: str, key: TokenKey) -> bytes | None:
    """
    What is in a token, or None if its signature does not fit this key.
    """
    registry = _OneAlgorithm(key.algorithm)
    try:
        # The payload is bytes in every token that was deserialized.
        return jws.deserialize_compact(token, key._key, registry=registry).payload
    except (JoseError, ValueError):
        return None


def _decoded(part: str) -> bytes:
    """
    The bytes of a part, in the one form that they have as base64url (RFC 7515, section 2).
    """
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadToken(_BROKEN) from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode():
        raise BadToken(_BROKEN)
    return data


def _object(data: bytes) -> dict[str, Any]:
    """
    A JSON object in which no name is there twice (RFC 7515, section 4).
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise BadToken(
            "The token's header or claims are no JSON, or name one twice."
        ) from None
    if not isinstance(value, dict):
        raise BadToken("The token's header or claims are no JSON object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name is there twice")
    return value


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    # A bool is an int, too.  NaN would never expire, but is between no two numbers.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -(2**62) < value < 2**62:
        raise BadToken(f"The token's {name!r} is no time.")
    return float(value)


def _channels(claims: dict[str, Any], verb: str) -> Channels | None:
    patterns = claims.get(verb)
    if patterns is None:
        return None
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise BadToken(f"The token's {verb!r} is no list of patterns.")
    if len(patterns) > MAX_PATTERNS:
        raise BadToken(f"The token's {verb!r} has more than {MAX_PATTERNS} patterns.")
    try:
        return Channels(patterns)
    except Invalid as error:
        raise BadToken(f"The token's {verb!r} is not understood: {error}") from None
