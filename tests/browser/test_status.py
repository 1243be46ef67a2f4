"""
The operator's page in real browsers.
"""

import os
import socket
from pathlib import Path

import pytest

from msgbus.client.blocking import publish

from ..integration.test_admin import Admin

AXE = Path(os.environ["AXE"])

HOSTILE = "x/<img src=x onerror=document.title='bad'>\u202e"

VIOLATIONS = """
    const { violations } = await window.axe.run(document);
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => [id, html]));
"""


@pytest.fixture
def admin(start):
    """
    A bus with messages, and with a subscriber that does not read.
    """
    admin = Admin(start, "--max-backlog", "100000")
    with socket.create_connection(("127.0.0.1", admin.bus.port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"GET /msgbus/slow HTTP/1.0\r\nHost: localhost\r\n\r\n")
        admin.bus.wait_for("Serving")
        slow.recv(100)
        for _ in range(60):
            publish(f"{admin.bus.url}slow", bytes(100_000), "image/png")
        publish(f"{admin.bus.url}{HOSTILE}", b"x", "text/plain")
        yield admin


def text(page, selector):
    """
    The text of the first such element.
    """
    return page.run("return document.querySelector(args[0])?.textContent ?? ''", selector)


def test_status(admin, window):
    """
    It shows numbers as they change, limits, channels and who is slow, and ends a stream.
    """
    page = window()
    page.open(f"http://localhost:{admin.port}/")
    page.wait("return document.querySelector('#state').dataset.state === 'open'")
    page.wait("return document.querySelectorAll('#limits meter').length === 4")
    page.wait("return document.querySelectorAll('.tile path.line[d]').length === 8")
    page.wait("return document.querySelectorAll('#channels tbody tr').length === 2")
    page.wait("return document.querySelectorAll('#slow tbody tr').length === 1")
    assert "slow" in text(page, "#slow tbody th")
    assert HOSTILE in text(page, "#channels")
    assert page.run("return document.title") == "msgbus: status"
    # What happens from now on comes by itself.
    publish(f"{admin.bus.url}new", b"x", "text/plain")
    page.wait("return document.querySelectorAll('#channels tbody tr').length === 3")
    page.run("window.confirm = () => true")
    page.click("#slow button")
    page.wait(
        "return document.querySelector('#slow').textContent === 'Everybody keeps up.'"
    )
    assert "was ended" in text(page, "#outcome")


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_for_everybody(admin, window, width):
    """
    Nothing keeps people out, and nothing is wider than the window.
    """
    page = window()
    page.resize(width, 800)
    page.open(f"http://localhost:{admin.port}/")
    page.wait("return document.querySelectorAll('#slow tbody tr').length === 1")
    page.wait("return document.querySelectorAll('#limits meter').length === 4")
    page.run(AXE.read_text())
    assert page.run(VIOLATIONS) == []
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
