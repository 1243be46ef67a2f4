"""
Users and rules of a real `twistd msgbus`: reloads while clients are connected, files that
cannot be used, and what the command line says.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .daemon import BIN, Daemon
from .ports import free_port

# bcrypt of "other", and of "secret".
OTHER = "$2y$04$DCpTBZ7BAjsCTMML9083zusGO/nknOniItVtr687uY3SFxQEsuMhu"
SECRET = "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"

USERS = f"alice:{OTHER}\nbob:{OTHER}\n"
RULES = "alice publish,subscribe *\nbob publish,subscribe chat/*\n"
BOB = ["-u", "bob:other"]
SERVING = "Serving, until SIGTERM"


@pytest.fixture
def files(tmp_path):
    """
    A file of users and one of rules, as options.
    """
    (tmp_path / "users").write_text(USERS)
    (tmp_path / "access").write_text(RULES)
    return ["--users", str(tmp_path / "users"), "--access", str(tmp_path / "access")]


def twistd(*arguments, cwd):
    """
    Run it to its end.
    """
    return subprocess.run(
        [sys.executable, BIN / "twistd", "-n", "--pidfile=", "msgbus", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )


def curl(*arguments):
    """
    The status that curl gets.
    """
    told = subprocess.run(
        ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", "-m", "20", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(told.stdout)


def publish(bus, channel, *who):
    """
    The status of a publication.
    """
    return curl(*who, "-H", "Content-Type: text/plain", "-d", "x", bus.url + channel)


def reload(bus, sentence, count=1):
    """
    Have a bus read its files again, and wait for what it says.
    """
    bus.process.send_signal(signal.SIGHUP)
    return bus.wait_for(sentence, count)


class Clients:
    """
    Open requests of bob: a stream, a poll and a stream of publications by curl, and a
    WebSocket.
    """

    def __init__(self, bus, shell):
        url = bus.url + "chat/a"
        run = "curl -sN -u bob:other -m 60 -w '\\n%{http_code}' "
        self.stream = shell(run + url)
        self.poll = shell(f"{run} '{url}?format=message&since=now&wait=300'")
        # By a socket, since curl reads no answer while it waits for more to send.
        self.published = socket.create_connection(("127.0.0.1", bus.port), 30)
        line = b'{"type": "text/plain", "body": "1"}\n'
        self.published.sendall(
            b"POST /msgbus/chat/b?format=ndjson HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Basic Ym9iOm90aGVy\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(line), line)
        )
        self.closed = []
        self._opened = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._listen(bus),))
        self._thread.start()
        assert self._opened.wait(30)
        bus.wait_for("subscribes to 'chat/a'", 2)
        bus.wait_for("publishes 1 bytes of text/plain to 'chat/b'")
        # The poll is not logged.
        time.sleep(0.5)

    async def _listen(self, bus):
        url = bus.url.replace("http://", "ws://bob:other@")
        async with connect(url + "chat/a") as websocket:
            self._opened.set()
            try:
                await asyncio.wait_for(websocket.recv(), 60)
            except (ConnectionClosed, TimeoutError) as error:
                self.closed.append(type(error))

    def assert_ended(self, code):
        """
        All have ended, those without an answer yet by this status.
        """
        self._thread.join(30)
        assert self.closed
        assert issubclass(self.closed[0], ConnectionClosed)
        out, _ = self.stream.communicate(timeout=30)
        # Nothing waited for it, so that it could end in order.
        assert self.stream.returncode == 0
        out, _ = self.poll.communicate(timeout=30)
        assert out.endswith(str(code))
        assert self.published.recv(1000).startswith(b"HTTP/1.1 %d " % code)
        self.published.close()


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("users", f"alice:{OTHER}\n", 401),
        ("users", f"alice:{OTHER}\nbob:{SECRET}\n", 401),
        ("access", "alice publish,subscribe *\n", 403),
        ("access", f"bob nothing chat/a chat/b\n{RULES}", 403),
    ],
)
def test_lost(start, files, shell, tmp_path, file, text, code):
    """
    What has lost its right ends at SIGHUP: at once, and not at the next message.
    """
    bus = start("-vv", *files)
    clients = Clients(bus, shell)
    (tmp_path / file).write_text(text)
    began = time.monotonic()
    reload(bus, "Read . users and the rules again")
    clients.assert_ended(code)
    assert time.monotonic() - began < 10
    assert publish(bus, "chat/a", *BOB) == code
    assert publish(bus, "chat/a", "-u", "alice:other") == 204


def test_damaged(files, tmp_path):
    """
    A reload of files that cannot be used changes nothing, says why, and is made up for by
    the next one; with such files there is no start.
    """
    bus = Daemon(tmp_path, *files)
    (tmp_path / "folder").mkdir()
    damages = {
        "users": (b"", USERS.encode()[:-20], b"\xef\xbb\xbf" + USERS.encode(), b"# none\n"),
        "access": (b"", RULES.encode()[:-1], b"\xff\xfe", b"\n# none\n", b"* nothing\n"),
    }
    sentence = "Users and rules stay as they were, because they cannot be read: "
    try:
        for name, texts in damages.items():
            file = tmp_path / name
            good = file.read_bytes()
            for count, text in enumerate((*texts, good + b"\0\n", None), 1):
                file.unlink()
                if text is not None:
                    file.write_bytes(text)
                reload(bus, f"{sentence}{file}", count)
                assert publish(bus, "chat/a", *BOB) == 204
                assert publish(bus, "other", *BOB) == 403
                assert publish(bus, "chat/a") == 401
                # A start reads the files as a reload does, so two of each will do.
                if not text:
                    refused = twistd(*files, cwd=tmp_path)
                    assert refused.returncode == 1
                    assert str(file) in refused.stdout + refused.stderr
                    assert "Traceback" not in refused.stdout + refused.stderr
                file.write_bytes(good)
        # Line ends of other systems are no damage.
        (tmp_path / "access").write_bytes(RULES.replace("\n", "\r\n").encode())
        (tmp_path / "users").write_bytes(USERS.replace("\n", "\r\n").encode())
        reload(bus, "Read 2 users and the rules again")
        assert publish(bus, "chat/a", *BOB) == 204
        assert "Traceback" not in bus.log
    finally:
        # It has logged errors, as it should.
        bus.kill()


def test_another_user(files, tmp_path):
    """
    A bus that has given up its privileges and may not read its files any more keeps what
    they said at the start.
    """
    # The user has to get to the log and the folder, but not to the files.
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder != Path("/tmp"):
            folder.chmod(0o755)
    for name in ("users", "access"):
        (tmp_path / name).chmod(0o600)
    nobody = "65534"
    flags = ("twistd", "-n", "--pidfile=", "--uid", nobody, "--gid", nobody)
    bus = Daemon(tmp_path, *files, command=flags)
    try:
        assert publish(bus, "chat/a", *BOB) == 204
        assert Path(f"/proc/{bus.process.pid}").stat().st_uid == int(nobody)
        (tmp_path / "access").write_text("* publish,subscribe *\n")
        reload(bus, "stay as they were, .*users: Permission denied")
        assert publish(bus, "other") == 401
        assert publish(bus, "chat/a", *BOB) == 204
    finally:
        bus.kill()


def test_daemon(files, tmp_path):
    """
    A daemon, which is in another folder, hashes passwords and reads its files again by the
    names that it was given.
    """
    port = free_port()
    names = ["--users", "users", "--access", "access", "--listen"]
    log, pid = tmp_path / "log", tmp_path / "pid"
    flags = [f"--pidfile={pid}", f"--logfile={log}"]
    names += [f"tcp:{port}:interface=127.0.0.1"]
    subprocess.run(
        [sys.executable, BIN / "twistd", *flags, "msgbus", *names],
        check=True,
        cwd=tmp_path,
        timeout=60,
    )

    def wait_for(text):
        deadline = time.monotonic() + 30
        while not log.exists() or text not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait_for(SERVING)
    number = int(pid.read_text())
    try:
        url = f"http://localhost:{port}/msgbus/"
        assert curl(*BOB, f"{url}chat/a?format=message") == 204
        (tmp_path / "access").write_text("alice subscribe *\n")
        os.kill(number, signal.SIGHUP)
        wait_for("Read 2 users and the rules again")
        assert curl(*BOB, f"{url}chat/a?format=message") == 403
    finally:
        os.kill(number, signal.SIGTERM)
    wait_for("Main loop terminated")


def test_without_rules(start, files):
    """
    Without rules, users may do everything, and nobody else may do anything.
    """
    bus = start(*files[:2])
    assert publish(bus, "x", *BOB) == 204
    assert publish(bus, "x") == 401
    assert publish(bus, "x", "-u", "bob:wrong") == 401


@pytest.mark.parametrize(
    ("question", "code", "sentence"),
    [
        ("bob publish chat/x", 0, "Line 2 of the access file lets the user 'bob'"),
        ("bob publish x", 1, "No line of the access file lets the user 'bob'"),
        ("bob relay chat/x", 1, "No line"),
        ("@anonymous subscribe chat/x", 1, "somebody without a name and password"),
        ("carol publish chat/x", 1, "There is no user 'carol'"),
        ("bob chat/x", 1, "--check-access asks"),
        ("bob read chat/x", 1, "--check-access asks"),
    ],
)
def test_check_access(files, tmp_path, question, code, sentence):
    """
    `--check-access` answers by a sentence and its exit code, and serves nothing.
    """
    result = twistd(*files, "--check-access", question, cwd=tmp_path)
    assert result.returncode == code
    assert sentence in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert SERVING not in result.stdout


def test_options(files, tmp_path):
    """
    Rules without users, and users beside a password for all, are no start.
    """
    for arguments, sentence in (
        (files[2:], "Rules are about users"),
        (["--check-access", "a publish b"], "Rules are about users"),
        ([*files, "--secret", "x"], "no password for everybody"),
        (["--users", str(tmp_path / "none")], "No such file"),
        (["--users", str(tmp_path)], "Is a directory"),
    ):
        result = twistd(*arguments, cwd=tmp_path)
        assert result.returncode == 1
        assert sentence in result.stdout + result.stderr
        assert "Traceback" not in result.stderr
