"""
A real Caddy, for one test.
"""

import os
import shutil
import subprocess

from .ports import wait_for_port


def start_caddy(folder, configuration, port):
    """
    Start Caddy with these sites, one of which has it listen at this port.
    """
    file = folder / "Caddyfile"
    # Its own port for changes of the configuration would be the same for all.
    file.write_text("{\nadmin off\n}\n" + configuration)
    process = subprocess.Popen(
        [shutil.which("caddy"), "run", "--config", file, "--adapter", "caddyfile"],
        env={**os.environ, "HOME": str(folder)},
        stderr=subprocess.DEVNULL,
    )
    if not wait_for_port(port):
        raise AssertionError("Caddy does not listen.")
    return process
