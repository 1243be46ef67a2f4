"""
A real `redis-server`, for tests.
"""

import signal
import subprocess
import time

from msgbus.redis import RedisAddress
from msgbus.redis.connection import BlockingConnection, RedisError

START_SECONDS = 10


class RedisServer:
    """
    A server on a Unix socket in this folder, where it also keeps its files.

    Args:
        password: What it asks for, if the settings say so.
        env: Its environment, if it is to have another one.
        settings: As on its command line, without the hyphens.
    """

    def __init__(self, folder, password="", env=None, **settings):
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.port = settings.get("tls_port") or settings.get("port", 0)
        user = f":{password}@" if password else ""
        self.url = f"redis+unix://{user}{self.socket}?db=0"
        self.address = RedisAddress.parse(self.url)
        self._env = env
        self._settings = {"appendonly": "yes", **settings}
        self.start()

    def start(self):
        """
        Start it, also again, with the files that it has.
        """
        options = {
            "port": 0,
            "unixsocket": self.socket,
            "dir": self.folder,
            "logfile": self.folder / "redis.log",
            "save": "",
            **self._settings,
        }
        arguments = [f(option) for option in options.items() for f in (_name, _value)]
        self.process = subprocess.Popen(["redis-server", *arguments], env=self._env)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("PING")
                return
            except (OSError, RedisError):
                assert time.monotonic() < deadline, "redis-server does not start"
                time.sleep(0.02)

    def ask(self, *command):
        """
        Its reply to a command.
        """
        connection = BlockingConnection(self.address.server)
        try:
            return connection.call(*command)
        finally:
            connection.close()

    def freeze(self):
        """
        Have it hang.
        """
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """
        Have it go on.
        """
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        """
        Kill it, as a power cut would.
        """
        self.process.kill()
        self.process.wait()


def _name(option):
    return f"--{option[0].replace('_', '-')}"


def _value(option):
    return str(option[1])
