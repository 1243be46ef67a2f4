"""
The tools of the command line, as they are installed, against real buses.
"""

import json
import os
import re
import signal
import subprocess
import threading
import time
from base64 import b64decode
from itertools import islice

import pexpect
import pyte
import pytest

from msgbus import blocking

from .certificates import Authority
from .daemon import BIN
from .ports import free_port

TIMEOUT = 60
REFUSED = "http://localhost:9/msgbus/foo"
TOOLS = ("msgsend", "msgdump", "msgchat", "msgbus-test-pub", "msgbus-test-sub")


class Tool:
    """
    A running tool, with pipes for its standard streams.
    """

    def __init__(self, bus, *command, cwd=None, environment=None):
        url = {"MSGBUS_URL": bus.url} if bus else {}
        name, *arguments = command
        self.process = subprocess.Popen(
            [BIN / name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, **url, **(environment or {})},
        )
        # Read as it comes, so that it is never blocked, and can be waited for.
        self.out, self.err = bytearray(), bytearray()
        self._readers = [
            threading.Thread(target=self._read, args=pipe, daemon=True)
            for pipe in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe, kept):
        while piece := pipe.read1(65536):
            kept += piece

    def say(self, data):
        """
        Write to its input.
        """
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait_for(self, pattern, where="out", count=1):
        """
        Wait until what it has written matches this so often.
        """
        deadline = time.monotonic() + TIMEOUT
        while len(re.findall(pattern, getattr(self, where))) < count:
            assert time.monotonic() < deadline, (pattern, self.out, self.err)
            time.sleep(0.02)

    def end(self, code=0):
        """
        Close its input, and wait until it exits with this code.
        """
        self.process.stdin.close()
        assert self.process.wait(TIMEOUT) == code, (self.out, self.err)
        for reader in self._readers:
            reader.join(TIMEOUT)
        self.process.stdout.close()
        self.process.stderr.close()
        return self

    def interrupt(self, code=0):
        """
        Press Ctrl-C.
        """
        self.process.send_signal(signal.SIGINT)
        return self.end(code)


class Screen:
    """
    A program on an emulated terminal.
    """

    def __init__(self, program, *arguments, environment):
        self._program = pexpect.spawn(
            str(program),
            list(arguments),
            env={**os.environ, "TERM": "xterm", **environment},
            dimensions=(24, 100),
            encoding="utf-8",
        )
        self._screen = pyte.Screen(100, 24)
        # A program may ask where its cursor is.
        self._screen.write_process_input = self._program.send
        self._stream = pyte.Stream(self._screen)

    def send(self, keys):
        """
        Type.
        """
        self._program.send(keys)

    def wait_for(self, pattern):
        """
        Wait until the screen shows text that matches this.
        """
        deadline = time.monotonic() + TIMEOUT
        while not re.search(pattern, "\n".join(self._screen.display), re.MULTILINE):
            assert time.monotonic() < deadline, "\n".join(self._screen.display)
            self._read()

    def end(self):
        """
        Wait until the program ends, and return its exit code.
        """
        while self._read():
            pass
        self._program.close()
        return self._program.exitstatus

    def _read(self):
        try:
            self._stream.feed(self._program.read_nonblocking(4096, timeout=0.1))
        except pexpect.TIMEOUT:
            pass
        except pexpect.EOF:
            return False
        return True


@pytest.fixture
def tool():
    """
    Run a tool, and end it with the test.
    """
    tools = []

    def tool(*arguments, **options):
        tools.append(Tool(*arguments, **options))
        return tools[-1]

    yield tool
    for each in tools:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(TIMEOUT)


@pytest.fixture
def lasting(start):
    """
    A function that starts a bus, each time at the same port and with the same history.
    """
    listen = f"tcp:{free_port()}:interface=127.0.0.1"
    keep = ("--history-file", "history", "--history", "1000")
    return lambda: start("-v", "--listen", listen, *keep)


def restart(daemon, lasting):
    """
    Kill a bus, and start it again.
    """
    daemon.kill()
    time.sleep(0.3)
    return lasting()


class TestAll:
    """
    What all tools have in common.
    """

    @pytest.mark.parametrize("name", TOOLS)
    def test_help(self, tool, name):
        """
        Each says what it does, with examples.
        """
        shown = tool(None, name, "--help").end().out.decode()
        assert f"usage: {name} " in shown
        assert "examples:\n" in shown
        assert "MSGBUS_PASSWORD" in shown

    @pytest.mark.parametrize("name", TOOLS)
    def test_refused(self, tool, name, start, tmp_path):
        """
        A wrong password, a server that is no bus, a wrong URL, and a certificate that
        nobody signed each lead to one line, without a password, and an exit code.
        """
        (tmp_path / "secret").write_text("geheim")
        bus = start("--secret-file", "secret")
        file = Authority(tmp_path).issue("localhost")
        tls = start("--listen", f"ssl:0:privateKey={file}:interface=127.0.0.1")
        base = bus.url.removesuffix("msgbus/")
        for address, code, sentence in (
            (f"{bus.url}foo".replace("//", "//alice:falsch@"), 1, "password"),
            (f"{base}nothing/foo".replace("//", "//alice:geheim@"), 1, "404: Nothing"),
            (f"https://localhost:{tls.port}/msgbus/foo", 1, "TLS failed: .*certificate"),
            ("localhost:8888/msgbus/foo", 2, "write http://"),
            ("//foo", 2, "begins with a slash"),
            ("a//foo", 2, "empty segment"),
        ):
            running = tool(bus, name, address)
            if name in ("msgsend", "msgchat"):
                running.say(b"hello\n")
            if name == "msgchat":
                # It may have ended before it reads.
                running.process.stdin.close()
            told = running.end(code).err.decode()
            assert re.search(sentence, told), told
            assert "falsch" not in told
            assert "Traceback" not in told
            lines = [line for line in told.splitlines() if "publishing to" not in line]
            assert len(lines) == 1, told

    @pytest.mark.parametrize("name", ["msgsend", "msgbus-test-pub"])
    def test_unreachable_publisher(self, tool, name):
        """
        A tool that publishes where nothing listens, or to an unknown host, fails at once.
        """
        for address, sentence in (
            (REFUSED, "Connection refused; does a bus run there?"),
            ("http://host.invalid/msgbus/foo", "The host is not known"),
        ):
            running = tool(None, name, address)
            if name == "msgsend":
                running.say(b"hello")
            assert sentence in running.end(1).err.decode()

    @pytest.mark.parametrize("name", ["msgdump", "msgbus-test-sub", "msgchat"])
    def test_unreachable_subscriber(self, tool, name):
        """
        A tool that subscribes there says so, and that it tries again.
        """
        for address, sentence in (
            (REFUSED, "Connection refused; does a bus run there?"),
            ("http://host.invalid/msgbus/foo", "The host is not known"),
        ):
            running = tool(None, name, address)
            running.wait_for(re.escape(sentence).encode(), "err", count=2)
            running.wait_for(rb"Trying again in \d+\.\d s", "err", count=2)
            running.process.kill()

    def test_credentials(self, tool, start, tmp_path):
        """
        Name and password come from the URL, an option, or the environment.
        """
        (tmp_path / "secret").write_text("geheim")
        bus = start("--secret-file", "secret")
        inside = bus.url.replace("//", "//alice:geheim@")
        password = {"MSGBUS_PASSWORD": "geheim"}
        tool(None, "msgsend", f"{inside}foo", "1").end()
        tool(bus, "msgsend", "--user", "bob:geheim", "foo", "2").end()
        tool(bus, "msgsend", "--user", "carol", "foo", "3", environment=password).end()
        tool(None, "msgsend", "foo", "4", environment={"MSGBUS_URL": inside}).end()
        dumped = tool(
            bus, "msgdump", "--json", "--last", "9", "-n4", "foo", environment=password
        )
        told = [json.loads(line) for line in dumped.end().out.splitlines()]
        assert [one["sender"] for one in told] == ["alice", "bob", "carol", "alice"]

    def test_asked_password(self, tool, start, tmp_path):
        """
        With `--ask-password`, the terminal is asked for it, and shows nothing of it.
        """
        (tmp_path / "secret").write_text("geheim")
        bus = start("--secret-file", "secret")
        for password, code in (("geheim", 0), ("falsch", 1)):
            terminal = pexpect.spawn(
                str(BIN / "msgsend"),
                ["--user", "alice", "--ask-password", f"{bus.url}foo", "hello"],
                encoding="utf-8",
                timeout=30,
            )
            terminal.expect("Password: ")
            terminal.sendline(password)
            terminal.expect(pexpect.EOF)
            assert password not in terminal.before
            terminal.close()
            assert terminal.exitstatus == code
            assert code == 0 or "The answer is 401: This bus asks" in terminal.before

    @pytest.mark.parametrize(
        ("user", "sentence"),
        [
            ("", "lets somebody without a name and password"),
            ("alice:wrong", "The answer is 401: This bus asks for a password"),
            ("alice:secret", "The answer is 403: No line of the access file lets the user"),
        ],
    )
    def test_rights(self, tool, start, tmp_path, user, sentence):
        """
        Each tool shows the sentence by which a bus with users refuses it, and ends.
        """
        # The password is "secret".
        hashed = "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"
        (tmp_path / "users").write_text(f"alice:{hashed}\n")
        (tmp_path / "access").write_text("alice publish,subscribe mine\n")
        bus = start("--users", "users", "--access", "access")
        to = f"{bus.url}foo"
        options = ["--user", user] if user else []
        # Without a name, msgchat gives the login name.
        commands = {"msgchat": [to]} if user else {}
        commands |= {
            "msgsend": [to, "hello"],
            "msgdump": [to],
            "msgbus-test-pub": [to, "-n", "1"],
            "msgbus-test-sub": [to, "-n", "1"],
            "msgbus-bridge": [to, f"{bus.url}mine"],
        }
        for name, arguments in commands.items():
            told = tool(None, name, *options, *arguments).end(1).err.decode()
            assert sentence in told, (name, told)

    @pytest.mark.parametrize(
        "command",
        [
            "msgsend --timeout nan foo x",
            "msgsend --timeout -1 foo x",
            "msgdump --heartbeat 4",
            "msgdump --last -1",
            "msgdump -n 0",
            "msgdump --jobs x",
            "msgchat --last 1000000",
            "msgbus-test-pub --rate nan",
            "msgbus-test-pub --rate 0",
            "msgbus-test-pub --size 99999999999999999999",
            "msgbus-test-sub -c 0",
            "msgbus-test-sub -n 0",
        ],
    )
    def test_amounts(self, tool, command):
        """
        A number out of range is refused, by a line that tells the range.
        """
        told = tool(None, *command.split()).end(2).err.decode()
        assert re.search(r"error: argument .*: give [0-9.,]+ to [0-9,]+, not ", told), told

    def test_strange_surroundings(self, tool, bus, tmp_path):
        """
        Whatever the locale, and whichever standard streams are closed, messages and
        complaints get through.
        """
        blocking.publish(f"{bus.url}foo", "é".encode(), "text/plain", user="élise")
        plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        last = ("--last", "1", "-n", "1", "foo")
        environment = {"MSGBUS_URL": bus.url, **plain}
        sender = ("--exec", "sh", "-c", "printf %s $MSGBUS_SENDER; cat")
        ran = tool(None, "msgdump", *last, *sender, environment=environment).end()
        assert ran.out.decode() == "éliseé"
        chat = tool(None, "msgchat", "foo", environment=environment)
        chat.wait_for(rb"<\\xe9lise> \\xe9\n")
        chat.say(b"\xff\n")
        assert b"Traceback" not in chat.end().err
        for command, code in (
            ("msgdump --last 1 -n 1 foo >&-", 0),
            ("msgdump --last 1 -n 1 foo <&- | grep -q text/plain", 0),
            ("msgdump http://localhost:9/nothing/foo?x=y -n 0 2>&- >out; test ! -s out", 0),
            ("msgsend foo <&-", 0),
            ("msgbus-test-pub -n 1 2>&-", 0),
        ):
            ran = subprocess.run(
                ["/bin/sh", "-c", command],
                env={
                    **os.environ,
                    "MSGBUS_URL": bus.url,
                    "PATH": f"{BIN}:{os.environ['PATH']}",
                },
                capture_output=True,
                cwd=tmp_path,
                timeout=TIMEOUT,
                check=False,
            )
            assert (ran.returncode, b"Traceback" in ran.stderr) == (code, False), ran

    def test_over_ipv6(self, tool, start):
        """
        `localhost` reaches a bus that listens on IPv6 only.
        """
        bus = start("--listen", r"tcp:0:interface=\:\:1")
        tool(bus, "msgsend", "foo", "1").end()
        assert (
            tool(bus, "msgdump", "--last", "1", "-n1", "foo").end().out.endswith(b"\n1\n")
        )
        tool(bus, "msgbus-test-pub", "-n", "1").end()


class TestSend:
    """
    msgsend.
    """

    def dump(self, tool, bus, count, *arguments):
        """
        The last messages of a channel, as JSON.
        """
        last = ("--last", f"{count}", "-n", f"{count}")
        dumped = tool(bus, "msgdump", "--json", *last, *arguments).end()
        return [json.loads(line) for line in dumped.out.splitlines()]

    def test_what_and_type(self, tool, bus, tmp_path):
        """
        It publishes standard input, texts, and files.  The type is the given one, or the
        one that the name of a file suggests, or text/html.
        """
        (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
        (tmp_path / "b.txt").write_bytes(b"b")
        (tmp_path / "c").write_bytes(b"c")
        source = tool(bus, "msgsend", "foo")
        source.say(b"\x00\xff\n")
        source.end()
        tool(bus, "msgsend", "foo", "one", "zwölf").end()
        tool(bus, "msgsend", "foo", "-f", "a.jpg", "b.txt", "c", cwd=tmp_path).end()
        tool(bus, "msgsend", "-f", "c", "-t", "a/b", "foo", cwd=tmp_path).end()
        tool(bus, "msgsend", "foo").end()
        told = self.dump(tool, bus, 8, "foo")
        assert [
            (one["type"], one.get("body", one.get("base64")), one["size"]) for one in told
        ] == [
            ("text/html", "AP8K", 3),
            ("text/html", "one", 3),
            ("text/html", "zwölf", 6),
            ("image/jpeg", "/9g=", 2),
            ("text/plain", "b", 1),
            ("text/html", "c", 1),
            ("a/b", "c", 1),
            ("text/html", "", 0),
        ]

    def test_limit(self, tool, bus):
        """
        The largest message arrives whole.  A larger one is refused in one line, and another
        tells how many were published before it.
        """
        body = os.urandom(1 << 20)
        source = tool(bus, "msgsend", "foo")
        source.say(body)
        source.end()
        assert b64decode(self.dump(tool, bus, 1, "foo")[0]["base64"]) == body
        source = tool(bus, "msgsend", "--lines", "foo")
        source.say(b"small\n" + b"x" * ((1 << 20) + 1) + b"\nnever\n")
        told = source.end(1).err.decode()
        assert "line 2 was not published" in told
        assert "413" in told
        assert "1 before it were" in told

    def test_lines(self, tool, bus):
        """
        Each line is published as it comes; ten thousand arrive in order, byte for byte.
        """
        dumped = tool(bus, "msgdump", "--json", "-n", "10000", "foo")
        bus.wait_for("subscribes to 'foo'")
        source = tool(bus, "msgsend", "--lines", "-t", "text/plain", "foo")
        source.say(b"0 \xe2\x82\xac\r\n")
        dumped.wait_for(b'"body"')
        source.say(b"".join(b"%d \xe2\x82\xac\r\n" % n for n in range(1, 10000)))
        source.end()
        told = [json.loads(line)["body"] for line in dumped.end().out.splitlines()]
        assert told == [f"{n} €\r" for n in range(10000)]

    def test_receipts(self, tool, bus):
        """
        With -v it prints the id of each message, and the number of its subscribers.
        """
        dumped = tool(bus, "msgdump", "--json", "-n", "1", "foo")
        bus.wait_for("subscribes to 'foo'")
        told = tool(bus, "msgsend", "-v", "foo", "x").end().out.decode()
        assert told == f"{json.loads(dumped.end().out)['id']} 1\n"

    def test_wrong_use(self, tool, bus, tmp_path):
        """
        Options that make no sense together are refused.
        """
        (tmp_path / "x.txt").write_text("x")
        for arguments, code, sentence in (
            ((), 2, "required: URL|CHANNEL"),
            (("-f", "x"), 2, "required: URL|CHANNEL"),
            (("foo", "text", "--lines"), 2, "texts, --lines, or --forget"),
            (("foo", "-t", "nonsense", "x"), 2, "type/subtype"),
            (("foo", "-f", "x.txt", "missing"), 1, "'missing' was not published"),
            (("foo", "-f", "x.txt", "missing"), 1, "1 before it were"),
            (("foo", "-f", "."), 1, "Is a directory"),
            (("foo?last=1", "x"), 2, "has a query"),
            (
                ("--ca", "missing", "https://localhost/msgbus/foo", "x"),
                2,
                "'missing' cannot",
            ),
        ):
            told = tool(bus, "msgsend", *arguments, cwd=tmp_path).end(code).err.decode()
            assert sentence in told
            assert "Traceback" not in told

    def test_stopped(self, tool, start):
        """
        It gives up a server that does not answer within the timeout.
        """
        bus = start()
        bus.process.send_signal(signal.SIGSTOP)
        try:
            told = tool(bus, "msgsend", "--timeout", "1", "foo", "x").end(1).err.decode()
        finally:
            bus.process.send_signal(signal.SIGCONT)
        assert "silent for 1 second" in told
        assert len(told.splitlines()) == 1

    def test_progress(self, bus, tmp_path):
        """
        On a terminal, many files have a progress bar.
        """
        for n in range(3):
            (tmp_path / f"{n}.txt").write_text(f"{n}")
        terminal = pexpect.spawn(
            str(BIN / "msgsend"),
            ["foo", "-f", "0.txt", "1.txt", "2.txt"],
            env={**os.environ, "MSGBUS_URL": bus.url},
            cwd=tmp_path,
            timeout=TIMEOUT,
        )
        terminal.expect("3/3")
        terminal.expect(pexpect.EOF)

    def test_killed(self, tool, lasting):
        """
        While a bus is killed and comes back, no line is lost or published twice.
        """
        bus = lasting()
        source = tool(bus, "msgsend", "-v", "--lines", "foo")
        for n in range(300):
            source.say(b"%d\n" % n)
            if n in (100, 200):
                source.wait_for(rb"\n", count=n - 50)
                bus = restart(bus, lasting)
        told = source.end()
        assert len(told.out.splitlines()) == 300
        bodies = [one["body"] for one in self.dump(tool, bus, 300, "foo")]
        assert bodies == [f"{n}" for n in range(300)]


class TestDump:
    """
    msgdump.
    """

    def test_shows(self, tool, bus):
        """
        In a pipe, each message is a line about it and its unchanged body; with -q, the line
        alone.
        """
        blocking.publish(f"{bus.url}a/b", b"\x1b[31m\xff", "text/plain", user="alice")
        blocking.publish(f"{bus.url}a", b"x\n", "a/b")
        told = tool(bus, "msgdump", "--since", "all", "-n", "2").end().out
        when = rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} "
        assert re.fullmatch(
            when + rb"a/b alice text/plain 6\n\x1b\[31m\xff\n" + when + rb"a - a/b 2\nx\n",
            told,
        )
        told = tool(bus, "msgdump", "-q", "--since", "all", "-n", "1", "a/").end().out
        assert re.fullmatch(when + rb"a/b alice text/plain 6\n", told)

    def test_filters(self, tool, bus):
        """
        Options select the messages that are shown.
        """
        for channel, content_type, user in (
            ("a/1", "text/plain", "alice"),
            ("a/2", "text/html", "alice"),
            ("b/1", "text/plain", "alice"),
            ("a/1", "text/plain", "bob"),
            ("a/3", "text/plain", "alice"),
        ):
            blocking.publish(f"{bus.url}{channel}", b"", content_type, user=user)
        filters = ("-t", "text/*,!text/html", "-s", "a*", "-c", "a/*")
        dumped = tool(bus, "msgdump", "--json", "--since", "1h", "-n", "2", *filters)
        told = [json.loads(line)["channel"] for line in dumped.end().out.splitlines()]
        assert told == ["a/1", "a/3"]

    def test_until_now(self, tool, bus):
        """
        With `--until now`, it ends behind what is kept, and has said nothing else.
        """
        for number in range(3):
            blocking.publish(f"{bus.url}a/{number}", b"%d" % number, "text/plain")
        for begin, told in (("--since=1h", "012"), ("--last=2", "12")):
            ran = tool(bus, "msgdump", "--json", begin, "--until", "now").end()
            bodies = [json.loads(line)["body"] for line in ran.out.splitlines()]
            assert (bodies, ran.err) == ([*told], b"")
        ran = tool(bus, "msgdump", "--last=2", "--until=now", "empty").end()
        assert (ran.out, ran.err) == (b"", b"")
        told = tool(bus, "msgdump", "--until", "now").end(1).err
        assert b"add since, last or last-of-each" in told
        assert b"invalid choice" in tool(bus, "msgdump", "--until", "noon").end(2).err

    def test_interval(self, tool, bus):
        """
        With `--interval`, it shows the newest message of each channel that often.
        """
        dumped = tool(bus, "msgdump", "--json", "-n", "2", "--interval", "4s", "foo")
        bus.wait_for("subscribes to 'foo'")
        with blocking.stream(f"{bus.url}foo") as out:
            for number in range(1000):
                out.publish(b"%d" % number, "text/plain")
        _, last = dumped.end().out.splitlines()
        assert json.loads(last)["body"] == "999"
        assert dumped.err == b""
        told = tool(bus, "msgdump", "--interval", "1d").end(1).err
        assert b"from 100ms to 1h" in told

    def test_terminal(self, bus):
        """
        A terminal gets no control character from any field of a message.
        """
        evil = "\x1b]0;owned\x07\x9b31m\u202e"
        blocking.publish(f"{bus.url}foo", evil.encode() + b"\ttab", "text/plain")
        blocking.publish(
            f"{bus.url}f\u202eo", b"\xff\xfe\x1b[2J", "text/plain", user="\u202ex"
        )
        for arguments in ([], ["--json"]):
            terminal = pexpect.spawn(
                str(BIN / "msgdump"),
                ["--since", "all", "-n", "2", *arguments],
                env={**os.environ, "MSGBUS_URL": bus.url},
                timeout=TIMEOUT,
            )
            shown = terminal.read().decode()
            assert not set(shown) & set("\x1b\x07\x9b\u202e")
            assert "owned" in shown
            assert "\\u202e" in shown

    def test_save(self, tool, bus, tmp_path):
        """
        Each body is saved under its id.
        """
        receipts = [
            blocking.publish(f"{bus.url}foo", body, "a/b") for body in (b"\x00\xff", b"")
        ]
        tool(bus, "msgdump", "--save", ".", "--last", "2", "-n2", "foo", cwd=tmp_path).end()
        saved = {path.name: path.read_bytes() for path in tmp_path.glob("*-*")}
        assert saved == {receipts[0].id: b"\x00\xff", receipts[1].id: b""}
        assert not list(tmp_path.glob("*part*"))
        told = tool(bus, "msgdump", "--save", "missing", cwd=tmp_path).end(2).err
        assert b"'missing' is no folder" in told

    def test_forget(self, tool, bus):
        """
        `msgsend --forget` has a channel forgotten, and `msgdump --last-of-each` begins with
        the newest message of each that is left.
        """
        for n, name in enumerate(("a", "b", "a", "c")):
            blocking.publish(f"{bus.url}s/{name}", b"%d" % n, "text/plain")
        tool(bus, "msgsend", "--forget", "s/b").end()
        dumped = tool(bus, "msgdump", "--json", "--last-of-each", "-n", "2", "s/").end().out
        assert [json.loads(line)["body"] for line in dumped.splitlines()] == ["2", "3"]
        told = tool(bus, "msgsend", "--forget", "s/").end(1).err
        assert b"were not forgotten: The answer is 400: A DELETE forgets" in told
        told = tool(bus, "msgsend", "--forget", "s/a", "text").end(2).err
        assert b"give files, texts, --lines, or --forget" in told
        told = tool(bus, "msgdump", "--last", "1", "--last-of-each").end(2).err
        assert b"not allowed with argument --last" in told
        told = tool(bus, "msgdump", "--last-of-each", "-n1", "s/a").end(1).err
        assert b"give last=1" in told

    def test_save_strange_ids(self, tool, scripted, tmp_path):
        """
        An id of unknown form does not become the name of a file, and one with an impossible
        time counts as new.
        """
        head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed;boundary=B\r\n\r\n--B\r\n"
        part = b"Content-Type: a/b\r\nMsgbus-Id: ../../x\r\n\r\n1\r\n--B\r\n"
        part += part.replace(b"../../x", b"9999999999999999-1").replace(b"\r\n1", b"\r\n2")
        folder = tmp_path / "a/b"
        folder.mkdir(parents=True)
        url = f"{scripted(head + part).url}foo"
        tool(None, "msgdump", "--save", ".", "-n2", url, cwd=folder).end()
        saved = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        assert [path.parent for path in saved] == [folder] * 2
        assert saved[0].name.isdigit()
        assert saved[1].name == "9999999999999999-1"

    def test_exec(self, tool, bus, tmp_path):
        """
        A command runs for each message, with the body on its input and the other fields in
        its environment.  No shell interprets them.  A command that fails is told.
        """
        evil = "; touch owned; $(touch owned) `touch owned`"
        ids = []
        for n in range(4):
            url = f"{bus.url}foo"
            ids.append(blocking.publish(url, b"%d" % n, "a/b", user=evil).id)
        script = (
            "import os, sys; body = sys.stdin.read();"
            "print(body, *(os.environ['MSGBUS_' + n] for n in 'ID CHANNEL TYPE'.split()),"
            " os.environ['MSGBUS_SENDER'], sep='|'); sys.exit(int(body) == 2)"
        )
        command = ("--exec", "python3", "-c", script)
        dumped = tool(bus, "msgdump", "--last", "4", "-n4", "foo", *command, cwd=tmp_path)
        told = dumped.end(1)
        assert told.out.decode().splitlines() == [
            f"{n}|{id}|foo|a/b|{evil}" for n, id in enumerate(ids)
        ]
        assert f"python3 ended with 1, for {ids[2]}" in told.err.decode()
        assert not (tmp_path / "owned").exists()
        told = tool(bus, "msgdump", "--last", "1", "-n1", "foo", "--exec", "no such").end(1)
        assert b"no such did not run: No such file" in told.err
        assert b"--exec needs a command" in tool(bus, "msgdump", "--exec").end(2).err

    def test_jobs(self, tool, bus, tmp_path):
        """
        Not more than the given number of commands run at once.
        """
        for n in range(6):
            blocking.publish(f"{bus.url}foo", b"%d" % n, "a/b")
        script = "touch $MSGBUS_ID.run; ls *.run | wc -l; sleep 0.5; rm $MSGBUS_ID.run"
        command = ("--jobs", "3", "foo", "--exec", "sh", "-c", script)
        told = tool(bus, "msgdump", "--last", "6", "-n6", *command, cwd=tmp_path).end()
        counts = [int(line) for line in told.out.split()]
        assert len(counts) == 6
        assert max(counts) <= 3
        # Three that wait for each other end only if they run together.
        wait = (
            "touch $MSGBUS_ID.on; until test $(ls *.on | wc -l) -ge 3; do sleep 0.1; done"
        )
        command = ("--jobs", "3", "foo", "--exec", "sh", "-c", wait)
        tool(bus, "msgdump", "--last", "3", "-n3", *command, cwd=tmp_path).end()

    def test_interrupted(self, tool, bus):
        """
        Ctrl-C ends it, and it prints how much came, and how fast.
        """
        dumped = tool(bus, "msgdump", "foo")
        bus.wait_for("subscribes to 'foo'")
        blocking.publish(f"{bus.url}foo", b"12345", "a/b")
        dumped.wait_for(b"12345")
        told = dumped.interrupt().err.decode()
        assert re.fullmatch(
            r"msgdump: 1 messages, 5 bytes in \d+\.\d s: \d+\.\d messages/s, \d+ bytes/s\n",
            told,
        )

    def test_reader_leaves(self, tool, bus):
        """
        When the reader of its output has left, it ends without a complaint.
        """
        for _ in range(2):
            blocking.publish(f"{bus.url}foo", b"0" * 100_000, "a/b")
        dumped = subprocess.run(
            ["/bin/sh", "-c", f"{BIN}/msgdump --since all foo | head -c 1"],
            capture_output=True,
            env={**os.environ, "MSGBUS_URL": bus.url},
            timeout=TIMEOUT,
            check=True,
        )
        assert dumped.stderr == b""

    def test_killed(self, tool, lasting):
        """
        While a bus is killed and comes back, it misses no message.
        """
        bus = lasting()
        dumped = tool(bus, "msgdump", "--json", "-n", "300", "foo")
        bus.wait_for("subscribes to 'foo'")
        with blocking.Publisher(f"{bus.url}foo") as publisher:
            for n in range(300):
                publisher.publish(b"%d" % n, "text/plain")
                if n in (100, 200):
                    bus = restart(bus, lasting)
        told = dumped.end()
        assert [json.loads(line)["body"] for line in told.out.splitlines()] == [
            f"{n}" for n in range(300)
        ]
        assert b"Trying again" in told.err
        assert b"missing" not in told.err

    def test_killed_without_file(self, tool, start):
        """
        If the bus has no history file, it tells that messages may be missing.
        """
        listen = ("-v", "--listen", f"tcp:{free_port()}:interface=127.0.0.1")
        bus = start(*listen)
        dumped = tool(bus, "msgdump", "foo")
        bus.wait_for("subscribes to 'foo'")
        restart(bus, lambda: start(*listen))
        dumped.wait_for(b"Messages are missing here", "err")

    def test_stopped(self, tool, start):
        """
        It notices and tells that a server is silent, and subscribes again.
        """
        bus = start("-v")
        dumped = tool(bus, "msgdump", "--heartbeat", "5", "foo")
        bus.wait_for("subscribes to 'foo'")
        bus.process.send_signal(signal.SIGSTOP)
        dumped.wait_for(b"silent for 10 seconds. Trying again", "err")
        bus.process.send_signal(signal.SIGCONT)
        dumped.wait_for(b"Subscribed again", "err")


class TestChat:
    """
    msgchat.
    """

    def test_pipe(self, tool, bus):
        """
        In a pipe, lines are published, and messages are printed; it ends with its
        input, once its last words have come back.
        """
        blocking.publish(f"{bus.url}room", b"before", "text/plain", user="bob")
        chat = tool(bus, "msgchat", "--user", "alice", "room")
        chat.wait_for(rb"\d\d:\d\d <bob> before\n")
        chat.say(b"hello\n\n")
        chat.wait_for(b"<alice> hello\n")
        blocking.publish(f"{bus.url}room", b"one\ntwo", "text/html")
        blocking.publish(f"{bus.url}room", b"\xff", "image/jpeg", user="bob")
        chat.say(b"bye\n")
        told = re.sub(r"\d\d:\d\d", "T", chat.end().out.decode())
        assert told == (
            "T <bob> before\nT <alice> hello\nT <?> one\n      two\n"
            "T <bob> [image/jpeg, 1 bytes]\nT <alice> bye\n"
        )

    def test_terminal(self, bus):
        """
        On a terminal, what comes in stands above what is being typed, which stays, can be
        edited, and is not lost when it cannot be sent.
        """
        screen = Screen(
            BIN / "msgchat", "--user", "alice", "room", environment={"MSGBUS_URL": bus.url}
        )
        screen.wait_for(r"^alice> *$")
        # The last letter but one is forgotten, and put in.
        screen.send("helo\x1b[Dl")
        screen.wait_for(r"^alice> hello *$")
        blocking.publish(f"{bus.url}room", b"hi \x1b]0;owned\x07", "text/plain", user="bob")
        screen.wait_for(r"^\d\d:\d\d <bob> hi \\x1b\]0;owned\\x07 *\nalice> hello *$")
        screen.send("\r")
        screen.wait_for(r"^\d\d:\d\d <alice> hello *\nalice> *$")
        assert next(blocking.subscribe(f"{bus.url}room", last=1)).body == b"hello"
        bus.kill()
        screen.wait_for("Trying again")
        screen.send("unsent\r")
        screen.wait_for(r"Connection refused(.|\n)*^alice> unsent *$")
        screen.send("\x03")
        assert screen.end() == 0

    def test_killed(self, tool, lasting):
        """
        While a bus is killed and comes back, it misses no message.
        """
        bus = lasting()
        chat = tool(bus, "msgchat", "--user", "alice", "room")
        chat.say(b"one\n")
        chat.wait_for(b"<alice> one\n")
        bus = restart(bus, lasting)
        chat.say(b"two\n")
        blocking.publish(f"{bus.url}room", b"three", "text/plain", user="bob")
        chat.wait_for(b"<bob> three\n")
        told = chat.end()
        assert told.out.count(b"<alice> two\n") == 1
        assert b"missing" not in told.err


class TestFlood:
    """
    msgbus-test-pub and msgbus-test-sub.
    """

    def test_alone(self, tool, bus):
        """
        Without arguments, msgbus-test-pub says hello to the world once a second, at the
        address that it prints.
        """
        flood = tool(bus, "msgbus-test-pub")
        flood.wait_for(re.escape(f"publishing to {bus.url}flood").encode(), "err")
        messages = blocking.subscribe(f"{bus.url}flood", since="all")
        got = [(next(messages), time.monotonic()) for _ in range(4)]
        messages.close()
        assert [(m.body, m.content_type) for m, _ in got] == [
            (f"<h1>hello world {n}</h1>".encode(), "text/html") for n in (1, 2, 3, 4)
        ]
        assert 0.5 < got[2][1] - got[1][1] < 5
        # The answer to the last may not have come yet.
        assert re.match(rb"[34] messages in ", flood.interrupt().out)

    def test_together(self, tool, bus):
        """
        Together they print that nothing was lost, and how long that took.
        """
        crowd = tool(bus, "msgbus-test-sub", "-c", "100", "-n", "200")
        crowd.wait_for(b"100 subscribed\n")
        flood = tool(
            bus, "msgbus-test-pub", "--flat", "-c", "4", "-n", "200", "--size", "500"
        )
        assert re.match(rb"200 messages in .*answered in p50 [0-9.]+ ms", flood.end().out)
        assert re.search(
            rb"\n20000 messages in .*; 0 lost, 0 out of order, 0 gaps told; p50 .* p99",
            crowd.end().out,
        )
        messages = islice(blocking.subscribe(f"{bus.url}flood", last=9), 9)
        assert {len(message.body) for message in messages} == {500}

    def test_killed(self, tool, lasting):
        """
        While a bus is killed and comes back, they lose no message.
        """
        bus = lasting()
        crowd = tool(bus, "msgbus-test-sub", "-c", "20", "-n", "200")
        crowd.wait_for(b"20 subscribed\n")
        flood = tool(bus, "msgbus-test-pub", "--rate", "50", "-n", "200")
        # A bus that is not there at the beginning would be no loss, but a mistake.
        list(islice(blocking.subscribe(f"{bus.url}flood", since="all"), 20))
        restart(bus, lasting)
        assert flood.end().err.count(b"Trying again") > 0
        crowd.wait_for(rb" 0 lost, (0|20) out of order, 0 gaps told")
        # What was on its way when the bus was killed may have come twice.
        told = crowd.end(int(b" 20 out of order" in crowd.out))
        assert b"Subscribed again" in told.err

    def test_lost(self, tool, start):
        """
        Messages that were lost or out of order are counted, and change the exit code.
        """
        listen = ("-v", "--listen", f"tcp:{free_port()}:interface=127.0.0.1")
        bus = start(*listen)
        crowd = tool(bus, "msgbus-test-sub", "-c", "2", "-n", "4", "--idle", "3")
        crowd.wait_for(b"2 subscribed\n")
        for number in (1, 3, 2):
            body = f"<h1>hello world {number}</h1><!-- ab 1 -->".encode()
            blocking.publish(f"{bus.url}flood", body, "text/html")
        assert b"; 2 lost, 2 out of order, 0 gaps told" in crowd.end(1).out
        crowd = tool(bus, "msgbus-test-sub")
        bus.wait_for("subscribes to 'flood'", 3)
        restart(bus, lambda: start(*listen))
        crowd.wait_for(b"Messages are missing here", "err")
        assert b"; 0 lost, 0 out of order, 1 gaps told" in crowd.interrupt(1).out

    def test_too_many(self, tool, bus):
        """
        More connections than the process may have open files are refused, with advice.
        """
        told = tool(bus, "msgbus-test-sub", "-c", "99999999").end(2).err
        assert b"ulimit -n" in told
