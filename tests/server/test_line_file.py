"""
Tests for `msgbus.server.line_file`.
"""

import os
import resource
import signal
import stat

import pytest

from msgbus.server.line_file import LineFile

from ..memory import log_lines


class Test:
    """
    Cleans up after itself, as a test case does.
    """

    def __init__(self, request):
        self.addCleanup = lambda call, *args: request.addfinalizer(lambda: call(*args))


@pytest.fixture
def logged(request):
    """
    What a file says about itself.
    """
    return log_lines(Test(request), "msgbus.server.line_file")


def test_append(tmp_path, logged):
    """
    Lines are appended at once, also to what is there; others may not read the file.
    """
    path = tmp_path / "log"
    LineFile(str(path)).write("a\n")
    assert path.read_text() == "a\n"
    assert not path.stat().st_mode & stat.S_IRWXO
    LineFile(str(path)).write("b \udc80\n")
    assert path.read_text() == "a\nb \\udc80\n"
    assert logged == []


def test_reopen(tmp_path, monkeypatch, logged):
    """
    A file that was moved away is begun anew, also if the process has changed its folder.
    """
    monkeypatch.chdir(tmp_path)
    file = LineFile("log")
    file.write("a\n")
    monkeypatch.chdir("/")
    (tmp_path / "log").rename(tmp_path / "log.1")
    file.write("b\n")
    file.reopen()
    file.write("c\n")
    assert (tmp_path / "log.1").read_text() == "a\nb\n"
    assert (tmp_path / "log").read_text() == "c\n"
    assert logged == []


def test_cannot_reopen(tmp_path, logged):
    """
    If there can be no new file, the old one is written on.
    """
    folder = tmp_path / "folder"
    folder.mkdir()
    file = LineFile(str(folder / "log"))
    folder.rename(tmp_path / "moved")
    file.reopen()
    file.write("a\n")
    assert (tmp_path / "moved/log").read_text() == "a\n"
    assert len(logged) == 1


def test_full(tmp_path, logged):
    """
    Lines for which there is no room are lost, and counted once there is room again; no line
    is joined to one that was cut.
    """
    path = tmp_path / "log"
    file = LineFile(str(path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        for line in ("123456\n", "abcdef\n", "ghi\n"):
            file.write(line)
        assert path.read_text() == "123456\nabc"
        assert logged == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    file.write("jkl\n")
    assert path.read_text() == "123456\nabc\njkl\n"
    ((_, said),) = logged
    assert said.startswith(f"2 lines could not be written to {path}: {os.strerror(27)}")
