"""
The pictures in docs/: python -m tests.browser.screenshots
"""

import io
import math
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from msgbus.client.blocking import publish

from ..integration.daemon import Daemon
from .browsers import Chromium
from .test_chat import CHAT, join, shows

DOCS = Path(__file__).parents[2] / "docs"
DARK = "blink-settings=preferredColorScheme=0"

LOGO = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="150" height="44"><rect width="150"'
    b' height="44" rx="10" fill="#0a5fb8"/><text x="75" y="29" font-size="19" fill="white"'
    b' text-anchor="middle" font-family="sans-serif">msgbus</text></svg>'
)
PAGE = (
    b"<h2 style='color:#0a5fb8; margin: 0 0 .3em'>Maintenance tonight</h2>"
    b"<p style='margin:0; font-family:sans-serif'>The attic is <b>dark</b> from 22:00.</p>"
)


def sunset(width=360, height=200):
    """
    A picture, as a JPEG.
    """
    image = Image.new("RGB", (width, height))
    sun, horizon = (0.68 * width, 0.55 * height), 0.62 * height
    for y in range(height):
        for x in range(width):
            near = max(0.0, 1 - math.dist((x, y), sun) / (0.5 * width))
            if y < horizon:
                pixel = (
                    70 + 180 * near,
                    60 + 110 * near + 50 * y / height,
                    120 - 20 * near,
                )
            else:
                wave = 10 * math.sin(x / 9 + y / 2)
                pixel = (40 + 120 * near + wave, 50 + 50 * near + wave, 100 + wave)
            if math.dist((x, y), sun) < 0.06 * width and y < horizon:
                pixel = (255, 236, 180)
            image.putpixel((x, y), tuple(map(int, pixel)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def take_list(window, bus, suffix):
    """
    Take the picture of a list of channels.
    """
    for name in ("barn/camera", "barn/door", "cellar/humidity", "chat/lobby"):
        publish(bus.url + name, b"x", "image/jpeg" if "camera" in name else "text/plain")
    window.resize(900, 640)
    window.open(bus.url + "?list")
    window.wait("return document.querySelectorAll('#channels tr').length > 4")
    window.screenshot(DOCS / f"list{suffix}.png")


def take(folder, suffix, *arguments):
    """
    Take all pictures.
    """
    (folder / f"site{suffix}").mkdir()
    bus = Daemon(folder / f"site{suffix}", "--docroot", str(CHAT))
    browser = Chromium(folder / f"site{suffix}", "hide-scrollbars", *arguments)
    photo = folder / "sunset.jpg"
    photo.write_bytes(sunset())
    for name, body, content_type, user in (
        ("notice", PAGE, "text/html", "operator"),
        ("camera", photo.read_bytes(), "image/jpeg", "camera-2"),
        ("temperature", "21.5 °C".encode(), "text/plain; charset=utf-8", "sensor-7"),
        ("logo", LOGO, "image/svg+xml", ""),
        ("report", bytes(184_320), "application/pdf", "operator"),
    ):
        publish(f"{bus.url}attic/{name}", body, content_type, user=user)
    live = browser.window()
    live.resize(900, 1040)
    live.open(bus.url + "attic/")
    live.wait("return document.querySelectorAll('#log > article').length === 5")
    live.wait("return document.querySelector('#log img')?.naturalWidth > 1")
    live.wait("return document.querySelector('#log').scrollTop > 0 || true")
    live.run("await new Promise((resolve) => setTimeout(resolve, 500))")
    live.screenshot(DOCS / f"live{suffix}.png")
    take_list(live, bus, suffix)

    alice, bob = browser.window(), browser.window()
    for window, name in ((alice, "alice"), (bob, "bob")):
        window.resize(760, 620)
        join(window, bus, name)
    alice.type("#box", "Is anybody at the lake?\n")
    shows(bob, "Is anybody at the lake?")
    bob.choose("#file", photo)
    alice.wait("return document.querySelector('#log img')?.naturalWidth > 1")
    bob.type("#box", "I am. Look!\n")
    shows(alice, "I am. Look!")
    alice.type("#box", "How beautiful. I am on my way.\n")
    shows(alice, "How beautiful. I am on my way.")
    alice.wait("return document.querySelector('#outbox').childElementCount === 0")
    alice.run("await new Promise((resolve) => setTimeout(resolve, 500))")
    alice.screenshot(DOCS / f"chat{suffix}.png")
    browser.close()
    bus.stop()


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        take(Path(folder), "")
        take(Path(folder), "-dark", DARK)
