"""
Reads a log in Redis from its beginning, and its entries as messages.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ..bus.history import History
from ..bus.id_sequence import zero_id
from ..bus.log import CannotLoad
from ..headers import stored_headers
from ..ids import ZERO, Id, parse_id
from ..message import Invalid, Message
from .address import RedisAddress
from .connection import BlockingConnection, RedisError
from .follower import Entry
from .master import connect_blocking
from .scripts import CHECK, FIELDS, MARK

__all__ = ["Foreign", "Found", "extra_of", "load", "read_entry", "read_mark"]

# The oldest version of Redis that has all that is used.
OLDEST = (6, 2)

# The names of the fields of an entry; see `APPEND`.
_NAMES = [name.encode() for name in FIELDS[2:]]

# How many entries are read at once.
PAGE_ENTRIES = 128

# The ids that nodes give, and those of marks.
_ID = re.compile(rb"[0-9]{1,16}-[1-9][0-9]{17}")
_MARK_ID = re.compile(rb"[0-9]{1,16}-0")


class Foreign(ValueError):
    """
    An entry of the stream that no node of this version has appended: somebody else has
    written into the stream, or a node of a later version.

    Attributes:
        id: The id of the message that it may be; None if no node has given it such an id.
    """

    def __init__(self, entry: Entry) -> None:
        super().__init__(f"the entry {entry[0].decode()} is no message of msgbus")
        self.id = parse_id(entry[0].decode()) if _ID.fullmatch(entry[0]) else None


@dataclass
class Found:
    """
    What `load` has found besides the messages.

    Attributes:
        life: The life of the log.
        boundary: The boundary of the log, which all nodes use.
        unkept: The ids of entries that the history does not keep, so that they can be
            deleted from the stream.
        warnings: What the operator of Redis may want to change, in sentences.
    """

    life: int
    boundary: str
    unkept: list[Id] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load(
    address: RedisAddress, boundary: str, history: History, settings: Mapping[str, object]
) -> Found:
    """
    Read a whole log into a history, and begin the log if it is empty.  This blocks.

    Args:
        boundary: The boundary that the log gets if it is empty.
        settings: See `RedisLog`.

    Raises:
        CannotLoad: Redis cannot be reached or used.
    """
    try:
        connection = connect_blocking(address)
        try:
            found = _load(connection, address, boundary, history)
            meta = f"{address.stream}:meta"
            found.warnings += _differences(connection, meta, settings)
            return found
        finally:
            connection.close()
    except (OSError, RedisError, Invalid, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CannotLoad(f"{reason}: {address}") from error


def read_entry(entry: Entry) -> tuple[Id, Message, bool, str]:
    """
    Read an entry of the stream.

    Returns:
        The id, the message, whether history may keep it, and the name of the node that has
        appended it.

    Raises:
        Foreign: It is something else.
    """
    fields = entry[1]
    if fields[::2] not in (_NAMES, _NAMES[:-1]) or not _ID.fullmatch(entry[0]):
        raise Foreign(entry)
    id = entry[0].decode("ascii")
    node, channel, content_type, sender, origin, keep, body, *extra = fields[1::2]
    try:
        message = _without_body(channel, content_type, sender, origin, *extra)
        message = message.published(id, body)
        return parse_id(id), message, keep == b"1", node.decode()
    except ValueError as error:
        raise Foreign(entry) from error


def read_mark(entry: Entry) -> tuple[Id, str, str] | None:
    """
    Read an entry of the stream that is no message, but may be a mark: all messages of a
    channel before it are forgotten.

    Returns:
        The id, the channel, and the name of the node that has appended the mark; or None if
        it is something else.
    """
    fields = entry[1]
    if fields[::2] != _NAMES[:-1] or not _MARK_ID.fullmatch(entry[0]):
        return None
    told = [text.decode("utf-8", "replace") for text in fields[1::2]]
    node, channel, kind = told[0], told[1], told[5]
    return (parse_id(entry[0].decode()), channel, node) if kind == MARK else None


@lru_cache(maxsize=1024)
def _without_body(
    channel: bytes, content_type: bytes, sender: bytes, origin: bytes, extra: bytes = b"{}"
) -> Message:
    """
    A message with these fields and no body.  Most messages share them with others, so the
    result is remembered, and the fields are checked once.
    """
    first, second = channel.decode(), content_type.decode()
    fields = json.loads(extra)
    if not isinstance(fields, dict) or not isinstance(fields.get("headers", {}), dict):
        raise ValueError("This is no object.")
    return Message(
        first,
        b"",
        second,
        sender.decode(),
        origin=origin.decode(),
        headers=stored_headers(fields.get("headers", {})),
        max_age=fields.get("max_age"),
    )


def extra_of(message: Message) -> str:
    """
    The field of an entry that only messages have with headers or a `max_age`; otherwise
    empty.
    """
    fields: dict[str, object] = {}
    if message.headers:
        fields["headers"] = dict(message.headers)
    if message.max_age is not None:
        fields["max_age"] = message.max_age
    return json.dumps(fields) if fields else ""


def _load(
    connection: BlockingConnection, address: RedisAddress, boundary: str, history: History
) -> Found:
    stream, meta = address.stream, f"{address.stream}:meta"
    _check_version(connection)
    kind = connection.call("TYPE", stream)
    if kind not in (b"none", b"stream"):
        what = kind.decode()
        raise ValueError(f"{stream!r} is a {what} and no stream: give another name")
    new_life = secrets.randbelow(900_000) + 100_000
    life, known, count, ms = connection.call(
        "EVAL", CHECK.text, 1, meta, new_life, boundary, 0, 0
    )
    found = Found(int(life), known.decode(), warnings=list(_warnings(connection)))
    zero = zero_id(found.life)[1]
    history.counted_from = zero
    foreign: list[Foreign] = []
    marks = _marks(connection, stream)
    for entry in _entries(connection, stream):
        try:
            id, message, keep, _ = read_entry(entry)
        except Foreign as error:
            if (mark := read_mark(entry)) is None:
                foreign.append(error)
                continue
            history.forget(mark[1])
            found.unkept.append(mark[0])
            continue
        keep = keep and marks.get(message.channel, ZERO) < id
        history.add(id, message, keep)
        if not keep or not history.keep.count:
            found.unkept.append(id)
    if foreign and not int(count) and history.newest == ZERO:
        # There has never been a message: the stream is that of another program.
        raise foreign[0]
    if foreign:
        found.warnings.append(
            f"{len(foreign)} entries of the stream {stream!r} are no messages of this"
            f" version of msgbus, and are left out: {foreign[0]}"
        )
        history.lose_until(max(error.id or ZERO for error in foreign))
    _restore(connection, address, history)
    history.newest = max(history.newest, (int(ms), zero + int(count)))
    return found


def _restore(
    connection: BlockingConnection, address: RedisAddress, history: History
) -> None:
    """
    Take over what the log has lost.  This comes after all entries are read, because other
    nodes may have deleted messages meanwhile that were not read.
    """
    lost = connection.call("HGETALL", f"{address.stream}:lost")
    # Last, because `FORGET` moves there what is in `:lost`.
    forgotten = connection.call("HGET", f"{address.stream}:meta", "forgotten")

    def read_id(text: bytes) -> Id:
        # If somebody else has written it, anything may be lost.
        return parse_id(text.decode()) if _ID.fullmatch(text) else history.newest

    history.restore(
        read_id(forgotten) if forgotten else ZERO,
        {
            name.decode("utf-8", "replace"): read_id(id)
            for name, id in zip(lost[::2], lost[1::2], strict=True)
        },
    )


def _marks(connection: BlockingConnection, stream: str) -> dict[str, Id]:
    """
    By channel, the id before which all of its messages are forgotten, also those that a
    node was to delete that was killed.
    """
    marks = connection.call("HGETALL", f"{stream}:marks")
    return {
        name.decode("utf-8", "replace"): parse_id(id.decode())
        for name, id in zip(marks[::2], marks[1::2], strict=True)
        if _MARK_ID.fullmatch(id)
    }


def _entries(connection: BlockingConnection, stream: str) -> Iterator[Entry]:
    last = b"-"
    while page := connection.call("XRANGE", stream, last, "+", "COUNT", PAGE_ENTRIES):
        yield from page
        last = b"(" + page[-1][0]


def _check_version(connection: BlockingConnection) -> None:
    info = connection.call("INFO", "server").decode()
    version = info.partition("redis_version:")[2].partition("\r\n")[0]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ValueError(f"version {version} is too old: give Redis {oldest} or later")


def _warnings(connection: BlockingConnection) -> Iterator[str]:
    """
    Say which settings of Redis may cost messages.
    """
    try:
        policy = _setting(connection, "maxmemory-policy")
        if policy not in (b"noeviction", None):
            yield (
                f"Redis may delete the log when its memory is full (maxmemory-policy is"
                f" {policy.decode()}): set it to noeviction"
            )
        if _setting(connection, "appendonly") == b"no":
            yield (
                "Redis keeps no append-only file: if it is killed, messages that were"
                " acknowledged are lost. Set appendonly to yes"
            )
    except RedisError:
        # A user who may not read the settings of Redis can use the log without them.
        return


def _differences(
    connection: BlockingConnection, meta: str, settings: Mapping[str, object]
) -> Iterator[str]:
    """
    Say which settings differ from those of the node that was started before this one.
    Redis then has the settings of this one, for the next node that starts.
    """
    before = connection.call("HGET", meta, "settings")
    connection.call("HSET", meta, "settings", json.dumps(settings))
    try:
        known = dict(json.loads(before or "{}"))
    except (ValueError, TypeError):
        # Somebody else has written that.
        known = {}
    different = [
        name for name in settings if known.get(name, settings[name]) != settings[name]
    ]
    if different:
        others, ours = (
            ", ".join(_told(name, values[name]) for name in different)
            for values in (known, settings)
        )
        yield (
            f"The node that was started before this one has {others}, and this one has"
            f" {ours}: give all nodes of a bus the same"
        )


def _told(name: str, value: object) -> str:
    return f"no {name}" if value is None else f"{name} {value}"


def _setting(connection: BlockingConnection, name: str) -> Any:
    reply = connection.call("CONFIG", "GET", name)
    return reply[1] if reply else None
