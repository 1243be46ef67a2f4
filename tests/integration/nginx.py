"""
A real nginx in front of a bus, for one test.
"""

import shutil
import subprocess

from .certificates import Authority
from .pages import CHECKOUT, blocks
from .ports import START_SECONDS, free_port, wait_for_port


class Nginx:
    """
    nginx with the configuration that docs/proxies.md shows, on a port of its own, with
    a certificate for chat.example.

    Args:
        lines: Directives that are added to the `location`.
        location: What replaces the directives of the `location`.
        seconds: The time-outs, in place of the ten minutes of the page.
    """

    def __init__(self, folder, bus, *lines, location=None, seconds=600):
        pem = Authority(folder).issue("chat.example").read_text()
        cut = pem.index("-----BEGIN CERTIFICATE")
        (folder / "key.pem").write_text(pem[:cut])
        (folder / "cert.pem").write_text(pem[cut:])
        (server,) = blocks(CHECKOUT / "docs/proxies.md", "nginx")
        if location is not None:
            head, _, _ = server.partition("location /")
            server = f"{head}location / {{ {location} proxy_read_timeout 10m; }} }}"
        server = server.replace("10m", f"{seconds}s")
        self.port = free_port()
        server = (
            server.replace("listen 443", f"listen 127.0.0.1:{self.port}")
            .replace("cert.pem", str(folder / "cert.pem"))
            .replace("key.pem", str(folder / "key.pem"))
            .replace(":8888", f":{bus.port}")
            .replace("proxy_pass", "\n".join([*lines, "proxy_pass"]))
        )
        self._process = start_nginx(folder, server, self.port)

    def stop(self):
        """
        Stop it at once.
        """
        self._process.terminate()
        self._process.wait(START_SECONDS)


def start_nginx(folder, configuration, port):
    """
    Start nginx with this within `http`, which has it listen at this port.
    """
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log;"
        " user root; events {} http { access_log off;\n" + configuration + "}"
    )
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    process = subprocess.Popen([nginx, "-c", folder / "nginx.conf", "-p", folder])
    if not wait_for_port(port):
        raise AssertionError((folder / "error.log").read_text())
    return process
