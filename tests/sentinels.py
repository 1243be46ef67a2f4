"""
A master of Redis, its replicas, and the sentinels that watch them, for tests: real servers
on ports of the loopback.
"""

import subprocess
import time

from msgbus.redis.address import Server
from msgbus.redis.connection import BlockingConnection, RedisError

from .integration.ports import free_port
from .redis_server import RedisServer

MASTER = "mymaster"
SECONDS = 40

# How long a master may be silent before the sentinels elect another one.
DOWN_MILLISECONDS = 1000


class Sentinel:
    """
    A sentinel, which keeps its configuration in this folder.
    """

    def __init__(self, folder, master_port, password="", tls=None, quorum=2):
        self.port = free_port()
        self.server = Server(
            "127.0.0.1", self.port, tls=bool(tls), password=password, database=None
        )
        lines = [
            *(
                f"{name.replace('_', '-')} {value}"
                for name, value in _port(self.port, tls).items()
            ),
            "bind 127.0.0.1",
            f"dir {folder}",
            f"logfile {folder}/log",
            f"sentinel monitor {MASTER} 127.0.0.1 {master_port} {quorum}",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_MILLISECONDS}",
            f"sentinel failover-timeout {MASTER} 6000",
        ]
        if password:
            lines += [f"requirepass {password}", f"sentinel auth-pass {MASTER} {password}"]
        folder.mkdir()
        file = folder / "sentinel.conf"
        file.write_text("\n".join([*lines, ""]))
        self.process = subprocess.Popen(["redis-server", file, "--sentinel"])
        wait_until(lambda: self.ask("PING"))

    def ask(self, *command):
        """
        Its reply to a command.
        """
        connection = BlockingConnection(self.server)
        try:
            return connection.call(*command)
        finally:
            connection.close()

    def master(self):
        """
        What it knows of the master.
        """
        reply = self.ask("SENTINEL", "MASTER", MASTER)
        return dict(zip(reply[::2], reply[1::2], strict=True))


class Replicated:
    """
    A master, replicas and three sentinels, each of which knows all the others.

    Args:
        tls: If all of them are reached by TLS only, the settings for that.

    Attributes:
        servers: The master, and the replicas.
        hosts: The sentinels, as in a URL.
        url: For `--log`; without the password.
    """

    def __init__(self, folder, replicas=1, password="", tls=None):
        self.servers = []
        folder.mkdir(exist_ok=True)
        for number in range(1 + replicas):
            settings = {
                **_port(free_port(), tls),
                "bind": "127.0.0.1",
                "repl_diskless_sync_delay": 0,
            }
            if password:
                settings |= {"requirepass": password, "masterauth": password}
            place = folder / f"redis{number}"
            place.mkdir()
            self.servers.append(RedisServer(place, password=password, **settings))
        first = self.servers[0]
        for replica in self.servers[1:]:
            replica.ask("REPLICAOF", "127.0.0.1", first.port)
        self.wait_for_replicas(first, replicas)
        self.sentinels = [
            Sentinel(folder / f"sentinel{number}", first.port, password, tls)
            for number in range(3)
        ]
        wait_until(lambda: all(self._is_complete(s.master()) for s in self.sentinels))
        self.hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        scheme = "rediss" if tls else "redis"
        self.url = f"{scheme}+sentinel://{self.hosts}/0?master={MASTER}"

    def _is_complete(self, known):
        replicas, others = known[b"num-slaves"], known[b"num-other-sentinels"]
        return (int(replicas), int(others)) == (len(self.servers) - 1, 2)

    def wait_for_replicas(self, master, count):
        """
        Wait until so many replicas have all that this master has.
        """
        wait_until(
            lambda: master.ask("INFO", "replication").count(b"state=online") >= count
        )
        wait_until(lambda: master.ask("WAIT", count, 1000) >= count)

    def master(self):
        """
        The server that most of the sentinels call the master.
        """
        ports = sorted(int(sentinel.master()[b"port"]) for sentinel in self.sentinels)
        return next(server for server in self.servers if server.port == ports[1])

    def fail_over(self, kill):
        """
        Kill the master, or have it hang, and wait until another one was elected; return
        both.
        """
        old = self.master()
        kill(old)
        wait_until(lambda: self.master() is not old)
        return old, self.master()

    def wait_until_settled(self):
        """
        Wait until all servers but the master are its replicas, and have all that it has.
        Sentinels may elect twice in a row, so the master may not be the one elected first.
        """
        replicas = len(self.servers) - 1

        def is_settled():
            master = self.master()
            roles = [s.ask("ROLE") for s in self.servers if s is not master]
            return (
                all(role[:3:2] == [b"slave", master.port] for role in roles)
                and master.ask("WAIT", replicas, 1000) == replicas
            )

        wait_until(is_settled)

    def stop(self):
        """
        Kill all of them.
        """
        for sentinel in self.sentinels:
            sentinel.process.kill()
            sentinel.process.wait()
        for server in self.servers:
            server.thaw()
            server.kill()


def _port(number, tls):
    """
    The settings of a server on this port.
    """
    return {"port": 0, "tls_port": number, **tls} if tls else {"port": number}


def wait_until(condition):
    """
    Wait until this is true, and no error of a server that is away.
    """
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if condition():
                return
        except (OSError, RedisError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)
