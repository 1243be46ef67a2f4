"""
The operator's address of a real bus: its numbers, and whether it is ready.
"""

import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .certificates import Authority
from .ports import START_SECONDS, free_port
from .test_history import publish
from .test_twistd import twistd

LOOPBACK = "interface=127.0.0.1"


class Admin:
    """
    The operator's address of a bus.
    """

    def __init__(self, start, *arguments, **options):
        self.port, port = free_port(), free_port()
        listen = ("--listen", f"tcp:{port}:{LOOPBACK}")
        self.bus = start("--admin", f"tcp:{self.port}", *listen, *arguments, **options)
        # The log names both.
        self.bus.port = port

    def get(self, path, **headers):
        """
        The status and the text at this path.
        """
        request = urllib.request.Request(
            f"http://localhost:{self.port}{path}", headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait_until_ready(self):
        """
        Wait until the bus says that it is ready.
        """
        deadline = time.monotonic() + START_SECONDS
        while (told := self.get("/readyz")) != (200, "ready\n"):
            assert time.monotonic() < deadline, told
            time.sleep(0.05)

    def values(self):
        """
        All numbers, by name and labels.
        """
        status, text = self.get("/metrics")
        assert status == 200
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def test_metrics(start):
    """
    What happens is counted, promtool finds no fault, and a million channels make no
    further number.
    """
    admin = Admin(start)
    stream = urllib.request.urlopen(f"{admin.bus.url}?format=ndjson", timeout=30)
    before = admin.values()
    for number in range(50):
        publish(admin.bus, [number], path=f"channel{number}")
    for _ in range(50):
        stream.readline()
    after = admin.values()
    stream.close()
    assert after["msgbus_published_messages_total", "request"] == 50
    assert after["msgbus_delivered_messages_total", "ndjson"] == 50
    assert after["msgbus_subscriptions", "ndjson"] == 1
    assert after["msgbus_history_channels",] == 50
    assert after["msgbus_log_up",] == 1
    assert after["process_open_fds",] > 5
    assert before.keys() == after.keys()
    promtool = shutil.which("promtool", path="/usr/bin:/usr/local/bin")
    told = subprocess.run(
        [promtool, "check", "metrics"],
        input=admin.get("/metrics")[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_ready(start, redis):
    """
    A bus is ready as long as messages get through it, and says why if they do not; it is
    alive all the same.
    """
    admin = Admin(start, "--log", redis.url)
    admin.wait_until_ready()
    assert admin.get("/healthz") == (200, "alive\n")
    publish(admin.bus, [1])
    assert admin.values()["msgbus_publication_wait_seconds_count",] == 1
    redis.kill()
    admin.bus.wait_for("Cannot use the stream")
    status, text = admin.get("/readyz")
    assert (status, "Cannot reach the stream 'msgbus' of Redis" in text) == (503, True)
    assert admin.get("/healthz") == (200, "alive\n")
    assert admin.values()["msgbus_log_up",] == 0
    redis.start()
    admin.bus.wait_for("Connected to the stream")
    admin.wait_until_ready()


@pytest.mark.parametrize("prefix", ["", "haproxy:"])
def test_handshakes(start, tmp_path, prefix):
    """
    Handshakes of TLS are counted, and connections that end without one.
    """
    authority = Authority(tmp_path)
    key = authority.issue("localhost")
    admin = Admin(
        start,
        *("--listen", f"{prefix}ssl:0:{LOOPBACK}:privateKey={key}:certKey={key}"),
    )
    port = int(admin.bus.wait_for(r"\(TLS\) starting on (\d+)")[1])
    context = ssl.create_default_context(cafile=authority.file)
    for client_context in (context, context, ssl.create_default_context()):
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        with plain, suppress(ssl.SSLCertVerificationError):
            client = client_context.wrap_socket(plain, server_hostname="localhost")
            if prefix:
                client.sendall(b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\n")
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.0 200 ")
            client.close()
    expected = {("done",): 2, ("failed",): 1}

    def counted():
        name = "msgbus_tls_handshakes_total"
        return {key[1:]: v for key, v in admin.values().items() if key[0] == name}

    deadline = time.monotonic() + START_SECONDS
    while counted() != expected:
        assert time.monotonic() < deadline, counted()
        time.sleep(0.05)


def test_password(start, tmp_path):
    """
    A password keeps strangers out, also at an address that they can reach; without one,
    the address must be one of this machine.
    """
    (tmp_path / "admin").write_text("secret\n")
    (tmp_path / "admin").chmod(0o600)
    admin = Admin(start, "--admin-secret-file", "admin")
    assert admin.get("/metrics")[0] == 401
    basic = {"Authorization": "Basic b3BlcmF0b3I6c2VjcmV0"}
    assert admin.get("/metrics", **basic)[0] == 200
    assert admin.get("/metrics", Host="evil.example", **basic)[0] == 421
    result = twistd(
        "-n",
        "--pidfile=",
        "msgbus",
        *("--listen", f"tcp:0:{LOOPBACK}", "--admin", "tcp:0:interface=0.0.0.0"),
        cwd=tmp_path,
    )
    assert result.returncode == 1
    assert "--admin-secret-file" in result.stdout + result.stderr


def test_foreign_pages(start):
    """
    Pages of other sites read nothing there, also where they may use the bus.
    """
    admin = Admin(start, "--allow-origin", "*", "--host", "*", "--host", "bus.example")
    for path in ("/", "/metrics", "/subscribers", "/events/?list"):
        request = urllib.request.Request(
            f"http://localhost:{admin.port}{path}",
            headers={"Origin": "http://evil.example"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers, path
        assert admin.get(path, Host="evil.example")[0] == 421
        assert admin.get(path, Host="bus.example")[0] == 200


def test_many_connections(start):
    """
    Whoever keeps connections to the operator's address takes no more files than it may
    have, and the bus still serves.
    """
    admin = Admin(start)
    with ExitStack() as stack:
        for _ in range(101):
            peer = socket.create_connection(("127.0.0.1", admin.port), timeout=30)
            stack.enter_context(peer)
        assert peer.recv(100).startswith(b"HTTP/1.1 503 ")
        admin.bus.wait_for("The operator's address has too many connections")
        publish(admin.bus, [1])
    admin.wait_until_ready()


def test_unix(start, tmp_path):
    """
    The operator's address can be a Unix socket.
    """
    start("--admin", "unix:admin.sock")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(tmp_path / "admin.sock"))
        client.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while data := client.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.0 200 ")
    assert answer.endswith(b"\r\n\r\nready\n")


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz"])
def test_paths(start, path):
    """
    Each path of the list at the root is there, and nothing is where the bus is.
    """
    admin = Admin(start)
    assert path == "/" or path in admin.get("/")[1]
    assert admin.get(path)[0] == 200
    assert admin.get("/msgbus/foo")[0] == 404
