"""
The log of a real bus, as text and as JSON, wherever it goes; and what strangers cannot do
in it.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode

import pytest

from msgbus.web.responses import REASONS

from .daemon import BIN, Daemon
from .pages import CHECKOUT
from .test_twistd import curl

SECONDS = 30
KIND = ("-H", "Content-Type: a/b")
HEAD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[[^\]]*\] ")

# A line end in several spellings, and what moves the cursor or turns text around.
EVIL = "\r\n\x0b\x1b[2J\x7f\x85\x9b2J\u2028\u2029\u202e\u2066FORGED"
QUOTED = "".join(f"%{byte:02x}" for byte in EVIL.encode())
SECRET = "hunter2"


def wait_until(condition):
    """
    Wait until something is true.
    """
    deadline = time.monotonic() + SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


def objects(path):
    """
    The objects in a log, each of which is a line.
    """
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def talk(port, data):
    """
    Send these bytes, and wait until the bus has answered and closed the connection.
    """
    with socket.create_connection(("127.0.0.1", port), SECONDS) as peer:
        peer.sendall(data)
        while peer.recv(65536):
            pass


def attack(port):
    """
    Send the bus whatever a stranger may choose: names, patterns, paths, users, types, other
    headers, and bytes that are no HTTP; and secrets where they belong.
    """
    user = b64encode(f"{EVIL}:{SECRET}".encode()).decode()
    signed = f"Authorization: Basic {user}\r\n"
    raw = EVIL.replace("\r\n", "").encode()
    for target, headers in (
        (f"/msgbus/{QUOTED}?link={SECRET}", ""),
        (f"/msgbus/foo?type={QUOTED}&since={SECRET}", ""),
        (f"/msgbus/foo?since={QUOTED}", signed),
        (f"/msgbus/foo?format={QUOTED}", signed),
        (f"/{QUOTED}?{SECRET}", signed),
        ("/msgbus/%ff%fe%00", signed),
        ("/msgbus/foo", f"Origin: http://{QUOTED}.example\r\nHost: {QUOTED}\r\n"),
        ("/msgbus/foo", f"Referer: /?link={SECRET}\r\nHost: a\r\n"),
    ):
        for method in ("GET", "POST"):
            head = f"{method} {target} HTTP/1.0\r\n{headers}Content-Type: \x1b[2J\r\n"
            talk(port, f"{head}Content-Length: 7\r\n\r\n{SECRET}".encode())
    for line in (raw, b"GET /%b HTTP/1.0" % raw, b"B%bW /msgbus/foo HTTP/1.0" % raw):
        talk(port, line + b"\r\nHost: localhost\r\n\r\n")
    head = b"POST /msgbus/foo HTTP/1.0\r\nContent-Length: 7\r\n"
    for line in (b"Content-Type: a/" + raw, b"Content-Type: a/b;c=" + raw, raw + b": x"):
        talk(port, head + line + b"\r\n\r\n" + SECRET.encode())
    lines = json.dumps({"type": EVIL, "channel": EVIL, "body": SECRET})
    head = (
        "POST /msgbus/x/?format=ndjson HTTP/1.0\r\nContent-Type: application/x-ndjson\r\n"
    )
    talk(port, f"{head}Content-Length: {len(lines)}\r\n\r\n{lines}".encode())


def test_injection(start):
    """
    Whatever strangers send, each line of the log is one that the bus has begun, without a
    control character, and without a body, a password or a query.
    """
    bus = start("-vv")
    attack(bus.port)
    bus.stop()
    lines = bus.log.split("\n")[:-1]
    assert sum(" is refused " in line for line in lines) >= 20
    for line in lines:
        assert HEAD.match(line), line
        assert line.isprintable(), line
        assert SECRET not in line, line
    assert "FORGED" in bus.log


def test_injection_as_json(start):
    """
    As JSON, each line is one object, whose message has no control character either.
    """
    bus = start("-vv", "--log-json")
    attack(bus.port)
    bus.process.terminate()
    assert bus.process.wait(SECONDS) == 0
    assert SECRET not in bus.log
    told = objects(bus._log)
    refused = [each for each in told if each.get("event") == "refused"]
    assert len(refused) >= 20
    for each in told:
        assert each["message"].isprintable()
    assert any(each["user"] == EVIL for each in refused)


@pytest.fixture
def daemon(tmp_path):
    """
    Start a daemon, which logs to a file, as JSON; its port and that file.
    """

    def start(*flags):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        subprocess.run(
            [
                *(sys.executable, BIN / "twistd", "--pidfile", "pid", *flags),
                *("msgbus", "-v", "--log-json"),
                f"--listen=tcp:{port}:interface=127.0.0.1",
            ],
            check=True,
            cwd=tmp_path,
        )
        log = tmp_path / "twistd.log"
        wait_until(lambda: log.exists() and "Serving" in log.read_text())
        return port, log

    yield start
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (tmp_path / "pid").exists())


def test_daemon(daemon, tmp_path):
    """
    A daemon logs JSON to its file, and goes on in a new one when the old one was moved away
    and it gets SIGUSR1.
    """
    port, log = daemon()
    url = f"http://localhost:{port}/msgbus/foo"
    assert curl(url, *KIND, "-d", "x")[0] == 204
    assert curl(f"{url}?since=x")[0] == 400
    (refused,) = wait_until(
        lambda: [each for each in objects(log) if each.get("event") == "refused"]
    )
    peer = refused.pop("peer")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", peer)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", refused.pop("time"))
    sentence = refused.pop("sentence")
    assert refused == {
        "level": "info",
        "system": "msgbus.web.journal.Journal",
        "message": f"{peer} is refused GET 'foo' as '': 400 invalid: {sentence}",
        "event": "refused",
        "way": "GET",
        "channel": "foo",
        "user": "",
        "status": 400,
        "reason": "invalid",
    }
    moved = tmp_path / "twistd.log.1"
    log.rename(moved)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR1)
    wait_until(log.exists)
    assert curl(url, "-X", "BREW")[0] == 405
    assert wait_until(lambda: objects(log))[0]["status"] == 405
    assert "BREW" not in moved.read_text()


def test_folded(start):
    """
    Refusals that are alike are one line, and one more that counts the others, at the latest
    when the bus stops; but all are there of somebody of whom everything is asked for.
    """
    bus = start("-v", "--verbose-for", "alice")
    for _ in range(5):
        assert curl(f"{bus.url}foo?since=x")[0] == 400
        assert curl(f"{bus.url}foo?since=x", "-u", "alice:")[0] == 400
    bus.stop()
    assert bus.log.count(" is refused GET 'foo' as 'alice'") == 5
    assert bus.log.count(" is refused GET 'foo' as ''") == 2
    assert bus.log.count("4 more like it: 127.0.0.1:") == 1


def test_workers(tmp_path, redis):
    """
    The parent of workers writes their lines as JSON too, each with the number of its
    worker.
    """
    bus = Daemon(
        tmp_path,
        *("--log-json", "-v", "--workers", "2", "--log", redis.url),
    )
    try:
        for _ in range(10):
            assert curl(f"{bus.url}foo?since=x")[0] == 400
    finally:
        bus.process.terminate()
        assert bus.process.wait(SECONDS) == 0
    told = objects(bus._log)
    refused = [each for each in told if each.get("event") == "refused"]
    assert {each["worker"] for each in refused} <= {1, 2}
    assert sum(each.get("folded", 1) for each in refused) == 10


def test_documented(start):
    """
    The events of clients have the fields of the table, and no others; each reason is one
    that is counted.
    """
    bus = start("-vv", "--log-json")
    assert curl(f"{bus.url}foo", *KIND, "-d", "x")[0] == 204
    assert curl(f"{bus.url}foo?format=message&last=1")[0] == 200
    assert curl(f"{bus.url}foo?since=x")[0] == 400
    assert curl(f"http://localhost:{bus.port}/", "-H", "Host: x.example")[0] == 421
    with socket.create_connection(("127.0.0.1", bus.port), SECONDS) as peer:
        peer.sendall(b"GET /msgbus/foo HTTP/1.0\r\n\r\n")
        assert peer.recv(100)
    bus.wait_for("leaves 'foo'")
    bus.process.terminate()
    assert bus.process.wait(SECONDS) == 0
    events = [each for each in objects(bus._log) if "event" in each]
    (table,) = re.findall(
        r"^\| field \|.*?\n\n", (CHECKOUT / "docs/operations.md").read_text(), re.M | re.S
    )
    names = {
        name
        for row in table.strip().splitlines()[2:]
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    seen = {name for each in events for name in each}
    assert seen == names - {"traceback", "worker", "folded"}
    kinds = {each["event"] for each in events}
    assert kinds == {"subscribed", "left", "published", "refused"}
    for each in events:
        assert each.get("reason", REASONS[0]) in REASONS


def test_rotated(start, tmp_path):
    """
    `logrotate` as the documentation has it moves the file away, and the bus begins a new
    one.
    """
    page = (CHECKOUT / "docs/operations.md").read_text()
    (shown,) = re.findall(r"^/var/log/msgbus/.*?^\}$", page, re.M | re.S)
    log, pid = tmp_path / "bus.log", tmp_path / "bus.pid"
    command = ("twistd", "-n", f"--pidfile={pid}", f"--logfile={log}")
    listen = f"unix:{tmp_path / 'socket'}"
    process = subprocess.Popen(
        [sys.executable, BIN / command[0], *command[1:], "msgbus", "--listen", listen],
        cwd=tmp_path,
    )
    try:
        wait_until(lambda: log.exists() and "Serving" in log.read_text())
        config = tmp_path / "logrotate"
        shown = shown.replace("/var/log/msgbus", str(tmp_path))
        config.write_text(shown.replace("/run/msgbus.pid", str(pid)))
        config.chmod(0o644)
        tmp_path.chmod(0o755)
        logrotate = shutil.which("logrotate", path="/usr/sbin:/usr/bin")
        subprocess.run(
            [logrotate, "--force", "--state", tmp_path / "state", config], check=True
        )
        wait_until(log.exists)
    finally:
        process.terminate()
        assert process.wait(SECONDS) == 0
    assert "Serving" in (tmp_path / "bus.log.1").read_text()
    assert "stopping within" in log.read_text()


def test_twist(tmp_path):
    """
    `twist` logs the same.
    """
    bus = Daemon(tmp_path, "--log-json", command=("twist",))
    bus.process.terminate()
    bus.process.wait(SECONDS)
    assert any("Serving" in each["message"] for each in objects(bus._log))


def test_somebody_elses_log(tmp_path):
    """
    JSON cannot be asked for where another program makes the lines.
    """
    done = subprocess.run(
        [sys.executable, BIN / "twistd", "-n", "--syslog", "msgbus", "--log-json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("msgbus: With --log-json, leave out --syslog")


def test_access_log(tmp_path, redis):
    """
    With `--access-log`, all workers write to one file, with a line for each request, and to
    a new one when that was moved away.
    """
    log = tmp_path / "access.log"
    shared = ("--workers", "2", "--log", redis.url, "--access-log", "access.log")
    bus = Daemon(tmp_path, *shared)
    try:
        line = '"POST /msgbus/foo HTTP/1.1" 204 0 "-" "test"\n'
        publication = (f"{bus.url}foo?{SECRET}", *KIND, "-d", SECRET, "-A", "test")
        for _ in range(10):
            assert curl(*publication)[0] == 204
        wait_until(lambda: log.read_text().count(line) == 10)
        log.rename(tmp_path / "access.log.1")
        bus.process.send_signal(signal.SIGUSR1)
        wait_until(log.exists)

        def is_written():
            curl(*publication)
            return line in log.read_text()

        wait_until(is_written)
    finally:
        bus.stop()
    assert SECRET not in log.read_text() + (tmp_path / "access.log.1").read_text()
