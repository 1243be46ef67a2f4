"""
Ports of other programs than the bus.
"""

import secrets
import socket
import time
from contextlib import suppress

START_SECONDS = 30

# The kernel gives clients ports from 32768 on (`ip_local_port_range`).  One of those may be
# taken by any connection before the server that it was found for has started.
PORTS = range(10_000, 32_768)


def free_port():
    """
    A port at which nothing listens.
    """
    while True:
        port = secrets.choice(PORTS)
        with suppress(OSError), socket.create_server(("", port)):
            return port


def wait_for_port(port):
    """
    Wait until a program that was started listens at its port; return whether it does.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
