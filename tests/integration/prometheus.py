"""
A real Prometheus that watches a bus, for one test.
"""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from .pages import CHECKOUT, blocks
from .ports import START_SECONDS, free_port, wait_for_port


class Prometheus:
    """
    Prometheus with the configuration that docs/operations.md shows, on a port of its own of
    the loopback.

    Args:
        admin: The port of the operator's address of the bus.
    """

    def __init__(self, folder, admin):
        self._port = free_port()
        (shown,) = blocks(CHECKOUT / "docs/operations.md", "yaml")
        file = folder / "prometheus.yml"
        file.write_text(
            "global: {evaluation_interval: 200ms}\n"
            + shown.replace("localhost:8889", f"127.0.0.1:{admin}").replace("5s", "200ms")
        )
        shutil.copy(CHECKOUT / "docs/alerts.yml", folder)
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    shutil.which("prometheus", path="/usr/bin:/usr/local/bin"),
                    f"--config.file={file}",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stderr=log,
            )
        assert wait_for_port(self._port), (folder / "prometheus.log").read_text()
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert time.monotonic() < deadline, (folder / "prometheus.log").read_text()
            time.sleep(0.05)

    def _is_ready(self):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready").close()
        except urllib.error.HTTPError:
            return False
        return True

    def ask(self, path, **parameters):
        """
        What its API answers.
        """
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error.read()} {parameters}") from error

    def query(self, text):
        """
        The values that a query has now.
        """
        return [float(each["value"][1]) for each in self.ask("query", query=text)["result"]]

    def wait_for(self, text, result=True):
        """
        Wait until a query has values, or until it has none.
        """
        deadline = time.monotonic() + START_SECONDS
        while bool(self.query(text)) != result:
            assert time.monotonic() < deadline, text
            time.sleep(0.1)

    def stop(self):
        """
        Stop it at once.
        """
        self._process.kill()
        self._process.wait(START_SECONDS)
