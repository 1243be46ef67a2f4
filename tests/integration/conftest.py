"""
Fixtures for the tests of real processes.
"""

import os
import signal
import subprocess
from contextlib import suppress

import pytest

from .daemon import Daemon
from .haproxy import HAProxy
from .nginx import Nginx
from .scripted import Scripted


@pytest.fixture
def start(tmp_path):
    """
    Start a bus with these arguments, and stop it after the test.
    """
    daemons = []

    def start(*arguments, **kwargs):
        daemons.append(Daemon(tmp_path, *arguments, **kwargs))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.stop()


@pytest.fixture
def bus(start):
    """
    A bus that logs its subscriptions.
    """
    return start("-v")


@pytest.fixture
def proxy(tmp_path):
    """
    Start nginx in front of a bus, and return its port; it is stopped after the test.
    """
    started = []

    def proxy(bus, *lines, **options):
        folder = tmp_path / f"nginx{len(started)}"
        folder.mkdir()
        started.append(Nginx(folder, bus, *lines, **options))
        return started[-1].port

    yield proxy
    for nginx in started:
        nginx.stop()


@pytest.fixture
def haproxy(tmp_path):
    """
    Start HAProxy in front of a bus, and return it; it is stopped after the test.
    """
    started = []

    def haproxy(bus):
        folder = tmp_path / f"haproxy{len(started)}"
        folder.mkdir()
        started.append(HAProxy(folder, bus))
        return started[-1]

    yield haproxy
    for each in started:
        each.stop()


@pytest.fixture
def shell(tmp_path):
    """
    Start a command line in the folder of the test, with more variables in its environment;
    all that it has started ends with the test.
    """
    processes = []

    def shell(command, **environment):
        processes.append(
            subprocess.Popen(
                ["/bin/sh", "-c", command],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=tmp_path,
                text=True,
                # The programs of a pipe are one group of processes, which is killed.
                start_new_session=True,
            )
        )
        return processes[-1]

    yield shell
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)


@pytest.fixture
def scripted():
    """
    Start a server that says these.
    """
    servers = []

    def scripted(*answers, **options):
        servers.append(Scripted(*answers, **options))
        return servers[-1]

    yield scripted
    for server in servers:
        server.close()
