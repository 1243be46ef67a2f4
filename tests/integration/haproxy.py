"""
A real HAProxy in front of a bus, for one test.
"""

import shutil
import subprocess

from .certificates import Authority
from .pages import CHECKOUT, blocks
from .ports import START_SECONDS, free_port, wait_for_port


class HAProxy:
    """
    HAProxy with the PROXY protocol, as docs/proxies.md configures it, on a port of its own
    of the loopback, with a certificate for localhost.

    Attributes:
        port: Where it listens.
        authority: Has signed its certificate.
    """

    def __init__(self, folder, bus):
        self.authority = Authority(folder)
        self.port = free_port()
        _, shown = blocks(CHECKOUT / "docs/proxies.md", "haproxy")
        shown = (
            shown.replace("bind :443", f"bind 127.0.0.1:{self.port}")
            .replace("chat.example.pem", str(self.authority.issue("localhost")))
            .replace(":8888", f":{bus.port}")
        )
        self._process = start_haproxy(folder, shown, self.port)

    def stop(self):
        """
        Stop it at once.
        """
        self._process.terminate()
        self._process.wait(START_SECONDS)


def start_haproxy(folder, configuration, port):
    """
    Start HAProxy with this configuration, which has it listen at this port.
    """
    (folder / "haproxy.cfg").write_text(configuration)
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    process = subprocess.Popen([program, "-db", "-f", folder / "haproxy.cfg"])
    if not wait_for_port(port):
        raise AssertionError("HAProxy does not listen.")
    return process
