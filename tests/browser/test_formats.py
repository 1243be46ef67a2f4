"""
A browser's own `EventSource` and `WebSocket`; and each form through nginx.
"""

import subprocess

from msgbus.blocking import publish

from ..integration.test_docs import CHECKOUT, blocks
from .test_origins import proxy  # noqa: F401  # a fixture

DEFAULT = "location / { proxy_pass http://127.0.0.1:8888; proxy_read_timeout 6s; }"


def page_of(number, start, window, tmp_path):
    """
    A bus, and a page of docs/formats.md that is open in a browser.
    """
    site = tmp_path / "site"
    site.mkdir()
    page = blocks(CHECKOUT / "docs/formats.md", "html")[number]
    (site / "index.html").write_text(page)
    bus = start("--docroot", str(site), "-v")
    reader = window()
    return bus, site, reader, page


def test_events(start, window, tmp_path):
    """
    The page of docs/formats.md shows events; when the connection is cut before the first
    one, nothing is missed.
    """
    bus, site, reader, page = page_of(0, start, window, tmp_path)
    # Only what comes from now on, for one who sees nothing before.
    (site / "index.html").write_text(page.replace("&since=1h", ""))
    reader.open(f"http://localhost:{bus.port}/")
    peer = bus.wait_for(r"127\.0\.0\.1:(\d+) subscribes to 'sensors/'")[1]
    # As a network that fails would.
    subprocess.run(
        ["ss", "-K", "sport", "=", f":{bus.port}", "dport", "=", f":{peer}"], check=True
    )
    bus.wait_for("leaves 'sensors/'")
    publish(bus.url + "sensors/attic", "ä".encode(), "text/plain")
    reader.wait("return document.querySelector('li')?.textContent === 'sensors/attic: ä'")
    publish(bus.url + "sensors/cellar", b"2", "a/b")
    reader.wait("return document.querySelectorAll('li').length === 2")


def test_websocket(start, window, tmp_path):
    """
    The other page publishes and reads by a WebSocket.
    """
    bus, _, reader, _ = page_of(1, start, window, tmp_path)
    reader.open(f"http://localhost:{bus.port}/")
    reader.wait("return document.querySelector('p').textContent === 'hello'")


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
