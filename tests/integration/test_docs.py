"""
What README.md and docs/ show, run.
"""

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from functools import partial
from urllib.parse import urlsplit

import pytest
from joserfc.jwk import ECKey

from msgbus.access.channels import Channels
from msgbus.access.credentials import link_of
from msgbus.access.link_keys import Keys
from msgbus.access.links import sign, verify
from msgbus.access.tokens import TokenKey, Tokens
from msgbus.client.blocking import publish, subscribe
from msgbus.client.errors import Refused

from ..redis_server import RedisServer
from ..sentinels import Replicated
from .certificates import Authority
from .daemon import BIN
from .pages import CHECKOUT, blocks
from .test_admin import Admin
from .test_twistd import twistd

CONTRIBUTING = CHECKOUT / "CONTRIBUTING.md"
PAGES = [CHECKOUT / "README.md", CONTRIBUTING, *sorted(CHECKOUT.glob("docs/*.md"))]


def anchors(page):
    """
    The anchors by which links name the headings of a page.
    """
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    }


# What a block has that publishes streams, of which the commands belong together.
STREAM = re.compile("Content-Type: (?:multipart/x-mixed-replace|application/x-ndjson)")


def commands(*pages, program="curl"):
    """
    Every command of these pages that begins with this program, but for those that publish
    streams.
    """
    return [
        line
        for page in pages
        for block in blocks(page, "sh")
        if not STREAM.search(block)
        for line in block.splitlines()
        if line.startswith(f"{program} ")
    ]


def stream_blocks(*pages):
    """
    Every block of these pages that publishes streams.
    """
    return [
        pytest.param(block, id=f"{page.name}{number}")
        for page in pages
        for number, block in enumerate(filter(STREAM.search, blocks(page, "sh")))
    ]


def run(command, bus, folder):
    """
    Start a command as the reader of a page would, with the test's own port.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", "exec " + re.sub(":888[89]/", f":{bus.port}/", command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        text=True,
        # What stands behind a pipe has to end too.
        start_new_session=True,
    )


def test_quick_test(bus, tmp_path):
    """
    The two commands of the README make a message travel, and it looks as it
    is shown.
    """
    subscriber, publisher, *_ = commands(CHECKOUT / "README.md")
    subscriber = run(subscriber, bus, tmp_path)
    bus.wait_for("subscribes to 'foo'")
    publisher = run(publisher, bus, tmp_path)
    assert publisher.wait(30) == 0
    assert publisher.stdout.read() == ""
    lines = [subscriber.stdout.readline() for _ in range(9)]
    subscriber.terminate()
    subscriber.wait(30)
    shown = re.search(r"prints\n\n```\n(.*?)```", PAGES[0].read_text(), re.DOTALL)[1]
    random = re.compile(r"(?<=--msgbus)\S+|(?<=Msgbus-Id: )\d+-\d+|(?<=Date: ).*")
    assert random.sub("*", "".join(lines)) == random.sub("*", shown)


# The paths of the operator's address, of which docs/operations.md shows commands.
OPERATOR = re.compile(r":8889/(?:subscribers|events)")


@pytest.mark.parametrize(
    "command", [each for each in commands(*PAGES) if not OPERATOR.search(each)]
)
def test_command(command, bus, tmp_path):
    """
    Every command subscribes, publishes, or lists channels; one until now ends by itself.
    """
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "report.csv.gz").write_bytes(gzip.compress(b"a;b"))
    if "until=now" in command:
        publish(f"{bus.url}sensors/attic", b"21.5", "text/plain")
        process = run(command, bus, tmp_path)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        whole = re.fullmatch(r"(--msgbus\S+)\n.*\n21\.5\n\1\n.*\n\1--\n", out, re.DOTALL)
        assert whole or out == "1\n", out
        return
    process = run(command, bus, tmp_path)
    if re.search(r" -s?N ", command):
        bus.wait_for("subscribes to")
        publish(f"{bus.url}foo", b"hello", "text/plain")
        assert process.stdout.readline().startswith(("--msgbus", "retry: ", "hello\n"))
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)
    elif "?list" in command:
        assert process.communicate(timeout=30)[0] == '{"channels": [], "next": null}\n'
    else:
        assert process.communicate(timeout=30)[0] == ""
        assert process.returncode == 0


def test_operator(start, tmp_path):
    """
    The operator's commands tell events, list subscribers, and end one.
    """
    admin = Admin(start)
    told, ended, listed = sorted(filter(OPERATOR.search, commands(*PAGES)), key=len)
    told = run(told, admin, tmp_path)
    events = iter(told.stdout.readline, "")
    assert next(events).startswith("--msgbus")
    subscriber = urllib.request.urlopen(f"{admin.bus.url}foo?format=ndjson", timeout=30)
    seen = next(line for line in events if '"event": "subscribed"' in line)
    number = json.loads(seen)["subscriber"]
    list_ = json.loads(run(listed, admin, tmp_path).communicate(timeout=30)[0])
    assert [row["name"] for row in list_["subscribers"]] == ["foo"]
    ended = ended.replace("/17", f"/{number}")
    assert run(ended, admin, tmp_path).communicate(timeout=30)[0] == ""
    assert subscriber.read() == b""
    assert next(line for line in events if '"event": "left"' in line)
    os.killpg(told.pid, signal.SIGTERM)
    told.communicate(timeout=30)


# A machine for tests has no camera.
INSTEAD = {
    "-f v4l2 -i /dev/video0": "-f lavfi -i testsrc -frames:v 5",
    "v4l2src": "videotestsrc num-buffers=5",
}


@pytest.mark.parametrize("block", stream_blocks(*PAGES))
def test_streams(block, bus, start, shell, tmp_path):
    """
    Every command publishes a stream, or records what the next one publishes.
    """
    (tmp_path / "access.log").write_text("GET /\n")
    recording = tmp_path / "recording"
    other = start()
    for number, line in enumerate(block.splitlines()):
        command = line.replace("bus.example:8888/", f"localhost:{other.port}/")
        for camera, instead in {**INSTEAD, ":8888/": f":{bus.port}/"}.items():
            command = command.replace(camera, instead)
        target = other if "bus.example" in line else bus
        subscriptions = bus.log.count("subscribes to ''")
        before = publish(target.url + "before", b"", "a/b").id
        process = shell(command)
        if line.startswith("curl -sN "):
            bus.wait_for("subscribes to ''", subscriptions + 1)
            publish(bus.url + "foo", b"%d" % number, "text/plain")
        if "-o recording" in line:
            deadline = time.monotonic() + 30
            while not recording.exists() or b"\r\n%d\r\n" % number not in (
                recording.read_bytes()
            ):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        else:
            message = next(subscribe(target.url, since=before))
            assert message.channel in ("cam", "logs/web", "sensors/attic", "foo"), line
        if line.startswith(("curl -sN ", "tail ")):
            assert process.poll() is None, line
            os.killpg(process.pid, signal.SIGINT)
            process.wait(30)
        else:
            assert process.wait(60) == 0, line


@pytest.mark.parametrize("command", commands(*PAGES, program="twistd"))
def test_twistd(command, start, request, tmp_path):
    """
    Every command that starts a bus does.
    """
    pem = Authority(tmp_path).issue("localhost").read_text()
    cut = pem.index("-----BEGIN CERTIFICATE")
    (tmp_path / "key.pem").write_text(pem[:cut])
    (tmp_path / "cert.pem").write_text(pem[cut:])
    (tmp_path / "secret").write_text("x")
    hashed = "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"
    (tmp_path / "users").write_text(f"alice:{hashed}\n")
    (tmp_path / "access").write_text("alice publish,subscribe *\n")
    (tmp_path / "msgbus.toml").write_text("listen = 'tcp:0:interface=127.0.0.1'\n")
    for folder in ("certificates", "site"):
        (tmp_path / folder).mkdir()
    (tmp_path / "certificates/localhost.pem").write_text(pem)

    if "redis+sentinel" in command:
        servers = Replicated(tmp_path / "redis", password="x")
        request.addfinalizer(servers.stop)
        command = command.replace("a.example,b.example,c.example", servers.hosts)
    elif "--log " in command:
        password = "x" if "password-file" in command else ""
        server = RedisServer(tmp_path, password, requirepass=password)
        request.addfinalizer(server.kill)
        url = f"redis+unix://{server.socket}?db=0"
        command = re.sub(r"redis://[a-z.]+/0\?", f"{url}&", command)
        command = command.replace("redis://localhost/0", url)
    flags, arguments = command.removeprefix("twistd ").split(" msgbus ")
    command = re.sub(r"\b(8888|8889|8443)\b", "0", arguments)
    command = shlex.split(command)
    if flags.startswith("-n"):
        start(*command)
        return
    assert twistd(*flags.split(), "msgbus", *command, cwd=tmp_path).returncode == 0
    pid_file, log = tmp_path / "msgbus.pid", tmp_path / "msgbus.log"
    deadline = time.monotonic() + 30
    while "Serving, until SIGTERM" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    # Said after the pid file is removed.
    while "Server Shut Down" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not pid_file.exists()


def test_bridge(start, tmp_path):
    """
    The command of the page on clients copies messages from one bus to another.
    """
    there, here = start("-v"), start()
    (command,) = commands(CHECKOUT / "docs/clients.md", program="msgbus-bridge")
    command = command.replace("other:8888", f"localhost:{there.port}")
    process = run(f"{BIN}/{command}", here, tmp_path)
    there.wait_for("subscribes to 'sensors/'")
    publish(f"{there.url}sensors/attic", b"21.5", "text/plain")
    message = next(subscribe(f"{here.url}sensors/", since="all"))
    assert (message.channel, message.body) == ("sensors/attic", b"21.5")
    process.terminate()
    process.communicate(timeout=30)


def serving(program, folder):
    """
    Start a program of docs/embedding.md on a port of its own, which it prints in its first
    line.
    """
    program = program.replace("tcp:8888", "tcp:0")
    program = program.replace(".listen(site)", ".listen(site).addCallback(served)")
    program = (
        "def served(port):\n    print(port.getHost().port, flush=True)\n"
        f"{program}\nreactor.callLater(30, reactor.stop)\nreactor.run()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def test_embedding_users(tmp_path):
    """
    The program of docs/embedding.md that has users and rules obeys them, and after its
    reload the new ones.
    """
    _, program, _ = blocks(CHECKOUT / "docs/embedding.md", "python")
    # The password is "secret".
    users = "alice:$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW\n"
    (tmp_path / "users").write_text(users)
    (tmp_path / "access").write_text("alice publish foo\n")
    signal_handler = (
        "import signal\n"
        "def reloaded(*_):\n    reload()\n    print('reloaded', flush=True)\n"
        "signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(reloaded))\n"
    )
    process = serving(program + signal_handler, tmp_path)
    try:
        url = f"http://alice:secret@localhost:{int(process.stdout.readline())}/msgbus/"
        publish(f"{url}foo", b"hello", "text/plain")
        with pytest.raises(Refused, match="No line of the access file lets the user"):
            publish(f"{url}bar", b"hello", "text/plain")
        (tmp_path / "access").write_text("alice publish bar\n")
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "reloaded\n"
        publish(f"{url}bar", b"hello", "text/plain")
        with pytest.raises(Refused, match="403"):
            publish(f"{url}foo", b"hello", "text/plain")
    finally:
        process.terminate()
        process.wait(30)


def test_embedding(tmp_path):
    """
    The first program of docs/embedding.md runs, and serves.
    """
    page = CHECKOUT / "docs/embedding.md"
    mounted, _, without_http = blocks(page, "python")
    process = serving(mounted + without_http, tmp_path)
    try:
        port = int(process.stdout.readline())
        assert process.stdout.readline() == "sensors/kitchen text/plain kitchen b'21.5'\n"
        subscriber = subprocess.Popen(
            ["curl", "-sN", f"http://localhost:{port}/msgbus/foo"], stdout=subprocess.PIPE
        )
        assert subscriber.stdout.readline().startswith(b"--msgbus")
        subscriber.terminate()
        subscriber.wait(30)
    finally:
        process.terminate()
        process.wait(30)


class TestTools:
    """
    The commands of the README that run a tool.
    """

    @pytest.fixture
    def shell(self, bus, tmp_path, shell):
        """
        Start one, as a reader would.
        """
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / name).write_bytes(b"\xff\xd8")
        (tmp_path / "access.log").write_text("GET /\n")
        paths = f"{BIN}:{os.environ['PATH']}"
        return partial(shell, MSGBUS_URL=bus.url, PATH=paths)

    def test_all(self, bus, shell):
        """
        Each does what it says, in their order: those that end, end well, and the others
        begin.
        """
        page = CHECKOUT / "README.md"
        block = next(b for b in blocks(page, "sh") if b.startswith("msgsend "))

        def tried(process):
            assert "Trying again" in process.stderr.readline()

        endless = {
            "tail": lambda: next(subscribe(f"{bus.url}logs/web", last=1)),
            "msgdump": lambda: bus.wait_for("subscribes to ''"),
            "msgdump --last-of-each": lambda: bus.wait_for("subscribes to 'sensors/'"),
            "msgdump -q": lambda: bus.wait_for("subscribes to 'sensors/'", 2),
            "msgdump --jobs": lambda: bus.wait_for("subscribes to 'pictures'", 2),
            "msgbus-bridge http://other:8888/msgbus/sensors/": lambda: tried(process),
            "msgbus-test-pub": lambda: next(subscribe(f"{bus.url}flood", last=1)),
        }
        for line in block.splitlines():
            process = shell(line)
            command = line.partition("#")[0].split()
            begun = endless.get(" ".join(command[:2])) or endless.get(
                command[0] if command[0] == "tail" or len(command) == 1 else ""
            )
            if begun:
                begun()
                assert process.poll() is None, line
            else:
                _, err = process.communicate(timeout=60)
                assert (process.returncode, err) == (0, ""), line

    def test_headers(self, shell):
        """
        The command of a message gets its headers.
        """
        page = CHECKOUT / "docs/clients.md"
        block = next(b for b in blocks(page, "sh") if b.startswith("msgsend "))
        outputs = [shell(line).communicate(timeout=60) for line in block.splitlines()]
        assert outputs == [("", ""), ("7\n", "")]

    def test_flood(self, shell):
        """
        The two that measure find nothing missing.
        """
        page = CHECKOUT / "README.md"
        block = next(b for b in blocks(page, "sh") if b.startswith("msgbus-test-sub "))
        first, second = block.splitlines()
        subscribers = shell(first)
        assert subscribers.stdout.readline() == "500 subscribed\n"
        assert shell(second).wait(60) == 0
        assert subscribers.wait(60) == 0
        assert "; 0 lost, 0 out of order, 0 gaps told" in subscribers.stdout.read()


@pytest.mark.parametrize(
    ("page", "number", "shown"),
    [
        ("README.md", 0, "sensors/attic attic text/plain b'21.5'\n"),
        ("README.md", 1, "b'42' True\n"),
        ("docs/clients.md", 0, "com.example.made 3600 b'{\"id\": 7}'\n"),
        (
            "docs/clients.md",
            1,
            "".join(f"message {n} was for 0 subscribers\n" for n in (1, 2, 3)),
        ),
        ("docs/clients.md", 2, "0 readings in the last hour\n"),
        ("docs/clients.md", 3, "Subscribed.\nsensors/attic 4\n"),
        ("docs/formats.md", 0, "hello\n"),
    ],
)
def test_programs(page, number, shown, bus, tmp_path):
    """
    Every program that uses a client runs, and prints what it should.
    """
    program = blocks(CHECKOUT / page, "python")[number].replace(":8888/", f":{bus.port}/")
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        cwd=tmp_path,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.stdout, result.stderr) == (shown, "")


class TestAccess:
    """
    The commands and programs of docs/access.md.
    """

    PAGE = CHECKOUT / "docs/access.md"

    @pytest.fixture
    def shell(self, bus, tmp_path):
        """
        Run a command, or start it, as a reader would.
        """
        environment = {
            **os.environ,
            "MSGBUS_URL": bus.url,
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

        def shell(command):
            return subprocess.Popen(
                ["/bin/sh", "-c", command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=tmp_path,
                text=True,
                start_new_session=True,
            )

        return shell

    def links(self, shell):
        """
        Run all commands, in their order; what each has printed.
        """
        for command in commands(self.PAGE, program="msgbus-sign"):
            if "|" in command:
                continue
            process = shell(command)
            out, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (0, ""), command
            yield command, out

    def test_links(self, bus, shell, tmp_path):
        """
        Every command makes a key or a link that the key verifies, or shows a link.
        """
        for command, out in self.links(shell):
            if "--new-key" in command:
                assert out == "k1\n"
            elif "--show" in command:
                assert out.startswith("subscribe: news\nkey: k1\nuntil: ")
            else:
                at = "https://bus.example/" if "--url" in command else bus.url
                assert out.startswith(at), command
                keys = Keys.parse((tmp_path / "links.key").read_bytes(), "links.key")
                query = urlsplit(out.strip()).query.encode()
                assert verify(keys, link_of(query), time.time()), command

    def test_use(self, shell, start):
        """
        A link can be piped to curl, which may subscribe by it.
        """
        list(self.links(shell))
        guarded = start("--link-keys", "links.key")
        (command,) = (c for c in commands(self.PAGE, program="msgbus-sign") if "|" in c)
        process = shell(f"export MSGBUS_URL={guarded.url}; {command}")
        assert process.stdout.readline().startswith("--msgbus")
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)

    def test_programs(self, shell, tmp_path):
        """
        The program makes the link that `msgbus-sign` makes, and that of an issuer makes a
        token that its public key verifies.
        """
        list(self.links(shell))
        pair = ECKey.generate_key("P-256")
        (tmp_path / "issuer-private.pem").write_bytes(pair.as_pem(private=True))
        link, token = (
            subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                check=True,
                cwd=tmp_path,
                text=True,
                timeout=60,
            ).stdout.strip()
            for program in blocks(self.PAGE, "python")
        )
        keys = Keys.parse((tmp_path / "links.key").read_bytes(), "links.key")
        query = urlsplit(link).query
        grant = verify(keys, link_of(query.encode()), time.time())
        assert query == f"link={sign(keys, grant)}"
        assert grant.subscribe == Channels(["public/cam"])
        key = TokenKey.parse("ES256", pair.as_pem(private=False), "issuer.pem")
        grant = Tokens([key]).verify(token, time.time())
        assert (grant.name, grant.publish) == ("alice", Channels(["chat/alice"]))


@pytest.mark.parametrize(
    "page", [*PAGES, CHECKOUT / "CHANGELOG.md"], ids=lambda page: page.name
)
def test_links(page):
    """
    Every link to a file of ours leads to one that is there, and to a heading that it has.
    """
    for link in re.findall(r"\]\((?!https?:)([^)\s]*)\)", page.read_text()):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), link
        assert not heading or heading in anchors(target), link


class TestContributing:
    """
    The commands of CONTRIBUTING.md.
    """

    # The one that is short enough to be run here.
    RUN_HERE = ".venv/bin/pytest tests/admin"

    def commands(self):
        """
        All of them, one by one.
        """
        lines = (
            line.strip()
            for block in blocks(CONTRIBUTING, "sh")
            for line in block.strip().splitlines()
        )
        return [command for line in lines for command in line.split(" && ")]

    def test_run_here(self):
        """
        The unit tests of one room pass.
        """
        assert self.RUN_HERE in self.commands()
        command = self.RUN_HERE.replace(".venv/bin", str(BIN)).split()
        result = subprocess.run(
            command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode == 0, result.stdout

    def test_run_by_ci(self):
        """
        `.ci/run` runs all others: by itself, or because it runs the first lines of the
        README's first two shell blocks.  If they were run here, the suite would run itself,
        and pip would replace what is being tested; and the linters may not be installed.
        """
        start, tests, *_ = blocks(CHECKOUT / "README.md", "sh")
        script = (CHECKOUT / ".ci/run").read_text().replace(" -q", "")
        run = "\n".join((script, start.splitlines()[0], tests.splitlines()[0]))
        for command in self.commands():
            if command.startswith(".ci/"):
                assert os.access(CHECKOUT / command, os.X_OK), command
            elif command != self.RUN_HERE:
                # Not as the beginning of a longer word.
                assert re.search(rf"{re.escape(command)}(?![^\s)])", run), command
        assert ".ci/browsers" in script
