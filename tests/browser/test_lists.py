"""
The page of a list of channels, and the front page.
"""

import json
from urllib.parse import quote

import pytest

from msgbus.client.blocking import publish, subscribe

from .test_access import HASH
from .test_accessible import AXE, VIOLATIONS

ROWS = "[...document.querySelectorAll('#channels tr')]"
NAMES = f"{ROWS}.map((row) => row.cells[0].textContent)"
STATE = "return document.querySelector('#state').textContent"

HOSTILE = (
    "<img src=x onerror=window.hacked=1>",
    "evil/\u202egnp.exe",
    "\u0645\u0631/\u0639\u0627",
    "sp ace/%2F?&#'\"",
    "long/" + "x" * 900,
)


@pytest.fixture
def bus(start):
    """
    A bus without documents.
    """
    return start()


def put(bus, *names, content_type="text/plain"):
    """
    Publish a message to each of these channels.
    """
    for name in names:
        publish(bus.url + quote(name), b"x", content_type)


def listed(window, address, *names):
    """
    Open a list, and wait until it shows these channels.
    """
    window.open(address)
    shows(window, *names)
    return window


def shows(window, *names):
    """
    Wait until a list shows exactly these channels.
    """
    window.wait(f"return {NAMES}.join('\\n') === args[0]", "\n".join(names))


def root(bus):
    """
    The address of the front page.
    """
    return bus.url.removesuffix("msgbus/")


def test_list(bus, window):
    """
    A channel is listed with its subscribers, its last message, and links to its own page
    and to the lists of the folders above it.
    """
    put(bus, "a/b/c", "b", content_type="Image/PNG; x=y")
    page = listed(window(), f"{bus.url}?list", "a/b/c", "b")
    assert page.run(STATE) == "2 channels"
    assert page.run(f"return {ROWS}[0].cells[1].textContent") == "0"
    assert page.run(f"return {ROWS}[0].querySelector('.type').textContent") == "image/png"
    links = page.run(f"return [...{ROWS}[0].querySelectorAll('a')].map((a) => a.href)")
    assert links == [f"{bus.url}a/?list", f"{bus.url}a/b/?list", f"{bus.url}a/b/c"]
    listed(page, links[1], "c")
    page.click("tbody a")
    page.wait("return document.querySelector('#state')?.textContent === 'Live'")
    assert page.run("return location.href") == links[2]
    page.click("#list")
    shows(page, "c")
    assert page.run("return location.href") == links[1]


def test_follows(bus, window):
    """
    The list follows what happens, and leaves the focus where it is.
    """
    page = listed(window(), f"{bus.url}?list")
    page.wait(STATE + " === '0 channels'")
    none = "return document.querySelector('#none').textContent"
    assert page.run(none) == "There are no channels yet."
    put(bus, "m")
    shows(page, "m")
    page.run("document.querySelector('tbody a').focus()")
    put(bus, "a", "z")
    shows(page, "a", "m", "z")
    assert page.run("return document.activeElement.textContent") == "m"
    stream = subscribe(bus.url + "m", since="all")
    next(stream)
    page.wait(f"return {ROWS}[1].cells[1].textContent === '1'")
    stream.close()
    page.wait(f"return {ROWS}[1].cells[1].textContent === '0'")


def test_search(bus, window):
    """
    What is typed is searched for at once, in any usual case.
    """
    put(bus, "Kitchen/light", "attic/light", "a,b")
    page = listed(window(), f"{bus.url}?list", "Kitchen/light", "a,b", "attic/light")
    page.type("#search", "kitch")
    shows(page, "Kitchen/light")
    page.run("document.querySelector('#search').value = ''")
    page.type("#search", "a,b")
    shows(page, "a,b")
    page.type("#search", "none")
    shows(page)
    none = "return document.querySelector('#none').textContent"
    assert page.run(none) == "No channel has such a name."


def test_pages(bus, window):
    """
    Many channels come in pages.
    """
    names = [f"{number:03}" for number in range(201)]
    put(bus, *names)
    page = listed(window(), f"{bus.url}?list", *names[:100])
    assert page.run(STATE) == "100 channels, page 1"
    for _ in range(2):
        page.click("#following")
        shows(page, *names[100:200])
        page.click("#following")
        shows(page, "200")
        assert page.run("return document.querySelector('#following').disabled")
        page.click("#previous")
        shows(page, *names[100:200])
        page.click("#previous")
        shows(page, *names[:100])
    page.click("#following")
    shows(page, *names[100:200])
    page.type("#search", "00")
    shows(page, *[f"00{digit}" for digit in range(10)], "100", "200")


def test_hostile(bus, window):
    """
    Whatever channels are called, their names are text, lead to them, and are no wider than
    the window.
    """
    put(bus, *HOSTILE)
    page = window()
    wide = "return document.documentElement.scrollWidth - innerWidth"
    for address in (root(bus), f"{bus.url}?list"):
        for width in (320, 1200):
            page.resize(width, 700)
            listed(page, address, *sorted(HOSTILE))
            assert page.run("return window.hacked ?? null") is None
            assert page.run(wide) <= 0
    links = page.run(
        f"return {ROWS}.map((row) => [...row.querySelectorAll('a')].at(-1).href)"
    )
    # Each name is as it is in the bus.
    asked = page.run(
        """
        const answers = args[0].map((link) => fetch(`${link}?format=message`));
        return (await Promise.all(answers)).map(({ status }) => status);
        """,
        links,
    )
    assert asked == [200] * len(HOSTILE)
    isolated = page.run(f"return {ROWS}.every((r) => r.cells[0].querySelector('a bdi'))")
    assert isolated


def test_front(bus, window):
    """
    The front page tells the bus's own address, and lets one publish a message and see it.
    """
    page = listed(window(), root(bus))
    commands = page.run("return document.querySelector('#here').textContent")
    assert commands.split("\n")[0] == f"curl -N '{bus.url}hello'"
    assert json.dumps(f"{bus.url}?list")[1:-1] in commands
    page.click("#publish button")
    page.wait("return document.querySelector('#log pre')?.textContent === 'Hello, world!'")
    outcome = "return document.querySelector('#outcome').textContent"
    page.wait(outcome + ".startsWith('Published, for ')")
    shows(page, "hello")
    # Another channel, with a name.
    page.run("document.querySelector('#channel').value = ''")
    page.type("#channel", "a/b\n")
    page.wait("return document.querySelector('#log pre')?.textContent === 'Hello, world!'")
    shows(page, "a/b", "hello")
    page.run("document.querySelector('#channel').value = 'a//b'")
    page.click("#publish button")
    page.wait(outcome + ".includes('empty segment')")


def test_accessible(bus, window):
    """
    Nothing is found in either page that keeps people out.
    """
    put(bus, "a/b", "c")
    page = window()
    for address in (f"{bus.url}?list", f"{bus.url}none/?list", root(bus)):
        page.open(address)
        page.wait("return document.querySelector('#state')?.dataset.state === 'open'")
        page.run(AXE.read_text())
        assert page.run(VIOLATIONS) == [], address


def test_rights(start, window, tmp_path):
    """
    Somebody who has not signed in sees the channels that everybody may read, and a button
    to sign in; a user sees more, and publishes under their name.
    """
    users, access = tmp_path / "users", tmp_path / "access"
    users.write_text(f"alice:{HASH}\n")
    access.write_text("alice publish,subscribe *\n* subscribe public/*\n")
    bus = start("--users", str(users), "--access", str(access))
    for name in ("public/1", "private"):
        publish(bus.url + name, b"x", "text/plain", user="alice", password="secret")
    page = window()
    hidden = "return document.querySelector('#sign-in').hidden"
    for address in (root(bus), f"{bus.url}?list"):
        listed(page, address, "public/1")
        assert not page.run(hidden)
    # From here on, the browser knows a name and a password: it need not ask.
    page.open(bus.url.replace("//", "//alice:secret@") + "private")
    listed(page, f"{bus.url}?list", "private", "public/1")
    assert page.run(hidden)
    page.open(root(bus))
    page.wait("return document.querySelector('#state')?.dataset.state === 'open'")
    page.click("#sign-in")
    page.wait(hidden)
    shows(page, "private", "public/1")
    page.click("#publish button")
    page.wait("return document.querySelector('#log .sender')?.textContent === 'alice'")


def test_closed(start, window, tmp_path):
    """
    Somebody who may read nothing is told so in a page.
    """
    users, access = tmp_path / "users", tmp_path / "access"
    users.write_text(f"alice:{HASH}\n")
    access.write_text("alice publish *\n")
    bus = start("--users", str(users), "--access", str(access))
    page = window()
    page.open(root(bus).replace("//", "//alice:secret@"))
    told = page.wait("return document.querySelector('main')?.textContent")
    assert "The access file lets you subscribe to nothing." in told
