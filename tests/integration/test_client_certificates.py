"""
Users who are named by TLS client certificates, with real authorities, curl and our tools.
"""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from itertools import islice

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from msgbus.client.blocking import subscribe

from .certificates import Authority
from .daemon import BIN

SECRET = "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"
PUBLISH = ("-H", "Content-Type: text/plain", "-d", "x")


class Office:
    """
    The authority of the servers, and two of clients, with the bus that accepts the first.
    """

    def __init__(self, folder, start):
        self._start = start
        self.folder = folder
        for name in ("server", "clients", "others"):
            (folder / name).mkdir()
        self.server = Authority(folder / "server", "servers")
        self.clients = Authority(folder / "clients", "clients")
        self.others = Authority(folder / "others", "others")
        self.accepted = folder / "accepted.pem"
        self.accepted.write_bytes(self.clients.file.read_bytes())

    def start(self, *arguments, before=""):
        """
        Start the bus, with this before its endpoint string.
        """
        file = self.server.issue("localhost", "127.0.0.1")
        self.bus = self._start(
            "--client-ca",
            str(self.accepted),
            "--listen",
            f"{before}ssl:0:privateKey={file}:interface=127.0.0.1",
            *arguments,
        )
        self.url = f"https://localhost:{self.bus.port}/msgbus/"
        return self.bus

    def curl(self, channel, *arguments):
        """
        The status and the body that curl gets; the status is 0 if there is no answer.
        """
        told = subprocess.run(
            [
                *("curl", "-s", "-m", "20", "--cacert", self.server.file),
                *("-w", "\n%{http_code}", *arguments, self.url + channel),
            ],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        body, _, status = told.rpartition("\n")
        return int(status), body

    def publish(self, channel, *arguments):
        """
        The status of a publication.
        """
        return self.curl(channel, *arguments, *PUBLISH)[0]

    def connect(self, certificate=None):
        """
        A connection that stays open, with a file to read from it.
        """
        context = ssl.create_default_context(cafile=self.server.file)
        if certificate is not None:
            context.load_cert_chain(certificate)
        raw = socket.create_connection(("127.0.0.1", self.bus.port), timeout=30)
        client = context.wrap_socket(raw, server_hostname="localhost")
        return client, client.makefile("rb")

    def senders(self, count, certificate):
        """
        Who has published the first so many messages to the channel `foo`.
        """
        messages = subscribe(
            self.url + "foo",
            since="all",
            certificate=str(certificate),
            ca=str(self.server.file),
        )
        return [message.sender for message in islice(messages, count)]

    def reload(self, *authorities, said="Read the keys and certificates", count=1):
        """
        Have the bus accept these authorities from now on.
        """
        text = b"".join(each.file.read_bytes() for each in authorities)
        self.accepted.write_bytes(text)
        self.bus.process.send_signal(signal.SIGHUP)
        self.bus.wait_for(said, count)


@pytest.fixture
def office(tmp_path, start):
    """
    Authorities, and a bus that is not started yet.
    """
    return Office(tmp_path, start)


def post(client, reader, head=b""):
    """
    The status of a publication on an open connection.
    """
    client.sendall(
        b"POST /msgbus/foo HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 1\r\n" + head + b"\r\nx"
    )
    status = int(reader.readline().split()[1])
    length = 0
    while (line := reader.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    reader.read(length)
    return status


def test_curl(office):
    """
    Who shows a certificate publishes in its name, and may read; who shows none, or an
    expired one, or one of another authority or for another use, may do neither.
    """
    office.start()
    alice = office.clients.issue_client("alice")
    assert office.publish("foo", "--cert", alice) == 204
    status, sentence = office.curl("foo", *PUBLISH)
    assert (status, sentence) == (
        403,
        "This bus asks for a client certificate, as in curl --cert FILE, and for no name"
        " and password.\n",
    )
    assert office.curl("foo")[0] == 403
    for refused in (
        office.clients.issue_client("alice", days=-1),
        office.others.issue_client("alice"),
        office.clients.issue_client("alice", usage=ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        assert office.publish("foo", "--cert", refused) == 0
    bob = office.clients.issue_client("bob")
    assert office.publish("foo", "--cert", bob) == 204
    assert office.senders(2, alice) == ["alice", "bob"]


def test_programs(office):
    """
    Our own programs show a certificate, too.
    """
    office.start()
    alice = office.clients.issue_client("alice")
    command = [
        *(sys.executable, BIN / "msgsend", "--certificate", alice),
        *("--ca", office.server.file, office.url + "foo", "hello"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (message,) = islice(
        subscribe(
            office.url + "foo",
            last=1,
            certificate=str(alice),
            ca=str(office.server.file),
        ),
        1,
    )
    assert (message.sender, message.body) == ("alice", b"hello")


def test_rules(office):
    """
    The rules hold for the names of certificates, without a line in a file of users, and
    take no name for a pattern.
    """
    rules = office.folder / "access"
    rules.write_text("alice publish *\n* publish sensors/%u/*\n@users subscribe *\n")
    office.start("--access", str(rules))
    for name in ("alice", "bob", "*", "%u", "[a-z]*", "-"):
        certificate = office.clients.issue_client(name)
        quoted = name.replace("%", "%25").replace("[", "%5B").replace("]", "%5D")
        expected = 204 if name == "alice" else 403
        who = ("-g", "--cert", certificate)
        assert office.publish("sensors/carol/heat", *who) == expected, name
        assert office.publish("foo", *who) == expected, name
        assert office.publish(f"sensors/{quoted}/heat", *who) == 204, name
    for name in ("a/b", "alice\0.example", "@users", "x" * 300, "alice\n"):
        certificate = office.clients.issue_client(name)
        status, sentence = office.curl("foo", "--cert", certificate, *PUBLISH)
        assert status == 403, name
        assert sentence.startswith("Your client certificate names no user: "), sentence
    status, sentence = office.curl("foo", *PUBLISH)
    assert status == 403
    assert sentence.endswith("A client certificate may help, as in curl --cert FILE.\n")


def test_precedence(office):
    """
    A request that shows a name and a password is judged by them alone, right or wrong;
    the certificate counts only for one that shows nothing.
    """
    (office.folder / "users").write_text(f"bob:{SECRET}\n")
    (office.folder / "access").write_text("alice publish a\nbob publish b\n")
    office.start("--users", "users", "--access", "access")
    alice = ("--cert", office.clients.issue_client("alice"))
    assert office.publish("a", *alice) == 204
    assert office.publish("b", *alice) == 403
    assert office.publish("b", *alice, "-u", "bob:secret") == 204
    assert office.publish("a", *alice, "-u", "bob:secret") == 403
    for wrong in ("bob:wrong", "alice:", "alice:secret"):
        assert office.publish("a", *alice, "-u", wrong) == 401
    # Nobody has a line in the file of users by a certificate.
    assert office.publish("a", "-u", "alice:secret") == 401
    # What a proxy of somebody might add says nothing.
    for header in ("X-SSL-Client-CN: alice", "Ssl-Client-Subject-Dn: CN=alice"):
        assert office.publish("a", "-H", header) == 401


def test_precedence_of_links(office):
    """
    A link counts more than a certificate, too: it is what its holder wants to use.
    """
    key = office.folder / "links.key"
    sign = [sys.executable, BIN / "msgbus-sign", "--key", key]
    subprocess.run([*sign, "--new-key"], check=True, capture_output=True)
    office.start("--link-keys", str(key))
    alice = ("--cert", office.clients.issue_client("alice"))
    link = subprocess.run(
        [*sign, "publish", "a", "--for", "1h"], check=True, capture_output=True, text=True
    ).stdout.strip()
    query = "?" + link.partition("?")[2]
    assert office.publish("a" + query, *alice) == 204
    assert office.publish("b" + query, *alice) == 403
    assert office.publish("b", *alice) == 204
    status, sentence = office.curl("b", *PUBLISH)
    assert status == 401
    assert "A client certificate would do, too" in sentence


def test_heads(office):
    """
    A head that is remembered from one certificate is never taken for that of another, nor
    for that of a client without one, on whatever connection it comes.
    """
    (office.folder / "access").write_text("* publish,subscribe *\n")
    office.start("--access", "access")
    alice, bob = map(office.clients.issue_client, ("alice", "bob"))
    expected = []
    for turn in range(3):
        for name, certificate in (("alice", alice), ("bob", bob), ("", None)):
            client, reader = office.connect(certificate)
            for _ in range(turn + 1):
                assert post(client, reader) == 204
                expected.append(name)
            client.close()
    assert office.senders(len(expected), alice) == expected


def test_reload(office):
    """
    At SIGHUP, other authorities are accepted: what was begun by a certificate of one that
    is gone ends, also on a connection that was open before, whose next request is refused.
    """
    office.start("-v")
    alice = office.clients.issue_client("alice")
    bob = office.others.issue_client("bob")
    client, reader = office.connect(alice)
    for _ in range(3):
        assert post(client, reader) == 204
    stream, lines = office.connect(alice)
    stream.sendall(b"GET /msgbus/foo HTTP/1.1\r\nHost: localhost\r\n\r\n")
    office.bus.wait_for("subscribes to 'foo'")
    assert office.publish("foo", "--cert", bob) == 0
    office.reload(office.clients, office.others)
    assert office.publish("foo", "--cert", bob) == 204
    assert post(client, reader) == 204
    office.reload(office.others, count=2)
    assert b"\r\n0\r\n\r\n" in lines.read()
    assert post(client, reader) == 403
    assert office.publish("foo", "--cert", alice) == 0
    assert office.publish("foo", "--cert", bob) == 204
    kept = "Keys and certificates of TLS stay as they were.*accepted.pem"
    office.reload(said=kept)
    assert office.publish("foo", "--cert", bob) == 204
    assert office.publish("foo") == 403
    # A stop would look for errors in the log, and there is one.
    office.bus.kill()


def test_websocket(office):
    """
    A WebSocket publishes in the name of its certificate, and is closed by a frame that
    says why when the authority is gone.
    """
    office.start()
    alice = office.clients.issue_client("alice")
    context = ssl.create_default_context(cafile=office.server.file)
    context.load_cert_chain(alice)
    url = office.url.replace("https:", "wss:") + "foo"
    with connect(url, ssl=context) as websocket:
        websocket.send('{"type": "text/plain", "body": "x"}')
        assert office.senders(1, alice) == ["alice"]
        office.reload(office.others)
        assert '"body":"x"' in websocket.recv(30).replace(" ", "")
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(30)
    assert closed.value.rcvd.code == 1008
    assert "of no authority that this bus accepts" in closed.value.rcvd.reason


def test_expires(office):
    """
    What was begun with a certificate ends when it expires, and so do its rights on
    connections that are open.
    """
    office.start()
    alice = office.clients.issue_client("alice", days=8 / 86400)
    client, reader = office.connect(alice)
    for _ in range(3):
        assert post(client, reader) == 204
    get = b"GET /msgbus/foo?since=all HTTP/1.1\r\nHost: localhost\r\n\r\n"
    idle, answer = office.connect(alice)
    for _ in range(3):
        stream, lines = office.connect(alice)
        stream.sendall(get)
        assert lines.readline() == b"HTTP/1.1 200 OK\r\n"
    assert b"\r\n0\r\n\r\n" in lines.read()
    assert post(client, reader) == 403
    # Its head is remembered.
    idle.sendall(get)
    assert answer.readline() == b"HTTP/1.1 403 Forbidden\r\n"
    # Within the last second, the handshake lets it in.
    assert office.publish("foo", "--cert", alice) in (0, 403)


def test_proxy_protocol(office):
    """
    Within the PROXY protocol, certificates count as well, and are read again; heads are
    kept apart by both, and the log shows the address that the proxy has told.
    """
    office.start("-vv", before="haproxy:")
    names = ["alice", "bob", "alice"]
    certificates = {name: office.clients.issue_client(name) for name in names}
    for name in names:
        client, reader = office.connect(certificates[name])
        client.sendall(b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n")
        for _ in range(3):
            assert post(client, reader) == 204
    office.bus.wait_for("publishes", 9)
    told = re.findall(r"203\.0\.113\.9:4711 publishes .* as '(\w+)'", office.bus.log)
    assert told == [name for name in names for _ in range(3)]
    office.reload(office.others)
    assert post(client, reader) == 403


def test_no_resumed_session(office):
    """
    No session of TLS is resumed, so the certificate of each connection is verified anew.
    """
    office.start()
    alice = office.clients.issue_client("alice")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=office.server.file)
        context.load_cert_chain(alice)
        context.maximum_version = version
        session = None
        for _ in range(2):
            raw = socket.create_connection(("127.0.0.1", office.bus.port), timeout=30)
            client = context.wrap_socket(raw, server_hostname="localhost", session=session)
            assert post(client, client.makefile("rb")) == 204
            assert client.version().replace(".", "_") == version.name
            assert not client.session_reused
            session = client.session
            assert session is not None


def test_check_access(tmp_path, office):
    """
    `--check-access` answers for the names of certificates, too.
    """
    (tmp_path / "access").write_text("alice publish *\n")
    file = office.server.issue("localhost")
    command = [
        *(sys.executable, BIN / "twistd", "msgbus", "--client-ca", office.accepted),
        *("--listen", f"ssl:0:privateKey={file}", "--access", "access"),
    ]
    for question, code in (("alice publish x", 0), ("bob publish x", 1)):
        done = subprocess.run(
            [*command, "--check-access", question],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == code, done.stderr


def test_mistakes(tmp_path, office):
    """
    Authorities without a port that asks for their certificates, or a file that cannot be
    used, are no start.
    """
    server = office.server.issue("localhost")
    leaf = office.clients.issue_client("alice")
    ssl_port = f"ssl:0:privateKey={server}"
    for listen, file, reason in (
        ("tcp:0", office.accepted, "Only endpoints ssl: ask"),
        (ssl_port, tmp_path / "missing.pem", "missing.pem: No such file"),
        (ssl_port, leaf, "something else is in the file"),
        (ssl_port, os.devnull, "no certificates in PEM"),
    ):
        done = subprocess.run(
            [
                *(sys.executable, BIN / "twistd", "-n", "--pidfile=", "msgbus"),
                *("--listen", listen, "--client-ca", file),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 1
        assert re.search(reason, said), said
        assert "Traceback" not in said
