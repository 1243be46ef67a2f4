"""
The headers that travel with a message: which they are, how many, and what may be in them.

No I/O and no clock.  Most headers of a request belong to that request alone, such as a
password or what a proxy has added, and stay behind.  Those that say something about the
message go where it goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from .invalid import Invalid

__all__ = [
    "Headers",
    "MAX_BYTES",
    "MAX_HEADERS",
    "NO_HEADERS",
    "does_travel",
    "headers_from_json",
    "headers_of",
    "headers_to_json",
    "shown_name",
    "stored_headers",
]

MAX_HEADERS = 32
MAX_BYTES = 8192

# The longest name.
MAX_NAME = 200

# RFC 9110, section 5.6.2: a name; and what Unicode calls "Cc": C0, DEL and C1.
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Of HTTP (RFC 9110), the web (RFC 6266, 8288), mail (RFC 5322), Trace Context of the W3C,
# and signatures (RFC 9421, 9530).
_NAMES = {
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "link",
    "reply-to",
    "signature",
    "signature-input",
    "traceparent",
    "tracestate",
}

# The attributes of CloudEvents (their HTTP protocol binding, section 3.1.3), and whatever a
# publisher likes.
_PREFIXES = ("ce-", "x-")

# Of the latter, those by which proxies and servers tell each other who a client is, and
# those that a browser or a proxy obeys: they would act for whoever published the message.
_STAYING = (
    "x-accel-",
    "x-amz-",
    "x-amzn-",
    "x-api-key",
    "x-appengine-",
    "x-archive-files",
    "x-arr-",
    "x-auth",
    "x-azure-",
    "x-cache",
    "x-client-",
    "x-cluster-",
    "x-consumer-",
    "x-content-",
    "x-credential-",
    "x-csrf",
    "x-dns-prefetch-",
    "x-download-options",
    "x-envoy-",
    "x-forwarded",
    "x-frame-",
    "x-goog-authenticated-",
    "x-goog-iap-",
    "x-http-method",
    "x-lighttpd-",
    "x-litespeed-",
    "x-ms-client-",
    "x-ms-token-",
    "x-original-",
    "x-permitted-",
    "x-pomerium-",
    "x-proxy",
    "x-real-ip",
    "x-remote-",
    "x-reproxy-",
    "x-rewrite-",
    "x-robots-",
    "x-sendfile",
    "x-sourcemap",
    "x-ssl-",
    "x-ua-compatible",
    "x-userinfo",
    "x-varnish",
    "x-vouch-",
    "x-webauth-",
    "x-webkit-csp",
    "x-xsrf",
    "x-xss-",
)

# And what lets somebody in: proxies add it for the server behind them, and clients send it
# with a request, such as X-Access-Token, X-Gitlab-Token or X-Goog-IAP-JWT-Assertion.  All
# subscribers would read it.
_SECRET = re.compile(r"(token|secret|passw(or)?d|credentials?|jwt|assertion|api-?key)\Z")


def does_travel(name: str) -> bool:
    """
    Does a header of this name, in any case, travel with a message?
    """
    # A stranger's name may have megabytes, and such a name must not be remembered.  Some
    # letters beyond ASCII become ASCII in lower case.
    return len(name) <= MAX_NAME and name.isascii() and _does_travel(name)


@lru_cache(maxsize=1024)
def _does_travel(name: str) -> bool:
    name = name.lower()
    return name in _NAMES or (
        name.startswith(_PREFIXES)
        and not name.startswith(_STAYING)
        and not _SECRET.search(name)
        and _NAME.fullmatch(name) is not None
    )


@lru_cache(maxsize=1024)
def shown_name(name: str) -> str:
    """
    A name in lower case as it is usually spelled.
    """
    return name if name.startswith("ce-") else name.title()


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise Invalid(
            f"The headers that travel with a message have at most {MAX_BYTES} bytes"
            " together."
        )


class Headers(Mapping[str, str]):
    """
    The headers of a message.  Immutable; equal if names and values are, whatever their
    order was.

    Args:
        values: Values by name, or pairs; the values of names that are equal are joined by
            ", " (RFC 9110, section 5.3).  The case of names does not matter.

    Attributes:
        size: Bytes of all names and values together.
        values_text: All values, each on a line, to be searched at once.

    Raises:
        Invalid: A name is none of a header that travels, a value holds a control character,
            or there are more than 32 headers or 8 KiB.
    """

    __slots__ = ("_hash", "_values", "size", "values_text")

    def __init__(self, values: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = values.items() if isinstance(values, Mapping) else values
        joined: dict[str, str] = {}
        characters = 0
        for name, value in pairs:
            name, value = _checked(name, value)
            known = joined.get(name)
            joined[name] = value if known is None else f"{known}, {value}"
            if len(joined) > MAX_HEADERS:
                raise Invalid(
                    f"A message has at most {MAX_HEADERS} headers that travel with it."
                )
            # Not only at the end, because a stranger may give any number of values, and of
            # spellings of a name.
            characters += len(name if known is None else ", ") + len(value)
            _check_size(characters)
        self._values = dict(sorted(joined.items()))
        try:
            self.size = sum(len(n) + len(v.encode("utf-8")) for n, v in joined.items())
        except UnicodeEncodeError:
            raise Invalid("A header holds half of a character.") from None
        _check_size(self.size)
        self.values_text = "\n".join(self._values.values())
        self._hash = hash(tuple(self._values.items()))

    def __getitem__(self, name: str) -> str:
        return self._values[name if name in self._values else name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __bool__(self) -> bool:
        return bool(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Headers):
            return self._values == other._values
        return NotImplemented

    def __repr__(self) -> str:
        return f"Headers({self._values!r})"

    def without(self, *names: str) -> Headers:
        """
        The same without some of them.
        """
        return Headers({n: v for n, v in self._values.items() if n not in names})


def headers_of(pairs: Iterable[tuple[str, str]]) -> Headers:
    """
    Those of some headers that travel with a message; all others are left out.

    Raises:
        Invalid: See `Headers`.
    """
    travelling = tuple(pair for pair in pairs if does_travel(pair[0]))
    return _made(travelling) if travelling else NO_HEADERS


@lru_cache(maxsize=256)
def _made(pairs: tuple[tuple[str, str], ...]) -> Headers:
    return Headers(pairs)


def headers_to_json(headers: Headers) -> str:
    """
    Headers as a text, to be stored; empty if there are none.
    """
    return json.dumps(dict(headers)) if headers else ""


def headers_from_json(text: str) -> Headers:
    """
    What `headers_to_json` has written.

    Raises:
        ValueError: It is something else.
    """
    values = json.loads(text) if text else {}
    if not isinstance(values, dict):
        raise Invalid("Headers are an object of strings.")
    return stored_headers(values) if values else NO_HEADERS


def stored_headers(values: Mapping[str, str]) -> Headers:
    """
    What was stored, without those that do not travel: an earlier version may have let them.

    Raises:
        Invalid: See `Headers`.
    """
    return Headers({name: v for name, v in values.items() if does_travel(name)})


NO_HEADERS = Headers()
"""
Those of most messages.
"""


def _checked(name: str, value: str) -> tuple[str, str]:
    """
    A name in lower case and a value without outer white space.

    Raises:
        Invalid: They cannot be those of a header that travels.
    """
    if not isinstance(name, str) or not isinstance(value, str):
        raise Invalid("The names and the values of headers are strings.")
    if not does_travel(name):
        raise Invalid(
            f"A header {name[:100]!r} does not travel with a message; Content-Encoding,"
            " -Language, -Disposition and -Digest, Link, Reply-To, Traceparent, Tracestate,"
            " Signature, Signature-Input, and most that begin with ce- or X- do."
        )
    if _CONTROL.search(value):
        raise Invalid(f"The header {name!r} holds a control character.")
    return name.lower(), value.strip(" ")
