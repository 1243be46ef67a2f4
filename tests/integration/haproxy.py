"""
A real HAProxy in front of a bus, for one test.
"""

import shutil
import socket
import subprocess
import time

from .certificates import Authority
from .pages import CHECKOUT, blocks

START_SECONDS = 30


class HAProxy:
    """
    HAProxy with the configuration that docs/operations.md shows, on a port of its own of
    the loopback, with a certificate for localhost.

    Attributes:
        port: Where it listens.
        authority: Has signed its certificate.
    """

    def __init__(self, folder, bus):
        self.authority = Authority(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (shown,) = blocks(CHECKOUT / "docs/operations.md", "haproxy")
        (folder / "haproxy.cfg").write_text(
            shown.replace("bind :443", f"bind 127.0.0.1:{self.port}")
            .replace("chat.example.pem", str(self.authority.issue("localhost")))
            .replace(":8888", f":{bus.port}")
        )
        program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
        self._process = subprocess.Popen([program, "-db", "-f", folder / "haproxy.cfg"])
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("HAProxy does not listen.")

    def stop(self):
        """
        Stop it at once.
        """
        self._process.terminate()
        self._process.wait(START_SECONDS)
