"""
What docs/access.md shows of the two files.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from msgbus.access.limits import Rate
from msgbus.access.passwords import verify
from msgbus.access.rule_limits import RuleLimits
from msgbus.access.rules import BadRules, Rules, Verb
from msgbus.access.users import Users

PAGE = (Path(__file__).parents[2] / "docs/access.md").read_text()


def blocks(language):
    """
    The fenced blocks of a language.
    """
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def rows(columns):
    """
    The rows of all tables with so many columns, without their heads.
    """
    found = re.findall(r"^\| (.*) \|$", PAGE, re.MULTILINE)
    split = [row.split(" | ") for row in found]
    return [row for row in split if len(row) == columns and row[0] != "user"]


def test_users():
    """
    The file of users is one, and the password is what it says.
    """
    [file] = blocks("users")
    hashed = Users.parse(file.encode(), "users").hash_of("alice")
    assert verify(b"secret", hashed)


def test_rules():
    """
    The rules are rules, and the table says what they decide.
    """
    rules = Rules.parse(blocks("rules")[0].encode(), "access")
    table = rows(5)
    assert len(table) == 8
    for user, verb, channel, answer, line in table:
        decision = rules.decide(
            None if user == "nobody" else user.strip("`"), Verb(verb), channel.strip("`")
        )
        assert decision[:2] == (answer == "yes", int(line))


def test_second_rules():
    """
    The second example excludes drafts, and names a channel with a space.
    """
    readable = Rules.parse(blocks("rules")[1].encode(), "access").readable(None)
    assert [
        readable.allows(c) for c in ("public/a", "public/drafts/a", "town hall", "town")
    ] == [
        True,
        False,
        True,
        False,
    ]


def test_who():
    """
    Each WHO of the table can be written.
    """
    names = re.findall(r"^\| `(\S+)` \| .*(?:user|those|everybody)", PAGE, re.MULTILINE)
    assert {"alice", "sensor-*", "@anonymous", "@users", "*"} <= set(names)
    for name in ("alice", "sensor-*", "@anonymous", "@users", "*"):
        Rules.parse(f"{name} publish a\n".encode(), "access")


def test_limits():
    """
    Each limit of the table can be written, and there are no others.
    """
    words = re.findall(r"^\| `([a-z-]+=\S+)` \|", PAGE, re.MULTILINE)
    rule = f"* publish,subscribe a {' '.join(words)}\n"
    limits = Rules.parse(rule.encode(), "access").limits(None, Verb.PUBLISH, "a")
    assert limits == RuleLimits((Rate(10, 1),), 64 * 1024, 1000, 5)
    with pytest.raises(
        BadRules, match=re.escape(", ".join(w.partition("=")[0] for w in words))
    ):
        Rules.parse(b"* publish a x=1\n", "access")


def test_tool(tmp_path):
    """
    The commands about users do what is said.  The others are run by the tests in
    `integration`.
    """
    commands, *_ = blocks("sh")
    folder = Path(sys.executable).parent
    done = subprocess.run(
        ["/bin/sh", "-euc", commands],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "\nalice\nsensor-1\nThe password of alice is right.\n" in done.stdout
    users = Users.parse((tmp_path / "users").read_bytes(), "users")
    assert len(users) == 1
    assert verify(b"correct horse", users.hash_of("alice"))
