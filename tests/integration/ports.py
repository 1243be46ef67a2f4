"""
Ports of other programs than the bus.
"""

import socket
import time

START_SECONDS = 30


def free_port():
    """
    A port of the loopback at which nothing listens.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


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
