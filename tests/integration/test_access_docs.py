"""
What docs/access.md shows, run: the first commands, the recipes, and the reload.
"""

import os
import re
import signal
import ssl
import subprocess
import threading
from base64 import b64encode
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from msgbus.client.blocking import subscribe

from .daemon import BIN
from .pages import CHECKOUT

PAGE = CHECKOUT / "docs/access.md"


def sections():
    """
    The sections of the page, by their headings.
    """
    _, *rest = re.split(r"^#{2,3} (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(rest[::2], rest[1::2], strict=True))


def block(section, language):
    """
    The first block of a language in a section, or the empty string.
    """
    found = re.search(rf"```{language}\n(.*?)```", sections()[section], re.DOTALL)
    return found[1] if found else ""


def commands(section):
    """
    The lines of all blocks of commands in a section.
    """
    blocks = re.findall(r"```bash\n(.*?)```", sections()[section], re.DOTALL)
    return "".join(blocks).splitlines()


@pytest.fixture
def run(tmp_path):
    """
    Run a command line in the folder of the test, with our tools in the path.
    """

    def run(command, **options):
        return subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def follow(start, run, tmp_path):
    """
    Do what a section says: write its rules, add its users and start its bus.  Returns the
    bus, and the commands of the section that use it.
    """

    def follow(section):
        if rules := block(section, "rules"):
            (tmp_path / "access").write_text(rules)
        bus, uses = None, []
        for line in commands(section):
            if line.startswith(("printf ", "openssl ", "cat ")):
                assert run(line).returncode == 0, line
            elif line.startswith("twistd -n msgbus "):
                bus = start(*line.replace(":8443:", ":0:").split()[3:])
            else:
                uses.append(line)
        return bus, uses

    return follow


# The sections that have a bus that is used by curl.
BY_CURL = [
    "Start with users",
    "A family",
    "Public cameras, private publishers",
    "Sensors and a dashboard",
    "Devices with certificates",
    "A chat with a private room",
]


@pytest.mark.parametrize("section", BY_CURL)
def test_commands(section, follow, shell):
    """
    Each command is answered with the status that stands behind it.
    """
    bus, uses = follow(section)
    assert len(uses) >= 2
    for line in uses:
        command, _, expected = line.rpartition("  # ")
        command = re.sub(":8(888|443)", f":{bus.port}", command)
        # The head is there at once, also that of a stream, which has no end.
        told = shell(f"{command} -s -o /dev/null -D /dev/stdout").stdout.readline()
        assert told.split()[1:2] == [expected], line


def test_every_recipe_is_run():
    """
    No recipe lacks a test.
    """
    chapter = PAGE.read_text().partition("\n## Recipes")[2].partition("\n## ")[0]
    recipes = re.findall(r"^### (.*)$", chapter, re.M)
    assert len(recipes) == 6
    assert set(recipes) == {*BY_CURL[1:], "Behind a proxy that signs people in"}


def test_sentence(follow, run, tmp_path):
    """
    Who is refused learns which line it was, in the words that the page shows.
    """
    shown = re.search(r"```\n(Line .*)\n```", sections()["Start with users"])[1]
    bus, _ = follow("Sensors and a dashboard")
    run("printf 'secret\\n' | msgbus-passwd users bob")
    (tmp_path / "access").write_text(block("Rules", "rules"))
    bus.process.send_signal(signal.SIGHUP)
    bus.wait_for("Read 3 users")
    address = f"http://localhost:{bus.port}/msgbus/public/cam"
    said = run(f"curl -s -u bob:secret {address} -H 'Content-Type: a/b' -d x").stdout
    assert said.strip() == shown


def test_check_access(follow, run, tmp_path):
    """
    The commands that ask what the rules allow say it, and by which line.
    """
    run("printf 'secret\\n' | msgbus-passwd users alice")
    (tmp_path / "access").write_text(block("Rules", "rules"))
    _, uses = follow("Ask what the rules allow")
    first, second = map(run, uses)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stdout.startswith("Line 2 of the access file lets the user 'alice'")
    assert second.stdout.startswith("Line 3 of the access file lets somebody")


def test_reload(start, run, tmp_path):
    """
    The command of the page has the files read again; a damaged file changes nothing.
    """
    run("printf 'secret\\n' | msgbus-passwd users alice")
    rules = tmp_path / "access"
    rules.write_text("alice subscribe *\n")
    bus = start("--users", "users", "--access", "access")
    (tmp_path / "twistd.pid").write_text(str(bus.process.pid))
    command = block("Change the files while the bus runs", "bash").strip()
    publish = (
        "curl -s -o /dev/null -w '%{http_code}' -u alice:secret -H 'Content-Type: a/b'"
        f" -d x {bus.url}foo"
    )
    assert run(publish).stdout == "403"
    rules.write_text("alice publish *\n")
    assert run(command).returncode == 0
    bus.wait_for("Read 1 users and the rules again")
    assert run(publish).stdout == "204"
    rules.write_text("alice nothing")
    run(command)
    bus.wait_for("Users and rules stay as they were")
    assert run(publish).stdout == "204"
    rules.unlink()
    run(command)
    bus.wait_for("Users and rules stay as they were", 2)
    assert run(publish).stdout == "204"
    # A stop would look for errors in the log, and there are two.
    bus.kill()


def test_relay(start, run, tmp_path):
    """
    Who may relay names the senders of messages, and their origins; others who publish are
    the senders themselves.
    """
    for name in ("bridge", "alice"):
        run(f"printf 'secret\\n' | msgbus-passwd users {name}")
    rules = "alice publish,subscribe sensors/*\n" + block("Bridges and senders", "rules")
    (tmp_path / "access").write_text(rules)
    bus = start("--users", "users", "--access", "access")
    (tmp_path / "part").write_bytes(
        b"--b\r\nFrom: attic\r\nMsgbus-Origin: 4711/1795636753653-4711000000000017\r\n"
        b"Content-Type: text/plain\r\n\r\n21.5\r\n--b--\r\n"
    )
    for name in ("alice", "bridge"):
        run(
            f"curl -s -u {name}:secret {bus.url}sensors/attic --data-binary @part"
            " -H 'Content-Type: multipart/x-mixed-replace;boundary=b'"
        )
    told = subscribe(f"{bus.url}sensors/attic", since="all")
    messages = [(message.sender, message.origin) for message in islice(told, 2)]
    origin = "4711/1795636753653-4711000000000017"
    assert messages == [("alice", ""), ("attic", origin)]


def test_reload_without_privileges(start, run):
    """
    With `--uid`, the files are read at the start before privileges are dropped, and later
    only if the user of the bus may read them; otherwise nothing changes.
    """
    with TemporaryDirectory() as folder:
        # Others cannot reach the folder of the test.
        Path(folder).chmod(0o755)
        users = Path(folder) / "users"
        run(f"printf 'secret\\n' | msgbus-passwd {users} alice")
        nobody = ("twistd", "-n", "--pidfile=", "--uid", "65534", "--gid", "65534")
        bus = start("--users", str(users), command=nobody)
        bus.process.send_signal(signal.SIGHUP)
        bus.wait_for("Users and rules stay as they were.*users: Permission denied")
        users.chmod(0o644)
        bus.process.send_signal(signal.SIGHUP)
        bus.wait_for("Read 1 users")
    # A stop would look for errors in the log, and there is one.
    bus.kill()


class SignInService(BaseHTTPRequestHandler):
    """
    Knows one visitor, by a cookie.
    """

    def do_GET(self):
        """
        Say who it is.
        """
        known = self.headers["Cookie"] == "session=alice"
        self.send_response(200 if known else 401)
        if known:
            credentials = b64encode(b"alice:secret").decode()
            self.send_header("Bus-Authorization", f"Basic {credentials}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """
        Say nothing.
        """


@pytest.fixture
def service():
    """
    A service at which people sign in; its port.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), SignInService)
    threading.Thread(target=server.serve_forever).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_proxy(follow, proxy, service):
    """
    nginx lets in whom the service knows, under the name that the service gives, and nobody
    who only says a name.
    """
    section = "Behind a proxy that signs people in"
    bus, _ = follow(section)
    port = proxy(bus, block(section, "nginx").replace(":9000", f":{service}"))

    def publish(**headers):
        context = ssl._create_unverified_context()
        connection = HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        headers = {"Content-Type": "text/plain", **headers}
        connection.request("POST", "/msgbus/foo", b"hello", headers)
        status = connection.getresponse().status
        connection.close()
        return status

    assert publish() == 401
    assert publish(Authorization="Basic " + b64encode(b"alice:secret").decode()) == 401
    mallory = "Basic " + b64encode(b"mallory:x").decode()
    assert publish(Cookie="session=alice", Authorization=mallory) == 204
    url = f"http://alice:secret@localhost:{bus.port}/msgbus/foo"
    message = next(subscribe(url, since="all"))
    assert (message.sender, message.body) == ("alice", b"hello")
