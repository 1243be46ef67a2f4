"""
Passwords, hashes, links, tokens and keys: none is in the log, nor in an answer to a request
that did not show it.
"""

import signal
import socket
import subprocess
import time

from joserfc import jwt
from joserfc.jwk import OctKey

from ..requests import basic
from .daemon import BIN, Daemon

PASSWORD = "correct-horse-battery"
GUESS = "wrong-horse-battery"
HMAC_SECRET = b"0123456789abcdefghijklmnopqrstuvwxyz"


def sign(keys):
    """
    A link for the channels below `a/`.
    """
    command = [BIN / "msgbus-sign", "--key", keys, "publish,subscribe", "a/*"]
    url = subprocess.check_output([*command, "--for", "1h"], text=True)
    return url.strip().partition("link=")[2]


def token():
    """
    A token for the channels below `a/`.
    """
    claims = {"exp": int(time.time()) + 3600, "subscribe": ["a/*"], "publish": ["a/*"]}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(HMAC_SECRET))


def ask(bus, data):
    """
    All that comes within a moment as an answer to these bytes.
    """
    with socket.create_connection(("127.0.0.1", bus.port), 30) as wire:
        wire.sendall(data.replace("\n", "\r\n").encode())
        wire.settimeout(0.3)
        got = b""
        try:
            while piece := wire.recv(65536):
                got += piece
        except TimeoutError:
            pass
        return got.decode()


def requests(link, token):
    """
    Good and bad requests that show credentials in all places.
    """
    host = "Host: localhost\nConnection: close\n"
    shown = [
        basic(f"alice:{PASSWORD}"),
        basic(f"alice:{GUESS}"),
        f"Bearer {link}",
        f"Bearer {token}",
    ]
    shown += [f"Bearer {token}x", PASSWORD, f"Basic {PASSWORD}", f"Bearer {PASSWORD} x"]
    query = f"link={link}"
    targets = [f"/msgbus/a/b?{query}", f"/msgbus/a/b?x=1&{query}&format=nonsense"]
    targets += [f"/msgbus/a/b?li%6ek={link}", f"/msgbus/a/b?{query}&{query}"]
    targets += [f"/msgbus/x?{query}", f"/x?{query}", f"/msgbus/a/b?{query}x"]
    targets += [f"/msgbus/a/b?access_token={token}", f"/msgbus/a/b?link={token}"]
    for header in shown:
        for target in ("/msgbus/a/b", "/msgbus/x?format=message", "/", targets[0]):
            yield f"GET {target} HTTP/1.1\n{host}Authorization: {header}\n\n"
        post = f"POST /msgbus/a/b HTTP/1.1\n{host}Authorization: {header}\n"
        yield post + "Content-Type: text/plain\nContent-Length: 1\n\nx"
        yield post + "Content-Type: nonsense\nContent-Length: 1\n\nx"
    for target in targets:
        for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
            yield f"{method} {target} HTTP/1.1\n{host}\n"
        yield f"GET {target} HTTP/1.1\nHost: evil.example\n\n"
        yield f"GET {target} HTTP/9.9\n{host}\n"
        yield f"GET {target} HTTP/1.1\n{host}no header\n\n"
        yield f"GET {target} HTTP/1.1\n{host}Upgrade: websocket\nConnection: Upgrade\n\n"
        body = "Content-Type: multipart/mixed; boundary=b\nTransfer-Encoding: chunked\n\n"
        yield f"POST {target} HTTP/1.1\n{host}{body}no size\n"


def test_log(tmp_path):
    """
    Requests of all kinds, and reloads of files that are damaged or stand in each other's
    place, put no secret into the log; nor has an answer one.
    """
    users, access, keys, secret = (
        tmp_path / name for name in ("users", "access", "links.key", "jwt.secret")
    )
    subprocess.run(
        [BIN / "msgbus-passwd", users, "alice"],
        input=f"{PASSWORD}\n",
        text=True,
        check=True,
        capture_output=True,
    )
    subprocess.run([BIN / "msgbus-sign", "--key", keys, "--new-key"], check=True)
    access.write_text("alice publish,subscribe a/*\n")
    secret.write_bytes(HMAC_SECRET)
    options = ("--users", users, "--access", access, "--link-keys", keys)
    bus = Daemon(tmp_path, *options, "--jwt-key", f"HS256:{secret}", "-vv")
    try:
        link, bearer = sign(keys), token()
        secrets = [PASSWORD, GUESS, link[-20:], link[:40], bearer[-20:], bearer[30:60]]
        secrets += [
            basic(f"alice:{PASSWORD}")[-20:],
            users.read_text()[6:].strip(),
            HMAC_SECRET.decode(),
        ]
        secrets.append(keys.read_text().partition(":")[2].strip())
        for request in requests(link, bearer):
            answer = ask(bus, request)
            assert not [shown for shown in secrets if shown in answer], (request, answer)

        files = {file: file.read_bytes() for file in (users, access, keys, secret)}
        count = 0
        for file in files:
            damages = [text[:30] for text in files.values()]
            for damage in [*files.values(), *damages, f"bob:{PASSWORD}\n".encode()]:
                file.write_bytes(damage)
                bus.process.send_signal(signal.SIGHUP)
                count += 1
                bus.wait_for(
                    r"Read the keys for links|Keys for links and tokens stay", count
                )
                bus.wait_for(r"Read 1 users|Users and rules stay", count)
            file.write_bytes(files[file])
        assert "stay as they were" in bus.log
        assert [shown for shown in secrets if shown in bus.log] == []
        assert "Traceback" not in bus.log
    finally:
        # It has logged errors, as it should.
        bus.kill()
