"""
`twistd msgbus` as operators start it, and curl as its clients use it.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from msgbus.formats.multipart import Decoder
from msgbus.message import Message

from .daemon import BIN

JPEG = bytes.fromhex("ffd8ffe000104a46494600") + bytes(range(256)) * 100


def twistd(*arguments, **kwargs):
    """
    Run a command of Twisted's to its end.
    """
    return subprocess.run(
        [sys.executable, BIN / "twistd", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **kwargs,
    )


def curl(*arguments, **kwargs):
    """
    Run curl to its end: the code of the answer, and what came.
    """
    result = subprocess.run(
        ["curl", "-s", "-w", "%{stderr}%{http_code}", "--max-time", "30", *arguments],
        capture_output=True,
        check=False,
        **kwargs,
    )
    return int(result.stderr or 0), result.stdout


def test_plugin():
    """
    `twistd` and `twist` know the plugin.
    """
    assert "publish/subscribe message bus" in twistd("--help").stdout
    twist = subprocess.check_output([sys.executable, BIN / "twist", "--help"], text=True)
    assert "publish/subscribe message bus" in twist


def test_help():
    """
    `--help` has the options and examples; `--version` is ours.
    """
    text = twistd("msgbus", "--help").stdout
    for word in ("--listen", "--host", "--allow-origin", "--max-message", "curl http"):
        assert word in text
    assert twistd("msgbus", "--version").stdout.startswith("msgbus ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen", "nowhere:1"], "Cannot --listen nowhere:1: Unknown endpoint type"),
        (["--max-message", "lots"], "--max-message 'lots' is no number of bytes."),
        (["--nonsense"], "option --nonsense not recognized"),
    ],
)
def test_mistakes(arguments, sentence, tmp_path):
    """
    A mistake at the start is a sentence, not a traceback.
    """
    result = twistd("-n", "msgbus", *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert sentence in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_twist(start):
    """
    It runs under `twist` too.
    """
    bus = start(command=("twist",))
    assert curl(bus.url + "foo", "-H", "Content-Type: a/b", "-d", "x") == (204, b"")


def test_daemon(tmp_path):
    """
    Without -n it is a daemon, with a log and a pid file, and ends by SIGTERM.
    """
    path = tmp_path / "sock"
    assert twistd("msgbus", "--listen", f"unix:{path}", cwd=tmp_path).returncode == 0
    pid = int((tmp_path / "twistd.pid").read_text())
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        assert path.stat().st_mode & 0o777 == 0o660
        publish = ("http://x/msgbus/foo", "-H", "Content-Type: a/b", "-d", "x")
        assert curl("--unix-socket", path, *publish) == (204, b"")
    finally:
        os.kill(pid, signal.SIGTERM)
    while (tmp_path / "twistd.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "Traceback" not in (tmp_path / "twistd.log").read_text()


def test_several_ports(start):
    """
    It listens wherever it is told.
    """
    bus = start(
        "--listen", "tcp:0:interface=127.0.0.1", "--listen", "tcp6:0:interface=\\:\\:1"
    )
    other = bus.wait_for(r"Site starting on (\d+)", count=2)[1]
    url = f"http://[::1]:{other}/msgbus/foo"
    assert curl("-g", url, "-H", "Content-Type: a/b", "-d", "x") == (204, b"")


class TestCurl:
    """
    curl against a real bus.
    """

    @pytest.fixture(autouse=True)
    def _bus(self, bus, tmp_path):
        self.bus = bus
        self.folder = tmp_path

    def subscribe(self, *arguments, path=""):
        """
        A curl that subscribes, once it has.
        """
        count = self.bus.log.count("subscribes to")
        got = self.folder / f"got-{count}"
        process = subprocess.Popen(
            ["curl", "-sN", "-o", got, self.bus.url + path, *arguments]
        )
        self.bus.wait_for("subscribes to", count=count + 1)
        return process, got

    def publish(self, path, body, *arguments):
        """
        Publish a body by curl, and see that it worked.
        """
        command = (self.bus.url + path, "--data-binary", "@-", *arguments)
        assert curl(*command, input=body) == (204, b"")

    def received(self, reader, last):
        """
        What a subscriber got, up to these bytes, as parts.
        """
        process, got = reader
        deadline = time.monotonic() + 30
        while last not in (stream := got.read_bytes() if got.exists() else b""):
            assert time.monotonic() < deadline, stream[-1000:]
            time.sleep(0.02)
        process.terminate()
        process.wait(30)
        opening, rest = stream.split(b"\r\n", 1)
        return list(Decoder(opening[2:].decode()).feed(opening + b"\r\n" + rest))

    def test_bytes(self):
        """
        A picture and a text on two channels arrive byte for byte, by HTTP/1.0
        and 1.1.
        """
        readers = [self.subscribe(version) for version in ("--http1.0", "--http1.1")]
        self.publish("cam", JPEG, "-H", "Content-Type: image/jpeg", "-u", "alice:x")
        self.publish("foo", b"hello end", "-H", "Content-Type: text/plain")
        for reader in readers:
            picture, text = self.received(reader, b"hello end")
            assert picture.message() == Message("cam", JPEG, "image/jpeg", "alice")
            assert text.message() == Message("foo", b"hello end", "text/plain")

    def test_uploads(self):
        """
        Whatever way curl has to send a body is a publication.
        """
        big = os.urandom(1024 * 1024)
        (self.folder / "big").write_bytes(big)
        reader = self.subscribe()
        kind = ("-H", "Content-Type: a/b")
        for arguments in (
            ("-T", self.folder / "big"),
            ("-T", self.folder / "big", "-H", "Expect: 100-continue"),
            ("-T", self.folder / "big", "-H", "Transfer-Encoding: chunked"),
            ("-T", self.folder / "big", "--http1.0"),
            ("--data-binary", f"@{self.folder / 'big'}"),
            ("-X", "POST"),
            ("-d", "end!"),
        ):
            assert curl(self.bus.url + "foo", *kind, *arguments) == (204, b""), arguments
        bodies = [part.body for part in self.received(reader, b"end!")]
        assert bodies == [big] * 5 + [b"", b"end!"]

    @pytest.mark.parametrize("size", [1024 * 1024 + 1, 5_000_000])
    @pytest.mark.parametrize(
        "arguments", [(), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect:")]
    )
    def test_too_large(self, size, arguments):
        """
        What is too large gets its answer, not a reset, whether its client
        waits for one or not.
        """
        command = (self.bus.url + "foo", "-H", "Content-Type: a/b", "--data-binary", "@-")
        code, body = curl(*command, *arguments, input=bytes(size))
        assert code == 413
        assert b"at most 1048576 bytes" in body

    def test_forms(self):
        """
        A form is a message as it stands.
        """
        reader = self.subscribe("-H", "Accept: multipart/mixed")
        (self.folder / "file").write_bytes(b"content")
        assert curl(self.bus.url + "foo", "-d", "a=b&c=d")[0] == 204
        assert curl(self.bus.url + "foo", "-F", f"x=@{self.folder / 'file'}")[0] == 204
        self.publish("foo", b"end!", "-H", "Content-Type: a/b")
        plain, upload, _ = self.received(reader, b"end!")
        assert plain.headers["content-type"] == "application/x-www-form-urlencoded"
        assert plain.body == b"a=b&c=d"
        assert upload.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert b'name="x"' in upload.body
