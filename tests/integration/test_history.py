"""
History over real sockets, cut connections, restarts, and disks that fail.
"""

import http.client
import os
import re
import resource
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from .blocking import GET, POST, raw
from .test_twistd import twistd

# A hundred take two minutes.
KILLS = int(os.environ.get("MSGBUS_TEST_KILLS", "8"))

RESET = struct.pack("ii", 1, 0)


def publish(bus, numbers, path="foo", client=None):
    """
    Publish so many messages with numbers, on one connection; the ids of those that
    were acknowledged, until it ends.
    """
    client = client or raw(bus)
    answers = client.makefile("rb")
    ids = []
    for number in numbers:
        head = POST.replace(b"foo", path.encode()) + b"Content-Length: 9\r\n\r\n"
        try:
            client.sendall(head + b"%08dx" % number)
            answer = http.client.parse_headers(answers) if answers.readline() else None
        except OSError:
            break
        if answer is None or "Msgbus-Id" not in answer:
            break
        ids.append(answer["Msgbus-Id"])
    client.close()
    return ids


class Resuming(threading.Thread):
    """
    One who is cut off again and again, and resumes behind the last message that he has
    got whole.
    """

    def __init__(self, bus, path, last, cuts, chunk=40_000):
        super().__init__()
        self.bus, self.path, self.last, self.cuts, self.chunk = bus, path, last, cuts, chunk
        self.numbers, self.gaps, self.id = [], [], ""
        self.error = None

    def run(self):
        """
        Read until the last message is there.
        """
        try:
            while not self.numbers or self.numbers[-1] != self.last:
                self.connect()
        except Exception as error:
            self.error = error

    def connect(self):
        """
        Read one connection, until it is cut.
        """
        query = f"?since={self.id}" if self.id else "?since=all"
        get = GET.replace(b"foo", f"{self.path}{query}".encode())
        client = raw(self.bus, get)
        data, size = b"", 0
        part = re.compile(rb"Msgbus-Id: (\S+)\r\n\r\n(\d{8})x\r\n--|Msgbus-Gap: (\w+)")
        while size < self.chunk or not self.cuts:
            data += (piece := client.recv(4096))
            assert piece
            size += len(piece)
            end = 0
            for match in part.finditer(data):
                end = match.end()
                if match[3]:
                    self.gaps.append(match[3])
                    continue
                self.id = match[1].decode()
                self.numbers.append(int(match[2]))
            data = data[end:]
            if self.numbers and self.numbers[-1] == self.last:
                break
        self.cuts = max(0, self.cuts - 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()


def test_cut_a_hundred_times(start):
    """
    While ten thousand messages are published, a client that is cut off a hundred
    times and resumes gets each exactly once, in order: on channel, folder and root.
    """
    bus = start("--history", "20000")
    count = 10_000
    # A hundred times, within what all of its parts take.
    readers = [Resuming(bus, path, count - 1, 100, 12_000) for path in ("a/foo", "a/", "")]
    for reader in readers:
        reader.start()
    publish(bus, range(count), "a/foo")
    for reader in readers:
        reader.join(120)
        assert reader.error is None
        assert reader.cuts == 0
        assert reader.gaps == []
        assert reader.numbers == list(range(count))


def test_slow_replay(start):
    """
    A replay larger than the backlog loses nothing, though its reader is slow and
    messages flow meanwhile; nobody waits for it.
    """
    bus = start("--history", "100000", "--max-backlog", "10000")
    publish(bus, range(20_000))
    slow = raw(bus, GET.replace(b"foo", b"foo?since=all"))
    data = slow.recv(1000)
    started = time.monotonic()
    publish(bus, range(20_000, 21_000))
    assert time.monotonic() - started < 10
    while b"00020999x" not in data[-20_000:]:
        data += slow.recv(1 << 20)
    assert b"Msgbus-Gap" not in data
    assert [int(n) for n in re.findall(rb"(\d{8})x\r\n--", data)] == list(range(21_000))


class TestFile:
    """
    A file that keeps history over a restart.
    """

    @pytest.fixture(autouse=True)
    def _file(self, start, tmp_path):
        self.start = start
        self.file = tmp_path / "history.db"

    def bus(self, *arguments, **kwargs):
        """
        A bus with the file.
        """
        return self.start("-v", "--history-file", self.file, *arguments, **kwargs)

    def kept(self, bus, query="?since=all", count=None):
        """
        What a subscriber gets of the past: the head, and the numbers and ids.
        """
        client = raw(bus, GET.replace(b"foo", f"foo{query}".encode()))
        client.settimeout(1 if count is None else 30)
        data = b""
        part = re.compile(rb"Msgbus-Id: (\S+)\r\n\r\n(\d{8})x\r\n--")
        while count is None or len(part.findall(data)) < count:
            try:
                data += client.recv(1 << 20)
            except TimeoutError:
                break
        client.close()
        return data, [(int(n), id.decode()) for id, n in part.findall(data)]

    def test_restart(self):
        """
        What was published is there after a restart, under the same ids and the same
        boundary; who was connected before resumes without a gap; ids go on growing.
        """
        bus = self.bus()
        ids = publish(bus, range(50))
        head, kept = self.kept(bus)
        assert kept == list(enumerate(ids))
        bus.stop()
        bus = self.bus()
        ids += publish(bus, range(50, 60))
        again, kept = self.kept(bus, f"?since={ids[20]}", 39)
        assert kept == list(enumerate(ids))[21:]
        assert b"Msgbus-Gap" not in again
        boundary = re.compile(rb"boundary=(\w+)")
        assert boundary.search(head)[1] == boundary.search(again)[1]
        numbers = [tuple(map(int, id.split("-"))) for id in ids]
        assert numbers == sorted(set(numbers))

    def test_bounds(self):
        """
        The file holds what history holds, and neither grows past its bound, whatever
        flows through; what was lost before a restart is told after it.
        """
        bus = self.bus("--history-bytes", "3000000", "--history", "100000")
        first = publish(bus, range(1))
        client = raw(bus)
        big = POST + b"Content-Length: 500000\r\n\r\n" + bytes(500_000)
        for _ in range(120):
            client.sendall(big)
            assert client.recv(4096).startswith(b"HTTP/1.1 204 ")
        client.close()
        last = publish(bus, range(1, 21))
        sizes = [file.stat().st_size for file in self.file.parent.glob("history.db*")]
        assert sum(sizes) < 40e6
        bus.stop()
        assert self.file.stat().st_size < 5e6
        bus = self.bus("--history-bytes", "3000000", "--history", "100000")
        data, kept = self.kept(bus, f"?since={first[0]}", 20)
        assert kept == list(enumerate(last, 1))
        # The head of the answer has an id too.
        parts = data.partition(b"\r\n\r\n")[2]
        assert parts.index(b"Msgbus-Gap: unknown") < parts.index(b"Msgbus-Id")
        data, _ = self.kept(bus, f"?since={last[0]}", 19)
        assert b"Msgbus-Gap" not in data

    def test_killed(self):
        """
        However often it is killed under load, the file opens, and what was
        acknowledged is there.
        """
        acknowledged = {}
        for lap in range(KILLS):
            bus = self.bus("--history", "1000000", "--history-bytes", "1000000000")
            results = []

            def load(first, bus=bus, results=results):
                ids = publish(bus, range(first, first + 100_000))
                results.append(dict(zip(range(first, first + len(ids)), ids, strict=True)))

            threads = [
                threading.Thread(target=load, args=(lap * 10**6 + place * 10**5,))
                for place in range(3)
            ]
            for thread in threads:
                thread.start()
            time.sleep(0.05 + 0.037 * (lap % 10))
            bus.kill()
            for thread in threads:
                thread.join(30)
            for result in results:
                acknowledged |= result
        bus = self.bus("--history", "1000000", "--history-bytes", "1000000000")
        _, kept = self.kept(bus, count=len(acknowledged))
        assert acknowledged.items() <= dict(kept).items()
        print(f"{KILLS} kills, {len(acknowledged)} acknowledged, none missing")
        assert len(acknowledged) > KILLS
        ids = [tuple(map(int, id.split("-"))) for _, id in kept]
        assert ids == sorted(set(ids))

    def test_disk_that_fails(self):
        """
        A disk that takes no more is told, and stops nothing; once it takes more, all
        that is kept is written.
        """

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))

        bus = self.bus("--history", "10000", preexec_fn=limit)
        ids = publish(bus, range(3000))
        assert len(ids) == 3000
        bus.wait_for("Cannot write history to .*history.db: .*The bus goes on")
        assert bus.log.count("Cannot write history") == 1
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(bus.process.pid, resource.RLIMIT_FSIZE, unlimited)
        bus.wait_for("History is written to .*history.db again")
        ids += publish(bus, range(3000, 3010))
        bus.kill()
        bus = self.bus("--history", "10000")
        _, kept = self.kept(bus, count=3010)
        assert kept == list(enumerate(ids))

    def test_mistakes(self, tmp_path):
        """
        A file that cannot be used, or that another bus uses, is a sentence at the
        start.
        """
        self.bus()
        (tmp_path / "text").write_text("no database" * 1000)
        for file, reason in (
            (self.file, "locked: another bus uses it"),
            (tmp_path / "text", "not a database: give another file"),
            ("/nowhere/history", "No such file or directory: give a file"),
            (tmp_path, "Is a directory"),
        ):
            command = ("--listen", "tcp:0:interface=127.0.0.1", "--history-file", file)
            result = twistd("-n", "--pidfile=", "msgbus", *command, cwd=tmp_path)
            assert result.returncode == 1
            output = result.stdout + result.stderr
            assert re.search(f"Cannot start: [^\n]*{reason}[^\n]*{file}\n", output), output
            assert "Traceback" not in output

    def test_untouched(self, start, tmp_path):
        """
        Without the option nothing touches the disk.
        """
        bus = start()
        publish(bus, range(10))
        assert [path.suffix for path in Path(tmp_path).iterdir()] == [".log"]
