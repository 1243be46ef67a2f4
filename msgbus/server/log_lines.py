"""
What the process logs, as lines: of text, or of JSON with one object a line.

A client chooses names, types and paths that are in the log.  So in both forms, whatever is
no visible character is escaped: nobody can begin a line, and nobody can have a terminal do
anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from time import time

from twisted.logger import LogEvent, LogLevel, formatEvent, formatTime

__all__ = ["json_line", "text_line", "visible"]

# How many characters of a message are logged.
MAX_CHARACTERS = 4000

# Fields of events that are not the event's own: those of Twisted's older logging, and those
# that a line has anyway.
_RESERVED = frozenset(
    (
        *("time", "level", "message", "system", "traceback"),
        *("format", "isError", "failure", "why"),
    )
)


def visible(text: str) -> str:
    r"""
    The text, with each character escaped that is not visible: line ends and other control
    characters, those that change the direction of text, and lone surrogates, such as `\n`.
    """
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def text_line(event: LogEvent) -> str:
    """
    The event as Twisted has it, with its line end.  Only a traceback has several lines, all
    but the first of which begin with a tab.
    """
    system = event.get("log_system") or f"{_namespace(event)}#{_level(event)}"
    head = f"{formatTime(event.get('log_time', time()))} [{visible(str(system))}] "
    lines = [head + visible(formatEvent(event)), *map(visible, _traceback(event))]
    return "\n\t".join(lines) + "\n"


def json_line(event: LogEvent) -> str:
    """
    The event as a JSON object, with its line end.  It has `time` (RFC 3339), `level`,
    `message` and `system`, `traceback` if there is one, and the event's own fields.
    """
    moment = datetime.fromtimestamp(event.get("log_time", time()), UTC)
    record: dict[str, object] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": _level(event),
        "system": _namespace(event),
        "message": visible(formatEvent(event)),
    }
    if lines := list(_traceback(event)):
        record["traceback"] = "\n".join(map(visible, lines))
    for name, value in event.items():
        own = not name.startswith("log_") and name not in _RESERVED
        if own and isinstance(value, str | int | float):
            record[name] = value[:MAX_CHARACTERS] if isinstance(value, str) else value
    # Beyond ASCII, all is escaped; of ASCII, JSON leaves one control character as it is.
    return json.dumps(record).replace("\x7f", "\\u007f") + "\n"


def _level(event: LogEvent) -> str:
    level = event.get("log_level") or LogLevel.info
    return str(level.name)


def _namespace(event: LogEvent) -> str:
    return str(event.get("log_namespace") or "-")


def _traceback(event: LogEvent) -> Iterator[str]:
    failure = event.get("log_failure")
    if failure is not None:
        try:
            yield from failure.getTraceback().splitlines()
        except Exception as error:  # whatever the printed objects raise
            yield f"There is no traceback: {error!r}"
