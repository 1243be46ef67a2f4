"""
The keyword arguments that both clients take, with their defaults: what to subscribe to
(`Wanted`), and how to get to the bus (`Access`).

A function that takes some of them has `**options: Unpack[...]` in its signature, so that a
type checker knows each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from ..headers import Headers
from .url import BusURL

__all__ = [
    "HEARTBEAT_SECONDS",
    "MAX_MESSAGE_BYTES",
    "PATIENCE_SECONDS",
    "TIMEOUT_SECONDS",
    "Access",
    "Fields",
    "FieldsAndAccess",
    "StreamMessage",
    "Wanted",
    "WantedAndAccess",
    "read",
    "refuse_unknown",
    "split_fields",
    "with_access",
]

HEARTBEAT_SECONDS = 25
TIMEOUT_SECONDS = 30
PATIENCE_SECONDS = 60
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Wanted(TypedDict, total=False):
    """
    Which messages a subscription gets, and how: the query of its URL.

    Keys:
        type: A list of patterns for the content type, such as `text/*,!text/html`.
        sender: A list of patterns for the sender.
        channel: A list of patterns for the channels below a folder.
        since: Where in history to begin: the id of a message, a time ago such as `10m`, or
            `all`.
        last: How many messages of history to begin with; not together with `since`.
        last_of_each: Whether to begin with the newest message of each channel below a
            folder; not together with those two.
        overflow: What the bus does when this subscriber is too slow: `drop-newest`,
            `drop-oldest`, `latest` or `close`.
        header: Lists of patterns for the values of headers, by their names, such as
            `{"ce-type": "com.example.*"}`.
        heartbeat: Seconds between the signs of life that the bus sends, 5 to 300; 25 if it
            is not given.  A server that is silent for twice as long is taken for lost.
            With 0 there are no heartbeats, and no silence is too long.
        decode: Whether a gzip or deflate `Content-Encoding` of a message is undone, and
            taken from its headers; it is, if this is not given.  A body that is not what it
            says it is, or would be larger than the largest message, comes as it is, with
            that header.
        until: With `now`, the subscription ends where history does; together with `since`
            or `last`.
        interval: With `overflow="latest"`, the time between two moments in which messages
            come, such as `2s`; of each channel, only the newest does.
    """

    type: str
    sender: str
    channel: str
    since: str
    last: int
    last_of_each: bool
    overflow: str
    header: Mapping[str, str]
    heartbeat: int
    decode: bool
    until: str
    interval: str


class Access(TypedDict, total=False):
    """
    How to get to a bus, and as whom.

    Keys:
        user: The name to publish under, if the URL has none.  Without either, messages
            are anonymous.
        password: The password of the bus, if it has one and the URL does not.
        ca: A file of certificates (PEM) to trust, in place of those of the system.
        certificate: A file with a private key and its certificate (PEM), for a server that
            asks clients for one, followed by the certificates between that one and a root.
        timeout: Seconds to wait for a connection and for the response to a request; 30 if
            it is not given.
    """

    user: str
    password: str
    ca: Path | str | None
    certificate: Path | str | None
    timeout: float


class Fields(TypedDict, total=False):
    """
    What may be said of a message that is published, beside its body and type.

    Keys:
        headers: Those that travel with it; see `msgbus.headers`.
        max_age: For how many seconds it is kept and delivered; for as long as the bus keeps
            messages, if it is not given.
    """

    headers: Mapping[str, str]
    max_age: int | None


class FieldsRead(TypedDict):
    """
    The same, with defaults.
    """

    headers: Headers
    max_age: int | None


class FieldsAndAccess(Fields, Access, total=False):
    """
    The keys of both.
    """


class StreamMessage(Fields, total=False):
    """
    What may be said of a message that is published by a stream, beside its body and type.

    Keys:
        channel: A channel below the folder that the stream goes to.
        keep: Whether history may keep the message; it may, if this is not given.
        sender: In place of the user's name, where the bus asks for no password.
        id: The id that the message has on the bus that it comes from, which makes sure that
            it is published once.
        origin: The origin that it has there, likewise.
    """

    channel: str
    keep: bool
    sender: str
    id: str
    origin: str


class WantedAndAccess(Wanted, Access, total=False):
    """
    The keys of both.
    """


def refuse_unknown(function: str, options: Mapping[str, object], known: type) -> None:
    """
    Check keyword arguments against the keys of a `TypedDict`, as Python checks those of a
    plain signature.

    Raises:
        TypeError: There is a keyword that is no key.
    """
    for name in options:
        if name not in known.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def read(fields: Fields) -> FieldsRead:
    """
    The fields as a `Message` takes them.

    Raises:
        Invalid: A header cannot be sent.
    """
    return {
        "headers": Headers(fields.get("headers") or {}),
        "max_age": fields.get("max_age"),
    }


def split_fields(options: FieldsAndAccess) -> tuple[Fields, Access]:
    """
    Keyword arguments of both kinds, each kind apart.
    """
    names = Fields.__annotations__
    fields, access = (
        {name: value for name, value in options.items() if (name in names) == is_field}
        for is_field in (True, False)
    )
    return cast(Fields, fields), cast(Access, access)


def with_access(url: str | BusURL, access: Access) -> BusURL:
    """
    The URL with name and password: its own, or else those of `access`.

    Raises:
        Invalid: The text is no URL of a bus, or the name or password cannot be sent.
    """
    read = url if isinstance(url, BusURL) else BusURL.parse(url)
    return read.with_credentials(
        read.user or access.get("user", ""), read.password or access.get("password", "")
    )
