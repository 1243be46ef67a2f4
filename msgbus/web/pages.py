"""
What browsers load from the bus itself: the front page, the page at the address of a
channel, that of a list of channels, and the JavaScript modules that these pages, and those
of other sites, import.
"""

from __future__ import annotations

import hashlib
import secrets
from functools import cache
from html import escape
from pathlib import Path
from string import Template

from twisted.web import http, server
from twisted.web.server import NOT_DONE_YET

from .auth import visitor_of
from .responses import Refusal, answer
from .visitor import Denied, Visitor

__all__ = [
    "MODULES",
    "SIGN_IN",
    "closed_page",
    "content_policy",
    "front_page",
    "list_page",
    "live_page",
    "module",
    "sign_in",
]

MODULES = b".js/"
"""
The path of the modules below the root of the bus.  No name of a channel begins with a dot.
"""

SIGN_IN = b".sign-in"
"""
The path at which a page has its browser ask for a name and a password.  Browsers send them
with all requests to paths in the same folder and below, so it is at the root of the bus.
"""

_FOLDER = Path(__file__).parent / "page"

# That page needs nothing but the style that is in it.
_CLOSED_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"


def content_policy(nonce: str, ancestors: str = "'self'") -> bytes:
    """
    The `Content-Security-Policy` of a page.

    The page allows its script by a nonce, which nobody can guess, and by it what the script
    imports.  Allowing it by its path would not do: a proxy may change the path, and a
    message that somebody has published has a path of the same origin.  The frames in which
    a page shows messages inherit the policy, so it allows no script or image of 'self',
    which a message could be; the inline styles are allowed for the messages.

    Args:
        ancestors: Which pages may show it in a frame.
    """
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline';"
        " img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
        f" frame-ancestors {ancestors}"
    ).encode("ascii")


def live_page(request: server.Request, path: bytes) -> int:
    """
    Answer with the page that shows the messages of a channel as they come.

    Args:
        path: The path of the channel below the root of the bus, percent-encoded.
    """
    return _page(request, "live.html", _root_from(path))


def list_page(request: server.Request, path: bytes) -> int:
    """
    Answer with the page that shows the channels below a folder.

    Args:
        path: The path of the folder below the root of the bus, percent-encoded.
    """
    return _page(request, "list.html", _root_from(path))


def front_page(request: server.Request, root: str) -> int:
    """
    Answer with the page at the root of the site, which lets somebody try the bus.

    Args:
        root: The address of the root of the bus, relative to that of the site.
    """
    return _page(request, "front.html", root)


def closed_page(request: server.Request, code: int, sentence: str) -> int:
    """
    Answer with a page for somebody who may not see the front page, in place of a sentence
    alone.
    """
    page = Template(_read("closed.html").decode()).substitute(sentence=escape(sentence))
    request.setHeader(b"Content-Security-Policy", _CLOSED_POLICY.encode("ascii"))
    request.setHeader(b"Cache-Control", b"no-store")
    return answer(request, code, page.encode(), b"text/html; charset=utf-8")


def _root_from(path: bytes) -> str:
    """
    The address of the root of the bus, relative to this path below it, so that a page works
    at whatever path a proxy serves the bus.
    """
    return "../" * path.count(b"/") or "./"


def _page(request: server.Request, file: str, root: str) -> int:
    """
    Answer with a page.

    Args:
        file: The file of it, in which `$root`, `$nonce`, `$sender` and `$signed_in` are
            replaced.
        root: The address of the root of the bus, relative to that of the page.
    """
    nonce = secrets.token_urlsafe(16)
    visitor = visitor_of(request)
    sender = f'value="{escape(visitor.sender)}" disabled' if visitor.sender else ""
    page = Template(_read(file).decode()).substitute(
        nonce=nonce,
        root=root,
        sender=sender,
        signed_in="" if _may_sign_in(visitor) else "hidden",
    )
    request.setHeader(b"Content-Security-Policy", content_policy(nonce))
    request.setHeader(b"Referrer-Policy", b"no-referrer")
    # Without this, browsers would look up the hosts that a message links to.
    request.setHeader(b"X-DNS-Prefetch-Control", b"off")
    request.setHeader(b"Cache-Control", b"no-store")
    return _send(request, "text/html", page.encode())


def sign_in(request: server.Request) -> int:
    """
    Answer with 204 to whoever has signed in, and to everybody where the bus has no users.

    Raises:
        Denied: They have not, so that their browser asks them for a name and a password.
    """
    request.setHeader(b"Cache-Control", b"no-store")
    if _may_sign_in(visitor_of(request)):
        raise Denied(401, "You have not signed in: that takes a name and a password.")
    return answer(request, http.NO_CONTENT)


def _may_sign_in(visitor: Visitor) -> bool:
    """
    Does the bus have users, and is this none of them?
    """
    return visitor.is_limited and not visitor.sender


def module(request: server.Request, path: bytes) -> int:
    """
    Answer with a JavaScript module.

    Args:
        path: The path below the root of the bus; begins with `MODULES`.

    Raises:
        Refusal: There is no module of that name.
    """
    name = path.removeprefix(MODULES).decode("ascii", "replace")
    if name not in _modules():
        raise Refusal(404, f"There is no such module; there are: {', '.join(_modules())}.")
    content = _read(name)
    if not request.responseHeaders.hasHeader(b"Cache-Control"):
        request.setHeader(b"Cache-Control", b"no-cache")
    etag = hashlib.sha256(content).hexdigest()[:32].encode("ascii")
    if request.setETag(b'"%s"' % etag) is http.CACHED:
        request.finish()
        return NOT_DONE_YET
    return _send(request, "text/javascript", content)


def _send(request: server.Request, media_type: str, content: bytes) -> int:
    request.setHeader(b"Content-Type", f"{media_type}; charset=utf-8".encode("ascii"))
    request.setHeader(b"Content-Length", b"%d" % len(content))
    if request.method != b"HEAD":
        request.write(content)
    request.finish()
    return NOT_DONE_YET


@cache
def _modules() -> tuple[str, ...]:
    return tuple(sorted(file.name for file in _FOLDER.glob("*.js")))


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
