"""
The bus behind proxies on the same machine: HAProxy, which speaks the PROXY protocol, and
nginx.  What comes by them has no more rights than what comes from elsewhere.
"""

import re
import socket
import ssl
import subprocess

import pytest

from .test_users import SECRET

BEHIND = ("--listen", "haproxy:tcp:0:interface=127.0.0.1")
PUBLISH = ("-H", "Content-Type: text/plain", "-d", "x")

# The line of the protocol in both versions, from 203.0.113.9.
VERSION_1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"
VERSION_2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + socket.inet_aton("203.0.113.9")
    + socket.inet_aton("198.51.100.1")
    + b"\x12\x67\x01\xbb"
)
POST = (
    b"POST /msgbus/foo HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 1\r\n\r\nx"
)


def curl(url, *arguments):
    """
    The status that curl gets.
    """
    told = subprocess.run(
        [
            *("curl", "-sk", "-o", "/dev/null", "-m", "20"),
            *("-w", "%{http_code}", *arguments, url),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(told.stdout)


def said(client, data):
    """
    All that is answered to these bytes until the connection ends.
    """
    client.settimeout(30)
    client.sendall(data)
    answer = b""
    try:
        while piece := client.recv(4096):
            answer += piece
    except ConnectionResetError:
        pass
    client.close()
    return answer


def test_addresses(start, haproxy):
    """
    Behind HAProxy, the log shows the addresses of the clients, also those of publications
    whose heads are remembered from another client.
    """
    bus = start("-vv", *BEHIND)
    proxy = haproxy(bus)
    context = ssl.create_default_context(cafile=proxy.authority.file)
    expected = []
    for address in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
        raw = socket.create_connection(
            ("127.0.0.1", proxy.port), timeout=30, source_address=(address, 0)
        )
        client = context.wrap_socket(raw, server_hostname="localhost")
        reader = client.makefile("rb")
        for _ in range(3):
            client.sendall(POST)
            assert reader.readline() == b"HTTP/1.1 204 No Content\r\n"
            while reader.readline() != b"\r\n":
                pass
            expected.append(f"{address}:{client.getsockname()[1]}")
        client.close()
    bus.wait_for("publishes 1 bytes", len(expected))
    assert re.findall(r"(\S+) publishes 1 bytes", bus.log) == expected


def test_stream(start, haproxy):
    """
    A stream goes through HAProxy as it is, and its subscriber is named by its own address.
    """
    bus = start("-v", *BEHIND)
    proxy = haproxy(bus)
    url = f"https://localhost:{proxy.port}/msgbus/foo"
    reader = subprocess.Popen(
        ["curl", "-skN", "--interface", "127.0.0.2", url + "?format=ndjson"],
        stdout=subprocess.PIPE,
        text=True,
    )
    bus.wait_for(r"127\.0\.0\.2:\d+ subscribes to 'foo'")
    assert curl(url, *PUBLISH) == 204
    assert '"body":"x"' in reader.stdout.readline().replace(" ", "")
    reader.kill()
    reader.communicate()
    bus.wait_for(r"127\.0\.0\.2:\d+ leaves 'foo'")


@pytest.mark.parametrize("line", [VERSION_1, VERSION_2])
def test_line_to_a_plain_port(start, line):
    """
    A client that sends the line of the protocol to a port that does not speak it gets a
    400, and what it sends behind the line is no request.
    """
    bus = start("-vv")
    client = socket.create_connection(("127.0.0.1", bus.port))
    answer = said(client, line + POST)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert curl(bus.url + "foo", *PUBLISH) == 204
    bus.wait_for("publishes")
    assert re.findall(r"(\S+):\d+ publishes", bus.log) == ["127.0.0.1"]


@pytest.mark.parametrize("line", [VERSION_1, VERSION_2])
def test_line_through_haproxy(start, haproxy, line):
    """
    Behind HAProxy, only its own line counts: that of a client is no request either.
    """
    bus = start("-vv", *BEHIND)
    proxy = haproxy(bus)
    context = ssl.create_default_context(cafile=proxy.authority.file)
    raw = socket.create_connection(("127.0.0.1", proxy.port))
    answer = said(context.wrap_socket(raw, server_hostname="localhost"), line + POST)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "203.0.113.9" not in bus.log
    assert "publishes" not in bus.log


def test_no_line(start):
    """
    A port that speaks the protocol answers nothing to a client that does not.
    """
    bus = start("-vv", *BEHIND)
    client = socket.create_connection(("127.0.0.1", bus.port))
    assert said(client, POST) == b""
    assert "publishes" not in bus.log


def test_nothing_is_opened(tmp_path, start, haproxy, proxy):
    """
    By a proxy on the same machine, and directly from it, everything is refused that is
    refused otherwise: no password, a wrong one, no right, a foreign page, and a foreign
    name, whatever addresses the request claims.
    """
    (tmp_path / "users").write_text(f"alice:{SECRET}\n")
    (tmp_path / "access").write_text("alice publish a\n@anonymous subscribe public\n")
    rules = ("--users", "users", "--access", "access")
    behind = start(*BEHIND, *rules)
    plain = start(*rules)
    doors = (
        f"https://localhost:{haproxy(behind).port}/msgbus/",
        f"https://localhost:{proxy(plain)}/msgbus/",
        plain.url,
    )
    local = [
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=127.0.0.1",
        "X-Real-IP: 127.0.0.1",
    ]
    claims = [argument for header in local for argument in ("-H", header)]
    alice = ("-u", "alice:secret")
    for door in doors:
        for status, channel, arguments in (
            (204, "a", (*alice, *PUBLISH)),
            (401, "a", PUBLISH),
            (401, "a", ("-u", "alice:wrong", *PUBLISH)),
            (403, "b", (*alice, *PUBLISH)),
            (401, "a", ("-N",)),
            (403, "a", (*alice, *PUBLISH, "-H", "Origin: https://evil.example")),
            (403, "a", (*alice, *PUBLISH, "-H", "Sec-Fetch-Site: cross-site")),
        ):
            assert curl(door + channel, *arguments) == status, (door, channel)
            assert curl(door + channel, *arguments, *claims) == status, (door, channel)
    # nginx replaces the name; HAProxy passes it on, and is itself at the loopback.
    for door in (doors[0], doors[2]):
        assert curl(door + "a", *alice, *PUBLISH, "-H", "Host: evil.example") == 421


def test_warning(start):
    """
    A bus behind the PROXY protocol that asks for nothing says so, though it listens to its
    own machine only; one that asks for a password does not.
    """
    warning = "There is no password: everybody whom the proxy lets through"
    assert warning in start(*BEHIND).log
    assert warning not in start(*BEHIND, "--secret", "secret").log
