"""
The bus over TLS, with real certificates.
"""

import random
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .certificates import Authority

LISTEN = "interface=127.0.0.1"


@pytest.fixture
def authority(tmp_path):
    """
    Who signs the certificates of a test.
    """
    return Authority(tmp_path)


@pytest.fixture
def context(authority):
    """
    How a client verifies them.
    """
    return ssl.create_default_context(cafile=authority.file)


@pytest.fixture
def bus(start, authority):
    """
    A bus over `ssl:`.
    """
    file = authority.issue("localhost", "127.0.0.1")
    return start("-v", "--listen", f"ssl:0:privateKey={file}:{LISTEN}")


def connect(bus, context, name="localhost", data=b""):
    """
    A client that has verified the server, and sent this.
    """
    raw = socket.create_connection(("127.0.0.1", bus.port), timeout=30)
    client = context.wrap_socket(raw, server_hostname=name)
    client.sendall(data)
    return client


def curl(authority, *arguments, **kwargs):
    """
    What curl gets, with verification.
    """
    return subprocess.run(
        ["curl", "-sS", "--max-time", "30", "--cacert", authority.file, *arguments],
        capture_output=True,
        check=True,
        **kwargs,
    ).stdout


GET = b"GET /msgbus/foo HTTP/1.0\r\n\r\n"


def post(size, close=True):
    """
    A publication of so many bytes.
    """
    head = b"POST /msgbus/foo HTTP/1.%d\r\nHost: localhost\r\nContent-Type: a/b\r\n" % (
        not close
    )
    return head + b"Content-Length: %d\r\n\r\n" % size + b"x" * size


def test_curl(bus, authority, context):
    """
    curl publishes with verification, and Python reads it.
    """
    reader = connect(bus, context, data=GET).makefile("rb")
    while reader.readline() != b"\r\n":
        pass
    opening = reader.readline()
    url = f"https://localhost:{bus.port}/msgbus/foo"
    assert curl(authority, url, "-H", "Content-Type: text/plain", "-d", "hello") == b""
    part = b""
    while not part.endswith(opening):
        part += reader.readline()
    assert part.endswith(b"\r\n\r\nhello\r\n" + opening)
    reader.close()
    bus.wait_for("leaves 'foo'")


def numbers_until(stream, last):
    """
    The numbers of the messages of a stream, up to this one.
    """
    numbers = []
    for line in stream:
        numbers += [int(number) for number in re.findall(rb"~(\d{6})~", line)]
        if last in numbers:
            break
    return numbers


def publish_numbers(bus, context, numbers, size=100):
    """
    Publish texts with these numbers, all on one connection.
    """
    with connect(bus, context) as publisher:
        for number in numbers:
            body = (b"~%06d~" % number).ljust(size, b"x")
            publisher.sendall(post(size, close=False)[:-size] + body)
            assert publisher.recv(4096).startswith(b"HTTP/1.1 204 ")


def test_new_keys(bus, authority, context):
    """
    While messages are delivered, OpenSSL's client changes its keys again and again, and
    asks the server to do so: it gets every message, in order, as another client does.
    """
    command = ["openssl", "s_client", "-tls1_3", "-CAfile", authority.file]
    with subprocess.Popen(
        [*command, "-connect", f"localhost:{bus.port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        client.stdin.write(b"GET /msgbus/foo HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.stdin.flush()
        bus.wait_for("subscribes to 'foo'")
        other = connect(bus, context, data=GET)
        bus.wait_for("subscribes to 'foo'", 2)
        for number in range(100):
            # The capital letter asks the server for new keys, too.
            client.stdin.write((b"k\n", b"K\n")[number % 2])
            client.stdin.flush()
            publish_numbers(bus, context, [number])
        publish_numbers(bus, context, range(100, 300))
        for stream in (client.stdout, other.makefile("rb")):
            assert numbers_until(stream, 299) == list(range(300))
        client.kill()
    other.close()


@pytest.mark.parametrize("length", ["512", "4096"])
def test_small_records(bus, authority, context, length):
    """
    A client that wants small records gets messages that are larger as a whole.
    """
    command = [
        "openssl",
        "s_client",
        "-quiet",
        "-maxfraglen",
        length,
        "-CAfile",
        authority.file,
    ]
    with subprocess.Popen(
        [*command, "-connect", f"localhost:{bus.port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        client.stdin.write(GET)
        client.stdin.flush()
        bus.wait_for("subscribes to 'foo'")
        publish_numbers(bus, context, range(20), 20_000)
        got = b""
        for line in client.stdout:
            got += line
            if line.startswith(b"~000019~"):
                break
        bodies = re.findall(rb"~(\d{6})~(x+)\r\n", got)
        assert bodies == [(b"%06d" % number, b"x" * 19_992) for number in range(20)]
        client.kill()


def test_pauses(start, authority, context):
    """
    Clients that read a little now and then get all messages, small and large, whole and in
    order, and one that is gone in the middle of a record harms nobody.
    """
    file = authority.issue("localhost")
    listen = f"ssl:0:privateKey={file}:{LISTEN}"
    bus = start("-v", "--max-backlog", "100000000", "--listen", listen)
    readers = [connect(bus, context, data=GET) for _ in range(4)]
    leaving = connect(bus, context, data=GET)
    bus.wait_for("subscribes to 'foo'", 5)
    expected, got = b"", [b""] * len(readers)
    ended = threading.Event()

    def read(place):
        chance = random.Random(place)
        while b"~end~" not in got[place][-1000:]:
            data = readers[place].recv(chance.choice((100, 5000, 100_000)))
            assert data
            got[place] += data
            if not ended.is_set():
                ended.wait(chance.choice((0, 0, 0.001, 0.02)))

    threads = [
        threading.Thread(target=read, args=(place,)) for place in range(len(readers))
    ]
    for thread in threads:
        thread.start()
    chance = random.Random(0)
    with connect(bus, context) as publisher:
        for number in range(300):
            size = chance.choice((1, 300, 16_384, 16_385, 100_000))
            body = chance.randbytes(size).hex().encode()
            if number == 299:
                body = b"~end~"
            expected += body
            publisher.sendall(post(len(body), close=False)[: -len(body)] + body)
            assert publisher.recv(4096).startswith(b"HTTP/1.1 204 ")
            if number == 100:
                leaving.close()
    ended.set()
    for thread in threads:
        thread.join(60)
    for text in got:
        parts = re.findall(
            rb"\r\nContent-Type: a/b\r\n.*?\r\n\r\n(.*?)\r\n--", text, re.DOTALL
        )
        assert b"".join(parts) == expected
    for reader in readers:
        reader.close()


def test_garbage(bus, context):
    """
    A client that sends something else than records within its connection loses it, and no
    other does.
    """
    good = connect(bus, context, data=GET)
    bus.wait_for("subscribes to 'foo'")
    for number in range(20):
        bad = connect(bus, context, data=GET)
        bus.wait_for("subscribes to 'foo'", number + 2)
        raw = socket.socket(fileno=bad.detach())
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        publish_numbers(bus, context, [number])
        bus.wait_for("leaves 'foo'", number + 1)
        raw.close()
    assert numbers_until(good.makefile("rb"), 19) == list(range(20))
    good.close()


def test_end_behind_request(bus, context):
    """
    A client that ends TLS right behind its request gets the answer.
    """
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(into, out, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", bus.port), timeout=30) as raw:
        while client.version() is None or out.pending:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                raw.sendall(out.read())
                into.write(raw.recv(65536))
            else:
                raw.sendall(out.read())
        client.write(post(5))
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()
        raw.sendall(out.read())
        while data := raw.recv(65536):
            into.write(data)
    assert client.read(4096).startswith(b"HTTP/1.0 204 ")


def test_resumption(bus, context):
    """
    A client that comes back with a ticket need not see the certificate again; after a
    reload, whose keys are others, it has to.
    """
    with connect(bus, context, data=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") as first:
        assert first.recv(4096).startswith(b"HTTP/1.1 200 ")
        session = first.session

    def is_resumed():
        raw = socket.create_connection(("127.0.0.1", bus.port), timeout=30)
        with context.wrap_socket(
            raw, server_hostname="localhost", session=session
        ) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            return client.session_reused

    assert is_resumed()
    reload(bus, READ)
    assert not is_resumed()


def test_no_http2(bus, context):
    """
    HTTP/2 is not offered, though the library for it is installed.
    """
    import h2  # noqa: F401

    context.set_alpn_protocols(["h2", "http/1.1"])
    client = connect(bus, context)
    assert client.selected_alpn_protocol() == "http/1.1"
    client.close()


def test_http_1_0(bus, authority):
    """
    A client that speaks HTTP/1.0 only, and says so in the handshake, is
    served.
    """
    url = f"https://localhost:{bus.port}/"
    assert curl(authority, "--http1.0", url).startswith(b"This is msgbus")


def test_strangers(bus, context):
    """
    Whatever a client does over TLS and leaves, nothing of it stays: one that
    goes on sending behind its last request, that is refused, that sends no
    HTTP, that does not shake hands, that vanishes.
    """
    files = bus.open_files()
    clients = [
        connect(bus, context, data=data)
        for data in (
            b"GET / HTTP/1.0\r\n\r\n" + b"x" * 20_000,
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            + b"x" * 20_000,
            post(10)[:-1],
            post(2_000_000)[:100_000],
            b"NOPE\r\n\r\n",
            b"GET / HTTP/1.1\r\nBad Header: x\r\nA: b\r\n" + b"X: y\r\n" * 5000,
            b"GET /" + b"x" * 20_000,
            GET,
            GET + b"x" * 20_000,
        )
    ]
    clients += [socket.create_connection(("127.0.0.1", bus.port)) for _ in range(3)]
    clients[-1].sendall(b"this is no TLS")
    time.sleep(0.5)
    for client in clients:
        client.close()
    bus.wait_for_files(files)
    connect(bus, context, data=post(1)).close()


def test_too_large(bus, authority):
    """
    What is too large gets its answer over TLS too.
    """
    url = f"https://localhost:{bus.port}/msgbus/foo"
    command = (url, "-H", "Content-Type: a/b", "--data-binary", "@-", "-w", "%{http_code}")
    assert curl(authority, *command, "-H", "Expect:", input=bytes(5_000_000)).endswith(
        b"413"
    )


def test_folder_of_certificates(start, tmp_path, authority, context):
    """
    `tls:` takes a folder of certificates, and shows each client the one for
    the name that it asks for.
    """
    folder = tmp_path / "certificates"
    folder.mkdir()
    for name in ("localhost", "bus.example"):
        file = authority.issue(name)
        file.rename(folder / file.name)
    bus = start(
        "--host", "bus.example", "--listen", f"tls:{folder}:port=0:interface=127.0.0.1"
    )
    for name in ("localhost", "bus.example"):
        client = connect(
            bus, context, name, f"HEAD / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        client.close()


def test_no_key(tmp_path):
    """
    A key that is none, or is for another certificate, is said to be so.
    """
    from .test_twistd import twistd

    mine, yours = Authority(tmp_path).issue("localhost"), tmp_path / "yours"
    yours.mkdir()
    other = tmp_path / "other.pem"
    pem = Authority(yours).issue("localhost").read_text()
    other.write_text(pem[pem.index("-----BEGIN CERTIFICATE") :])
    (tmp_path / "broken.pem").write_text("no key")
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    Authority(tmp_path).issue_nameless().rename(nameless / "nameless.pem")
    for endpoint, reason in (
        (f"ssl:0:privateKey={tmp_path}/broken.pem", ""),
        (f"ssl:0:privateKey={tmp_path}/missing.pem", ""),
        (f"ssl:0:privateKey={mine}:certKey={other}", ""),
        (f"tls:{nameless}:port=0", "nameless.pem' has no subjectAltName"),
    ):
        result = twistd("-n", "msgbus", "--listen", endpoint, cwd=tmp_path)
        assert result.returncode == 1
        assert f"Cannot --listen {endpoint}" in result.stderr + result.stdout
        assert reason in result.stderr + result.stdout
        assert "Traceback" not in result.stderr + result.stdout


def serial_number(bus, context, name="localhost"):
    """
    The serial number of the certificate that a new client is shown, which says that it is
    that of the name.
    """
    client = connect(bus, context, name)
    try:
        return client.getpeercert()["serialNumber"]
    finally:
        client.close()


def reload(bus, said, count=1):
    """
    Have the bus read its files again, and wait until it has said this so many times.
    """
    bus.process.send_signal(signal.SIGHUP)
    return bus.wait_for(said, count)


READ = "Read the keys and certificates of .* again"
KEPT = "Keys and certificates of TLS stay as they were"


def test_reload(bus, authority, context):
    """
    At SIGHUP, a renewed certificate is read: new clients are shown it, and those that are
    connected go on.
    """
    before = serial_number(bus, context)
    old = connect(bus, context, data=GET)
    reader = old.makefile("rb")
    while reader.readline() != b"\r\n":
        pass
    opening = reader.readline()
    authority.issue("localhost", "127.0.0.1")
    assert serial_number(bus, context) == before
    reload(bus, READ)
    assert serial_number(bus, context) != before
    connect(bus, context, data=post(1)).close()
    part = b""
    while not part.endswith(opening):
        part += reader.readline()
    assert part.endswith(b"\r\n\r\nx\r\n" + opening)
    assert old.getpeercert()["serialNumber"] == before
    old.close()
    # Twisted counts the ports that a factory serves, so that the last one stops it.
    reload(bus, READ, 2)


def test_reload_of_a_folder(start, tmp_path, authority, context):
    """
    The files of `tls:` are read again, too, and those of several ports together: if one
    port cannot have its certificate, no port gets another one.
    """
    folder = tmp_path / "certificates"
    folder.mkdir()
    single = authority.issue("127.0.0.1", "localhost")
    authority.issue("localhost").rename(folder / "localhost.pem")
    other = f"ssl:0:privateKey={single}:{LISTEN}"
    bus = start("--listen", f"tls:{folder}:port=0:{LISTEN}", "--listen", other)
    port_of_tls = bus.port
    bus.port = int(bus.wait_for(r"starting on (\d+)", 2)[1])

    def both():
        yield serial_number(bus, context)
        first, bus.port = bus.port, port_of_tls
        yield serial_number(bus, context)
        bus.port = first

    before = list(both())
    authority.issue("127.0.0.1", "localhost")
    good = (folder / "localhost.pem").read_text()
    key = good[: good.index("-----BEGIN CERTIFICATE")]
    certificate = authority.issue("localhost").read_text()[len(key) :]
    for broken in (key + certificate, key, good[: len(good) // 2], ""):
        (folder / "localhost.pem").write_text(broken)
        complaints = len(re.findall(KEPT, bus.log))
        assert str(folder) in reload(bus, f"{KEPT}.*", complaints + 1)[0]
        assert list(both()) == before
    authority.issue("localhost").rename(folder / "localhost.pem")
    reload(bus, READ)
    after = list(both())
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False]
    # A stop would look for errors in the log, and there are some.
    bus.kill()


def test_failed_reload(start, tmp_path, authority, context):
    """
    A certificate that is gone, cut off, or of another key changes nothing, and the log
    names the file; the port never serves without TLS.
    """
    pem = authority.issue("localhost").read_text()
    cut = pem.index("-----BEGIN CERTIFICATE")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    key.write_text(pem[:cut])
    certificate.write_text(pem[cut:])
    bus = start("--listen", f"ssl:0:privateKey={key}:certKey={certificate}:{LISTEN}")
    before = serial_number(bus, context)
    other = authority.issue("localhost").read_text()
    broken = [None, "", pem[cut:-100], other[other.index("-----BEGIN CERTIFICATE") :]]
    for count, content in enumerate(broken, 1):
        certificate.unlink(missing_ok=True)
        if content is not None:
            certificate.write_text(content)
        assert "cert.pem" in reload(bus, f"{KEPT}.*", count)[0]
        assert serial_number(bus, context) == before
        with socket.create_connection(("127.0.0.1", bus.port), timeout=30) as plain:
            plain.sendall(GET)
            assert not plain.recv(4096).startswith(b"HTTP")
    bus.kill()


def test_reload_without_privileges(start, authority, context):
    """
    A key that only root can read is read at the start; at SIGHUP, a bus that is root no
    more says that it cannot, and goes on with the old one.
    """
    with TemporaryDirectory() as folder:
        # Others cannot reach the folder of the test.
        Path(folder).chmod(0o755)
        file = Path(folder) / "localhost.pem"
        file.write_bytes(authority.issue("localhost").read_bytes())
        file.chmod(0o600)
        nobody = ("twistd", "-n", "--pidfile=", "--uid", "65534", "--gid", "65534")
        bus = start("--listen", f"ssl:0:privateKey={file}:{LISTEN}", command=nobody)
        before = serial_number(bus, context)
        file.write_bytes(authority.issue("localhost").read_bytes())
        assert "Permission denied" in reload(bus, f"{KEPT}.*localhost.pem.*")[0]
        assert serial_number(bus, context) == before
        file.chmod(0o644)
        reload(bus, READ)
        assert serial_number(bus, context) != before
    bus.kill()
