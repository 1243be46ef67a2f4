"""
A bus that has run out of something goes on for those who are in, says so once, and takes
others again when there is enough.
"""

import resource
import socket

import pytest

from .test_logs import wait_until
from .test_twistd import curl

SECONDS = 30
FILES = 300
CLIENTS = 1000


@pytest.fixture
def clients():
    """
    Open connections, which are closed after the test.
    """
    opened = []

    def connect(port, count, request=b""):
        """
        So many connections that have sent this.
        """
        made = []
        for _ in range(count):
            made.append(socket.create_connection(("127.0.0.1", port), SECONDS))
            opened.append(made[-1])
            if request:
                made[-1].sendall(request)
        return made

    yield connect
    for each in opened:
        each.close()


def receive(peer, wanted):
    """
    Read until this has come.
    """
    data = b""
    while wanted not in data:
        piece = peer.recv(65536)
        assert piece, data
        data += piece
    return data


@pytest.mark.parametrize("options", [(), ("--max-connections", "100000")])
def test_out_of_files(start, clients, options):
    """
    With 300 open files and 1,000 clients, those that are in get every message, others are
    refused or, if there is no file left at all, closed; the log says it once, and how to
    change it, and once it is over; then there is room again.
    """
    bus = start(
        *options,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
    )
    subscribe = b"GET /msgbus/foo HTTP/1.1\r\nHost: localhost\r\n\r\n"
    inside = clients(bus.port, 200, subscribe)
    for peer in inside:
        receive(peer, b"Msgbus-Id")
    outside = clients(bus.port, CLIENTS - len(inside))
    if not options:
        # One of the first for whom there is no room.
        head = receive(outside[40], b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable")
        assert b"Retry-After: 10" in head
    wait_until(lambda: "new clients are refused" in bus.log)
    publication = f"{bus.url}foo", "-H", "Content-Type: a/b", "-d", "hello"
    for peer in outside:
        peer.close()
    wait_until(lambda: curl(*publication)[0] == 204)
    for peer in inside:
        receive(peer, b"hello")
    wait_until(lambda: "There is room again" in bus.log)
    bus.stop()
    said = [line for line in bus.log.splitlines() if "EMFILE" in line or "refused" in line]
    assert len(said) <= 4, said
    assert f"there may be {FILES}: raise the limit by LimitNOFILE=" in said[0]


def test_out_of_memory(start, clients):
    """
    Near the bound of its memory, the bus refuses new subscriptions, says so once, and
    serves those that are in; it takes others again when there is room.
    """
    bus = start()
    bound = int(bus.memory() * 1.3)
    bus.stop()
    options = "--max-memory", str(bound), "--history", "3"
    bus = start(*options, "--max-message", str(bound))
    subscribe = b"GET /msgbus/foo HTTP/1.1\r\nHost: localhost\r\n\r\n"
    (inside,) = clients(bus.port, 1, subscribe)
    receive(inside, b"Msgbus-Id")
    publication = "-H", "Content-Type: a/b", "--data-binary", "@-"
    large = bytes(bound // 6)
    for _ in range(3):
        assert curl(f"{bus.url}big", *publication, input=large)[0] == 204
    polled = f"{bus.url}foo?format=message&wait=1"
    wait_until(lambda: curl(polled)[0] == 503)
    code, head = curl(f"{bus.url}foo", "-D", "-")
    assert code == 503
    assert b"Retry-After: 10" in head
    assert curl(f"{bus.url}foo", *publication, input=b"hello")[0] == 204
    receive(inside, b"hello")
    for _ in range(3):
        assert curl(f"{bus.url}big", *publication, input=b"small")[0] == 204
    wait_until(lambda: curl(polled)[0] in (200, 204))
    wait_until(lambda: "There is room again" in bus.log)
    assert bus.log.count("Too little memory is left: new clients are refused") == 1


def test_no_room_for_the_log(start, clients):
    """
    While the disk has no room for the log, the bus works; when it has, the log says how
    many lines are missing.
    """
    bus = start("-vv")
    subscribe = b"GET /msgbus/foo HTTP/1.1\r\nHost: localhost\r\n\r\n"
    (inside,) = clients(bus.port, 1, subscribe)
    bus.wait_for("subscribes to 'foo'")
    full = len(bus.log) + 200
    hard = resource.RLIM_INFINITY
    resource.prlimit(bus.process.pid, resource.RLIMIT_FSIZE, (full, hard))
    publication = f"{bus.url}foo", "-H", "Content-Type: a/b", "-d", "hello"
    for _ in range(10):
        assert curl(*publication)[0] == 204
        receive(inside, b"hello")
    assert len(bus.log) <= full
    resource.prlimit(bus.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert curl(*publication)[0] == 204
    lost = bus.wait_for(r"(\d+) lines could not be written to the standard output")[1]
    assert int(lost) + bus.log.count(" publishes 5 bytes ") >= 11
