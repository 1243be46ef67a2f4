#!/usr/bin/env python3
"""
Measures the slowest matches of a filter: globs that cost as much as a filter may cost, and
texts that they nearly match.  None should take longer than a tenth of a millisecond.

    python bench/match.py
"""

import sys
import time
from pathlib import Path

from msgbus.match import Pattern

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.test_match import COSTLIEST, NEARLY

ROUNDS = 200


def main():
    """
    Print the shortest and the median time of each glob, in microseconds.
    """
    print("| glob | shortest µs | median µs |")
    print("|---|---|---|")
    for glob in COSTLIEST:
        pattern, times = Pattern(glob), []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            pattern.matches(NEARLY)
            times.append((time.perf_counter() - began) * 1e6)
        times.sort()
        shown = glob if len(glob) <= 20 else f"{glob[:17]}..."
        print(f"| `{shown}` | {times[0]:.0f} | {times[ROUNDS // 2]:.0f} |")


if __name__ == "__main__":
    main()
