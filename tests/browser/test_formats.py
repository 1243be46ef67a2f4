"""
A browser's own `EventSource` and `WebSocket`; and each form through nginx.
"""

import asyncio
import json
import ssl
import subprocess
import time

import websockets

from msgbus.client.blocking import publish

from ..integration.pages import CHECKOUT, blocks
from .test_chat import root
from .test_origins import PICTURE


def site(tmp_path, page):
    """
    A document root with this page.
    """
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text(page)
    return str(folder)


def test_events(start, window, tmp_path):
    """
    The page of docs/formats.md shows events; one who is cut off before the first one
    misses nothing.
    """
    page = blocks(CHECKOUT / "docs/formats.md", "html")[0]
    # Only what comes from now on, for one who has seen nothing.
    page = page.replace("&since=1h", "").replace("events =", "events = window.events =")
    options = ("--docroot", site(tmp_path, page))
    options += ("--history-file", str(tmp_path / "history.db"), "-v")
    bus = start(*options)
    reader = window()
    reader.open(root(bus))
    # The bus logs a subscription before the browser knows of it.
    reader.wait("return window.events.readyState === 1")
    bus.kill()
    bus = start("--listen", f"tcp:{bus.port}:interface=127.0.0.1", *options)
    publish(bus.url + "sensors/attic", "ä".encode(), "text/plain")
    reader.wait("return document.querySelector('li')?.textContent === 'sensors/attic: ä'")
    publish(bus.url + "sensors/cellar", b"2", "a/b")
    reader.wait("return document.querySelectorAll('li').length === 2")


def test_websocket(start, window, tmp_path):
    """
    The other page publishes and reads by a WebSocket.
    """
    page = blocks(CHECKOUT / "docs/formats.md", "html")[1]
    bus = start("--docroot", site(tmp_path, page))
    reader = window()
    reader.open(root(bus))
    reader.wait("return document.querySelector('p').textContent === 'hello'")


CODE = """
    const ran = (promise) => promise.then(() => true, () => false);
    const url = "/msgbus/code?format=message";
    const color = getComputedStyle(document.querySelector("p")).color;
    return {
      script: document.title === "ran",
      style: color === "rgb(1, 2, 3)",
      module: await ran(import(url)),
      worker: await ran(new Promise((resolve, reject) => {
        Object.assign(new Worker(url), { onmessage: resolve, onerror: reject });
      })),
      serviceWorker: await ran(navigator.serviceWorker.register(url)),
      picture: document.querySelector("img").naturalWidth === 64,
      fetched: (await (await fetch(url)).text()).includes("ran"),
    };
"""


def test_code(start, window, tmp_path):
    """
    A page of the same origin can show a message, and read it, but not run it.
    """
    page = """
        <!doctype html>
        <script src="/msgbus/code?format=message"></script>
        <link rel="stylesheet" href="/msgbus/style?format=message">
        <img src="/msgbus/cam?format=message">
        <p></p>
    """
    bus = start("--docroot", site(tmp_path, page))
    code = b"if (self.document) document.title = 'ran'; else self.postMessage?.('ran')"
    publish(bus.url + "code", code, "text/javascript")
    publish(bus.url + "style", b"p { color: rgb(1 2 3) }", "text/css")
    publish(bus.url + "cam", PICTURE.read_bytes(), "image/jpeg")
    page = window()
    page.open(root(bus))
    outcome = page.run(CODE)
    assert [name for name, can in outcome.items() if can] == ["picture", "fetched"]


def test_foreign_websocket(start, window, canary):
    """
    A page of another origin gets none.
    """
    bus = start()
    canary.pages["/"] = ("text/html", "<p>")
    reader = window()
    reader.open(canary.origin)
    told = reader.run(
        """
        const socket = new WebSocket(args[0]);
        return new Promise((resolve) => {
          socket.onopen = () => resolve("open");
          socket.onerror = () => resolve("refused");
        });
        """,
        f"ws://localhost:{bus.port}/msgbus/foo",
    )
    assert told == "refused"


def test_through_nginx(start, proxy):
    """
    Through nginx with nothing but `proxy_pass`, and times short, streams come at once, and
    silent ones live by their heartbeats; with the block of docs/proxies.md, so does a
    WebSocket.
    """
    bus = start("--host", "chat.example")
    plain = proxy(bus, location="proxy_pass http://127.0.0.1:8888;", seconds=6)
    whole = proxy(bus, seconds=6)
    names = ("multipart", "mixed", "event-stream", "ndjson")
    readers = {}
    for name in names:
        url = f"https://chat.example:{plain}/msgbus/foo?heartbeat=5&format={name}"
        resolve = f"chat.example:{plain}:127.0.0.1"
        readers[name] = subprocess.Popen(
            ["curl", "-skN", "--resolve", resolve, url], stdout=subprocess.PIPE
        )
    insecure = ssl.create_default_context()
    insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE

    async def listen():
        address = f"wss://localhost:{whole}/msgbus/foo?heartbeat=5"
        async with websockets.connect(address, ssl=insecure) as client:
            await asyncio.sleep(13)
            published = time.monotonic()
            id = publish(bus.url + "foo", b"hello", "text/plain").id
            assert json.loads(await client.recv())["id"] == id
            for reader in readers.values():
                while b"hello" not in (line := reader.stdout.readline()):
                    assert line
            assert time.monotonic() - published < 2

    asyncio.run(asyncio.wait_for(listen(), 60))
    for reader in readers.values():
        reader.terminate()
        reader.communicate(timeout=30)
    said = subprocess.run(
        [
            "curl",
            "-sk",
            f"https://localhost:{plain}/msgbus/foo?format=message",
        ],
        capture_output=True,
        check=True,
    ).stdout
    assert said == b"hello"
