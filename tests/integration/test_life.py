"""
How the daemon starts, stops, and lives under systemd.
"""

import pwd
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from .blocking import GET, POST, publish, raw, rest_of
from .daemon import BIN
from .systemd import spawn
from .test_twistd import curl, twistd


class TestStart:
    """
    What can go wrong at the start.
    """

    @pytest.fixture
    def taken(self):
        """
        A port that somebody else listens on.
        """
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            yield f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"

    def test_port_in_use(self, taken, tmp_path):
        """
        In the foreground, a port in use is a sentence, and no traceback.
        """
        for program in ("twistd", "twist"):
            flags = ["-n", "--logfile", "log"] if program == "twistd" else []
            result = subprocess.run(
                [sys.executable, BIN / program, *flags, "msgbus", "--listen", taken],
                capture_output=True,
                text=True,
                timeout=60,
                cwd=tmp_path,
                check=False,
            )
            assert result.returncode == 1
            sentence = f"Cannot start: Address already in use: {taken}\n"
            assert result.stderr.endswith(sentence)
            assert "Traceback" not in result.stderr + result.stdout
            assert not (tmp_path / "twistd.pid").exists()

    def test_port_in_use_as_a_daemon(self, taken, tmp_path):
        """
        As a daemon, the sentence is in the one line that twistd has for it,
        and no pid file is left.
        """
        result = twistd("msgbus", "--listen", taken, cwd=tmp_path)
        assert result.returncode == 1
        assert f"Address already in use: {taken}" in result.stderr
        log = (tmp_path / "twistd.log").read_text()
        assert f"Cannot start: Address already in use: {taken}" in log
        assert "Traceback" not in log
        # The daemon tells the first process why it ends before it removes the file.
        deadline = time.monotonic() + 30
        while (tmp_path / "twistd.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not (tmp_path / "twistd.pid").exists()

    def test_privileges(self, start):
        """
        It binds a port below 1024 as root, and serves as nobody.
        """
        nobody = pwd.getpwnam("nobody")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 80))
        command = ("twistd", "-n", "--pidfile=", "--uid", "nobody", "--gid", "nogroup")
        bus = start("--listen", "tcp:80:interface=127.0.0.1", command=command)
        status = Path(f"/proc/{bus.process.pid}/status").read_text()
        assert set(re.search(r"Uid:\s+(.*)", status)[1].split()) == {str(nobody.pw_uid)}
        assert curl(bus.url + "foo", "-H", "Content-Type: a/b", "-d", "x") == (204, b"")

    def test_warning(self, start):
        """
        Listening to everybody without a password is warned of, once.
        """
        bus = start("--listen", "tcp:0")
        warning = bus.wait_for("There is no password: .* 0.0.0.0:")[0]
        assert bus.log.count(warning) == 1

    def test_password(self, start, tmp_path):
        """
        A password from a file is asked for on bus and documents alike.
        """
        (tmp_path / "secret").write_text("open sesame\n")
        (tmp_path / "site").mkdir()
        (tmp_path / "site/index.html").write_text("<h1>hello</h1>")
        (tmp_path / "secret").chmod(0o604)
        bus = start("--secret-file", "secret", "--docroot", "site", "--listen", "tcp:0")
        bus.wait_for("Everybody on this machine can read the password")
        assert "There is no password" not in bus.log
        root = bus.url.removesuffix("msgbus/")
        kind = ("-H", "Content-Type: a/b", "-d", "x")
        assert curl(root)[0] == curl(bus.url + "foo", *kind)[0] == 401
        user = ("-u", "alice:open sesame")
        assert curl(root, *user) == (200, b"<h1>hello</h1>")
        assert curl(bus.url + "foo", *kind, *user) == (204, b"")
        assert "sesame" not in bus.log


class TestStop:
    """
    The end.
    """

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_delivered(self, bus, number):
        """
        A publisher that got its 204 finds its message with every subscriber,
        though the stop came right behind it; each stream ends behind a
        delimiter.
        """
        readers = [raw(bus, GET) for _ in range(20)]
        bus.wait_for("subscribes", count=20)
        idle, publisher = raw(bus), raw(bus)
        publish(publisher, b"last words")
        bus.process.send_signal(number)
        for reader in readers:
            stream = rest_of(reader)
            assert re.search(rb"last words\r\n--msgbus\w+\r\n\r\n0\r\n\r\n\Z", stream)
        assert rest_of(idle) == rest_of(publisher) == b""
        assert bus.process.wait(5) == 0

    def test_readers_that_do_not_read(self, bus):
        """
        A thousand streams, of which a hundred do not read, end in time.
        """
        everything = GET.replace(b"foo", b"")
        readers = [raw(bus, GET.replace(b"foo", b"bar")) for _ in range(900)]
        lazy = [raw(bus, everything) for _ in range(100)]
        bus.wait_for("subscribes", count=1000)
        publisher = raw(bus)
        # More than their sockets take, so that it waits for them.
        for _ in range(8):
            publish(publisher, b"x" * 1_000_000)
        started = time.monotonic()
        bus.process.terminate()
        for reader in readers:
            assert rest_of(reader).endswith(b"0\r\n\r\n")
        assert time.monotonic() - started < 5
        assert bus.process.wait(30) == 0
        assert time.monotonic() - started < 11
        for reader in lazy:
            reader.close()
        assert "Cutting 100 connections" in bus.log

    def test_first_request(self, bus):
        """
        Who has connected before the stop can still have one answer.
        """
        publisher = raw(bus)
        # The bus knows of the first once it has answered a second.
        assert curl(bus.url + "foo", "-H", "Content-Type: a/b", "-d", "x")[0] == 204
        bus.process.terminate()
        bus.wait_for("stopping within")
        time.sleep(0.2)
        publisher.sendall(POST + b"Content-Length: 1\r\n\r\nx")
        answer = rest_of(publisher)
        assert answer.startswith(b"HTTP/1.1 204 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert bus.process.wait(5) == 0

    def test_second_signal(self, bus):
        """
        A second signal does not wait.
        """
        raw_reader = raw(bus, GET)
        bus.wait_for("subscribes")
        publisher = raw(bus)
        for _ in range(10):
            publish(publisher, b"x" * 1_000_000)
        bus.process.terminate()
        bus.wait_for("stopping within")
        assert bus.process.poll() is None
        bus.process.terminate()
        assert bus.process.wait(2) == 0
        raw_reader.close()

    def test_owed(self, start):
        """
        What waits for a reader that reads, 20 MB, arrives whole.
        """
        bus = start("-v", "--max-backlog", "30000000")
        reader = raw(bus, GET)
        bus.wait_for("subscribes")
        publisher = raw(bus)
        for _ in range(20):
            publish(publisher, b"x" * 1_000_000)
        bus.process.terminate()
        bus.wait_for("stopping within")
        stream = rest_of(reader)
        assert stream.count(b"x" * 1_000_000) == 20
        assert stream.endswith(b"\r\n0\r\n\r\n")
        assert b"Msgbus-Gap" not in stream
        assert bus.process.wait(30) == 0
        assert "Cutting" not in bus.log


class TestSystemd:
    """
    What systemd does for a service, done to it.
    """

    def test_restart(self, tmp_path):
        """
        It tells when it is ready, that it lives, and when it stops; and around
        a restart no connection is refused.
        """
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        url = f"http://localhost:{listener.getsockname()[1]}/msgbus/foo"
        answers, stop = [], threading.Event()

        def knock():
            while not stop.is_set():
                code, _ = curl(url, "-H", "Content-Type: a/b", "-d", "x")
                answers.append(code)

        knocking = threading.Thread(target=knock, daemon=True)
        process, notified = spawn(listener, tmp_path)
        assert notified.recv(100) == b"READY=1"
        knocking.start()
        for _ in range(3):
            for _ in range(3):
                assert notified.recv(100) == b"WATCHDOG=1"
            process.terminate()
            while (state := notified.recv(100)) == b"WATCHDOG=1":
                pass
            assert state == b"STOPPING=1"
            assert process.wait(30) == 0
            notified.close()
            time.sleep(0.3)
            process, notified = spawn(listener, tmp_path)
            assert notified.recv(100) == b"READY=1"
        stop.set()
        knocking.join()
        process.terminate()
        assert process.wait(30) == 0
        notified.close()
        listener.close()
        # curl says 0 for a connection that was refused.
        assert len(answers) > 10
        assert set(answers) == {204}
