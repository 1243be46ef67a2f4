"""
Several processes of one machine that share their ports (`--workers`), and a log in Redis.
"""

import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from msgbus.client.blocking import Publisher, subscribe
from msgbus.client.notices import Gap, Subscribed

from .blocking import GET, publish, raw, rest_of
from .daemon import Daemon
from .systemd import spawn
from .test_client_certificates import Office
from .test_twistd import curl, twistd

SECONDS = 30
KILLS = int(os.environ.get("MSGBUS_TEST_KILLS", "4"))
KIND = ("-H", "Content-Type: a/b", "-d", "x")


class Workers(Daemon):
    """
    A bus of several workers.
    """

    def workers(self):
        """
        The process of each worker, by its number.
        """
        found = re.findall(r"Worker (\d+) is process (\d+)", self.log)
        return {int(number): int(pid) for number, pid in found}

    def end_worker(self, number, how):
        """
        End one worker by a signal, and wait until there is another in its place.
        """
        serves = f"Worker {number} serves"
        count = self.log.count(serves)
        os.kill(self.workers()[number], how)
        self.wait_for(serves, count + 1)

    def subscribers(self):
        """
        How many have subscribed to `foo`, at each worker.
        """
        at = re.findall(r"worker (\d+)#info\].* subscribes to 'foo'", self.log)
        return {number: at.count(str(number)) for number in self.workers()}


@pytest.fixture
def start(tmp_path, redis):
    """
    Start a bus of several workers, and stop it after the test.
    """
    daemons = []

    def start(*arguments, workers=2, **options):
        shared = ("--workers", str(workers), "--log", redis.url, "-v")
        daemons.append(Workers(tmp_path, *shared, *arguments, **options))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.stop()
        assert alive(daemon.workers().values()) == []


def alive(pids):
    """
    Those of these processes that there are.
    """
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def wait_until(condition):
    """
    Wait until this is true.
    """
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def streams_of(bus, count):
    """
    So many streams of the channel `foo`, at whichever workers.
    """
    streams = [raw(bus, GET) for _ in range(count)]
    bus.wait_for("subscribes to 'foo'", count)
    for stream in streams:
        assert stream.recv(4096).startswith(b"HTTP/1.1 200 ")
    return streams


def coming(stream):
    """
    What has come on a connection and is not read yet: None if nothing has, and no bytes if
    the other end has closed it.
    """
    if not select.select([stream], [], [], 0)[0]:
        return None
    return stream.recv(100, socket.MSG_PEEK)


class Publishing(threading.Thread):
    """
    One who publishes numbers to a channel of his own, and repeats what was not answered.
    """

    def __init__(self, bus, name):
        super().__init__(daemon=True)
        self._channel = Publisher(f"{bus.url}numbers/{name}", notify=bool, patience=SECONDS)
        self.name, self.ids, self.stop = name, [], False
        self.error = None

    def run(self):
        try:
            while not self.stop:
                number = b"%d" % len(self.ids)
                self.ids.append(self._channel.publish(number, "text/plain").id)
        except Exception as error:
            self.error = error
        self._channel.close()


class Resuming(threading.Thread):
    """
    A subscriber who resumes when it is cut off.
    """

    def __init__(self, bus):
        super().__init__(daemon=True)
        self._messages = subscribe(f"{bus.url}numbers/", notify=self._note)
        self.subscriptions, self.gaps, self.got = 0, 0, []
        self.error = None

    def _note(self, notice):
        self.subscriptions += isinstance(notice, Subscribed)
        self.gaps += isinstance(notice, Gap)

    def run(self):
        try:
            for message in self._messages:
                if message.channel == "numbers/end":
                    return
                self.got.append((message.channel, int(message.body), message.id))
        except Exception as error:
            self.error = error


def test_all_workers_serve(start):
    """
    Connections come to all workers, and what is published at one is received at all.
    """
    bus = start(workers=3)
    streams = streams_of(bus, 120)
    assert min(bus.subscribers().values()) > 0
    assert set(alive(bus.workers().values())) == set(bus.workers().values())
    publish(raw(bus), b"to all of you")
    for stream in streams:
        assert b"to all of you" in stream.recv(4096)
        stream.close()


def test_killed(start):
    """
    A worker that is killed takes only its own connections, and is started again.  Meanwhile
    publishers repeat and subscribers resume: whatever was acknowledged comes to each
    subscriber exactly once, in one order.
    """
    bus = start("--history", "100000", workers=3)
    streams = streams_of(bus, 60)
    at = bus.subscribers()
    readers = [Resuming(bus) for _ in range(6)]
    publishers = [Publishing(bus, str(name)) for name in range(3)]
    for reader in readers:
        reader.start()
    wait_until(lambda: all(reader.subscriptions for reader in readers))
    for publisher in publishers:
        publisher.start()
    for kill in range(KILLS):
        number = kill % 3 + 1
        count = sum(len(publisher.ids) for publisher in publishers)
        bus.end_worker(number, signal.SIGKILL)
        wait_until(lambda c=count: sum(len(p.ids) for p in publishers) > c + 100)
        expected = sum(at[n] for n in range(1, min(kill + 1, 3) + 1))
        assert [coming(stream) for stream in streams].count(b"") == expected
    for publisher in publishers:
        publisher.stop = True
        publisher.join(SECONDS)
        assert publisher.error is None
    assert curl(bus.url + "numbers/end", *KIND)[0] == 204
    published = sorted(
        (tuple(map(int, id.split("-"))), f"numbers/{publisher.name}", number)
        for publisher in publishers
        for number, id in enumerate(publisher.ids)
    )
    for reader in readers:
        reader.join(SECONDS)
        assert (reader.error, reader.gaps) == (None, 0)
        assert [(channel, number) for channel, number, _ in reader.got] == [
            (channel, number) for _, channel, number in published
        ]
    # The others were not disturbed, so somebody was at a worker that was killed.
    assert sum(reader.subscriptions for reader in readers) > len(readers)
    for stream in streams:
        stream.close()


def test_ended_again_and_again(start):
    """
    A worker that ends again and again is started after longer and longer delays; the others
    serve meanwhile.  One that is stopped by SIGTERM ends its streams in order.
    """
    bus = start()
    for delay in ("0.1", "0.2", "0.4"):
        bus.end_worker(1, signal.SIGKILL)
        bus.wait_for(f"Worker 1 was ended by SIGKILL; .* in {delay} seconds")
    streams = streams_of(bus, 40)
    at = bus.subscribers()
    bus.end_worker(2, signal.SIGTERM)
    bus.wait_for("Worker 2 has ended with code 0; .* in 0.1 seconds")
    came = [coming(stream) for stream in streams]
    assert came.count(b"0\r\n\r\n") == at[2]
    assert came.count(None) == at[1]


def test_parent_is_killed(start):
    """
    If the parent is killed, its workers stop by themselves, and answer before.
    """
    bus = start()
    streams = streams_of(bus, 10)
    pids = list(bus.workers().values())
    bus.kill()
    for stream in streams:
        assert rest_of(stream).endswith(b"0\r\n\r\n")
    wait_until(lambda: not alive(pids))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop(start, number):
    """
    A stop delivers what was acknowledged and ends all streams in order, also if the workers
    get the signal of the parent, as systemd and a terminal send it.
    """
    bus = start(start_new_session=True)
    streams = streams_of(bus, 20)
    publisher = raw(bus)
    publish(publisher, b"last words")
    pids = list(bus.workers().values())
    for pid in (*pids, bus.process.pid):
        os.kill(pid, number)
    ends = [rest_of(stream) for stream in streams]
    assert all(end.endswith(b"\r\n0\r\n\r\n") for end in ends)
    assert all(end.count(b"last words") == 1 for end in ends)
    assert bus.process.wait(SECONDS) == 0
    assert alive(pids) == []


def test_second_signal(start):
    """
    A second signal does not wait for those who do not read.
    """
    bus = start("--drain", "60")
    (stream,) = streams_of(bus, 1)
    publisher = raw(bus)
    for _ in range(10):
        publish(publisher, b"x" * 1_000_000)
    publisher.close()
    bus.process.terminate()
    bus.wait_for("stopping within 60")
    with pytest.raises(subprocess.TimeoutExpired):
        bus.process.wait(1)
    bus.process.terminate()
    assert bus.process.wait(SECONDS) == 0
    stream.close()


def test_socket_file(start, tmp_path):
    """
    The file of a Unix socket stays while workers come and go, and is removed at the end.
    """
    file = tmp_path / "bus.sock"
    bus = start("--listen", f"unix:{file}")
    assert file.stat().st_mode & 0o777 == 0o660
    bus.end_worker(1, signal.SIGTERM)
    bus.end_worker(2, signal.SIGTERM)
    local = ("--unix-socket", str(file), "http://localhost/msgbus/foo")
    assert curl(*local, *KIND)[0] == 204
    bus.stop()
    assert not file.exists()


def test_tls(start, tmp_path):
    """
    Over TLS, each worker asks for client certificates.  A reload has all of them accept
    other authorities.
    """
    office = Office(tmp_path, start)
    office.start()
    alice = ("--cert", str(office.clients.issue_client("alice")))
    for _ in range(8):
        assert office.publish("foo", *alice) == 204
        assert office.publish("foo") == 403
    office.reload(office.others, count=2)
    carol = ("--cert", str(office.others.issue_client("carol")))
    for _ in range(8):
        assert office.publish("foo", *carol) == 204
        assert office.publish("foo", *alice) != 204


def test_proxy_protocol(start):
    """
    Behind the PROXY protocol, a worker knows the addresses of clients.
    """
    bus = start("--listen", "haproxy:tcp:0:interface=127.0.0.1", "-v")
    client = raw(bus, b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n")
    publish(client, b"x")
    client.close()
    bus.wait_for(r"worker \d#info\] .*203\.0\.113\.9:4711 publishes")


def test_cannot_start(redis, tmp_path):
    """
    If the workers cannot start, the parent ends with their sentence, and leaves nobody.
    """
    redis.ask("SET", "text", "x")
    listen = ("--listen", "tcp:0:interface=127.0.0.1", "--workers", "3")
    wrong = f"{redis.url}&stream=text"
    flags = ("-n", "--pidfile", "pid", "--logfile", "log")
    result = twistd(*flags, "msgbus", *listen, "--log", wrong, cwd=tmp_path)
    assert result.returncode == 1
    assert re.search("^Cannot start: .*'text' is a string.*$", result.stderr, re.MULTILINE)
    assert result.stderr.count("Cannot start") == 1
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log + result.stderr + result.stdout
    pids = re.findall(r"is process (\d+)", log)
    assert len(pids) == 3
    assert alive(pids) == []
    assert not (tmp_path / "pid").exists()


def test_daemon(redis, tmp_path):
    """
    As a daemon, the bus has the lines of all workers in its log, and ends with all of them.
    """
    arguments = ("--listen", "tcp:0:interface=127.0.0.1", "--log", redis.url)
    assert twistd("msgbus", *arguments, "--workers", "2", cwd=tmp_path).returncode == 0
    log, pid_file = tmp_path / "twistd.log", tmp_path / "twistd.pid"
    wait_until(lambda: "Serving, until SIGTERM" in log.read_text())
    text = log.read_text()
    lines = re.findall(
        r"^\S+ \[worker (\d)#info\] Up to \d+ open files", text, re.MULTILINE
    )
    assert sorted(lines) == ["1", "2"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\S+ \[\S.*\] ", x) for x in text.splitlines())
    pids = re.findall(r"is process (\d+)", text)
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    wait_until(lambda: not alive(pids) and not pid_file.exists())


def test_systemd(redis, tmp_path):
    """
    systemd is told once that the bus is ready, when all workers serve; that it lives, as
    long as all of them live; that it reads its files again; and that it stops.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    url = f"http://localhost:{listener.getsockname()[1]}/msgbus/foo"
    process, notified = spawn(
        listener, tmp_path, "--workers", "2", "--log", redis.url, "--users", users(tmp_path)
    )

    def told():
        while (state := notified.recv(100)) == b"WATCHDOG=1":
            pass
        return state

    assert told() == b"READY=1"
    workers = children(process.pid)
    assert len(workers) == 2
    for _ in range(3):
        assert notified.recv(100) == b"WATCHDOG=1"
    assert curl(url, *KIND)[0] == 401
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not any(", 1 connection;" in line for line in notified.lines):
            notified.recv(100)
    process.send_signal(signal.SIGHUP)
    assert told().startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert told() == b"READY=1"
    # One that hangs is no sign of life.
    os.kill(workers[0], signal.SIGSTOP)
    notified.settimeout(2)
    with pytest.raises(TimeoutError):
        told()
    notified.settimeout(SECONDS)
    os.kill(workers[0], signal.SIGCONT)
    assert notified.recv(100) == b"WATCHDOG=1"
    process.terminate()
    assert told() == b"STOPPING=1"
    assert process.wait(SECONDS) == 0
    notified.setblocking(False)
    with pytest.raises(BlockingIOError):
        told()
    *_, stopping, stopped = notified.lines
    assert re.fullmatch("Stopping: \\d+ connections? left", stopping)
    assert stopped == "Stopped"
    assert alive(workers) == []
    notified.close()
    listener.close()


def users(folder):
    """
    A file of users.
    """
    file = folder / "users"
    file.write_text("alice:$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW\n")
    return str(file)


def children(pid):
    """
    The processes that this one has started.
    """
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def test_admin(start, tmp_path):
    """
    Each worker has an address of the operator, which names its number; a worker that is
    started again has it again.
    """
    bus = start("--admin", f"unix:{tmp_path}/admin-{{worker}}.sock")

    def ask(number, path):
        _, body = curl(
            f"http://localhost{path}",
            *("--unix-socket", f"{tmp_path}/admin-{number}.sock"),
        )
        return body

    def all_are_ready():
        return [ask(number, "/readyz") for number in (1, 2)] == [b"ready\n"] * 2

    wait_until(all_are_ready)
    streams = streams_of(bus, 8)
    told = b"".join(ask(number, "/metrics") for number in (1, 2))
    counts = re.findall(rb'^msgbus_subscriptions\{form="multipart"\} (.*)$', told, re.M)
    assert sum(map(float, counts)) == len(streams)
    for stream in streams:
        stream.close()
    bus.end_worker(2, signal.SIGKILL)
    wait_until(all_are_ready)


def test_config(start, tmp_path):
    """
    Each worker reads a file of options again; one that is started again takes them from the
    file as it is then, and serves at the same sockets.
    """
    file = tmp_path / "msgbus.toml"
    listen = "listen = 'tcp:0:interface=127.0.0.1'\n"
    file.write_text(listen)
    bus = start("--config", file.name)
    count = len(bus.workers())
    file.write_text(listen + "max-message = 9")
    bus.process.send_signal(signal.SIGHUP)
    bus.wait_for("again: max-message changed", count)
    file.write_text("listen = ['tcp:0', 'unix:x']\nmax-message = 9\nmax-subscriptions = 5")
    for number in bus.workers():
        bus.end_worker(number, signal.SIGTERM)
    streams_of(bus, 2)
    assert curl(bus.url + "foo", *KIND[:-1], "x" * 9)[0] == 204
    assert curl(bus.url + "foo", *KIND[:-1], "x" * 10)[0] == 413
