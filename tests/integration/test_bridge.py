"""
`msgbus-bridge` between real buses.
"""

import re
import socket
import threading
import time
from itertools import islice

import pexpect
import pytest

from msgbus import blocking
from msgbus.client import blocking_stream

from .cutting import CuttingProxy
from .daemon import BIN
from .ports import free_port
from .test_client import NOBODY
from .test_scripts import tool  # noqa: F401  # a fixture

BRIDGE = "msgbus-bridge"


def dump(url, count, **wanted):
    """
    So many messages, from the beginning of history on.
    """
    wanted = {"since": "all", **wanted}
    return list(islice(blocking.subscribe(url, **wanted), count))


def fill(url, numbers, **options):
    """
    Publish these numbers by a stream.
    """
    with blocking.stream(url, **options) as out:
        for number in numbers:
            out.publish(b"%d" % number, "text/plain")


@pytest.fixture
def proxy():
    """
    Start a proxy that cuts.
    """
    proxies = []

    def proxy(*arguments):
        proxies.append(CuttingProxy(*arguments))
        return proxies[-1]

    yield proxy
    for each in proxies:
        each.close()


class TestBridge:
    """
    The tool by itself.
    """

    def test_help(self, tool):  # noqa: F811
        """
        It says what it does, with examples.
        """
        shown = tool(None, BRIDGE, "--help").end().out.decode()
        assert "usage: msgbus-bridge " in shown
        assert "examples:\n" in shown

    def test_names(self, tool, start):  # noqa: F811
        """
        What is below a folder keeps its name below the other; a channel keeps its last
        segment in a folder; and a single channel gets everything.
        """
        here = start()
        blocking.publish(f"{here.url}a/b/c:d/%C3%BC", b"1", "text/x", user="älice")
        blocking.publish(f"{here.url}a/x", b"2", "image/png")
        for source, target, count, expected in (
            ("a/", "to/", 2, ["to/b/c:d/ü", "to/x"]),
            ("", "all/", 2, ["all/a/b/c:d/ü", "all/a/x"]),
            ("a/x", "one/", 1, ["one/x"]),
            ("a/", "single", 2, ["single", "single"]),
            ("a/x", "other", 1, ["other"]),
        ):
            # Each to a bus that has not got them yet.
            there = start()
            ran = tool(
                here,
                BRIDGE,
                *("--since", "all", "-n", f"{count}"),
                f"{here.url}{source}",
                f"{there.url}{target}",
            ).end()
            assert f"{count} messages passed on, 0 known, 0 refused" in ran.err.decode()
            got = dump(there.url, count)
            assert [message.channel for message in got] == expected
            for copy, message in zip(got, dump(f"{here.url}{source}", count), strict=True):
                assert (copy.body, copy.content_type, copy.sender) == (
                    message.body,
                    message.content_type,
                    message.sender,
                )
                assert copy.origin.endswith(f"/{message.id}")

    def test_until_now(self, tool, start):  # noqa: F811
        """
        With `--until now`, it ends once TO has all that FROM has kept.
        """
        here, there = start(), start()
        fill(f"{here.url}a", range(500))
        options = ("--last", "90", "--until", "now")
        ran = tool(here, BRIDGE, *options, f"{here.url}a", f"{there.url}a").end()
        assert "90 messages passed on, 0 known, 0 refused" in ran.err.decode()
        copies = dump(f"{there.url}a", 90)
        assert [int(copy.body) for copy in copies] == list(range(410, 500))

    def test_ring(self, tool, start):  # noqa: F811
        """
        Bridges in both directions copy each message once; none comes back.
        """
        here, there = start("-v"), start("-v")
        bridges = [
            tool(None, BRIDGE, f"{a.url}x/", f"{b.url}x/")
            for a, b in ((here, there), (there, here))
        ]
        for bus in (here, there):
            bus.wait_for("subscribes to 'x/'")
        for n in range(50):
            blocking.publish(f"{here.url}x/h", b"h%d" % n, "a/b")
            blocking.publish(f"{there.url}x/t", b"t%d" % n, "a/b")
        expected = {b"%s%d" % (side, n) for side in (b"h", b"t") for n in range(50)}
        for bus in (here, there):
            assert {message.body for message in dump(f"{bus.url}x/", 100)} == expected
        time.sleep(1)
        for bus in (here, there):
            blocking.publish(f"{bus.url}x/end", b"end", "a/b")
        for bus in (here, there):
            behind = dump(f"{bus.url}x/", 102)[100:]
            assert [message.body for message in behind] == [b"end"] * 2
        for bridge in bridges:
            told = bridge.interrupt().err.decode()
            # The answers to the last messages may be under way.
            counts = r"5[01] messages passed on, 5[01] known, 0 refused;"
            assert re.search(counts + r" .* --since [0-9]+-[0-9]+\n", told)

    def test_refused(self, tool, start, tmp_path):  # noqa: F811
        """
        A wrong password at either end is told at once, and so is wrong use.  A message that
        is too large for the other bus is told, and not passed on.  A bus takes none of its
        own messages.
        """
        (tmp_path / "secret").write_text("geheim")
        closed, here = start("--secret-file", "secret"), start()
        for source, target in ((closed.url, here.url), (here.url, closed.url)):
            told = tool(None, BRIDGE, source, target).end(1).err.decode()
            assert "401" in told
            assert "Traceback" not in told
        blocking.publish(f"{here.url}a", b"x", "a/b")
        ran = tool(here, BRIDGE, "--last=1", "-n1", "a", "b").end()
        assert b"0 messages passed on, 1 known, 0 refused" in ran.err
        tool(None, BRIDGE, "a//b", "c").end(2)
        tool(None, BRIDGE, "a").end(2)
        small = start("--max-message", "1000")
        for size in (10, 2000, 20):
            blocking.publish(f"{here.url}foo", bytes(size), "a/b")
        ran = tool(
            None, BRIDGE, "--since=all", "-n3", f"{here.url}foo", f"{small.url}foo"
        ).end(1)
        assert "foo" in ran.err.decode()
        assert "413" in ran.err.decode()
        assert "2 messages passed on, 0 known, 1 refused" in ran.err.decode()
        assert [len(message.body) for message in dump(f"{small.url}foo", 2)] == [10, 20]

    def test_progress(self, start):
        """
        On a terminal it shows how many messages it has passed on.
        """
        here, there = start(), start()
        fill(f"{here.url}foo", range(30))
        arguments = ["--since=all", "-n30", f"{here.url}foo", f"{there.url}foo"]
        terminal = pexpect.spawn(str(BIN / BRIDGE), arguments, timeout=30)
        terminal.expect("30/30")
        terminal.expect("30 messages passed on")
        terminal.expect(pexpect.EOF)

    def test_unreachable(self, tool, bus):  # noqa: F811
        """
        A bus that is away is told, and waited for.
        """
        running = tool(bus, BRIDGE, f"{NOBODY}foo", "foo")
        running.wait_for(rb"Trying again in \d+\.\d s", "err", count=2)
        running.interrupt()
        port = free_port()
        running = tool(bus, BRIDGE, "foo", f"http://localhost:{port}/msgbus/foo")
        bus.wait_for("subscribes to 'foo'")
        blocking.publish(f"{bus.url}foo", b"x", "a/b")
        running.wait_for(rb"Trying again in \d+\.\d s", "err", count=2)
        running.interrupt()

    def test_cuts(self, tool, start, proxy):  # noqa: F811
        """
        Fifty times a connection of the bridge is cut at a random place: each message
        arrives once, in order.
        """
        keep = ("--history", "10000")
        here, there = start(*keep), start(*keep)
        fill(f"{here.url}foo", range(3000))
        reading, writing = proxy(here.port, 25), proxy(there.port, 25)
        ran = tool(
            None,
            BRIDGE,
            *("--since=all", "-n3000"),
            f"{reading.url}foo",
            f"{writing.url}foo",
        )
        ran.end()
        assert (reading.cuts, writing.cuts) < (25, 25)
        got = [int(message.body) for message in dump(f"{there.url}foo", 3000)]
        assert got == list(range(3000))
        assert b"Trying again" in ran.err

    def test_killed(self, tool, start, tmp_path):  # noqa: F811
        """
        While both buses are killed and come back, each message arrives once, in order.
        What the first bus delivered, but had not written when it was killed, is published
        there again, with an id of its own; the other bus has both.
        """
        keep = ("-v", "--history", "20000", "--history-file")

        def lasting(port, file):
            return start("--listen", f"tcp:{port}:interface=127.0.0.1", *keep, file)

        ports = (free_port(), free_port())
        buses = [lasting(port, f"history{port}") for port in ports]
        urls = [f"http://localhost:{port}/msgbus/foo" for port in ports]
        ran = tool(None, BRIDGE, "--since=all", *urls)
        # Killed with messages on their way through the bridge, not before it reads.
        buses[0].wait_for("subscribes to 'foo'")
        filled = threading.Thread(target=fill, args=(urls[0], range(4000)))
        filled.start()
        for number in (0, 1, 0, 1):
            time.sleep(0.4)
            buses[number].kill()
            buses[number] = lasting(ports[number], f"history{ports[number]}")
        filled.join(60)
        here = dump(urls[0], 4000)
        assert [int(message.body) for message in here] == list(range(4000))
        there = []
        for copy in blocking.subscribe(urls[1], since="all"):
            there.append(copy)
            if copy.origin.endswith(f"/{here[-1].id}"):
                break
        ids = {message.id for message in here}
        kept = [copy for copy in there if copy.origin.rpartition("/")[2] in ids]
        assert [int(copy.body) for copy in kept] == list(range(4000))
        ran.interrupt()


class TestBlockingStream:
    """
    `msgbus.blocking.stream` with real buses.
    """

    def test_cuts(self, start, proxy):
        """
        Fifty cuts lose and double nothing.
        """
        bus = start("--history", "10000")
        cutting = proxy(bus.port, 50)
        fill(f"{cutting.url}foo", range(5000), notify=lambda notice: None)
        assert [int(m.body) for m in dump(f"{bus.url}foo", 5000)] == list(range(5000))

    def test_silence_is_no_stall(self, start, monkeypatch):
        """
        Between two messages, a stream may be silent for longer than the stall timeout, and
        may have begun the next part with a heartbeat.
        """
        monkeypatch.setattr(blocking_stream, "HEARTBEAT_SECONDS", 0.7)
        bus = start("--stall-timeout", "1")
        notices = []
        mine, other = socket.socketpair()
        with mine, other, blocking.stream(f"{bus.url}foo", notify=notices.append) as out:
            out.publish(b"1", "a/b")
            time.sleep(3)
            out.publish(b"2", "a/b")
            threading.Timer(0.9, other.send, [b"x"]).start()
            out.wait_for(mine)
            time.sleep(3)
            out.publish(b"3", "a/b")
        assert len(dump(f"{bus.url}foo", 3)) == 3
        assert notices == []
