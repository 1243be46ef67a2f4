"""
Links and tokens, as real clients use them.
"""

import json
import signal
import subprocess
import time

import httpx
import pytest
from httpx_sse import connect_sse
from joserfc import jwt
from joserfc.jwk import ECKey
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from msgbus.blocking import publish, subscribe
from msgbus.client.errors import Refused

from .daemon import BIN
from .test_twistd import JPEG, curl


@pytest.fixture
def keys(tmp_path):
    """
    A file with one key.
    """
    file = tmp_path / "links.key"
    subprocess.run([BIN / "msgbus-sign", "--key", file, "--new-key"], check=True)
    return file


@pytest.fixture
def guarded(start, keys):
    """
    A bus that takes links, and logs all that it can.
    """
    return start("--link-keys", keys, "-v", "-v")


@pytest.fixture
def sign(guarded, keys):
    """
    Print a URL by `msgbus-sign`.
    """

    def sign(*arguments):
        return subprocess.check_output(
            [BIN / "msgbus-sign", "--key", keys, "--url", guarded.url, *arguments],
            text=True,
        ).strip()

    return sign


def test_curl_and_img(guarded, sign):
    """
    curl publishes a picture by one link, and what loads an `<img>` gets it by another;
    without a link, nobody gets anything, and no link is in the log.
    """
    put = sign("publish", "public/cam", "--for", "1h", "--type", "image/*")
    see = sign("subscribe", "public/cam", "--for", "1h")
    jpeg = ["-H", "Content-Type: image/jpeg", "--data-binary", "@-"]
    assert curl(*jpeg, put, input=JPEG) == (204, b"")
    assert curl(*jpeg, see, input=JPEG)[0] == 403
    image = {"Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"}
    shown = httpx.get(f"{see}&format=message", headers=image)
    assert (shown.status_code, shown.content) == (200, JPEG)
    assert shown.headers["Cache-Control"] == "no-store"
    assert httpx.get(f"{guarded.url}public/cam?format=message").status_code == 401
    with httpx.stream("GET", see, headers=image) as stream:
        assert stream.headers["Content-Type"].startswith("multipart/x-mixed-replace")
    guarded.wait_for("leaves 'public/cam'")
    for url in put, see:
        assert url.partition("link=")[2][-20:] not in guarded.log


def test_event_source(sign):
    """
    An `EventSource` subscribes by a link, and its stream ends in order when the link
    expires; then it is refused.
    """
    see = sign("subscribe", "news", "--for", "3s")
    began = time.monotonic()
    with (
        httpx.Client(timeout=30) as client,
        connect_sse(client, "GET", f"{see}&format=event-stream") as source,
    ):
        assert [event.event for event in source.iter_sse()] == ["begin"]
    assert time.monotonic() - began < 10
    again = httpx.get(see)
    assert again.status_code == 401
    assert again.text.startswith("The link expired at ")


def test_websocket(guarded, sign, keys):
    """
    A WebSocket publishes and reads by a link, until its key is removed.
    """
    url = sign("publish,subscribe", "chat", "--for", "1h", "--as", "alice")
    url = url.replace("http:", "ws:")
    with connect(url) as socket:
        socket.send(json.dumps({"type": "text/plain", "body": "hello"}))
        while "sender" not in (told := json.loads(socket.recv(timeout=10))):
            pass
        assert (told["sender"], told["body"]) == ("alice", "hello")
        subprocess.run([BIN / "msgbus-sign", "--key", keys, "--new-key"], check=True)
        keys.write_text(keys.read_text().splitlines(keepends=True)[0])
        guarded.process.send_signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd.code == 1008
    assert closed.value.rcvd.reason.startswith("The key 'k1' of this link is not known")
    with pytest.raises(InvalidStatus, match="401"):
        connect(url)


def test_tools(sign):
    """
    The tools and the clients take a URL with a link.
    """
    url = sign("publish,subscribe", "log", "--for", "1h", "--as", "alice")
    subprocess.run([BIN / "msgsend", "-t", "text/plain", url, "hello"], check=True)
    shown = subprocess.check_output(
        [BIN / "msgdump", "--last", "1", "-n", "1", url], text=True, timeout=30
    )
    assert "alice" in shown
    assert "hello" in shown
    publish(url, b"again", "text/plain")
    messages = subscribe(url, last=2)
    assert [next(messages).body for _ in range(2)] == [b"hello", b"again"]
    with pytest.raises(Refused, match="401"):
        publish(url.replace("link=", "link=x"), b"", "text/plain")


def test_token(start, tmp_path):
    """
    A bus takes the JWTs of an issuer whose public key it has, in the header.
    """
    pair = ECKey.generate_key("P-256")
    (tmp_path / "issuer.pem").write_bytes(pair.as_pem(private=False))
    bus = start("--jwt-key", "ES256:issuer.pem", "--jwt-audience", "bus")
    claims = {"exp": int(time.time()) + 60, "aud": "bus", "publish": ["a"], "sub": "x"}
    for changed, code in (
        ({}, "204"),
        ({"aud": "other"}, "401"),
        ({"exp": 1}, "401"),
        ({"publish": ["b"]}, "403"),
    ):
        token = jwt.encode({"alg": "ES256"}, claims | changed, pair)
        headers = ["-H", f"Authorization: Bearer {token}", "-H", "Content-Type: a/b"]
        assert curl(*headers, "-d", "x", f"{bus.url}a")[0] == int(code), changed


def test_chat(start, keys):
    """
    The page of the chat and its script are documents that a link gives, too; the modules
    of the bus are there for everybody.
    """
    bus = start("--link-keys", keys, "--docroot", "chatdemo")
    root = bus.url.removesuffix("msgbus/")
    url = subprocess.check_output(
        [BIN / "msgbus-sign", "--key", keys, "subscribe", "lobby", "--for", "1h"], text=True
    )
    query = url.strip().partition("?")[2]
    for path in ("", "chat.js"):
        assert httpx.get(root + path).status_code == 401
        assert httpx.get(f"{root}{path}?{query}").status_code == 200
    assert httpx.get(f"{bus.url}.js/view.js").status_code == 200
