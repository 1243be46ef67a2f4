"""
Tests for `msgbus.server.memory`.
"""

import pytest
from twisted.internet.task import Clock

from msgbus.server.memory import MemoryWatch, cgroup_bound
from msgbus.web.shortage import Shortage

from .no_files import no_files


@pytest.mark.parametrize(
    ("limits", "bound"),
    [
        ({}, None),
        ({"a/b": "max\n", "a": "max\n"}, None),
        ({"a/b": "1000\n", "a": "max\n"}, 1000),
        ({"a/b": "max\n", "a": "2000\n"}, 2000),
        ({"a/b": "3000\n", "a": "2000\n"}, 2000),
        ({"a/c": "5\n"}, None),
    ],
)
def test_bound(tmp_path, limits, bound):
    """
    A process may take what its control group may, and all those around it.
    """
    root = tmp_path / "cgroup"
    (root / "a/b").mkdir(parents=True)
    (root / "a/c").mkdir()
    for name, limit in limits.items():
        (root / name / "memory.max").write_text(limit)
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/x\n0::/a/b\n")
    assert cgroup_bound(root, own) == bound
    assert cgroup_bound(root, tmp_path / "none") is None


def test_watch():
    """
    A shortage lasts as long as the process takes more than it may.
    """
    clock, shortage = Clock(), Shortage("x")
    watch = MemoryWatch(clock, shortage, 1000)
    watch.start()
    assert not shortage.lasts
    clock.advance(1)
    assert shortage.lasts
    watch.stop()
    watch = MemoryWatch(clock, shortage, 10**15)
    watch.start()
    clock.advance(1)
    assert not shortage.lasts
    watch.stop()
    assert clock.getDelayedCalls() == []


def test_no_files():
    """
    While no file is left, nobody can look; then the watch goes on.
    """
    clock, shortage = Clock(), Shortage("x")
    watch = MemoryWatch(clock, shortage, 1000)
    watch.start()
    with no_files():
        clock.advance(1)
    assert not shortage.lasts
    clock.advance(1)
    assert shortage.lasts
    watch.stop()
