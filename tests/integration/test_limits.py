"""
Limits of a real bus, for clients behind a proxy that it trusts.
"""

import http.client
import json
import time

from .test_passwd import BY_HTPASSWD


def ask(bus, address=None, headers=(), body=b"x", path="/msgbus/foo"):
    """
    Publish, on a connection of its own, by way of a proxy for this address: the status, the
    headers and the body of the answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", bus.port, timeout=60)
    sent = {"Content-Type": "text/plain", **dict(headers)}
    if address is not None:
        sent["X-Forwarded-For"] = address
    try:
        connection.request("POST", path, body, sent)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_rate_behind_a_proxy(start):
    """
    Each client of a trusted proxy has its own quota, whatever it says itself.
    """
    bus = start("--trusted-proxy", "127.0.0.1", "--rate", "3/60s")
    one = [ask(bus, f"198.51.100.{i}, 203.0.113.1")[0] for i in range(5)]
    code, headers, body = ask(bus, "203.0.113.1")
    assert one == [204, 204, 204, 429, 429]
    assert code == 429
    assert 1 <= int(headers["Retry-After"]) <= 20
    assert headers["RateLimit-Policy"] == '"publications";q=3;w=60'
    assert body.startswith(b"You may publish 3 messages in 60 seconds")
    assert ask(bus, "203.0.113.2")[0] == 204


def test_local(start):
    """
    Programs on this machine are not limited, and one warning says that a proxy seems to be
    among them.
    """
    bus = start("--rate", "3/60s")
    assert [ask(bus, "203.0.113.1")[0] for _ in range(10)] == [204] * 10
    assert bus.log.count("give its address by --trusted-proxy") == 1


def test_stream_slows_down(start):
    """
    A stream that is published slows down to the rate, and ends with all its messages.
    """
    bus = start("--trusted-proxy", "127.0.0.1", "--rate", "10/s")
    began = time.monotonic()
    code, _, body = ask(
        bus,
        "203.0.113.1",
        {"Content-Type": "application/x-ndjson"},
        b"".join(b"%d\n" % i for i in range(30)),
        "/msgbus/foo?format=ndjson&raw=1",
    )
    assert (code, json.loads(body)["published"]) == (200, 30)
    # Ten may be published at once; the others take two seconds on any machine.
    assert time.monotonic() - began > 1.9


def test_wrong_passwords(start, tmp_path):
    """
    Wrong passwords are slowed down for the address from which they come, and nobody else;
    the log has them once, with address and name, and without the password.
    """
    users = tmp_path / "users"
    users.write_text(f"alice:{BY_HTPASSWD}\nbob:{BY_HTPASSWD}\n")
    bus = start("--trusted-proxy", "127.0.0.1", "--users", users)
    right, wrong = "YWxpY2U6c2VjcmV0", "YWxpY2U6aHVudGVyMg=="
    assert ask(bus, "203.0.113.2", {"Authorization": f"Basic {right}"})[0] == 204
    answers = [
        ask(bus, "203.0.113.1", {"Authorization": f"Basic {wrong}"})[0] for _ in range(30)
    ]
    assert answers[:4] == [401] * 4
    assert answers.count(429) > 20
    assert ask(bus, "203.0.113.1", {"Authorization": f"Basic {right}"})[0] == 429
    assert ask(bus, "203.0.113.2", {"Authorization": f"Basic {right}"})[0] == 204
    assert bus.log.count("Wrong passwords from 203.0.113.1 for 'alice'") == 1
    assert "hunter2" not in bus.log
    assert wrong not in bus.log


def test_user_header(start, tmp_path):
    """
    A trusted proxy may say who somebody is, and nobody else.
    """
    users, access = tmp_path / "users", tmp_path / "access"
    users.write_text(f"alice:{BY_HTPASSWD}\n")
    access.write_text("carol publish foo\n")
    options = ["--users", users, "--access", access, "--user-header", "X-Remote-User"]
    trusting = start("--trusted-proxy", "127.0.0.1", *options)
    other = start("--trusted-proxy", "192.0.2.1", *options)
    carol = {"X-Remote-User": "carol"}
    assert ask(trusting, "203.0.113.1", carol)[0] == 204
    assert ask(trusting, "203.0.113.1", {"X-Remote-User": "dave"})[0] == 403
    assert ask(trusting, "203.0.113.1")[0] == 401
    assert ask(other, "203.0.113.1", carol)[0] == 401


def test_connections(start):
    """
    A connection too many is told so.
    """
    bus = start("--max-connections", "2")
    kept = [http.client.HTTPConnection("127.0.0.1", bus.port) for _ in range(2)]
    for connection in kept:
        connection.connect()
    time.sleep(0.3)
    assert ask(bus)[0] == 503
    kept[0].close()
    time.sleep(0.3)
    assert ask(bus)[0] == 204
    kept[1].close()
