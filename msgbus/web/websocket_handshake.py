"""
The opening handshake of a WebSocket (RFC 6455, section 4.2).
"""

from __future__ import annotations

import base64
import binascii

from twisted.web import server
from wsproto.utilities import generate_accept_token

from .headers import header
from .responses import Refusal

__all__ = ["accept_token", "wants_websocket"]

_VERSION = "13"
_KEY_BYTES = 16


def wants_websocket(request: server.Request) -> bool:
    """
    Does this request ask for a WebSocket?

    Raises:
        Refusal: It has a `Sec-WebSocket-Key`, but not what else makes it ask for one.
    """
    if request.method != b"GET":
        return False
    if request.clientproto == b"HTTP/1.1" and "websocket" in _tokens(request, b"Upgrade"):
        return True
    if request.requestHeaders.hasHeader(b"Sec-WebSocket-Key"):
        raise Refusal(
            426,
            "A WebSocket needs 'Upgrade: websocket' and HTTP/1.1; a proxy that drops them"
            " has to be told to pass them on, as docs/proxies.md has it.",
            [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")],
        )
    return False


def accept_token(request: server.Request) -> bytes:
    """
    The `Sec-WebSocket-Accept` of the answer, which shows the client that its handshake was
    understood (section 4.2.2).

    Raises:
        Refusal: The request is no valid opening handshake.
    """
    # Frames that follow a body would be lost.
    if request.requestHeaders.hasHeader(b"Transfer-Encoding") or (
        header(request, b"Content-Length") or ""
    ).strip("0"):
        raise Refusal(400, "A WebSocket is asked for without a body.")
    if "upgrade" not in _tokens(request, b"Connection"):
        raise Refusal(400, "A WebSocket needs 'Connection: Upgrade'.")
    if header(request, b"Sec-WebSocket-Version") != _VERSION:
        raise Refusal(
            426,
            f"A WebSocket needs 'Sec-WebSocket-Version: {_VERSION}'.",
            [
                (b"Sec-WebSocket-Version", _VERSION.encode("ascii")),
                (b"Upgrade", b"websocket"),
                (b"Connection", b"Upgrade"),
            ],
        )
    key = (header(request, b"Sec-WebSocket-Key") or "").encode("utf-8")
    try:
        nonce = base64.b64decode(key, validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != _KEY_BYTES:
        raise Refusal(400, "A WebSocket needs a Sec-WebSocket-Key: base64 of 16 bytes.")
    return generate_accept_token(key)


def _tokens(request: server.Request, name: bytes) -> list[str]:
    values = header(request, name, many=True) or ""
    return [token.strip().lower() for token in values.split(",")]
