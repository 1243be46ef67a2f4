"""
The chat demo.
"""

import os
import struct
import zlib
from base64 import b64encode
from itertools import islice, takewhile
from pathlib import Path

import pytest

from msgbus.client.blocking import publish, subscribe

CHAT = Path(__file__).parents[2] / "chatdemo"
PICTURE = Path(__file__).parents[1] / "data" / "picture.jpg"

SHOWN = "return [...document.querySelectorAll('#log pre')].map((pre) => pre.textContent)"
SENDERS = "return [...document.querySelectorAll('#log .sender')].map((e) => e.textContent)"


def noise(side):
    """
    A PNG of so many pixels a side, that no packing makes smaller.
    """

    def chunk(kind, data):
        length, check = struct.pack(">I", len(data)), zlib.crc32(kind + data)
        return length + kind + data + struct.pack(">I", check)

    rows = b"".join(b"\0" + os.urandom(3 * side) for _ in range(side))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def root(bus):
    """
    The address of the chat.
    """
    return f"http://localhost:{bus.port}/"


def join(window, bus, name, address=None):
    """
    Open the chat under a name.
    """
    window.open(address or root(bus))
    window.wait("return document.querySelector('#state')?.textContent === 'Live'")
    window.run("document.getElementById('name').value = ''")
    window.type("#name", name)
    return window


def shows(window, text):
    """
    Wait until it shows this.
    """
    window.wait(f"{SHOWN}.includes(args[0])", text)


@pytest.fixture
def bus(start):
    """
    A bus with the chat beside it.
    """
    return start("--docroot", str(CHAT))


@pytest.fixture
def alice(window, bus):
    """
    A window in the chat.
    """
    return join(window(), bus, "alice")


@pytest.fixture
def bob(window, bus):
    """
    Another.
    """
    return join(window(), bus, "bob")


def test_text_and_pictures(bus, alice, bob):
    """
    Two windows chat both ways; a picture is a message of its own type, byte by byte.
    """
    alice.type("#box", "Hello, bob. Grüße!\n")
    shows(bob, "Hello, bob. Grüße!")
    bob.type("#box", "Hello, alice.\n")
    shows(alice, "Hello, alice.")
    bob.choose("#file", PICTURE)
    for window in (alice, bob):
        window.wait("return document.querySelector('#log img')?.naturalWidth > 1")
        window.wait("return document.querySelector('#outbox').childElementCount === 0")
    assert alice.run("return document.querySelectorAll('.mine').length") == 1
    assert bob.run("return document.querySelectorAll('.mine').length") == 2
    heads = (
        "return [...document.querySelectorAll('#log .sender')].map((e) => e.textContent)"
    )
    assert alice.run(heads) == ["alice", "bob", "bob"]
    assert alice.run("return document.querySelectorAll('#log time').length") == 3
    text, _, picture = islice(subscribe(bus.url + "lobby", since="all"), 3)
    assert text.content_type == "text/plain; charset=utf-8"
    assert (picture.content_type, picture.sender) == ("image/jpeg", "bob")
    assert picture.body == PICTURE.read_bytes()


def test_joining(bus, alice, window):
    """
    Who joins gets the last messages; another room has others.
    """
    alice.type("#box", "early\n")
    shows(alice, "early")
    late = join(window(), bus, "carol")
    shows(late, "early")
    other = join(window(), bus, "carol", f"{root(bus)}?room=a%2Fb%20c")
    other.type("#box", "elsewhere\n")
    shows(other, "elsewhere")
    assert next(subscribe(bus.url + "a/b c", since="all")).body == b"elsewhere"
    assert late.run(SHOWN) == ["early"]


def test_pasted_and_dropped(bus, alice, bob):
    """
    A picture can be pasted, and dropped anywhere on the page.
    """
    for event, property in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        alice.run(
            """
            const bytes = Uint8Array.from(atob(args[2]), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "x.jpg", { type: "image/jpeg" }));
            const event = new Event(args[0], { bubbles: true, cancelable: true });
            Object.defineProperty(event, args[1], { value: data });
            document.body.dispatchEvent(event);
            if (!event.defaultPrevented) throw new Error("It was not taken.");
            """,
            event,
            property,
            b64encode(PICTURE.read_bytes()).decode(),
        )
    bob.wait("return document.querySelectorAll('#log img').length === 2")


def test_too_large(bus, alice, bob, tmp_path):
    """
    A picture that is too large is sent smaller; what cannot be sent says so, and can be
    sent again.
    """
    (tmp_path / "photo.png").write_bytes(noise(800))
    (tmp_path / "large.bin").write_bytes(os.urandom(2_000_000))
    alice.choose("#file", tmp_path / "large.bin")
    alice.choose("#file", tmp_path / "photo.png")
    bob.wait("return document.querySelector('#log img')?.naturalWidth === 800")
    assert next(subscribe(bus.url + "lobby", since="all")).content_type == "image/jpeg"
    refused = alice.wait(
        "return document.querySelector('#outbox [data-state]')?.textContent"
    )
    assert "1048576 bytes" in refused
    alice.click("#outbox button:nth-of-type(1)")
    alice.wait(
        "return document.querySelector('#outbox output')?.textContent === args[0]", refused
    )
    alice.click("#outbox button:nth-of-type(2)")
    alice.wait("return document.querySelector('#outbox').childElementCount === 0")


def test_refused_text(start, window):
    """
    A text that is refused outlives a reload, can be sent again, and holds nothing up.
    """
    bus = start("--docroot", str(CHAT), "--max-message", "20")
    alice = join(window(), bus, "alice")
    alice.type("#box", "This is much too long.\n")
    alice.wait("return document.querySelector('#outbox [data-state=lost]')")
    alice.type("#box", "Shorter.\n")
    shows(alice, "Shorter.")
    alice.open(root(bus))
    alice.wait("return document.querySelector('#outbox [data-state=lost]')")
    assert alice.run("return document.querySelector('#outbox pre').textContent") == (
        "This is much too long."
    )
    alice.click("#outbox button:nth-of-type(2)")
    alice.open(root(bus))
    shows(alice, "Shorter.")
    assert alice.run("return document.querySelector('#outbox').childElementCount") == 0


def test_files_hold_nothing_up(start, window, tmp_path):
    """
    A file is read when it is chosen, so it may go meanwhile; a photograph of a size that no
    bus takes is made smaller first.
    """
    bus = start("--docroot", str(CHAT))
    alice = join(window(), bus, "alice")
    gone = tmp_path / "gone.bin"
    gone.write_bytes(b"x" * 1234)
    photo = tmp_path / "photo.png"
    photo.write_bytes(noise(2200))
    bus.kill()
    alice.choose("#file", gone)
    alice.choose("#file", photo)
    alice.wait("return document.querySelector('#outbox').childElementCount === 2")
    gone.unlink()
    photo.unlink()
    alice.type("#box", "behind them\n")
    start("--docroot", str(CHAT), "--listen", f"tcp:{bus.port}:interface=127.0.0.1")
    shows(alice, "behind them")
    assert alice.run("return document.querySelector('#log .save').textContent") == (
        "Save 1.2 kB of application/octet-stream"
    )
    alice.wait("return document.querySelector('#log img')?.naturalWidth > 1000")


def test_not_a_room(bus, window):
    """
    What is no name of a room is refused with a sentence.
    """
    page = window()
    for room, sentence in (("..", "begins with a dot"), ("/x", "empty segment")):
        page.open(f"{root(bus)}?room={room}")
        page.wait(
            "return document.querySelector('#state').textContent.includes(args[0])",
            sentence,
        )


def test_killed_in_mid_sentence(start, window, tmp_path):
    """
    A bus that is killed loses nothing of what is typed, half or whole, and nothing comes
    twice.
    """
    options = ("--docroot", str(CHAT), "--history-file", str(tmp_path / "history.db"))
    bus = start(*options)
    alice, bob = (join(window(), bus, name) for name in ("alice", "bob"))
    alice.type("#box", "before\n")
    shows(bob, "before")
    alice.type("#box", "in mid-")
    bus.kill()
    for one in (alice, bob):
        one.wait("return document.querySelector('#state').dataset.state === 'lost'")
        assert "Trying again in" in one.run("return state.textContent")
    alice.type("#box", "sentence\n")
    bob.type("#box", "me too\n")
    alice.type("#box", "a draft")
    alice.wait(
        "return document.querySelector('#outbox pre')?.textContent", "in mid-sentence"
    )
    bus = start(*options, "--listen", f"tcp:{bus.port}:interface=127.0.0.1")
    for one in (alice, bob):
        shows(one, "in mid-sentence")
        shows(one, "me too")
        one.wait("return document.querySelector('#state').textContent === 'Live'")
        one.wait("return document.querySelector('#outbox').childElementCount === 0")
        assert sorted(one.run(SHOWN)) == ["before", "in mid-sentence", "me too"]
    assert alice.run("return document.querySelector('#box').value") == "a draft"


def test_reloaded(start, window, tmp_path):
    """
    What was typed outlives a reload, sent or not, and is sent once, under the name and the
    key that it had.
    """
    options = ("--docroot", str(CHAT), "--history-file", str(tmp_path / "history.db"))
    bus = start(*options)
    alice = join(window(), bus, "alice")
    # The first is sent, but its answer is lost.
    alice.run(
        """
        const real = window.fetch;
        window.fetch = async (request) => {
          const response = await real(request);
          if (request.method !== "POST") return response;
          window.lost = true;
          return Response.error();
        };
        """
    )
    alice.type("#box", "not answered\n")
    alice.wait("return window.lost")
    alice.type("#box", "not sent yet\n")
    alice.type("#box", "not finished yet")
    bus.kill()
    alice.wait("return document.querySelector('#state').dataset.state === 'lost'")
    alice.run("document.querySelector('#name').value = 'bob'")
    # Another page in between, as nothing answers here.
    alice.open("about:blank")
    bus = start(*options, "--listen", f"tcp:{bus.port}:interface=127.0.0.1")
    alice.open(root(bus))
    shows(alice, "not sent yet")
    alice.wait("return document.querySelector('#outbox').childElementCount === 0")
    assert alice.run("return document.querySelector('#box').value") == "not finished yet"
    publish(bus.url + "lobby", b"", "a/last")
    said = takewhile(
        lambda message: message.content_type != "a/last",
        subscribe(bus.url + "lobby", since="all"),
    )
    assert [(message.sender, message.body) for message in said] == [
        ("alice", b"not answered"),
        ("alice", b"not sent yet"),
    ]


def test_without_a_name(bus, window):
    """
    Who has no name is asked for it, and keeps what was typed.
    """
    alice = join(window(), bus, "")
    alice.type("#box", "hello\n")
    assert alice.run("return document.activeElement.id") == "name"
    assert alice.run("return document.querySelector('#box').value") == "hello"
    alice.type("#name", "al:ice")
    alice.type("#box", "\n")
    shows(alice, "hello")
    assert next(subscribe(bus.url + "lobby", since="all")).sender == "alice"


def test_password(start, window, tmp_path):
    """
    Behind a password one chats under the name that one signed in with.
    """
    (tmp_path / "secret").write_text("s3cret")
    bus = start("--docroot", str(CHAT), "--secret-file", str(tmp_path / "secret"))
    alice = window()
    alice.open(f"http://alice:s3cret@localhost:{bus.port}/")
    alice.wait("return document.querySelector('#state')?.textContent === 'Live'")
    alice.run("document.getElementById('name').value = 'mallory'")
    alice.type("#box", "hello\n")
    shows(alice, "hello")
    assert alice.run("return document.querySelector('#log .sender').textContent") == "alice"


def test_terminals(bus, alice):
    """
    What comes from elsewhere is shown as what it is.
    """
    publish(bus.url + "lobby", b"<b>page</b>", "text/html", user="carol")
    publish(bus.url + "lobby", b"\0" * 2500, "application/x-thing", user="carol")
    alice.wait("return document.querySelectorAll('#log iframe').length")
    saved = alice.wait("return document.querySelector('#log .save')?.textContent")
    assert saved == "Save 2.5 kB of application/x-thing"
