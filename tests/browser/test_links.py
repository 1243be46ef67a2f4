"""
The live page and the chat, opened by a link.
"""

import subprocess

import pytest

from msgbus.client.blocking import publish, subscribe

from ..integration.daemon import BIN
from .test_chat import shows
from .test_live import OUTCOME, TEXTS, live


@pytest.fixture
def lobby(start, tmp_path):
    """
    A bus with the chat that takes links, and the URL of its channel `lobby` with one.
    """
    sign = [BIN / "msgbus-sign", "--key", tmp_path / "links.key"]
    subprocess.run([*sign, "--new-key"], check=True)
    bus = start("--link-keys", "links.key", "--docroot", "chatdemo")
    verbs = ["publish,subscribe", "lobby", "--for", "1h", "--as", "alice"]
    return subprocess.check_output([*sign, *verbs, "--url", bus.url], text=True).strip()


def test_live(lobby, window):
    """
    The page shows and publishes by the link of its address, under the name of the link, and
    passes it on to the pages of other channels.
    """
    publish(lobby, b"hello", "text/plain")
    page = live(window(), lobby)
    page.wait(f"return {TEXTS}.join() === 'hello'")
    page.type("#body", "again")
    page.run("document.querySelector('#publish').requestSubmit()")
    page.wait(f"return {OUTCOME}.textContent.startsWith('Published')")
    page.wait(f"return {TEXTS}.join() === 'hello,again'")
    messages = subscribe(lobby, since="all")
    assert [next(messages).sender for _ in range(2)] == ["alice", "alice"]
    query = lobby.partition("?")[2]
    assert query in page.run("return document.querySelector('#name a').href")


def test_chat(lobby, window):
    """
    The chat takes a link in its address.
    """
    root, _, rest = lobby.partition("msgbus/")
    alice = live(window(), f"{root}?{rest.partition('?')[2]}")
    alice.run("document.getElementById('name').value = 'mallory'")
    alice.type("#box", "hello\n")
    shows(alice, "hello")
    assert alice.run("return document.querySelector('#log .sender').textContent") == "alice"
