"""
What the clients send to a bus: the headers of their requests.

No I/O.  Where they are sent is up to `url`.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from functools import lru_cache
from urllib.parse import quote

from ..formats.caching import cache_control
from ..headers import Headers, shown_name
from ..message import Message
from .url import BusURL

__all__ = [
    "forget_headers",
    "list_headers",
    "part_of",
    "publication_headers",
    "publication_stream_head",
    "subscription_headers",
]

# What a relative path may hold as it is (RFC 3986, section 4.2).  A colon is not among it:
# what stands before one would be taken for a scheme.
_RELATIVE_SAFE = "/!$&'()*+,;=@"


def publication_headers(
    url: BusURL, message: Message, *, keep: bool = True
) -> dict[str, str]:
    """
    The headers with which to publish a message.  Every repetition has to send the same
    ones: by the `Idempotency-Key` the bus knows that it is a repetition.
    """
    headers = {
        **_authorization(url),
        "Content-Type": message.content_type,
        "Idempotency-Key": secrets.token_hex(16),
        **{shown_name(name): value for name, value in message.headers.items()},
    }
    if cached := cache_control(keep, message.max_age):
        headers["Cache-Control"] = cached
    return headers


def subscription_headers(url: BusURL, last_id: str = "") -> dict[str, str]:
    """
    The headers with which to subscribe.

    Args:
        last_id: The id of the message behind which the stream is to begin, or the empty
            string.
    """
    headers = {**_authorization(url), "Accept": "multipart/x-mixed-replace"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    return headers


def forget_headers(url: BusURL) -> dict[str, str]:
    """
    The headers with which to have the messages of a channel forgotten.
    """
    return _authorization(url)


def list_headers(url: BusURL) -> dict[str, str]:
    """
    The headers with which to ask for a list of channels.
    """
    return {**_authorization(url), "Accept": "application/json"}


def publication_stream_head(url: BusURL, boundary: str) -> bytes:
    """
    The head of a request whose chunked body is a stream of parts; see `part_of`.  It asks
    for a receipt of each part, in a line of JSON.
    """
    headers = {
        "Host": url.authority,
        **_authorization(url),
        "Content-Type": f"multipart/x-mixed-replace; boundary={boundary}",
        "Transfer-Encoding": "chunked",
        "Accept": "application/x-ndjson",
        # Tells proxies to pass on each piece at once, in both directions (RFC 10036).
        "Incremental": "?1",
    }
    lines = [f"POST {url.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def part_of(message: Message, key: str, *, below: bool, keep: bool = True) -> bytes:
    """
    A message as a part of a stream: headers and body, and the line end behind them, but no
    delimiter.  Every repetition has to send the same bytes; see `publication_headers`.

    Args:
        message: Its sender, id and origin are sent if they are not empty.
        key: The `Idempotency-Key`.
        below: Whether the channel of the message is sent, as a path below the folder that
            the stream goes to.
        keep: Whether history may keep the message.
    """
    channel = message.channel if below else ""
    cached = cache_control(keep, message.max_age)
    lines = _part_lines(
        message.content_type, channel, message.sender, cached, message.headers
    )
    if message.id:
        lines += f"Msgbus-Id: {message.id}\r\n"
    if message.origin:
        lines += f"Msgbus-Origin: {message.origin}\r\n"
    head = f"{lines}Idempotency-Key: {key}\r\nContent-Length: {len(message.body)}\r\n\r\n"
    return b"%b%b\r\n" % (head.encode(), message.body)


@lru_cache
def _part_lines(
    content_type: str, channel: str, sender: str, cached: str, headers: Headers
) -> str:
    """
    The headers that parts have in common if they are of one type, channel and sender.
    """
    lines = f"Content-Type: {content_type}\r\n"
    if channel:
        lines += f"Content-Location: {quote(channel, safe=_RELATIVE_SAFE)}\r\n"
    if sender:
        lines += f"From: {sender}\r\n"
    if cached:
        lines += f"Cache-Control: {cached}\r\n"
    return lines + "".join(f"{shown_name(n)}: {v}\r\n" for n, v in headers.items())


def _authorization(url: BusURL) -> dict[str, str]:
    """
    Basic authentication (RFC 7617), if there is a name or a password.
    """
    if not url.user and not url.password:
        return {}
    pair = f"{url.user}:{url.password}".encode()
    return {"Authorization": f"Basic {b64encode(pair).decode()}"}
