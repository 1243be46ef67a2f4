"""
A real Varnish, for one test.
"""

import shutil
import subprocess

from .ports import wait_for_port


def start_varnish(folder, configuration, port):
    """
    Start Varnish with this configuration, listening at this port of the loopback.
    """
    (folder / "bus.vcl").write_text(configuration)
    program = shutil.which("varnishd", path="/usr/sbin:/usr/bin")
    # Without a jail, because its user could not enter the folder of a test.
    process = subprocess.Popen(
        [
            *(program, "-F", "-j", "none", "-a", f"127.0.0.1:{port}"),
            *("-f", folder / "bus.vcl", "-n", folder / "varnish"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if not wait_for_port(port):
        raise AssertionError("Varnish does not listen.")
    return process
