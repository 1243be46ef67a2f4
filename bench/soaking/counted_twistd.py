#!/usr/bin/env python3
"""
`twistd` that says, when it gets SIGUSR2, how many delayed calls its reactor has.
"""

import os
import signal
import sys

from twisted.internet import reactor
from twisted.scripts.twistd import run


def tell(number, frame):
    """
    Write the line without a buffer, because a signal may come while the log is written.
    """
    os.write(1, b"delayed calls: %d\n" % len(reactor.getDelayedCalls()))


signal.signal(signal.SIGUSR2, tell)
sys.exit(run())
