"""
Whether the process is about to take more memory than it may.
"""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from ..web.shortage import Shortage

__all__ = ["MemoryWatch", "cgroup_bound"]

LOOK_SECONDS = 1.0

# Above this part of what it may take, the process is short of memory, and until it takes
# less than that part.
SHORT = 0.9
ENOUGH = 0.85

# In a shortage, free memory is given back to the system at each of so many looks.
GIVE_BACK = 5


class MemoryWatch:
    """
    Looks once a second how much memory the process takes.

    Args:
        shortage: Lasts while that is too much.
        bound: How many bytes it may be.
    """

    def __init__(self, reactor: IReactorTime, shortage: Shortage, bound: int) -> None:
        self._shortage = shortage
        self._bound = bound
        self._looks = 0
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor
        shortage.advice = (
            f"The process may take {bound} bytes: raise --max-memory, or what systemd or"
            " the container allows, or lower --history-bytes and --max-waiting"
        )

    def start(self) -> None:
        """
        Look from now on.
        """
        self._looking.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        """
        Look no more.
        """
        if self._looking.running:
            self._looking.stop()

    def look(self) -> None:
        """
        Find out whether there is a shortage now.  While there is no file left to read that
        from, all stays as it was.
        """
        with suppress(OSError):
            self._look(_taken())

    def _look(self, taken: int) -> None:
        shortage = self._shortage
        if not shortage.lasts and taken > self._bound * SHORT:
            self._looks = 0
            gc.collect()
            _give_back()
            shortage.lasts = _taken() > self._bound * SHORT
        elif shortage.lasts and taken < self._bound * ENOUGH:
            shortage.lasts = False
            shortage.end()
        elif shortage.lasts:
            self._looks += 1
            if self._looks % GIVE_BACK == 0:
                _give_back()


def cgroup_bound(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int | None:
    """
    How many bytes the control group of this process may take, or one of those around it;
    None for any number, or if there is no unified hierarchy (cgroups(7)).

    Args:
        root: Where control groups are.
        own: The file that names that of this process.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    name = next((line[3:] for line in lines if line.startswith("0::")), "/")
    bounds = []
    folder = root / name.lstrip("/")
    for each in (folder, *folder.parents):
        if not each.is_relative_to(root):
            break
        with suppress(OSError, ValueError):
            # It is the word max where there is no limit.
            bounds.append(int((each / "memory.max").read_text()))
    return min(bounds, default=None)


def _taken() -> int:
    """
    How many bytes of memory the process takes (proc(5)).
    """
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _give_back() -> None:
    """
    Have the C library give free memory back to the system.  Not every one can.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
