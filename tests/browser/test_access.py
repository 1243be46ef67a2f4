"""
The live page and the chat at a bus with users and rules.
"""

import signal

import pytest

from msgbus.client.blocking import publish, subscribe

from .test_chat import CHAT

TEXTS = "[...document.querySelectorAll('#log pre')].map((pre) => pre.textContent)"
STATE = "document.querySelector('#state')"
OUTCOME = "document.querySelector('#outcome')"
HIDDEN = "document.querySelector('#sign-in').hidden"

# The password of everybody is "secret".
HASH = "$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW"
RULES = """\
alice        publish,subscribe  *
bob          publish            chat/*
@users       subscribe          news  chat/*  public/*
@anonymous   subscribe          public/*
@anonymous   publish            public/guests
"""


class Bus:
    """
    A bus with users and rules.
    """

    def __init__(self, start, folder):
        self._files = folder / "users", folder / "access"
        self.write("alice bob", RULES)
        users, access = map(str, self._files)
        self._daemon = start("--users", users, "--access", access, "--docroot", str(CHAT))
        self._reloads = 0

    def write(self, users, rules):
        """
        Change the files.
        """
        self._files[0].write_text("".join(f"{name}:{HASH}\n" for name in users.split()))
        self._files[1].write_text(rules)

    def reload(self, users, rules):
        """
        Change the files, and have them read again.
        """
        self.write(users, rules)
        self._reloads += 1
        self._daemon.process.send_signal(signal.SIGHUP)
        self._daemon.wait_for("Read . users", self._reloads)

    def url(self, user=""):
        """
        The address of the bus, with the name and password of a user.
        """
        who = f"{user}:secret@" if user else ""
        return f"http://{who}localhost:{self._daemon.port}/msgbus/"


@pytest.fixture
def bus(start, tmp_path):
    """
    A bus with users and rules.
    """
    return Bus(start, tmp_path)


def live(page, address):
    """
    Open a page at this address, and wait until it is live.
    """
    page.open(address)
    page.wait(f"return {STATE}?.textContent === 'Live'")
    return page


def test_user(bus, window):
    """
    A user who has signed in publishes under that name, and sees it in the field, which
    cannot be changed; what the rules do not allow is told beside what was typed.
    """
    page = live(window(), bus.url("bob") + "news")
    assert page.run(f"return {HIDDEN}")
    sender = "document.querySelector('#sender')"
    assert page.run(f"return [{sender}.value, {sender}.disabled]") == ["bob", True]
    page.type("#body", "kept")
    page.click(".main")
    page.wait(f"return {OUTCOME}.dataset.state === 'closed'")
    assert page.run(f"return {OUTCOME}.textContent") == (
        "No line of the access file lets the user 'bob' publish to 'news'."
    )
    assert page.run("return document.querySelector('#body').value") == "kept"

    live(page, bus.url() + "chat/x")
    page.type("#body", "hello")
    page.click(".main")
    page.wait(f"return {TEXTS}.includes('hello')")
    [message] = subscribe_all(bus, "chat/x", 1)
    assert message.sender == "bob"


def subscribe_all(bus, name, count):
    """
    The first messages of a channel.
    """
    messages = subscribe(bus.url("alice") + name, since="all")
    return [next(messages) for _ in range(count)]


def test_refused_page(bus, window):
    """
    The address of a channel that a user may not read shows a sentence that says so.
    """
    page = live(window(), bus.url("bob") + "news")
    page.open(bus.url() + "private")
    assert page.run("return document.body.textContent.trim()") == (
        "No line of the access file lets the user 'bob' subscribe to 'private'."
    )


def test_signing_in(bus, window):
    """
    Somebody who has not signed in sees what everybody may see, and can sign in.
    """
    page = live(window(), bus.url() + "public/guests")
    assert page.run(f"return {HIDDEN}") is False
    # As a guest, without a name.
    page.type("#body", "guest")
    page.click(".main")
    page.wait(f"return {TEXTS}.includes('guest')")
    # From here on, the browser knows a name and a password: it need not ask.
    live(window(), bus.url("alice") + "news")
    page.click("#sign-in")
    page.wait(f"return {STATE}?.textContent === 'Live' && {HIDDEN}")
    page.type("#body", "alice")
    page.click(".main")
    page.wait(f"return {TEXTS}.includes('alice')")
    senders = [message.sender for message in subscribe_all(bus, "public/guests", 2)]
    assert senders == ["", "alice"]


def test_withdrawn(bus, window):
    """
    A page whose user loses the right to read says so, and does not try again.
    """
    page = live(window(), bus.url("bob") + "news")
    publish(bus.url("alice") + "news", b"before", "text/plain")
    page.wait(f"return {TEXTS}.includes('before')")
    bus.reload("alice bob", "bob nothing *\n" + RULES)
    page.wait(f"return {STATE}.dataset.state === 'closed'")
    assert page.run(f"return {STATE}.textContent") == (
        "Line 1 of the access file does not let the user 'bob' subscribe to 'news'. Reload"
    )
    # What was shown stays.
    assert page.run(f"return {TEXTS}") == ["before"]


def test_narrowed(bus, window):
    """
    A folder goes on with the channels that its user may still read.
    """
    page = live(window(), bus.url("bob") + "news")
    live(page, bus.url())
    bus.reload("alice bob", "bob nothing news\n" + RULES)
    publish(bus.url("alice") + "news", b"hidden", "text/plain")
    publish(bus.url("alice") + "chat/x", b"shown", "text/plain")
    page.wait(f"return {TEXTS}.length")
    assert page.run(f"return {TEXTS}") == ["shown"]


def chat(page, bus, user, room):
    """
    Open a room of the chat.
    """
    # The chat itself may be loaded by everybody, so nobody is asked for a name there.
    live(page, bus.url(user) + "chat/x")
    return live(page, bus.url().replace("msgbus/", f"?room={room}"))


def test_chat(bus, window):
    """
    In the chat, a user publishes under the name that was proved; what the rules do not
    allow is told, and can be sent again.
    """
    bob = chat(window(), bus, "bob", "chat/lobby")
    bob.type("#name", "mallory")
    bob.type("#box", "hello\n")
    bob.wait(f"return {TEXTS}.includes('hello')")
    assert bob.run("return document.querySelector('#name').disabled")
    [message] = subscribe_all(bus, "chat/lobby", 1)
    assert message.sender == "bob"

    bob = chat(window(), bus, "bob", "news")
    bob.type("#name", "mallory")
    bob.type("#box", "hello\n")
    refused = "document.querySelector('#outbox output')"
    bob.wait(f"return {refused}?.dataset.state === 'lost'")
    assert bob.run(f"return {refused}.textContent") == (
        "No line of the access file lets the user 'bob' publish to 'news'."
    )


def test_chat_refused(bus, window):
    """
    A room that a user may not read says so, and does not try again.
    """
    bob = chat(window(), bus, "bob", "chat/lobby")
    bob.open(bus.url().replace("msgbus/", "?room=private"))
    bob.wait(f"return {STATE}?.dataset.state === 'closed'")
    assert bob.run(f"return {STATE}.textContent") == (
        "No line of the access file lets the user 'bob' subscribe to 'private'. Reload"
    )
