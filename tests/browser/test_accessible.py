"""
The pages, as a program sees them that looks for what keeps people out (axe-core).
"""

import os
from pathlib import Path

import pytest

from msgbus.client.blocking import publish

from .test_chat import CHAT, PICTURE, join, root
from .test_live import live

# The file axe.min.js of the package axe-core.
AXE = Path(os.environ["AXE"])

VIOLATIONS = """
    const { violations } = await window.axe.run(document, { iframes: false });
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => [id, html]));
"""


@pytest.fixture
def bus(start):
    """
    A bus with messages of all kinds.
    """
    bus = start("--docroot", str(CHAT))
    for body, content_type, user in (
        (b"<p>x", "text/html", "alice"),
        (PICTURE.read_bytes(), "image/jpeg", ""),
        (b"a long text " * 1000, "text/plain", "bob"),
        (b"x", "application/x-thing", "bob"),
    ):
        publish(bus.url + "a/lobby", body, content_type, user=user)
    return bus


def test_pages(bus, window):
    """
    Nothing is found in the page of a channel, of a folder, or in the chat.
    """
    page = window()
    for address in (bus.url + "a/lobby", bus.url, f"{root(bus)}?room=a/lobby"):
        live(page, address)
        page.wait("return document.querySelectorAll('#log > article').length === 4")
        page.run(AXE.read_text())
        assert page.run(VIOLATIONS) == [], address


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_widths(bus, window, width):
    """
    Nothing is wider than the window, as far as one can be made so narrow.
    """
    page = window()
    for address in (bus.url, f"{root(bus)}?room=a/lobby"):
        page.resize(width, 700)
        live(page, address)
        page.wait("return document.querySelectorAll('#log > article').length === 4")
        page.run("for (const one of document.querySelectorAll('details')) one.open = true")
        for where in ("document.documentElement", "document.querySelector('#log')"):
            wide = f"return {where}.scrollWidth - {where}.clientWidth"
            assert page.run(wide) == 0, (address, where)


def test_by_keyboard(bus, window):
    """
    The chat can be had without a mouse: the name leads to the box, and Enter sends.
    """
    page = join(window(), bus, "")
    page.type("#name", "alice\n")
    assert page.run("return document.activeElement.id") == "box"
    page.type("#box", "by keyboard\n")
    page.wait("return document.querySelector('#log .sender')?.textContent === 'alice'")
