"""
Tests for `msgbus.server.log_lines`.
"""

import json

import pytest
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from msgbus.server.log_lines import json_line, text_line, visible

# A line end, and what else begins a line, moves the cursor, turns text around, or is no
# character at all.
EVIL = "\n\r\x00\x1b[31m\x7f\x85\x9b\u2028\u2029\u202e\u2066\ud800\ufeff"


def event(**fields):
    """
    An event with these fields.
    """
    return {
        "log_format": "{user} is here",
        "log_level": LogLevel.info,
        "log_namespace": "msgbus.x",
        "log_time": 1764303153.25,
        "user": "alice",
        **fields,
    }


def failed():
    """
    A failure whose text was chosen by a stranger.
    """
    try:
        raise ValueError(f"first{EVIL}\n2026-11-28T00:00:00+0000 [x#info] forged")
    except ValueError:
        return Failure()


def test_visible():
    """
    Whatever is no visible character is escaped; letters of any language stay.
    """
    assert visible("Grüße, 世界") == "Grüße, 世界"
    assert visible(EVIL).isprintable()
    assert visible("a\nb\u202ec") == "a\\nb\\u202ec"
    assert len(visible("x" * 10_000)) < 5_000


@pytest.mark.parametrize("line", [text_line, json_line])
def test_one_line(line):
    """
    A value has no line end and no control character in the line.
    """
    said = line(event(user=EVIL))
    assert said.endswith("\n")
    assert said[:-1].isprintable()
    assert len(said.splitlines()) == 1
    # As it is written.
    assert said.encode("utf-8", "strict")


def test_text():
    """
    A line of text is as Twisted has it.
    """
    assert text_line(event()).endswith(" [msgbus.x#info] alice is here\n")
    assert " [worker 2#info] " in text_line(event(log_system="worker 2#info"))
    forged = text_line(event(log_system="x]\n2026"))
    assert forged.count("\n") == 1


def test_text_traceback():
    """
    All lines of a traceback but the first begin with a tab, and have no control characters.
    """
    head, *rest = text_line(event(log_failure=failed()))[:-1].split("\n")
    assert head.endswith("alice is here")
    assert len(rest) > 2
    for line in rest:
        assert line[0] == "\t"
        assert line[1:].isprintable()


def test_json():
    """
    An object has the time, the level, the message, the system, and the fields of the event
    that are plain values.
    """
    fields = {"count": 3, "other": object(), "log_fold": "x", "time": 7, "isError": 0}
    assert json.loads(json_line(event(**fields))) == {
        "time": "2025-11-28T04:12:33.250Z",
        "level": "info",
        "system": "msgbus.x",
        "message": "alice is here",
        "user": "alice",
        "count": 3,
    }


def test_json_traceback():
    """
    A traceback is a field of the one object.
    """
    said = json_line(event(log_failure=failed()))
    assert said.count("\n") == 1
    assert "ValueError: first" in json.loads(said)["traceback"]
