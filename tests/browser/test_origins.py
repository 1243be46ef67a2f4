"""
Pages of other sites, and a bus behind a proxy.
"""

import subprocess
from itertools import takewhile

import pytest

from msgbus.client.blocking import publish, subscribe

from ..integration.pages import CHECKOUT, blocks
from .browsers import Chromium, Firefox, WebKit
from .test_chat import CHAT, SENDERS, SHOWN, join, shows

# All the ways to the bus that a page has, each with what came of it.
TRIES = """
    const tries = {
      read: async () => {
        const headers = { Accept: "multipart/mixed" };
        const response = await fetch(args[0], { headers });
        const { value } = await response.body.getReader().read();
        return new TextDecoder().decode(value).startsWith("--msgbus");
      },
      write: async () => {
        const headers = { "Content-Type": "text/plain" };
        return (await fetch(args[0], { method: "POST", headers, body: "written" })).ok;
      },
      blindly: async () => {
        await fetch(args[0], { method: "POST", mode: "no-cors", body: "blindly" });
        return false;
      },
      form: async () => {
        const form = document.createElement("form");
        Object.assign(form, { method: "POST", action: args[0], target: "sink" });
        form.enctype = "text/plain";
        const sink = Object.assign(document.createElement("iframe"), { name: "sink" });
        document.body.append(sink, form);
        form.submit();
        await new Promise((resolve) => setTimeout(resolve, 1000));
        return false;
      },
      beacon: async () => navigator.sendBeacon(args[0], "beacon") && false,
      picture: async () => {
        const picture = new Image();
        // As a page does that knows that it is allowed.
        if (args[1]) picture.crossOrigin = "anonymous";
        picture.src = args[0] + "?since=all&type=image/*";
        for (let tick = 0; tick < 50 && !picture.naturalWidth; tick++) {
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        return picture.naturalWidth > 1;
      },
      module: async () => {
        const { bus } = window;
        await bus.publish(args[0], "by the module");
        const over = new AbortController();
        let body;
        const onmessage = (message) => {
          body = new TextDecoder().decode(message.body);
          over.abort();
        };
        const { signal } = over;
        await bus.subscribe(args[0], { type: "text/*", last: 1, signal, onmessage });
        return body === "by the module";
      },
    };
    const outcome = {};
    for (const [name, attempt] of Object.entries(tries)) {
      try {
        outcome[name] = await attempt();
      } catch (error) {
        outcome[name] = String(error);
      }
    }
    return outcome;
"""


def foreign(window, canary, bus):
    """
    Open a page of another origin, that would like to use the module of this bus.
    """
    # Some browsers show a picture of a stream once the next one has come.
    for _ in range(2):
        publish(bus.url + "foo", PICTURE.read_bytes(), "image/jpeg")
    module = f'import * as bus from "{bus.url}.js/msgbus.js"; window.bus = bus'
    canary.pages["/"] = ("text/html", f"<script type=module>{module}</script>")
    window.open(canary.origin)
    return window


PICTURE = CHECKOUT / "tests/data/picture.jpg"


def test_other_origins(start, window, canary):
    """
    A page of another origin can neither publish nor read.
    """
    bus = start()
    page = foreign(window(), canary, bus)
    outcome = page.run(TRIES, bus.url + "foo", False)
    assert True not in outcome.values(), outcome
    assert [m.content_type for m in _all(bus, "foo")] == ["image/jpeg"] * 2


def test_allowed(start, browser, window, canary):
    """
    It can do both, if its origin is allowed; but WebKit looks for that in each part of a
    stream of pictures, and finds nothing.
    """
    bus = start("--allow-origin", canary.origin)
    page = foreign(window(), canary, bus)
    outcome = page.run(TRIES, bus.url + "foo", True)
    assert [name for name, came in outcome.items() if came is not True] == [
        "blindly",
        "form",
        "beacon",
        *(["picture"] if isinstance(browser, WebKit) else []),
    ], outcome
    assert {"written", "by the module"} <= {
        m.body.decode() for m in _all(bus, "foo") if m.content_type.startswith("text/plain")
    }


def _all(bus, channel):
    publish(bus.url + channel, b"", "a/last")
    messages = subscribe(bus.url + channel, since="all")
    return list(takewhile(lambda message: message.content_type != "a/last", messages))


@pytest.fixture(params=[Chromium, Firefox, WebKit], ids=lambda browser: browser.__name__)
def elsewhere(request, tmp_path):
    """
    Each browser, for which chat.example is on this machine.
    """
    kind = request.param
    browser = kind(tmp_path, names=["chat.example"])
    yield browser
    browser.close()


@pytest.mark.parametrize(
    "lines", [(), ("proxy_set_header Host $host;",)], ids=["default", "host"]
)
def test_proxy(start, elsewhere, proxy, lines):
    """
    Behind nginx with TLS, the chat and the page of a channel work, whichever `Host` it
    passes on, once the options are as docs/proxies.md says.
    """
    (command,) = [
        line
        for block in blocks(CHECKOUT / "docs/proxies.md", "sh")
        for line in block.splitlines()
        if "--docroot chatdemo --host chat.example" in line
    ]
    options = command.partition(" msgbus ")[2].replace("chatdemo", str(CHAT)).split()
    bus = start(*options)
    address = f"https://chat.example:{proxy(bus, *lines)}/"
    alice, bob = (join(elsewhere.window(), bus, n, address) for n in ("alice", "bob"))
    alice.type("#box", "over TLS\n")
    shows(bob, "over TLS")
    bob.choose("#file", PICTURE)
    alice.wait("return document.querySelector('#log img')?.naturalWidth > 1")
    assert alice.run(SENDERS) == ["alice", "bob"]
    bob.open(f"{address}msgbus/lobby")
    shows(bob, "over TLS")
    bob.type("#body", "from the page")
    bob.click(".main")
    shows(alice, "from the page")
    assert len(alice.run(SHOWN)) == 2


def test_refusals_say_what_to_set(start, proxy, tmp_path):
    """
    Without the options, what is refused says which one is missing.
    """
    bus = start("--docroot", str(CHAT))
    port = proxy(bus, "proxy_set_header Host $host;")
    default = proxy(bus)

    def ask(port, *arguments):
        return subprocess.run(
            [
                "curl",
                "-sk",
                "--resolve",
                f"chat.example:{port}:127.0.0.1",
                *arguments,
                f"https://chat.example:{port}/msgbus/lobby",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    said = ask(port, "-H", "Accept: text/html")
    assert "not known as 'chat.example'" in said
    assert "--host" in said
    origin = ("-H", f"Origin: https://chat.example:{default}", "-H", "Content-Type: a/b")
    said = ask(default, *origin, "-d", "x")
    assert f"'https://chat.example:{default}'" in said
    assert "--allow-origin" in said
    assert "--host" in said


def test_readme(start, window, tmp_path):
    """
    The page of the README works.
    """
    (page,) = blocks(CHECKOUT / "README.md", "html")
    assert len(page.strip().splitlines()) <= 15
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(page)
    bus = start("--docroot", str(site))
    reader = window()
    reader.open(f"http://localhost:{bus.port}/")
    item = reader.wait("return document.querySelector('li')?.textContent")
    assert item == "nobody: hello"


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "The attic has 21.5 °C."), (1, "sensors/attic21.5 Celsius")]
)
def test_page_of_the_docs(start, window, tmp_path, number, shown):
    """
    So do those of docs/browsers.md.
    """
    page = blocks(CHECKOUT / "docs/browsers.md", "html")[number]
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(page)
    bus = start("--docroot", str(site))
    publish(bus.url + "sensors/attic", b"21.5", "text/plain")
    reader = window()
    reader.open(f"http://localhost:{bus.port}/")
    reader.wait(f"return document.body.textContent.includes({shown!r})")
