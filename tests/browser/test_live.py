"""
The page at the address of a channel.
"""

import gzip
import http.client
import io
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from itertools import islice
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from msgbus.client.blocking import publish, subscribe

from .canary import Site
from .test_chat import PICTURE, noise

TEXTS = "[...document.querySelectorAll('#log pre')].map((pre) => pre.textContent)"
NOTES = "return [...document.querySelectorAll('#log .note')].map((e) => e.textContent)"
SAVES = "return [...document.querySelectorAll('.save')].map((e) => e.textContent)"
STATE = "document.querySelector('#state')"
OUTCOME = "document.querySelector('#outcome')"

# Tells for how long at most the page did not get to anything else.
WATCH = """
    let last = performance.now();
    window.longest = 0;
    setInterval(() => {
      window.longest = Math.max(window.longest, performance.now() - last);
      last = performance.now();
    }, 10);
"""


def live(window, address):
    """
    Open the page at this address.
    """
    window.open(address)
    window.wait("return document.querySelector('#state')?.textContent === 'Live'")
    return window


def colors(window, path):
    """
    How many pixels of each color are seen.
    """
    window.screenshot(path)
    image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    return {color: count for count, color in image.getcolors(1 << 24)}


def test_what_is_published(bus, window, tmp_path):
    """
    HTML, pictures, text and the rest are shown as what they are, with who, where and when.
    """
    page = live(window(), bus.url + "a/")
    html = b"<body style='background:rgb(1,202,103)'><h1>hello world</h1>"
    for name, body, content_type in (
        ("html", html, "text/html; charset=utf-8"),
        ("jpeg", PICTURE.read_bytes(), "image/jpeg"),
        ("png", noise(8), "image/png"),
        ("text", "Grüße".encode("latin-1"), "text/plain; charset=iso-8859-1"),
        ("json", b'{"a": 1}', "application/json"),
        ("more", b"x" * 1234, "application/x-thing"),
        ("broken", b"no picture", "image/png"),
    ):
        publish(f"{bus.url}a/{name}", body, content_type, user="alice")
    page.wait("return document.querySelectorAll('#log > article').length === 7")
    widths = "[...document.querySelectorAll('#log img')].map((one) => one.naturalWidth)"
    page.wait(f"return {widths}.join() === '64,8'")
    assert page.run(f"return {TEXTS}") == ["Grüße", '{"a": 1}']
    page.wait("return document.querySelectorAll('.save').length === 2")
    assert page.run(SAVES) == [
        "Save 1.2 kB of application/x-thing",
        "Save 10 bytes of image/png",
    ]
    links = "return [...document.querySelectorAll('#log header a')].map((e) => e.href)"
    assert page.run(links)[0] == f"{bus.url}a/html"
    assert page.run("return document.querySelectorAll('#log time[datetime]').length") == 7
    page.run("document.querySelector('iframe').scrollIntoView()")
    page.wait("return new Promise((drawn) => requestAnimationFrame(() => drawn(true)))")
    assert colors(page, tmp_path / "shot.png").get((1, 202, 103), 0) > 10_000
    assert page.run("return document.querySelector('iframe').contentDocument") is None


def test_headers(bus, window):
    """
    The headers that travel with a message can be looked at, and are text; a body that was
    compressed is shown as what it is, if it is that.
    """
    page = live(window(), bus.url + "a?header=x-b:*a*")
    zipped = {"Content-Encoding": "gzip", "X-B": "a"}
    publish(bus.url + "a", b"hidden", "text/plain", headers={"X-B": "b"})
    body = gzip.compress("Grüße".encode())
    publish(bus.url + "a", body, "text/plain; charset=utf-8", headers=zipped)
    publish(bus.url + "a", b"none", "text/plain", headers={**zipped, "ce-type": "<b>a</b>"})
    page.wait("return document.querySelectorAll('#log > article').length === 2")
    assert page.run(f"return {TEXTS}") == ["Grüße", "none"]
    summaries = "return [...document.querySelectorAll('.headers summary')]"
    assert page.run(f"{summaries}.map((e) => e.textContent)") == ["1 header", "3 headers"]
    page.run("document.querySelectorAll('.headers')[1].open = true")
    told = "return [...document.querySelectorAll('.headers dd')].map((e) => e.textContent)"
    assert page.run(told) == ["a", "<b>a</b>", "gzip", "a"]
    page.wait("return new Promise((drawn) => requestAnimationFrame(() => drawn(true)))")
    assert page.run("return document.querySelectorAll('.headers dl')[1].clientHeight") > 30


@pytest.fixture
def bus(start):
    """
    A bus.
    """
    return start("-v")


def test_addresses(bus, window):
    """
    It begins with the last messages, or as its address says; it filters by that; folders
    and the root have one too.
    """
    for number in range(30):
        publish(
            bus.url + "a b/ä", str(number).encode(), "text/plain", user=f"u{number % 2}"
        )
    publish(bus.url + "a b/b", b"this passes", "text/plain")
    page = window()
    for path, texts in (
        ("a%20b/%C3%A4", range(10, 30)),
        ("a%20b/%C3%A4?last=2", range(28, 30)),
        ("a%20b/?last=2&sender=u1", (27, 29)),
        ("?since=all&type=text/*", (*range(30), "this passes")),
        ("a%20b/?last-of-each=1", (29, "this passes")),
        ("a%20b/?since=all&channel=*/b", ("this passes",)),
    ):
        live(page, bus.url + path)
        page.wait(f"return {TEXTS}.length === args[0]", len(texts))
        assert page.run(f"return {TEXTS}") == list(map(str, texts))
    assert page.run("return document.title") == "a b/ · msgbus"
    assert page.run("return document.querySelector('#filter-channel').value") == "*/b"
    page.type("#filter-sender", "u0\n")
    page.wait(
        "return location.search.includes('sender=u0') && document.querySelector('#state')"
    )
    assert "since=all" in page.run("return location.search")


def test_newest_of_each(bus, window):
    """
    On a folder, one can choose to begin with the newest message of each channel, in place
    of what the address says; and not on a channel.
    """
    for number in range(6):
        publish(f"{bus.url}s/{number % 3}", str(number).encode(), "text/plain")
    page = live(window(), f"{bus.url}s/?since=all&sender=!x")
    page.wait(f"return {TEXTS}.length === 6")
    page.click("#filter-each")
    page.click("#filter button")
    page.wait(f"return {TEXTS}.length === 3 && location.search.includes('last-of-each=1')")
    assert page.run(f"return {TEXTS}") == ["3", "4", "5"]
    assert "since" not in page.run("return location.search")
    assert page.run("return document.querySelector('#filter-each').checked")
    page.click("#filter-each")
    page.click("#filter button")
    page.wait(f"return {TEXTS}.length === 6 && !location.search.includes('each')")
    live(page, f"{bus.url}s/1")
    hidden = "return document.querySelector('#filter-each').parentElement.hidden"
    assert page.run(hidden)


def test_publishing(bus, window, tmp_path):
    """
    One can publish from it: text, a file, under a name and a type, in any channel below a
    folder; a refusal is told, and what was typed stays.
    """
    page = live(window(), bus.url + "foo")
    page.type("#sender", "alice")
    page.type("#body", "hello")
    page.run("for (const _ of '12') document.querySelector('.main').click()")
    page.wait(f"return {OUTCOME}.textContent.startsWith('Published')")
    page.wait(f"return {TEXTS}.includes('hello')")
    page.choose("#file", PICTURE)
    page.click(".main")
    page.wait("return document.querySelector('#log img')?.naturalWidth > 1")
    page.run("document.querySelector('#type').value = 'nonsense'")
    page.type("#body", "kept")
    page.click(".main")
    page.wait(f"return {OUTCOME}.dataset.state === 'closed'")
    assert "type/subtype" in page.run(f"return {OUTCOME}.textContent")
    assert page.run("return document.querySelector('#body').value") == "kept"
    text, picture = islice(subscribe(bus.url + "foo", since="all"), 2)
    assert (text.sender, text.content_type) == ("alice", "text/plain; charset=utf-8")
    assert (picture.content_type, picture.body) == ("image/jpeg", PICTURE.read_bytes())

    # By keyboard alone.
    page.run("document.querySelector('#type').value = 'text/plain'")
    page.run(
        """
        const event = new KeyboardEvent("keydown", { key: "Enter", ctrlKey: true });
        document.querySelector("#body").dispatchEvent(event);
        """
    )
    page.wait(f"return {TEXTS}.includes('kept')")

    folder = live(window(), bus.url)
    for name, sentence in (("/x", "empty segment"), ("a/../b", "begins with a dot")):
        folder.run("document.querySelector('#channel').value = args[0]", name)
        folder.click(".main")
        folder.wait(f"return {OUTCOME}.textContent.includes(args[0])", sentence)
    folder.run("document.querySelector('#channel').value = ''")
    folder.type("#channel", "new/ä b")
    folder.type("#body", "elsewhere")
    folder.click(".main")
    folder.wait(f"return {TEXTS}.includes('elsewhere')")
    assert next(subscribe(bus.url + "new/ä b", since="all")).body == b"elsewhere"


def test_kept(bus, window):
    """
    Of many bytes the last are kept, whether they came while it was paused or not; its
    reader stays where he is.
    """
    page = live(window(), bus.url + "foo?last=0")
    body = bytes(800_000)
    senders = "[...document.querySelectorAll('#log .sender')].map((e) => e.textContent)"
    for number in range(45):
        publish(bus.url + "foo", body, "application/x-thing", user=str(number))
        page.wait(f"return {senders}.at(-1) === args[0]", str(number))
    kept = page.run(f"return {senders}")
    assert kept == [str(number) for number in range(45 - len(kept), 45)]
    assert 35 <= len(kept) <= 40
    assert page.run(NOTES) == []
    log = "document.querySelector('#log')"
    below = f"{log}.scrollHeight - {log}.scrollTop - {log}.clientHeight"
    page.wait(f"return {below} < 5")
    page.run(f"{log}.scrollTop = {log}.scrollHeight / 2")
    place = """
        const first = [...document.querySelectorAll("#log article")].find(
          (one) => one.getBoundingClientRect().top >= 100,
        );
        return first.querySelector(".sender").textContent;
    """
    seen = page.run(place)
    page.click("#pause")
    for number in range(45, 50):
        publish(bus.url + "foo", body, "application/x-thing", user=str(number))
        label = f"Resume ({number - 44})"
        page.wait("return document.querySelector('#pause').textContent === args[0]", label)
    page.click("#pause")
    page.wait(f"return {senders}.at(-1) === '49'")
    assert page.run(NOTES) == []
    assert page.run(place) == seen


def test_pausing(bus, window):
    """
    While it is paused nothing moves, and what comes is counted.
    """
    page = live(window(), bus.url + "foo")
    page.click("#pause")
    for number in range(3):
        publish(bus.url + "foo", str(number).encode(), "text/plain")
    page.wait("return document.querySelector('#pause').textContent === 'Resume (3)'")
    assert page.run(f"return {TEXTS}") == []
    page.click("#pause")
    page.wait(f"return {TEXTS}.length === 3")
    assert page.run("return document.querySelector('#pause').textContent") == "Pause"


def test_coming_back(start, window, tmp_path):
    """
    It comes back when its bus was away, misses nothing, and says what is missing if
    something is.
    """
    history = ("--history-file", str(tmp_path / "history.db"), "--history", "2")
    bus = start(*history)
    page = live(window(), bus.url + "foo")
    again = ("--listen", f"tcp:{bus.port}:interface=127.0.0.1")
    publish(bus.url + "foo", b"0", "text/plain")
    page.wait(f"return {TEXTS}.length === 1")
    bus.kill()
    page.wait("return document.querySelector('#state').dataset.state === 'lost'")
    bus = start(*history, *again)
    publish(bus.url + "foo", b"1", "text/plain")
    page.wait(f"return {TEXTS}.length === 2")
    page.wait("return document.querySelector('#state').textContent === 'Live'")
    assert page.run(NOTES) == []
    bus.kill()
    bus = start(*history, "--listen", "tcp:0:interface=127.0.0.1")
    for number in range(2, 6):
        publish(bus.url + "foo", str(number).encode(), "text/plain")
    bus.stop()
    start(*history, *again)
    page.wait(f"return {TEXTS}.length === 4")
    assert page.run(f"return {TEXTS}") == ["0", "1", "4", "5"]
    assert page.run(NOTES) == ["Some messages are missing here"]


def test_new_from_here(bus, window):
    """
    The first message that comes after the page was opened says so, if older ones are shown;
    and no other does.
    """
    publish(f"{bus.url}old", b"0", "text/plain")
    for name, count, marks in (
        ("old", 1, ["none", '"New from here"', "none"]),
        ("new", 0, ["none", "none"]),
    ):
        page = live(window(), f"{bus.url}{name}")
        page.wait(f"return {TEXTS}.length === {count}")
        for _ in range(2):
            publish(f"{bus.url}{name}", b"1", "text/plain")
        page.wait(f"return {TEXTS}.length === {len(marks)}")
        shown = page.run(
            "return [...document.querySelectorAll('#log > article')]"
            ".map((one) => getComputedStyle(one, '::before').content)"
        )
        assert shown == marks


def test_frozen(bus, window):
    """
    What froze the page, when it was killed, is a file when it is opened again; what did
    not, is shown again.
    """
    page = live(window(), bus.url + "foo")
    publish(bus.url + "foo", b"<p>x", "text/html")
    page.wait("return document.querySelector('iframe')")
    live(page, bus.url + "foo?last=9")
    page.wait("return document.querySelector('iframe')")
    # As if it had not come to say that it leaves.
    page.run(
        """
        const left = sessionStorage.getItem("drawing");
        addEventListener("pagehide", () => sessionStorage.setItem("drawing", left));
        if (left === "[]") throw new Error("It was drawn already.");
        """
    )
    live(page, bus.url + "foo?last=9")
    page.wait("return document.querySelector('.save')")
    assert page.run(SAVES) == ["Save 4 bytes of text/html"]


class Between(Site):
    """
    A server in front of the bus, that spoils each stream in its own way.
    """

    def __init__(self, bus):
        self.stream = (b"", b"")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler):  # noqa: N805
                accept = handler.headers["Accept"]
                if "multipart" in accept:
                    head, body = self.stream
                    handler.wfile.write(b"HTTP/1.0 " + head + b"\r\n\r\n" + body)
                    return
                url = f"http://localhost:{bus.port}{handler.path}"
                with urlopen(Request(url, headers={"Accept": accept})) as answer:
                    handler.send_response(answer.status)
                    for name, value in answer.headers.items():
                        handler.send_header(name, value)
                    handler.end_headers()
                    handler.wfile.write(answer.read())

            def log_message(self, *_):
                pass

        super().__init__(Handler)
        self.url = f"{self.origin}/msgbus/foo"


@pytest.fixture
def between(bus):
    """
    A server that spoils what the bus sends.
    """
    between = Between(bus)
    yield between
    between.close()


def test_malformed(between, window):
    """
    What is no stream of messages ends with a sentence, behind what came before; a
    refusal does too.
    """
    page = window()
    multipart = (
        b"200 OK\r\nContent-Type: multipart/mixed;boundary=B\r\nMsgbus-Prefix: /msgbus/"
    )
    first = b"--B\r\nContent-Location: /msgbus/foo\r\nContent-Type: text/plain\r\n"
    first += b"Content-Length: 5\r\n\r\nfirst\r\n--B\r\n"
    long = first + b"Content-Length: 1\r\n\r\n12345" + b"." * 300
    for stream, sentence, texts in (
        ((multipart, first + b"garbage\r\n\r\n"), "is no header line", 1),
        ((multipart, long), "No delimiter", 1),
        ((multipart, b"--B\r\nContent-Location: /x\r\n\r\nx\r\n--B\r\n"), "not below", 0),
        ((b"200 OK\r\nContent-Type: text/html", b"<h1>"), "This is no bus", 0),
        ((b"403 No\r\nContent-Type: text/plain", b"Not for you.\n"), "Not for you.", 0),
        ((b"500 No\r\nContent-Type: text/html", b"<h1>"), "The answer is 500.", 0),
    ):
        between.stream = stream
        page.open(between.url)
        state = page.wait(
            "const { state } = document.querySelector('#state')?.dataset ?? {};"
            "return ['lost', 'closed'].includes(state) && state"
        )
        told = page.run("return document.querySelector('#state').textContent")
        assert sentence in told
        assert state == ("lost" if "500" in sentence else "closed"), told
        page.wait(f"return {TEXTS}.length >= args[0]", texts)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "text/html", "application/x-thing", "image/bmp"]
)
def test_ten_megabytes(start, window, content_type):
    """
    A message of 10 MB does not hold the page up.
    """
    bus = start("--max-message", "20000000")
    page = live(window(), bus.url + "foo")
    page.run(WATCH)
    body = b"<p>0123456789 " * 715_000
    if content_type == "image/bmp":
        picture = io.BytesIO()
        Image.effect_noise((1830, 1830), 90).convert("RGB").save(picture, "BMP")
        body = picture.getvalue()
    publish(bus.url + "foo", body, content_type)
    if content_type == "image/bmp":
        page.wait("return document.querySelector('#log img')?.naturalWidth === 1830")
    else:
        page.wait("return document.querySelector('.save')")
        assert page.run(SAVES) == [f"Save 10.0 MB of {content_type}"]
    page.click("#pause")
    assert page.run("return document.querySelector('#pause').textContent") == "Resume"
    longest = page.run("return window.longest")
    print(f"{content_type}: held up for {longest:.0f} ms at most")
    # Not a measurement: a page that hangs does so for much longer.
    assert longest < 3000


def test_a_thousand_a_second(bus, window):
    """
    It stays responsive under a thousand messages a second, and says how many it did not
    show.
    """
    page = live(window(), bus.url + "foo?last=0")
    page.run(WATCH)
    page.run(
        """
        window.shown = window.skipped = 0;
        new MutationObserver((changes) => {
          for (const one of changes.flatMap(({ addedNodes }) => [...addedNodes])) {
            if (one.className !== "note") window.shown++;
            else window.skipped += Number(one.textContent.split(" ")[0].replace(",", ""));
          }
        }).observe(document.querySelector("#log"), { childList: true });
        """
    )
    seconds, rate, connections = 5, 1000, 4

    begun = time.monotonic()

    def flood(share):
        connection = http.client.HTTPConnection("127.0.0.1", bus.port)
        for number in range(seconds * rate // connections):
            time.sleep(max(0, begun + number * connections / rate - time.monotonic()))
            headers = {"Content-Type": "text/plain"}
            connection.request("POST", "/msgbus/foo", f"{share}/{number}", headers)
            assert connection.getresponse().read() == b""
        connection.close()

    with ThreadPoolExecutor(connections) as pool:
        floods = [pool.submit(flood, share) for share in range(connections)]
        # Meanwhile it takes a click, and text.
        note = page.wait("return document.querySelector('#log .note')?.textContent")
        assert "not shown here" in note
        page.click("#pause")
        page.wait(
            "return document.querySelector('#pause').textContent.startsWith('Resume (')"
        )
        page.click("#pause")
        page.type("#body", "typed meanwhile")
        assert page.run("return document.querySelector('#body').value") == "typed meanwhile"
        for one in floods:
            one.result()
    took = time.monotonic() - begun
    publish(bus.url + "foo", b"the last", "text/plain")
    page.wait(f"return {TEXTS}.includes('the last')")
    assert page.run("return document.querySelectorAll('#log > article').length") <= 201
    counts = page.run("return [window.shown, window.skipped, window.longest]")
    shown, skipped, longest = counts
    assert shown + skipped == seconds * rate + 1
    print(
        f"{took:.1f} s; {shown} shown, {skipped} not; held up for {longest:.0f} ms at most"
    )
    assert longest < 3000
